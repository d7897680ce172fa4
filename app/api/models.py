"""Names that callers use for models -> the models that are run here.

In: a name, or nothing. Out: the model's own name and what it can do. Only models of the list are
run: the start model, the catalog's, and those that were loaded on the page; a caller of the API
cannot make this machine download or open anything else.
"""

from __future__ import annotations

import time
from typing import Any

from app.api.errors import ApiError
from app.service.model_cache import plain_name
from app.service.service import TranscriptionService
from app.service.settings import Settings
from core.checkpoint.catalog import ModelInfo, lookup

ALIASES = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
STARTED = int(time.time())


class ModelNames:
    """The models of a service by the names that callers may use."""

    def __init__(self, service: TranscriptionService) -> None:
        self._service = service

    def listed(self) -> list[dict[str, Any]]:
        """Return every model as an object of the list, aliases too."""
        cards = {card.name: card for card in self._service.summaries()}
        start = self._service.summary(self._service.model)
        return [
            {
                "id": name,
                "object": "model",
                "created": STARTED,
                "owned_by": _owner(card.source),
                "licence": card.licence,
                "commercial_use": card.commercial_use,
            }
            for name, card in (dict.fromkeys(ALIASES, start) | cards).items()
        ]

    def one(self, name: str) -> dict[str, Any]:
        """Return one model as an object.

        Raises:
            ApiError: 404, none of that name.
        """
        model = self.resolve(name)
        shown = next(listed for listed in self.listed() if listed["id"] == model)
        return {**shown, "id": name}

    def resolve(self, name: str) -> str:
        """Return the model that a name stands for; the start model for none and for an alias.

        Raises:
            ApiError: 404, none of that name.
        """
        wanted = plain_name(name)
        if not wanted or wanted in ALIASES:
            return self._service.model
        known = [card.name for card in self._service.summaries()]
        if wanted not in known:
            shown = name if len(name) <= 80 else f"{name[:77]}..."
            raise ApiError(
                404,
                f"model {shown!r} is not run here; there are {', '.join(known)}",
                param="model",
                code="model_not_found",
            )
        return wanted

    def info(self, model: str) -> ModelInfo | None:
        """Return what a model can do; None where that is read from its files first."""
        labs = self._service.models.loaded(model)
        return labs[-1].model_info if labs else lookup(model)

    def check(self, settings: Settings) -> None:
        """Check a request before anybody waits for it; a model that is loaded says what it can do.

        Raises:
            ApiError: 400, it is not done here.
        """
        adapter, model = settings.adapter, settings.model
        try:
            self._service.limits.check(settings)
            labs = self._service.models.loaded(model)
            if labs and not adapter:
                labs[-1].check(**settings.options())
        except ValueError as error:
            raise ApiError(400, str(error)) from error
        here = self._service.summary(model).adapters if adapter else ()
        if adapter and adapter not in here:
            raise ApiError(
                400,
                f"no adapter {adapter!r} was added to {model}; there are: "
                f"{', '.join(here) or 'none'}. Add it on the Models page, or choose another",
                param="adapter",
            )


def _owner(source: str) -> str:
    """Return who published a repository; "local" for a folder."""
    owner, slash, rest = source.partition("/")
    return owner if owner and slash and rest and "/" not in rest else "local"
