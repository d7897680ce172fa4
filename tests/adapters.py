"""Adapters of the random checkpoint, added to a service as the Models tab does.

In: a service whose model is that checkpoint. Out: :func:`write_mine`, :func:`add`, :func:`text`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_models
from app.service.model_actions import add_adapter
from app.service.service import TranscriptionService
from app.service.settings import Settings

TOKENS = 8


def write_mine(parent: Path) -> Path:
    """A folder "mine" with a random adapter."""
    folder = parent / "mine"
    folder.mkdir()
    tiny_models.write_adapter(folder, tiny_models.random_model(seed=1), seed=5)
    return folder


def add(
    service: TranscriptionService, source: Path | str = "", name: str = "", *files: Path
) -> str:
    """Add an adapter to the service's model; its name."""
    return add_adapter(service, service.model, name, str(source), [str(f) for f in files]).name


def text(service: TranscriptionService, clip: str, **options: Any) -> str:
    """What the service's model makes of a recording."""
    settings = Settings(model=service.model, max_new_tokens=TOKENS, **options)
    return service.transcribe(clip, settings).text
