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
    """One loading of a model: the same name on another device is another one."""

    name: str
    device: str | None
    dtype: str | None
    quantize: str | None


class ModelCache:
    """What is in memory. start: the model that always stays, once loaded; adapters: those added."""

    def __init__(
        self, start: str, device: str | None, dtype: str | None, loader: Loader = load
    ) -> None:
        self._device, self._dtype, self._loader = device, dtype, loader
        self.start = ModelKey(plain_name(start), device, dtype, None)
        self.adapters = AdapterRegistry()
        self._labs: dict[ModelKey, Lab] = {}
        self._lock = Lock()  # guards the dict; never held while a model loads

    def wanted(self, settings: Settings) -> ModelKey:
        """What a request wants loaded, with the app's own device and dtype where it has none."""
        return ModelKey(
            plain_name(settings.model),
            settings.device or self._device,
            settings.dtype or self._dtype,
            settings.quantize or None,
        )

    def holds(self, wanted: ModelKey) -> bool:
        """Whether it is in memory."""
        with self._lock:
            return wanted in self._labs

    def summaries(self) -> list[ModelSummary]:
        """The start model, the catalog, and whatever else is loaded."""
        with self._lock:
            loaded = [wanted.name for wanted in self._labs]
        return [self.summary(name) for name in dict.fromkeys([self.start.name, *CATALOG, *loaded])]

    def summary(self, name: str) -> ModelSummary:
        """What is known of one model, as it was loaded last; loads nothing."""
        key = plain_name(name)
        labs = self.loaded(key)
        summary = summary_of_lab(key, labs[-1]) if labs else summary_of_name(key)
        return replace(summary, adapters=tuple(one.name for one in self.adapters.of(key)))

    def loaded(self, name: str) -> list[Lab]:
        """Every loading of one model that is in memory."""
        with self._lock:
            return [lab for wanted, lab in self._labs.items() if wanted.name == plain_name(name)]

    def unload(self, name: str) -> bool:
        """Let every loading of a model go; whether there was one. On the model's thread alone."""
        with self._lock:
            going = [wanted for wanted in self._labs if wanted.name == plain_name(name)]
            for wanted in going:
                del self._labs[wanted]
        gc.collect()
        return bool(going)

    def lab(self, wanted: ModelKey) -> Lab:
        """The model. Room is made first: two large models may not fit at once."""
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
    """One name for each model: the catalog's, where a source or a name with spaces came."""
    model_info = lookup(name.strip())
    return name.strip() if model_info is None else model_info.name
