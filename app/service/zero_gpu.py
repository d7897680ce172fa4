"""Work on a GPU that is lent by the call: Hugging Face ZeroGPU.

In: a request's plain values. Out: its events, as they come. There a decorated function runs in a
process forked from this one, which alone has the GPU: what goes in and out is pickled, a model must
be loaded before the app is launched, and a stop cannot reach in. So a request goes in as a name and
its values, an error comes out as a value, and a stop is a file that the other process looks for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.service.model_cache import ModelCache
from app.service.settings import Settings
from app.service.user_errors import user_message
from core import Lab
from core.audio.decode import probe
from core.encoder_view import encoder_view
from core.errors import UserError

TRANSCRIBE, ASK, HEAR = "transcribe", "ask", "hear"
LEAST_S, MOST_S = 15, 120
SECONDS_PER_SECOND = 0.5  # of recording; a lent GPU begins cold
UNKNOWN_LENGTH_S = 60.0
NO_GPU = (
    "ZeroGPU lent no GPU: {said} Sign in to Hugging Face for a larger daily share, come back "
    "tomorrow, or run the app on your own machine."
)

Decorator = Callable[..., Callable[..., Iterator[Any]]]


@dataclass(frozen=True)
class RemoteError:
    """An error of the other process. callers: whether it is the caller's mistake."""

    message: str
    callers: bool


class LentGpu:
    """Runs requests where the GPU is.

    Args:
        models: whose start model is loaded already.
        borrow: ``spaces.GPU``, or a stand-in with its signature.
    """

    def __init__(self, models: ModelCache, borrow: Decorator) -> None:
        self._models = models
        self._borrowed = borrow(self._work, duration=seconds_needed)

    def __call__(self, kind: str, cancelled: Callable[[], bool], *values: Any) -> Iterator[Any]:
        """Run a request of this kind; ends soon after ``cancelled``.

        Yields:
            Its events.

        Raises:
            UserError: the request cannot be done; says why.
            RuntimeError: something else failed over there; that process's log says what.
        """
        with tempfile.TemporaryDirectory(prefix="granite-speech-lab-") as folder:
            stop = Path(folder) / "stop"
            try:
                for event in self._borrowed(kind, str(stop), *values):
                    if isinstance(event, RemoteError):
                        raise (UserError if event.callers else RuntimeError)(event.message)
                    yield event
                    if cancelled():
                        stop.touch()
            except Exception as error:
                # What the lender says (quota, queue) comes as Gradio's error, with a message.
                said = getattr(error, "message", None)
                if said is None:
                    raise
                raise UserError(NO_GPU.format(said=" ".join(str(said).split()))) from error

    def _work(self, kind: str, stop: str, *values: Any) -> Iterator[Any]:
        """Run a request in the process with the GPU."""
        stopped = Path(stop).exists
        try:
            if kind == TRANSCRIBE:
                recording, settings = values
                lab = self._lab(settings)
                yield from lab.stream(recording, cancelled=stopped, **settings.options())
            elif kind == HEAR:
                recording, settings = values
                yield encoder_view(self._lab(settings), recording, lora=settings.lora)
            else:
                model, message = values
                yield from self._lab(Settings(model=model)).stream_chat(message, cancelled=stopped)
        except Exception as error:
            yield RemoteError(user_message(error), isinstance(error, UserError))

    def _lab(self, settings: Settings) -> Lab:
        return self._models.lab(self._models.wanted(settings))


def seconds_needed(kind: str, stop: str, *values: Any) -> int:
    """Return how many seconds of GPU to ask for, by the length of the recording."""
    if kind != TRANSCRIBE:
        return LEAST_S
    length_s = probe(values[0]).duration_s
    wanted = 10 + SECONDS_PER_SECOND * (UNKNOWN_LENGTH_S if length_s is None else length_s)
    return round(min(MOST_S, max(LEAST_S, wanted)))
