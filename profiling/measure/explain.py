"""``python -m profiling.measure.explain MODEL LORA``: where Dynamo would break the stages' graphs.

In: a model's name and ``true``, ``false`` or ``null`` for LoRA. Out: one JSON object on stdout.
Always a process of its own: ``torch._dynamo.explain`` resets everything compiled in its process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch

import core
from core import phases
from core.engine.stages import eager_engine
from core.model.cache import allocate_cache
from core.model.lora import switch


def explain_stages(model: str, lora: bool | None) -> dict[str, Any]:
    """Stage -> its graphs, breaks and operators, on inputs of one attention block."""
    lab = core.load(model, device="cpu")
    config, engine = lab.config, eager_engine(lab.model)
    frames = config.encoder.context_size
    like = torch.empty(0, dtype=lab.dtype)
    with torch.inference_mode():
        state = switch([lora is not False], like=like) if lab.has_adapter else None
        ids = torch.zeros(1, 8, dtype=torch.long)
        last = torch.tensor([[7]])
        cache = allocate_cache(
            config.decoder, batch=1, num_slots=16, dtype=lab.dtype, device=lab.device
        )
        features = like.new_zeros(1, frames, config.encoder.input_dim)
        hidden = like.new_zeros(1, frames, config.encoder.output_size)
        audio = like.new_zeros(1, 3, config.decoder.hidden_size)
        calls: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
            phases.ENCODER: (engine.encode, (features, torch.tensor([frames]), state)),
            phases.PROJECTOR: (engine.project, (hidden, state)),
            phases.PREFILL: (engine.prefill, (ids, audio, last, cache, state)),
            phases.DECODE: (engine.decode, (ids[:, :1], last, cache, state)),
        }
        found = {}
        for name, (stage, arguments) in calls.items():
            seen = torch._dynamo.explain(stage)(*arguments)
            breaks = [
                {"reason": why.reason, "where": str(why.user_stack[-1]) if why.user_stack else ""}
                for why in seen.break_reasons
            ]
            found[name] = {
                "graphs": seen.graph_count,
                "breaks": breaks,
                "operators": seen.op_count,
            }
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(explain_stages(sys.argv[1], json.loads(sys.argv[2]))) + "\n")
