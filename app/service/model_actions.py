"""Load, unload and look into a model by hand, add adapters to it: what the Models tab offers.

In: the service and a model's name. Out: summaries and facts; each runs in its turn on the models'
thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from app.service.adapter_registry import AddedAdapter
from app.service.model_cache import plain_name
from app.service.model_summary import ModelSummary
from app.service.service import TranscriptionService
from app.service.settings import Settings
from app.service.worker import CancelToken
from core import Lab
from core.inspection import inspect

T = TypeVar("T")


def load_model(service: TranscriptionService, name: str) -> ModelSummary:
    """Load a model now.

    Returns:
        Its summary.

    Raises:
        UserError: it is not run here, or cannot be loaded.
    """
    return _with_lab(service, name, lambda lab: service.summary(name))


def inspect_model(service: TranscriptionService, name: str) -> dict[str, Any]:
    """Describe what a model is made of, loading it if need be; leaves out its folder.

    Returns:
        JSON types.

    Raises:
        UserError: it is not run here, or cannot be loaded.
    """
    facts = _with_lab(service, name, inspect)
    return {key: value for key, value in facts.items() if key != "folder"}


def unload_model(service: TranscriptionService, name: str) -> bool:
    """Unload a model once the current work is done; returns whether it was loaded."""
    return _in_turn(service, lambda: service.models.unload(name))


def add_adapter(
    service: TranscriptionService, model: str, name: str, source: str, files: list[str]
) -> AddedAdapter:
    """Give a model one more adapter, loading the model if need be.

    Args:
        service: whose model.
        model: its name.
        name: of the adapter in requests; empty for that of its folder or file.
        source: a folder or a repository id; empty where files came.
        files: paths of uploads: both files of an adapter, or one zip.

    Returns:
        What was added.

    Raises:
        UserError: not taken here, nothing was given, or no adapter of this model.
    """
    service.limits.check_adapters()
    registry, key = service.models.adapters, plain_name(model)
    return _with_lab(
        service, model, lambda lab: registry.add(lab, key, name, source.strip(), files)
    )


def remove_adapter(service: TranscriptionService, model: str, name: str) -> None:
    """Remove an adapter that was added to a model.

    Raises:
        UserError: no adapter of that name.
    """
    models, key = service.models, plain_name(model)
    _in_turn(service, lambda: models.adapters.remove(models.loaded(key), key, name))


def _with_lab(service: TranscriptionService, name: str, look: Callable[[Lab], T]) -> T:
    service.limits.check_model(name)
    return _in_turn(service, lambda: look(service.lab(Settings(model=name))))


def _in_turn(service: TranscriptionService, ask: Callable[[], T]) -> T:
    """Return the result of ``ask``, run on the models' thread in its turn."""

    def once() -> Iterator[T]:
        yield ask()

    return next(service.worker.stream(CancelToken(), once))
