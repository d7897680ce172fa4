"""The product of one row in compiled steps: the compiler's own loop, or the kernel of eager steps.

In: a model that is about to be compiled. Out: ``core.model.linear.FLOAT32.loop``, decided once in a
process, so that no graph is ever made again for it. Both are timed with as many bytes of weights as
a step of the model reads, by the clock and with all threads: caches decide which is faster. The
times are kept beside those of the other kernels (``core.engine.products``); "loop" or "no-loop" in
GRANITE_SPEECH_PRODUCTS decides without them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.engine.products import (
    INPUTS,
    NOISE,
    OUTPUTS,
    ProductTimes,
    environment_wishes,
    keep,
    use_products,
)
from core.memory import available_bytes
from core.model.linear import FLOAT32, LARGE, LOOP, NO_LOOP, TORCH, onednn, row_in_a_loop

logger = logging.getLogger(__name__)

MIB = 2**20
PRODUCT_BYTES = 4 * INPUTS * OUTPUTS
MOST_BYTES = 512 * MIB  # no cache's share holds that
SECONDS, LEAST_PASSES = 0.3, 3  # of all passes over the weights, for both together


def decide_compiled_row(model: nn.Module) -> None:
    """Decide for this process whether compiled steps multiply one row in the compiler's loop.

    Args:
        model: about to be compiled; on other devices than a CPU, or without large float32 weights
            in its decoder, nothing is decided and nothing measured.
    """
    num_bytes = step_bytes(model)
    if FLOAT32.loop is not None or not num_bytes:
        return
    wishes = environment_wishes()
    if LOOP in wishes or NO_LOOP in wishes:
        FLOAT32.loop = LOOP in wishes
        return
    times = use_products()
    if times is not None:
        FLOAT32.loop = loop_is_faster(compiled_row_us(times, num_bytes))


def step_bytes(model: nn.Module) -> int:
    """Return the bytes of large float32 weights on a CPU that a step reads."""
    decoder = getattr(model, "decoder", None)
    if not isinstance(decoder, nn.Module):
        return 0
    weights = [m.weight for m in decoder.modules() if isinstance(m, nn.Linear)]  # int8: None
    large = [w for w in weights if w is not None and w.numel() >= LARGE]
    return sum(w.nbytes for w in large if w.dtype == torch.float32 and w.device.type == "cpu")


def loop_is_faster(us: dict[str, float]) -> bool:
    """Tell whether to take the loop: also where the other is faster by no more than noise."""
    return us[LOOP] <= NOISE * us[NO_LOOP]


def compiled_row_us(times: ProductTimes, num_bytes: int) -> dict[str, float]:
    """Time one row of 1024 x 2048 weights both ways, or read what is kept.

    Args:
        times: what is known of this machine; the new times are kept with it.
        num_bytes: of the weights that are read in turns.

    Returns:
        "loop" and "no-loop" -> microseconds.
    """
    free = available_bytes()
    most = MOST_BYTES if free is None else min(MOST_BYTES, free // 8)
    # Powers of two, so that free memory, which is another every day, asks for no new times.
    size = 1 << (max(PRODUCT_BYTES, min(most, 2 * num_bytes - 1)).bit_length() - 1)
    kind = f"compiled-row-{size // MIB}MiB-{torch.get_num_threads()}"
    names = {way: f"{kind} {way}" for way in (LOOP, NO_LOOP)}
    if not all(name in times.us for name in names.values()):
        begin = time.perf_counter()
        found = _measure(size // PRODUCT_BYTES)
        logger.debug("one compiled row measured in %.1f s", time.perf_counter() - begin)
        us = {names[way]: {1: round(spent, 1)} for way, spent in found.items()}
        times.us.update(us)
        keep(replace(times, us=times.us))
    return {way: times.us[name][1] for way, name in names.items()}


@torch.inference_mode()
def _measure(count: int) -> dict[str, float]:
    """Time both ways with ``count`` weights in turns; returns microseconds of one product."""
    weights = torch.full((count, OUTPUTS, INPUTS), 0.5)
    x = torch.ones(1, INPUTS)
    kernel: Callable[[Tensor, Tensor], Tensor] = F.linear if FLOAT32.one == TORCH else onednn
    # In this process: a pool of compilers would be started for one small loop.
    with import_module("torch._inductor.config").patch(compile_threads=1):
        loop = torch.compile(row_in_a_loop, dynamic=False)
        loop(x, weights[0])
    ways = {LOOP: loop, NO_LOOP: kernel}
    spent: dict[str, list[float]] = {way: [] for way in ways}
    begin = time.perf_counter()
    while len(spent[LOOP]) < LEAST_PASSES or time.perf_counter() - begin < SECONDS:
        for way, product in ways.items():
            since = time.perf_counter()
            for weight in weights:
                product(x, weight)
            spent[way].append(time.perf_counter() - since)
    return {way: 1e6 * min(found) / count for way, found in spent.items()}
