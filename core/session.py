"""What a loaded checkpoint consists of, and its state for one request: stages, limits, LoRA switch.

In: a model and the files it came from. Out: :class:`ModelSession`, which :class:`core.lab.Lab`
turns into something to ask. The weights are shared by all callers and never change while a request
runs.
"""

from __future__ import annotations

import hashlib
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.checkpoint.adapter_set import DEFAULT, Adapters
from core.checkpoint.catalog import describe
from core.checkpoint.hub import CheckpointFiles
from core.checkpoint.peft_format import CONFIG, WEIGHTS, AdapterWeights, adapter_files, read_adapter
from core.checkpoint.weights import LoadReport
from core.engine.aot_load import ready_engine
from core.engine.compiling import CompileLedger
from core.engine.stages import Engine, eager_engine
from core.engine.warmup import warm_up
from core.generation.bpe_head import load_bpe_head
from core.model import lora as adapters
from core.model.config import ModelConfig
from core.model.features import LogMel
from core.model.granite_speech import GraniteSpeech
from core.text.prompts import PromptBuilder
from core.text.tokenizer import Tokenizer
from core.transcription.components import Components
from core.transcription.options import TranscribeOptions
from core.transcription.out_of_domain import read_scale

logger = logging.getLogger(__name__)

MAX_SINGLE_PASS_S = 600.0  # beyond this one pass is unreliable, whatever the context allows
TOKENS_KEPT_FREE = 400  # instruction, template and answer
BPE_HEAD = "out_llm.safetensors"


