"""A loaded checkpoint and its state between requests: recognizer, adapters, LoRA switch.

In: what loading made. Out: :class:`ModelSession`, which :class:`core.lab.Lab` holds. The weights
are shared by all callers and never change while a request runs.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from core.checkpoint.adapter_set import DEFAULT, Adapters
from core.checkpoint.peft_format import (
    CONFIG,
    WEIGHTS,
    AdapterWeights,
    adapter_files,
    read_adapter,
)
from core.errors import UserError
from core.model import lora
from core.transcription.options import TranscribeOptions
from core.transcription.recognizer import Checkpoint, Family, RecognitionRequest

logger = logging.getLogger(__name__)


class ModelSession:
    """One checkpoint, ready for requests.

    Attributes:
        checkpoint: what was loaded.
        family: the kind of model it is.
        recognizer: recognises speech with it.
        adapters: the LoRA adapters it has, by name.
        num_adapted_layers: layers that the checkpoint's own adapter changes.
        load_ms: how long loading took.
        quantize: how its weights were quantised, or None.
    """

    def __init__(self, family: Family, checkpoint: Checkpoint) -> None:
        self.family, self.checkpoint = family, checkpoint
        self.recognizer = family.recognizer(checkpoint)
        self.adapters = Adapters(checkpoint.model)
        self.load_ms = 0.0
        self.quantize: str | None = None
        self._digests: dict[str, str] = {}
        self.num_adapted_layers = self._attach() if family.lora else 0

    @property
    def has_adapter(self) -> bool:
        """Return whether the checkpoint came with an adapter of its own."""
        return DEFAULT in self.adapters.names

    def request(self, options: TranscribeOptions) -> RecognitionRequest:
        """Check what a caller asks for, and resolve its engine and LoRA state.

        Args:
            options: what the caller asks for.

        Returns:
            The request as the recognizer takes it.

        Raises:
            UserError: something this checkpoint cannot do.
        """
        state = self.lora_state(options.lora, options.adapter)
        self.recognizer.check(options)
        settled = self.recognizer.settle(options)
        return RecognitionRequest(
            self.recognizer, self.recognizer.engine(options.engine), settled, state
        )

    def merge_adapter(self, adapter: str | None = None) -> None:
        """Fold LoRA into the weights: fastest while only audio is served.

        Args:
            adapter: one that was added, or None for the checkpoint's own.
        """
        state = self.lora_state(None, adapter)
        with self.adapters.using(self.adapter_for(state, adapter)):
            lora.merge(self.checkpoint.model)

    def unmerge_adapter(self) -> None:
        """Restore the base weights exactly; LoRA can be switched per request again."""
        lora.unmerge(self.checkpoint.model)

    def add_adapter(self, name: str, folder: str | Path) -> None:
        """Take in one more adapter; requests choose it with ``adapter=name``.

        Args:
            name: what requests call it.
            folder: holds adapter_config.json and adapter_model.safetensors, in PEFT's format.

        Raises:
            CheckpointError: no adapter of this model.
            UserError: the name is taken, a request runs, or LoRA is merged into the weights.
        """
        if not self.family.lora:
            raise UserError(
                f"{self.checkpoint.model_info.title} takes no adapters; models of the family "
                "granite_speech do"
            )
        config, weights = adapter_files(Path(folder))
        self._take(name, read_adapter(self.checkpoint.model, config, weights))
        with weights.open("rb") as file:
            self._digests[name] = hashlib.file_digest(file, "sha256").hexdigest()

    def remove_adapter(self, name: str) -> None:
        """Forget an adapter that was added.

        Raises:
            UserError: no such adapter, or a request runs.
        """
        self.adapters.remove(name)
        self._digests.pop(name, None)

    def identity(self, lora_state: bool | None, adapter: str | None) -> dict[str, Any]:
        """Return what decides a text, besides the recording and the options."""
        return {
            "source": self.checkpoint.files.source,
            "num_bytes": self.checkpoint.files.num_bytes,
            "dtype": str(self.checkpoint.dtype),
            "quantize": self.quantize,
            "lora": lora_state,
            "adapter": None if adapter is None else self._digests.get(adapter),
        }

    @property
    def _made_for_lora(self) -> bool:
        return self.family.lora and bool(self.checkpoint.config.has_lora_adapter)

    def _take(self, name: str, weights: AdapterWeights) -> None:
        if self.adapters.add(name, weights):
            # Compiled code and packages were made for layers of other shapes.
            self.recognizer.forget_compiled()

    def _attach(self) -> int:
        """Attach the checkpoint's own adapter; returns how many layers took it."""
        config, weights = self.checkpoint.files.find(CONFIG), self.checkpoint.files.find(WEIGHTS)
        if config is None or weights is None:
            if self._made_for_lora:
                logger.warning(
                    "%s is made for a LoRA adapter, but adapter_config.json and "
                    "adapter_model.safetensors are not both there; only LoRA off will work",
                    self.checkpoint.files.source,
                )
            return 0
        own = read_adapter(self.checkpoint.model, config, weights)
        self._take(DEFAULT, own)
        return len(own.lora)

    def adapter_for(self, lora_state: bool | None, wanted: str | None) -> str | None:
        """Return the adapter a request runs with, or None where LoRA is off."""
        if wanted is not None:
            return wanted
        return DEFAULT if lora_state else None

    def lora_state(self, wanted: bool | None, adapter: str | None = None) -> bool | None:
        """Return whether LoRA is on for a request, or None where there is no adapter to switch.

        Args:
            wanted: on, off, or None for on exactly if the checkpoint is made for it.
            adapter: one that was added, by name.

        Raises:
            UserError: no such adapter, or a state that this checkpoint cannot be in.
        """
        if adapter is not None:
            self.adapters.check(adapter)
            if wanted is False:
                raise UserError(f"adapter {adapter!r} came with LoRA off; give one or the other")
            return True
        on = (self.has_adapter or self._made_for_lora) if wanted is None else wanted
        if on and not self.family.lora:
            raise UserError(
                f"LoRA was asked for; {self.checkpoint.model_info.title} takes no adapter: leave "
                "the switch out"
            )
        if on and not self.has_adapter:
            raise UserError(
                f"LoRA was asked for, but {self.checkpoint.files.source} has no "
                "adapter_model.safetensors; add the adapter's files to its folder, or turn LoRA off"
            )
        if not self.adapters.names:
            return None
        # In this order: looking takes a millisecond.
        if not on and lora.is_merged(self.checkpoint.model):
            raise UserError("LoRA is merged into the weights; unmerge it to turn it off")
        return on
