"""A model's shadow: the same layers and operators, so narrow that arithmetic takes no time.

In: a loaded model. Out: milliseconds of one call of each stage of its shadow, which is what Python
and the dispatcher take, and of choosing a token after each step, which no compiler touches.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from core import phases
from core.engine.stages import Engine, eager_engine
from core.generation.greedy import PromptBatch, generate
from core.lab import Lab
from core.model.cache import allocate_cache
from core.model.config import ModelConfig
from core.model.granite_speech import GraniteSpeech
from core.model.lora import AdaptableLinear, LoRAWeights, adapted_layers, switch
from core.phases import PhaseClock
from core.transcription.options import TranscribeOptions
from profiling.roofline.machine_peaks import run_seconds
from profiling.roofline.roofline import CHOOSING

NARROW = 16
STEPS, ANSWERS = 24, 6  # of the shadow's answers, the first of which warms up


def shadow_config(config: ModelConfig) -> ModelConfig:
    """Return the same layers and operators, so narrow that arithmetic takes no time."""
    return replace(
        config,
        encoder=replace(
            config.encoder,
            input_dim=NARROW,
            hidden_dim=NARROW,
            num_heads=2,
            dim_head=NARROW // 2,
            feedforward_mult=1,
            output_dim=NARROW,
            context_size=NARROW,
            max_pos_emb=NARROW,
            conv_expansion_factor=1,
        ),
        projector=replace(
            config.projector,
            hidden_size=NARROW,
            num_attention_heads=2,
            intermediate_size=NARROW,
            encoder_hidden_size=NARROW * (1 + len(config.encoder.cat_hidden_layers)),
            output_size=NARROW,
        ),
        decoder=replace(
            config.decoder,
            vocab_size=NARROW,
            hidden_size=NARROW,
            intermediate_size=NARROW,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=NARROW // 2,
        ),
        audio_token_id=NARROW,
    )


def shadow_model(lab: Lab) -> GraniteSpeech:
    """Build the shadow of ``lab``'s model, with an adapter where that has one."""
    model = GraniteSpeech(shadow_config(lab.config)).to(lab.device, lab.dtype).eval()
    layers = {n: m for n, m in model.named_modules() if isinstance(m, AdaptableLinear)}
    for name, _ in adapted_layers(lab.model):
        rows, columns = layers[name].weight.shape
        layers[name].attach(LoRAWeights(torch.zeros(1, columns), torch.zeros(rows, 1), 1.0))
    return model


def dispatch_overhead_ms(
    lab: Lab, *, seconds: float = 0.2, engine_of: Callable[[GraniteSpeech], Engine] = eager_engine
) -> dict[str, float]:
    """Return by phase, and for ``CHOOSING``, milliseconds of dispatch in one call.

    Takes about a second with the eager stages; nothing of ``lab`` is changed.

    Args:
        lab: whose shadow.
        seconds: spent on each stage.
        engine_of: makes the stages.
    """
    with torch.inference_mode():
        model = shadow_model(lab)
        config, engine, like = model.config, engine_of(model), torch.empty(0, dtype=lab.dtype)
        like = like.to(lab.device)
        lora = switch([True], like=like) if lab.has_adapter else None
        cache = allocate_cache(
            config.decoder, batch=1, num_slots=NARROW, dtype=lab.dtype, device=lab.device
        )
        frames = like.new_zeros(1, NARROW, NARROW)
        wide = like.new_zeros(1, NARROW, config.encoder.output_size)
        length = torch.tensor([NARROW], device=lab.device)
        ids = torch.zeros(1, NARROW, dtype=torch.long, device=lab.device)
        last = torch.tensor([[NARROW - 1]], device=lab.device)
        calls = {
            phases.ENCODER: lambda: engine.encode(frames, length, lora).frames,
            phases.PROJECTOR: lambda: engine.project(wide, lora),
            phases.PREFILL: lambda: engine.prefill(ids, frames, last, cache, lora),
        }
        # The middle, not the best: it is set against the middle of the timed runs.
        found = {
            name: 1000 * median(run_seconds(call, lab.device, seconds))
            for name, call in calls.items()
        }
        call, choosing = _step_ms(engine, config, frames, lora)
        return {**found, phases.DECODE: call, CHOOSING: choosing}


def _step_ms(
    engine: Engine, config: ModelConfig, audio: Tensor, lora: Tensor | None
) -> tuple[float, float]:
    """Return milliseconds of an answer's step: its call of the stage, and choosing the token.

    Taken from whole answers: called again and again, a stage is quicker than between other work.
    """
    calls: list[float] = []

    def decode(*arguments: Any) -> Tensor:
        begin = time.perf_counter()
        logits = engine.decode(*arguments)
        calls.append(time.perf_counter() - begin)
        return logits

    options = TranscribeOptions(max_new_tokens=STEPS, ignore_eos=True).generation()
    timed, steps = replace(engine, decode=decode), list[float]()
    for _ in range(ANSWERS):
        clock, prompts = PhaseClock(audio.device), PromptBatch([[0] * NARROW], audio, lora)
        for _rows in generate(timed, config.decoder, prompts, options, clock=clock):
            pass
        steps += [span.duration for span in clock.spans if span.name == phases.DECODE]
    steps, calls = steps[STEPS - 1 :], calls[STEPS - 1 :]
    rest = [step - call for step, call in zip(steps, calls, strict=True)]
    return 1000 * median(calls), 1000 * median(rest)
