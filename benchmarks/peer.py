"""transformers as a system under measurement, on the same weights, prompt and recordings.

In: a checkpoint's folder and a :class:`System`. Out: :class:`Answer` objects. Eager is ``generate``
as anybody would call it, with its dynamic cache. Compiled is its static cache with
``_compile_all_devices``, without which it compiles nothing on a CPU.

transformers is a development requirement: this file and ``reference.py`` import it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CompileConfig,
    GraniteSpeechFeatureExtractor,
    GraniteSpeechForConditionalGeneration,
    LogitsProcessor,
    LogitsProcessorList,
)

from benchmarks.clips import clip_of
from benchmarks.ours import CPU, graphs_so_far
from benchmarks.systems import Answer, System
from core.checkpoint.catalog import describe
from core.checkpoint.config_file import parse_config
from core.checkpoint.hub import resolve
from core.memory import peak_memory_bytes
from core.text.prompts import PromptBuilder
from core.text.tokenizer import Tokenizer
from core.transcription.options import TranscribeOptions
from profiling.measure.quiet_process import undisturbed


class Stopwatch(LogitsProcessor):
    """Notes when each step's logits are there, and changes nothing."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Note the time of a step; ``generate`` calls it once a step."""
        self.times.append(time.perf_counter())
        return scores


class Peer:
    """A checkpoint loaded by transformers, on the CPU in float32."""

    def __init__(self, folder: Path, system: System, threads: int) -> None:
        self._system, self._threads = system, threads
        self._model = GraniteSpeechForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32
        ).eval()
        files = resolve(str(folder))
        raw = files.json("config.json")
        config = parse_config(raw, source="config.json")
        model_info = describe(
            files.source,
            files.folder,
            has_lora_adapter=config.has_lora_adapter,
            has_bpe_ctc_head=False,
        )
        tokenizer = Tokenizer(folder / "tokenizer.json")
        self._prompts = PromptBuilder(files, tokenizer, model_info, config.audio_token_id)
        self._extractor = GraniteSpeechFeatureExtractor(
            projector_window_size=raw["window_size"],
            projector_downsample_rate=raw["downsample_rate"],
        )

    @torch.inference_mode()
    def once(self, seconds: float, num_tokens: int) -> Answer:
        """Generate exactly ``num_tokens`` new tokens for a clip of ``seconds``."""
        clip, before, watch, audio = clip_of(seconds), graphs_so_far(), Stopwatch(), [0.0, 0.0]
        with undisturbed(self._threads), self._audio_timed(audio):
            begin = time.perf_counter()
            inputs = self._extractor(clip)
            num_audio = int(inputs["audio_embed_sizes"][0])
            ids = torch.tensor([self._prompts.speech(TranscribeOptions().request(), num_audio)])
            features = time.perf_counter()
            out = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                input_features=inputs["input_features"],
                input_features_mask=inputs["input_features_mask"],
                max_new_tokens=num_tokens,
                do_sample=False,
                num_beams=1,
                eos_token_id=None,
                pad_token_id=0,
                logits_processor=LogitsProcessorList([watch]),
                **self._cache(),
            )
            end = time.perf_counter()
        first = watch.times[0]
        phases = {
            "features": features - begin,
            "encoder+projector": audio[1] - audio[0],
            "prefill": first - audio[1],
            "decode": watch.times[-1] - first,
        }
        return Answer(
            end_to_end_ms=1000 * (end - begin),
            phases_ms={name: 1000 * spent for name, spent in phases.items()},
            token_ids=tuple(out[0, ids.shape[1] :].tolist()),
            graphs=graphs_so_far() - before,
            peak_bytes=peak_memory_bytes(CPU),
        )

    def _cache(self) -> dict[str, Any]:
        if self._system.engine != "compile":
            return {}
        config = CompileConfig(fullgraph=True, mode="default")
        config._compile_all_devices = True  # type: ignore[assignment]
        return {"cache_implementation": "static", "compile_config": config}

    @contextmanager
    def _audio_timed(self, times: list[float]) -> Iterator[None]:
        """Notes begin and end of the encoder with the projector in ``times``."""
        core = self._model.model

        def begin(*_: object) -> None:
            times[0] = time.perf_counter()

        def end(*_: object) -> None:
            times[1] = time.perf_counter()

        hooks = [
            core.encoder.register_forward_pre_hook(begin),
            core.projector.register_forward_hook(end),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
