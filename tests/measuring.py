"""What the tests of timing and tracing measure: two seconds of noise and a tiny workload.

In: nothing. Out: :data:`RECORDING`, a wav file's bytes, and :func:`workload`.
"""

from typing import Any

import tiny_models
from core.lab import Lab
from profiling.measure.workload import ClipInfo, Workload
from recordings import pcm_wav

RECORDING = pcm_wav((tiny_models.noise(2.0).clamp(-1, 1) * 32_000).short().numpy())


def workload(lab: Lab, **changes: Any) -> Workload:
    """An eager run of 24 forced tokens, one thread, with changes."""
    fields = {
        "clip": ClipInfo("noise.wav", "noise.wav", "0" * 64, 2.0),
        "model": lab.model_info.name,
        "revision": None,
        "engine": "eager",
        "lora": lab.has_adapter or None,
        "decoding": "greedy",
        "device": str(lab.device),
        "dtype": "float32",
        "max_new_tokens": 24,
        "ignore_eos": True,
        "threads": 1,
        "seed": 0,
    }
    return Workload(**{**fields, **changes})
