"""Several adapters on one model: which there are, and which one its weights hold now.

In: adapters by name. Out: a model that holds one of them for as long as a request runs. Switching
copies an adapter's values over those of the last one: addresses and shapes stay, so nothing is
loaded and compiled code stays valid. Every request computes exactly what it would with that adapter
alone, including the whole tensors an adapter brings (projector, encoder layers); with the adapter
off these are the checkpoint's own again.

Requests with the same adapter run side by side. One that needs another waits until they are over;
a thread that holds one request open and asks for another adapter gets a UserError instead of
deadlocking.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from core.checkpoint.peft_format import AdapterWeights
from core.errors import UserError
from core.model.granite_speech import GraniteSpeech
from core.model.lora import AdaptableLinear, LoRAWeights, is_merged

T = TypeVar("T")
DEFAULT = "default"  # the name of the adapter a checkpoint comes with


class Adapters:
    """The adapters of one model."""

    def __init__(self, model: GraniteSpeech) -> None:
        self._model = model
        self._known: dict[str, AdapterWeights] = {}
        self._own: dict[str, Tensor] = {}  # the checkpoint's, where an adapter brings whole tensors
        self._low_rank: str | None = None  # whose update the layers hold
        self._whole: str | None = None  # whose whole tensors; None: the checkpoint's own
        self._users: Counter[int] = Counter()  # requests that run, by thread
        self._changed = threading.Condition()

    @property
    def names(self) -> tuple[str, ...]:
        """Return every adapter's name, in the order they were added."""
        return tuple(self._known)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def check(self, name: str) -> None:
        """Check that there is an adapter called ``name``.

        Raises:
            UserError: there is none; the message lists those there are.
        """
        if name not in self._known:
            here = ", ".join(self._known) or "none"
            raise UserError(f"there is no adapter {name!r}; this model has {here}")

    def add(self, name: str, weights: AdapterWeights) -> bool:
        """Add an adapter.

        Returns:
            Whether layers changed shape, so that compiled code must be made anew.

        Raises:
            UserError: a name that is taken, requests that run, or weights that are merged.
        """
        with self._changed:
            if not name or name in self._known:
                raise UserError(f"an adapter {name!r} is here already; choose another name")
            if self._users:
                raise UserError("an adapter came while a request runs; add it before or after")
            self._refuse_merged()
            like = self._model.decoder.embed_tokens.weight
            state = self._model.state_dict()
            whole = {key: value.to(state[key]) for key, value in weights.whole.items()}
            for key in whole.keys() - self._own.keys():
                self._own[key] = state[key].clone()
            lora = {key: _like(value, like) for key, value in weights.lora.items()}
            self._known[name] = AdapterWeights(lora, whole)
            grown = self._make_room(lora, like)
            if self._low_rank is None or grown:
                self._fill(self._low_rank or name)
            return grown

    def remove(self, name: str) -> None:
        """Remove an adapter; layers keep their shapes, so compiled code stays valid.

        Raises:
            UserError: no such adapter, requests that run, or weights that are merged.
        """
        with self._changed:
            self.check(name)
            if self._users:
                raise UserError("an adapter was to go while a request runs; remove it after")
            self._put(None)
            for key in self._known.pop(name).lora:
                self._layer(key).replace(None)
            self._low_rank = None  # the next request fills its own in

    @contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Hold adapter ``name`` in the model (None: the checkpoint's own whole tensors).

        Raises:
            UserError: no such adapter; or this thread keeps a request with another one open.
        """
        thread = threading.get_ident()
        with self._changed:
            if name is not None:
                self.check(name)
            while not self._holds(name):
                if not self._users:
                    self._put(name)
                elif self._users[thread]:
                    raise UserError(
                        f"a request with another adapter than {name or 'none'} is still open "
                        "here; finish or close it first"
                    )
                else:
                    self._changed.wait()
            self._users[thread] += 1
        try:
            yield
        finally:
            with self._changed:
                self._users[thread] -= 1
                self._users += Counter()  # drops threads that have no request any more
                self._changed.notify_all()

    def over(self, name: str | None, items: Iterator[T]) -> Iterator[T]:
        """Yield ``items`` with adapter ``name`` in the model from the first to the last."""
        with self.using(name):
            yield from items

    def _holds(self, name: str | None) -> bool:
        brings = name is not None and bool(self._known[name].whole)
        return self._whole == (name if brings else None) and name in (None, self._low_rank)

    def _put(self, name: str | None) -> None:
        self._refuse_merged()
        if name is not None and name != self._low_rank:
            self._fill(name)
        state = self._model.state_dict()
        wanted = {} if name is None else self._known[name].whole
        with torch.no_grad():
            for key, own in self._own.items():
                state[key].copy_(wanted.get(key, own))
        self._whole = name if wanted else None

    def _refuse_merged(self) -> None:
        if is_merged(self._model):
            raise UserError("LoRA is merged into the weights; unmerge it to change adapters")

    def _fill(self, name: str) -> None:
        """Give every layer that any adapter targets the values of this one."""
        lora = self._known[name].lora
        for key in {key for known in self._known.values() for key in known.lora}:
            self._layer(key).replace(lora.get(key))
        self._low_rank = name

    def _make_room(self, lora: dict[str, LoRAWeights], like: Tensor) -> bool:
        """Attach what does not fit the layers yet; returns whether any changed shape."""
        grown = False
        for key, update in lora.items():
            layer = self._layer(key)
            if layer.lora_a is None or layer.lora_a.shape[0] < update.a.shape[0]:
                # A copy: what the layer holds is overwritten, what is known here is not.
                copy = LoRAWeights(update.a.clone(), update.b.clone(), update.scaling)
                layer.attach(copy, like=like)
                grown = True
        return grown

    def _layer(self, name: str) -> AdaptableLinear:
        layer = self._model.get_submodule(name)
        assert isinstance(layer, AdaptableLinear)
        return layer


def _like(update: LoRAWeights, like: Tensor) -> LoRAWeights:
    return LoRAWeights(update.a.to(like), update.b.to(like), update.scaling)