class ModelSession:
    """The parts of a checkpoint, its engines and its adapter.

    files, config, model, tokenizer, entry, device and dtype are what was loaded; ``compile_ledger``
    fills as graphs are compiled.
    """

    def __init__(
        self,
        files: CheckpointFiles,
        model: GraniteSpeech,
        report: LoadReport,
        feature_extractor: LogMel,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.files, self.model, self.report = files, model, report
        self.config: ModelConfig = model.config
        self.device, self.dtype = device, dtype
        self.load_ms = 0.0
        self.quantize: str | None = None
        self.compile_ledger = CompileLedger()
        self._engines: dict[str, Engine] = {"eager": eager_engine(model)}
        self.adapters = Adapters(model)
        self._digests: dict[str, str] = {}
        self.num_adapted_layers = self._attach()
        self.feature_extractor = feature_extractor.to(device)
        self.model_info = describe(
            files.source,
            files.folder,
            has_lora_adapter=self.config.has_lora_adapter,
            has_bpe_ctc_head=files.find(BPE_HEAD) is not None,
        )
        self.outside = read_scale(files.folder)
        head = files.find(BPE_HEAD)
        self.bpe_head = (
            None if head is None else load_bpe_head(head, self.config, dtype=dtype, device=device)
        )
        tokenizer = files.find("tokenizer.json")
        self.tokenizer = None if tokenizer is None else Tokenizer(tokenizer)

    @property
    def has_adapter(self) -> bool:
        """Whether the checkpoint came with an adapter; see ``adapters`` for those added to it."""
        return DEFAULT in self.adapters.names

    @property
    def max_audio_s(self) -> float:
        """Longest recording one pass takes, in seconds."""
        part = self.config.projector
        audio_positions = self.config.decoder.max_position_embeddings - TOKENS_KEPT_FREE
        frames = audio_positions // part.num_queries * part.window_size
        return max(
            1.0, min(MAX_SINGLE_PASS_S, self.feature_extractor.config.seconds_of_frames(frames))
        )

    def engine(self, name: str) -> Engine:
        """The eager or the compiled stages; compiled ones are made on first use."""
        if name not in self._engines:
            if name != "compile":
                raise ValueError(f"engine is {name!r}; expected 'eager' or 'compile'")
            self._engines[name] = ready_engine(
                self.model, self.compile_ledger, name=self.model_info.name, beside=self.files.folder
            )
        return self._engines[name]

    def warm_up(self, *, batches: bool = False) -> None:
        """Compile every graph that single clips meet (with ``batches`` also several at once)."""
        warm_up(self.engine("compile"), self.model, batches=batches)

    def merge_adapter(self, adapter: str | None = None) -> None:
        """Fold LoRA into the weights: fastest while only audio is served.

        Args:
            adapter: one that was added, or None for the checkpoint's own.
        """
        state = self._lora_state(None, adapter)
        with self.adapters.using(self._adapter(state, adapter)):
            adapters.merge(self.model)

    def unmerge_adapter(self) -> None:
        """Restore the base weights exactly; LoRA can be switched per request again."""
        adapters.unmerge(self.model)

    def prompt_ids(self, num_frames: int) -> list[int]:
        """The prompt that asks for a transcript of ``num_frames`` feature frames, as token ids."""
        return self._components.prompt(TranscribeOptions().request(), num_frames)

    def add_adapter(self, name: str, folder: str | Path) -> None:
        """Take in one more adapter; requests choose it with ``adapter=name``.

        Args:
            name: what requests call it.
            folder: holds adapter_config.json and adapter_model.safetensors, in PEFT's format.

        Raises:
            CheckpointError: no adapter of this model.
            ValueError: the name is taken, a request runs, or LoRA is merged into the weights.
        """
        config, weights = adapter_files(Path(folder))
        self._take(name, read_adapter(self.model, config, weights))
        with weights.open("rb") as file:
            self._digests[name] = hashlib.file_digest(file, "sha256").hexdigest()

    def remove_adapter(self, name: str) -> None:
        """Forget an adapter that was added.

        Raises:
            ValueError: no such adapter, or a request runs.
        """
        self.adapters.remove(name)
        self._digests.pop(name, None)

    def _identity(self, lora: bool | None, adapter: str | None) -> dict[str, Any]:
        """What decides a text, besides the recording and the options."""
        return {
            "source": self.files.source,
            "num_bytes": self.files.num_bytes,
            "dtype": str(self.dtype),
            "quantize": self.quantize,
            "lora": lora,
            "adapter": None if adapter is None else self._digests.get(adapter),
        }

    def _take(self, name: str, weights: AdapterWeights) -> None:
        if self.adapters.add(name, weights):
            # Compiled code and packages were made for layers of other shapes.
            self._engines = {"eager": self._engines["eager"]}

    def _attach(self) -> int:
        """The checkpoint's own adapter; returns how many layers took it."""
        config, weights = self.files.find(CONFIG), self.files.find(WEIGHTS)
        if config is None or weights is None:
            if self.config.has_lora_adapter:
                logger.warning(
                    "%s is made for a LoRA adapter, but adapter_config.json and "
                    "adapter_model.safetensors are not both there; only LoRA off will work",
                    self.files.source,
                )
            return 0
        own = read_adapter(self.model, config, weights)
        self._take(DEFAULT, own)
        return len(own.lora)

    def _adapter(self, lora: bool | None, wanted: str | None) -> str | None:
        """Which adapter a request runs with; None where LoRA is off."""
        if wanted is not None:
            return wanted
        return DEFAULT if lora else None

    def _lora_state(self, wanted: bool | None, adapter: str | None = None) -> bool | None:
        """On or off for this request; None where there is no adapter to switch."""
        if adapter is not None:
            self.adapters.check(adapter)
            if wanted is False:
                raise ValueError(f"adapter {adapter!r} came with LoRA off; give one or the other")
            return True
        on = (self.has_adapter or self.config.has_lora_adapter) if wanted is None else wanted
        if on and not self.has_adapter:
            raise ValueError(
                f"LoRA was asked for, but {self.files.source} has no adapter_model.safetensors; "
                "add the adapter's files to its folder, or turn LoRA off"
            )
        if not self.adapters.names:
            return None
        if not on and adapters.is_merged(self.model):  # in this order: looking takes a millisecond
            raise ValueError("LoRA is merged into the weights; unmerge it to turn it off")
        return on

    def _switch(self, lora: bool | None, batch: int) -> Tensor | None:
        if lora is None:
            return None
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        return adapters.switch([lora] * batch, like=like)

    @cached_property
    def _components(self) -> Components:
        """Everything that needs a tokenizer; a checkpoint without one still makes token ids."""
        if self.tokenizer is None:
            raise ValueError(
                f"{self.files.folder} has no tokenizer.json; expected the checkpoint's own, "
                "without which ids cannot become text"
            )
        return Components(
            model=self.model,
            tokenizer=self.tokenizer,
            prompts=PromptBuilder(
                self.files, self.tokenizer, self.model_info, self.config.audio_token_id
            ),
            feature_extractor=self.feature_extractor,
            bpe_head=self.bpe_head,
            model_info=self.model_info,
            max_audio_s=self.max_audio_s,
            device=self.device,
            dtype=self.dtype,
            outside=self.outside,
        )
