"""Bytes that a decode step must read, against what this machine was measured to read.

In: a shape's JSON and the ceilings of the same run. Out: bytes a token, bytes a second, shares.
Counted are the decoder's weights, each once, and the cache; int8 weights are a byte each, and their
scales are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.systems import SYSTEMS
from core.checkpoint.config_file import parse_config
from core.model.features import num_audio_tokens
from profiling.roofline.counts import Shape as Lengths
from profiling.roofline.counts import count

FRAMES_A_SECOND = 50
TEXT_TOKENS = 20  # of a prompt, beside the audio's
FLOAT_BYTES = 4

Found = Mapping[str, Any]


def bytes_per_token(shape: Found, seconds: float, *, int8: bool) -> float | None:
    """Compute bytes read a token, the mean of one answer's steps; None where it has none."""
    config = parse_config(shape["config"], source=shape["name"])
    frames, part = round(seconds * FRAMES_A_SECOND), config.projector
    audio = num_audio_tokens(frames, window=part.window_size, downsample=part.downsample_rate)
    lengths = Lengths(frames, audio + TEXT_TOKENS, shape["num_tokens"])
    cost = count(config, lengths, element_bytes=FLOAT_BYTES)["decode"]
    if not cost.calls:
        return None
    weights = cost.weight_bytes / (FLOAT_BYTES if int8 else 1)
    return (weights + cost.cache_bytes) / cost.calls


def bytes_per_second(shape: Found, seconds: str, system: str) -> float | None:
    """Compute the bytes that decode steps read in a second; None if not measured."""
    row = shape["lengths"].get(seconds, {}).get(system)
    if row is None or not row["ms_per_token"]:
        return None
    int8 = SYSTEMS[system].quantize is not None
    moved = bytes_per_token(shape, float(seconds), int8=int8)
    return None if moved is None else 1000 * moved / row["ms_per_token"]


def reachable(ceilings: Found) -> float:
    """Return the most bytes a second at which this machine multiplies, reads or copies."""
    float32 = next(entry for entry in ceilings["dtypes"] if entry["dtype"] == "float32")
    read = ceilings.get("read_bytes_per_s") or 0.0
    return float(max(ceilings["copy_bytes_per_s"], float32["gemv_bytes_per_s"], read))


def share_of_reachable(found: Found, shape: Found, seconds: str, system: str) -> float | None:
    """Compute what decode steps read over what could be read at the time; None if not measured.

    Args:
        found: the session.
        shape: one of its shapes.
        seconds: the clip's length, as the session names it.
        system: which one.

    Returns:
        The share, from 0; 1 is all that can be read.
    """
    rate = bytes_per_second(shape, seconds, system)
    if rate is None:
        return None
    row = shape["lengths"][seconds][system]
    return rate / (row.get("reachable_bytes_per_s") or reachable(found["ceilings"]))
