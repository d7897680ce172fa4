"""Memory snapshots of a GPU in the format that torch records, made by hand.

In: nothing. Out: :func:`snapshot`, whose peak is known: the weights, the cache and one activation.
"""

from __future__ import annotations

from typing import Any

MB = 1 << 20
WEIGHTS, CACHE, SMALL, LARGE = 100 * MB, 20 * MB, 8 * MB, 40 * MB
PEAK = WEIGHTS + CACHE + LARGE
BASE = 0x7F6E40000000
HOME = "/home/somebody/granite/.venv/lib/python3.11/site-packages"


def frame(filename: str, line: int, name: str) -> dict[str, Any]:
    return {"filename": filename, "line": line, "name": name}


# The innermost call first, as torch writes them; frames are shared between stacks.
LINEAR = frame(f"{HOME}/torch/nn/modules/linear.py", 125, "forward")
MODULE = frame(f"{HOME}/torch/nn/modules/module.py", 1775, "_call_impl")
ENCODER = frame("/home/somebody/granite/core/model/encoder.py", 155, "forward")
DECODER = frame("/home/somebody/granite/core/model/decoder.py", 90, "forward")
CACHES = frame("/home/somebody/granite/core/model/cache.py", 40, "allocate_cache")
LOAD = frame("/home/somebody/granite/core/checkpoint/weights.py", 77, "load_weights")
RUN = frame("/home/somebody/granite/core/lab.py", 200, "stream")
MAIN = frame("<string>", 1, "<module>")


def event(action: str, address: int, size: int, time: int, *frames: Any) -> dict[str, Any]:
    found = {"action": action, "addr": address, "size": size, "stream": 0, "time_us": time}
    return found | ({"frames": list(frames)} if frames else {})


def block(address: int, size: int, state: str, *frames: Any) -> dict[str, Any]:
    sizes = {"address": address, "size": size, "requested_size": size if frames else 0}
    return sizes | {"state": state, "frames": list(frames)}


def annotation(stage: str, name: str, time: int) -> dict[str, Any]:
    return {"device": 0, "time_us": time, "stage": stage, "name": name}


def segment(address: int, *blocks: dict[str, Any], device: int = 0) -> dict[str, Any]:
    total = sum(one["size"] for one in blocks)
    used = sum(one["size"] for one in blocks if one["state"] == "active_allocated")
    return {
        "device": device,
        "address": address,
        "total_size": total,
        "allocated_size": used,
        "active_size": used,
        "requested_size": used,
        "stream": 0,
        "segment_type": "large",
        "segment_pool_id": (0, 0),
        "is_expandable": False,
        "frames": [],
        "blocks": list(blocks),
    }


def snapshot() -> dict[str, Any]:
    """One clip on a GPU: weights held from before, two activations one after another, a cache."""
    weights, cache, work = BASE, BASE + WEIGHTS, BASE + WEIGHTS + CACHE
    at = 1_795_991_171_000_000
    of_encoder = (LINEAR, MODULE, ENCODER, MODULE, RUN, MAIN)
    trace = [
        event("segment_alloc", work, LARGE, at),
        event("alloc", work, SMALL, at + 100, *of_encoder),
        event("free_requested", work, SMALL, at + 190),
        event("free_completed", work, SMALL, at + 200),
        event("alloc", cache, CACHE, at + 300, CACHES, RUN, MAIN),
        event("alloc", work, LARGE, at + 400, LINEAR, MODULE, DECODER, MODULE, RUN, MAIN),
        event("free_requested", work, LARGE, at + 500),
        event("free_completed", work, LARGE, at + 510),
        event("snapshot", 0, 0, at + 900),
    ]
    return {
        "segments": [
            segment(weights, block(weights, WEIGHTS, "active_allocated", LOAD, MAIN)),
            segment(
                cache,
                block(cache, CACHE, "active_allocated", CACHES, RUN, MAIN),
                block(work, LARGE, "inactive"),
            ),
        ],
        "device_traces": [trace],
        "allocator_settings": {"PYTORCH_CUDA_ALLOC_CONF": "", "expandable_segments": False},
        "external_annotations": [
            annotation("START", "encoder", at + 50),
            annotation("START", "something else", at + 60),
            annotation("END", "encoder", at + 250),
            annotation("START", "prefill", at + 290),
            annotation("END", "prefill", at + 600),
        ],
    }
