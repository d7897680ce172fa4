"""Load, unload and look into a model by hand, add adapters to it: what the Models tab offers.

In: a studio and a model's name. Out: cards and facts; every step waits its turn on the models'
thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from app.service.adapter_registry import Added
from app.service.model_card import ModelCard
from app.service.service import Studio, plain_name
from app.service.settings import Settings
from app.service.worker import Job
from core import Lab
from core.inspection import inspect

T = TypeVar("T")


def load_model(studio: Studio, name: str) -> ModelCard:
    """Load a model now; its card.

    Raises:
        ValueError: it is not run here, or cannot be loaded.
    """
    return _asked(studio, name, lambda lab: studio.card(name))


def look_into(studio: Studio, name: str) -> dict[str, Any]:
    """What a model is made of, as JSON types; loads it if need be. Says nothing of folders.

    Raises:
        ValueError: it is not run here, or cannot be loaded.
    """
    facts = _asked(studio, name, inspect)
    return {key: value for key, value in facts.items() if key != "folder"}


def unload_model(studio: Studio, name: str) -> bool:
    """Let a model go once the work in hand is done; whether it was loaded."""
    return _in_turn(studio, lambda: studio.shelf.unload(name))


def add_adapter(studio: Studio, model: str, name: str, source: str, files: list[str]) -> Added:
    """Give a model one more adapter, the model loaded if need be.

    Args:
        studio: whose model.
        model: its name.
        name: what requests call the adapter; empty for that of its folder or file.
        source: a folder or a repository id; empty where files came.
        files: paths of uploads: both files of an adapter, or one zip.

    Raises:
        ValueError: not taken here, or no adapter of this model; says what came and what to do.
    """
    studio.limits.check_adapters()
    book, key = studio.shelf.adapters, plain_name(model)
    return _asked(studio, model, lambda lab: book.add(lab, key, name, source.strip(), files))


def remove_adapter(studio: Studio, model: str, name: str) -> None:
    """Forget an adapter that was added to a model.

    Raises:
        ValueError: there is none of that name.
    """
    shelf, key = studio.shelf, plain_name(model)
    _in_turn(studio, lambda: shelf.adapters.remove(shelf.loaded(key), key, name))


def _asked(studio: Studio, name: str, look: Callable[[Lab], T]) -> T:
    studio.limits.check_model(name)
    return _in_turn(studio, lambda: look(studio.lab(Settings(model=name))))


def _in_turn(studio: Studio, ask: Callable[[], T]) -> T:
    """The answer of ``ask``, run on the models' thread when its turn comes."""

    def once() -> Iterator[T]:
        yield ask()

    return next(studio.worker.stream(Job(), once))
