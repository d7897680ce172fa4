"""Loaded models: the one the app started with, and beside it the one used last.

In: what a request wants loaded. Out: a Lab, loaded now if it was not, and a summary of every model.
Cards may be read from any thread; :meth:`ModelCache.lab` is called on the model's thread alone.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock

from app.service.adapter_registry import AdapterRegistry
from app.service.model_summary import ModelSummary, summary_of_lab, summary_of_name
from app.service.settings import Settings
from core import Lab, load
from core.checkpoint.catalog import CATALOG, lookup

logger = logging.getLogger(__name__)

Loader = Callable[..., Lab]


@dataclass(frozen=True)
class ModelKey:
    """Key of a loaded model: the same name on another device is another model."""

    name: str
    device: str | None
    dtype: str | None
    quantize: str | None


class ModelCache:
    """Models in memory. start: the one that stays once loaded; adapters: those added."""

    def __init__(
        self, start: str, device: str | None, dtype: str | None, loader: Loader = load
    ) -> None:
        self._device, self._dtype, self._loader = device, dtype, loader
        self.start = ModelKey(plain_name(start), device, dtype, None)
        self.adapters = AdapterRegistry()
        self._labs: dict[ModelKey, Lab] = {}
        self._lock = Lock()  # guards the dict; never held while a model loads

    def wanted(self, settings: Settings) -> ModelKey:
        """Return what a request needs loaded, with the app's device and dtype by default."""
        return ModelKey(
            plain_name(settings.model),
            settings.device or self._device,
            settings.dtype or self._dtype,
            settings.quantize or None,
        )

    def holds(self, wanted: ModelKey) -> bool:
        """Return whether it is in memory."""
        with self._lock:
            return wanted in self._labs

    def is_ready(self, settings: Settings) -> bool:
        """Return whether a request finds what it needs in memory: it changes nothing there."""
        with self._lock:
            lab = self._labs.get(self.wanted(settings))
        return lab is not None and (not settings.adapter or settings.adapter in lab.adapters.names)

    def summaries(self) -> list[ModelSummary]:
        """List the start model, the catalog, and whatever else is loaded."""
        with self._lock:
            loaded = [wanted.name for wanted in self._labs]
        return [self.summary(name) for name in dict.fromkeys([self.start.name, *CATALOG, *loaded])]

    def summary(self, name: str) -> ModelSummary:
        """Describe one model, as it was loaded last; loads nothing."""
        key = plain_name(name)
        labs = self.loaded(key)
        summary = summary_of_lab(key, labs[-1]) if labs else summary_of_name(key)
        return replace(summary, adapters=tuple(one.name for one in self.adapters.of(key)))

    def loaded(self, name: str) -> list[Lab]:
        """Return every loaded copy of one model."""
        with self._lock:
            return [lab for wanted, lab in self._labs.items() if wanted.name == plain_name(name)]

    def unload(self, name: str) -> bool:
        """Unload every copy of a model on its thread; returns whether there was one."""
        with self._lock:
            going = [wanted for wanted in self._labs if wanted.name == plain_name(name)]
            for wanted in going:
                del self._labs[wanted]
        gc.collect()
        return bool(going)

    def lab(self, wanted: ModelKey) -> Lab:
        """Return the model, loaded if need be; others go first, for two may not fit at once."""
        with self._lock:
            lab = self._labs.get(wanted)
            going = [] if lab is not None or wanted == self.start else list(self._labs)
            for old in going:
                if old != self.start:
                    logger.info("unloading %s to make room for %s", old.name, wanted.name)
                    del self._labs[old]
        if lab is None:
            gc.collect()
            # A stand-in for core.load need not know of int8 unless it is asked for.
            more = {} if wanted.quantize is None else {"quantize": wanted.quantize}
            lab = self._loader(wanted.name, device=wanted.device, dtype=wanted.dtype, **more)
            with self._lock:
                self._labs[wanted] = lab
        return lab


def plain_name(name: str) -> str:
    """Return one name for each model: the catalog's for a source or a name with spaces."""
    model_info = lookup(name.strip())
    return name.strip() if model_info is None else model_info.name
