"""How far from the ceiling each phase is, and what compiling can gain before it is paid for.

In: what the phases need (:mod:`profiling.counts`), what the machine can do
(:mod:`profiling.ceilings`), and, if there is one, a timed run. Out: one row per phase: the least
time physics allows, the share of it that was achieved, what bounds the phase.

The prediction rests on a shadow model: the same layers and operators, so narrow that arithmetic is
free. What a step of it takes is what Python and the dispatcher take; compiling removes most of
that, and never goes below the floor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import torch

from core import phases
from core.cache import allocate_cache
from core.config import ModelConfig
from core.engine import eager_engine
from core.lab import Lab
from core.lora import AdaptableLinear, LoRAWeights, adapted_layers, switch
from core.model import GraniteSpeech
from profiling.ceilings import Ceilings, run_seconds
from profiling.counts import Cost

# Of the shadow model's time this much is taken to be left after compiling: a compiled decode step
# of a random two-layer model launched 107 operators and kernels where the eager one launched 380.
LEFT_AFTER_COMPILING = 0.28
OVERHEAD_SHARE = 0.5  # above this share of dispatch time a phase is bound by it,
UNEXPLAINED_SHARE = 0.1  # and below this share of the floor, for neither bytes nor sums explain it
_NARROW = 16


@dataclass(frozen=True)
class RooflineRow:
    """One phase. floor_ms: the least this machine could take; share: floor over measured.

    bound: what the floor is made of, "memory" or "compute", or "overhead" where dispatching the
    operators takes most of the measured time, or the floor next to nothing of it. expected_ms:
    after compiling; gains are ratios.
    """

    name: str
    calls: int
    flops: float
    num_bytes: float
    floor_ms: float
    bound: str
    measured_ms: float | None
    share: float | None
    flops_per_s: float | None
    bytes_per_s: float | None
    overhead_ms: float | None
    expected_ms: float | None
    expected_gain: float | None
    most_gain: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def roofline(
    costs: Mapping[str, Cost],
    ceilings: Ceilings,
    dtype: str,
    *,
    measured_ms: Mapping[str, float] | None = None,
    overhead_ms: Mapping[str, float] | None = None,
) -> list[RooflineRow]:
    """One row per phase of ``costs``.

    Args:
        costs: what each phase needs.
        ceilings: of the machine, or of a GPU on paper.
        dtype: of the weights.
        measured_ms: phase -> milliseconds of an eager run, if one was timed.
        overhead_ms: phase -> milliseconds of dispatch in one call, from :func:`shadow_ms`.
    """
    measured, overhead = measured_ms or {}, overhead_ms or {}
    return [
        _row(cost, ceilings, dtype, measured.get(name), overhead.get(name))
        for name, cost in costs.items()
        if cost.calls
    ]


def _row(
    cost: Cost, ceilings: Ceilings, dtype: str, measured: float | None, per_call: float | None
) -> RooflineRow:
    bandwidth = ceilings.bytes_per_s(dtype, cost.weight_bytes / cost.calls)
    moving = 1000 * cost.num_bytes / bandwidth
    computing = 1000 * cost.flops / ceilings.of(dtype).flops_per_s
    floor = max(moving, computing)
    bound = "memory" if moving >= computing else "compute"
    row = RooflineRow(cost.name, cost.calls, cost.flops, cost.num_bytes, floor, bound, *[None] * 8)
    if not measured:
        return row
    row = replace(
        row,
        measured_ms=measured,
        share=floor / measured,
        bound="overhead" if floor < UNEXPLAINED_SHARE * measured else bound,
        flops_per_s=1000 * cost.flops / measured,
        bytes_per_s=1000 * cost.num_bytes / measured,
        most_gain=measured / floor,
    )
    if per_call is None:
        return row
    dispatch = min(per_call * cost.calls, measured)
    expected = max(floor, measured - dispatch * (1 - LEFT_AFTER_COMPILING))
    return replace(
        row,
        overhead_ms=dispatch,
        bound="overhead" if dispatch > OVERHEAD_SHARE * measured else row.bound,
        expected_ms=expected,
        expected_gain=measured / expected,
    )


def expected_end_to_end_gain(rows: list[RooflineRow], end_to_end_ms: float) -> float | None:
    """What compiling is expected to gain on the whole request; None without a prediction."""
    known = [(r.measured_ms, r.expected_ms) for r in rows if r.measured_ms and r.expected_ms]
    if not known or end_to_end_ms <= 0:
        return None
    saved = sum(before - after for before, after in known)
    return end_to_end_ms / (end_to_end_ms - saved)


def shadow_config(config: ModelConfig) -> ModelConfig:
    """The same layers and operators, so narrow that arithmetic takes no time worth mentioning."""
    return replace(
        config,
        encoder=replace(
            config.encoder,
            input_dim=_NARROW,
            hidden_dim=_NARROW,
            num_heads=2,
            dim_head=_NARROW // 2,
            feedforward_mult=1,
            output_dim=_NARROW,
            context_size=_NARROW,
            max_pos_emb=_NARROW,
            conv_expansion_factor=1,
        ),
        projector=replace(
            config.projector,
            hidden_size=_NARROW,
            num_attention_heads=2,
            intermediate_size=_NARROW,
            encoder_hidden_size=_NARROW,
            output_size=_NARROW,
        ),
        decoder=replace(
            config.decoder,
            vocab_size=_NARROW,
            hidden_size=_NARROW,
            intermediate_size=_NARROW,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=_NARROW // 2,
        ),
        audio_token_id=_NARROW,
    )


def shadow_ms(lab: Lab, *, seconds: float = 0.2) -> dict[str, float]:
    """Phase -> milliseconds of dispatch in one call of the eager stages, for ``lab``'s model.

    Takes about a second; nothing of ``lab`` is changed.
    """
    config = shadow_config(lab.config)
    with torch.inference_mode():
        model = GraniteSpeech(config).to(lab.device, lab.dtype).eval()
        layers = {n: m for n, m in model.named_modules() if isinstance(m, AdaptableLinear)}
        for name, _ in adapted_layers(lab.model):
            rows, columns = layers[name].weight.shape
            layers[name].attach(LoRAWeights(torch.zeros(1, columns), torch.zeros(rows, 1), 1.0))
        engine, like = eager_engine(model), torch.empty(0, dtype=lab.dtype, device=lab.device)
        lora = switch([True], like=like) if lab.has_adapter else None
        cache = allocate_cache(
            config.decoder, batch=1, num_slots=_NARROW, dtype=lab.dtype, device=lab.device
        )
        frames = like.new_zeros(1, _NARROW, _NARROW)
        length = torch.tensor([_NARROW], device=lab.device)
        ids = torch.zeros(1, _NARROW, dtype=torch.long, device=lab.device)
        last = torch.tensor([[_NARROW - 1]], device=lab.device)
        calls = {
            phases.ENCODER: lambda: engine.encode(frames, length, lora).frames,
            phases.PROJECTOR: lambda: engine.project(frames, lora),
            phases.PREFILL: lambda: engine.prefill(ids, frames, last, cache, lora),
            phases.DECODE: lambda: engine.decode(ids[:, :1], last, cache, lora),
        }
        return {
            # The middle, not the best: it is set against the middle of the timed runs.
            name: 1000 * median(run_seconds(call, lab.device, seconds))
            for name, call in calls.items()
        }
