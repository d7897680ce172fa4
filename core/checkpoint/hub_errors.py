"""Errors of the Hugging Face Hub and its client, in words.

In: errors of its client. Out: :class:`CheckpointNotFound`, which says what was looked for and what
to do.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from core.checkpoint.catalog import CATALOG
from core.checkpoint.safetensors_io import CheckpointError

# The client of huggingface_hub is httpx in some releases and httpx2 in others: a connection that
# breaks off raises its errors, whose base the Hub's own errors share.
ClientError: type[Exception] = next(
    kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError"
)
constants.HF_HUB_DISABLE_TELEMETRY = True  # whoever imports this: nothing is reported to anybody

UNREACHABLE = (
    "{repo!r} is not in the local cache and the Hub cannot be reached; connect once to download "
    "it, {instead}"
)


class CheckpointNotFound(CheckpointError):
    """No usable checkpoint under that name; the message says what was looked for."""


@contextmanager
def hub_errors(
    repo: str,
    revision: str | None = None,
    *,
    lacks: str = "no config.json; expected a checkpoint",
    instead: str = "or use the bundled model 'tiny'",
) -> Iterator[None]:
    """Turn what the client raises in the body into sentences.

    Args:
        repo: what is asked for.
        revision: and which of its revisions.
        lacks: what is said of a repository without the files that are asked for.
        instead: what to do without a network.

    Raises:
        CheckpointNotFound: in place of the client's errors.
    """
    try:
        yield
    except GatedRepoError as error:
        raise CheckpointNotFound(
            f"{repo!r} asks for its licence to be accepted; do that on its page, then log in with "
            "'hf auth login'"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointNotFound(f"{repo!r} has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise CheckpointNotFound(
            f"no repository {repo!r} on the Hub (or it is private); known: {', '.join(CATALOG)}"
        ) from error
    except HFValidationError as error:
        raise CheckpointNotFound(
            f"{repo!r} is not a repository id; expected 'owner/name'"
        ) from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        raise CheckpointNotFound(UNREACHABLE.format(repo=repo, instead=instead)) from error
    except EntryNotFoundError as error:
        raise CheckpointNotFound(f"{repo!r} has {lacks}") from error
    except (ClientError, OSError) as error:
        raise CheckpointNotFound(f"downloading {repo!r} failed: {_first_line(error)}") from error


def refuse_without_network(repo: str, instead: str = "or use the bundled model 'tiny'") -> None:
    """Fail at once where the client would retry for half a minute.

    Raises:
        CheckpointNotFound: the Hub's name cannot be resolved.
    """
    if constants.is_offline_mode() or getproxies():
        return  # the client knows better: it refuses by itself, or a proxy resolves names
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError as error:
        raise CheckpointNotFound(UNREACHABLE.format(repo=repo, instead=instead)) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
