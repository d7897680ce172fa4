"""The matrix kernels of this processor: measured once, kept in the user's cache.

In: this machine. Out: :class:`ProductTimes`, and the fastest kernels chosen for int8 weights
(``core.model.int8_products.CHOSEN``) and for large float32 weights (``core.model.linear.FLOAT32``).
Measuring takes some tenths of a second, when a model is first loaded on a CPU; later starts read a
small file. GRANITE_SPEECH_PRODUCTS overrides it: names of kernels, as in "torch,fbgemm", or "off"
for the usual ones, unmeasured.

int8 weights are stored for one kernel, which is judged by what a request needs: a prompt of 128
rows and 32 tokens of one row each. float32 takes one kernel for a row, one for few and one for
many. One thread and its own processor time are measured, so that other programs do not decide. A
float32 row is also timed by the clock with all threads, because only some libraries share it
among them. What compiled steps do with a row is measured by ``core.engine.compiled_row``.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from core.engine.fingerprint import cpu_name, processor, user_cache
from core.errors import UserError
from core.model.int8_products import CHOSEN, INT_MM, kernels
from core.model.linear import FLOAT32 as FLOAT32_CHOICE
from core.model.linear import HAS_ONEDNN, LOOP, NO_LOOP, ONEDNN, TORCH, onednn
from core.model.lora import AdaptableLinear
from core.model.quantize import Int8Linear
from core.plain_json import parse_json

logger = logging.getLogger(__name__)

ENVIRONMENT = "GRANITE_SPEECH_PRODUCTS"
OFF = "off"  # as its value: nothing is measured or read
CAPS = ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "FBGEMM_ENABLE_INSTRUCTIONS")
FILE = "products.json"
ROWS = (1, 16, 128)
TOKENS = 32  # of the request that kernels are judged by; its prompt is the most of ROWS
INPUTS, OUTPUTS = 1024, 2048
NOISE = 1.1  # times as long: nothing is said of less
HOPELESS = 6.0  # times the fastest of its kind: not tried with more rows
SECONDS, SECONDS_EACH = 0.8, 0.01
TRIES, TRIES_BY_CLOCK = 8, 40  # other programs' turns fall into most of the latter
FLOAT32, INT8, WEIGHT_ONLY = "float32", "int8", "int8-weight-only"
ALL_THREADS = "float32-threads"  # a row by the clock

Kernel = Callable[[Tensor], Tensor]
Timer = Callable[[str, int, Callable[[], object]], float]


@dataclass(frozen=True)
class ProductTimes:
    """Microseconds of one product of 1024 x 2048 weights.

    machine: processor, its vector units and torch. us: "int8 fbgemm" -> rows -> microseconds; a
    kernel that was hopeless with few rows has none for many. "float32-threads" has one row alone.
    seconds: processor time of measuring.
    """

    machine: str
    us: dict[str, dict[int, float]]
    seconds: float

    @property
    def fastest(self) -> str | None:
        """Return the int8 kernel that costs a request least, or None where none was measured.

        A tie goes to ``torch._int_mm``: compilers fuse the rounding of its rows into what comes
        before, where another kernel is an operator of our own that is called from Python.
        """
        us = {name.split()[-1]: us for name, us in self.us.items() if name.split()[0] == INT8}
        found = {name: request_us(times) for name, times in us.items()}
        least = min(found.values(), default=inf)
        if least == inf:
            return None
        tied = [name for name, cost in found.items() if cost <= NOISE * least]
        return INT_MM if INT_MM in tied else min(found, key=found.__getitem__)

    @property
    def float32(self) -> tuple[str, str, str]:
        """Return the float32 kernels for one row, few and many; oneDNN where nothing is known."""
        one, few, many = (self._quicker_float32(count) for count in ROWS)
        return one, few, many

    def _quicker_float32(self, rows: int) -> str:
        onednn_us, torch_us = (
            # The clock counts where it shows that threads share a row, not what others took.
            min(self.us.get(f"{kind} {name}", {}).get(rows, inf) for kind in (FLOAT32, ALL_THREADS))
            for name in (ONEDNN, TORCH)
        )
        return TORCH if (NOISE if rows == 1 else 1.0) * torch_us < onednn_us else ONEDNN

    def request_ms(self, kind: str) -> float | None:
        """Return milliseconds of the products of one layer in a request, by the best kernels."""
        rows = [us for name, us in self.us.items() if name.split()[0] == kind]
        if kind == FLOAT32:  # a prompt and a token may take different kernels
            rows = [{count: min(us.get(count, inf) for us in rows) for count in ROWS}]
        best = min(map(request_us, rows), default=inf)
        return None if best == inf else best / 1000


def request_us(us: dict[int, float]) -> float:
    """Return microseconds of a prompt and its tokens."""
    return us.get(ROWS[-1], inf) + TOKENS * us.get(1, inf)


def slower_note(kind: str | None, times: ProductTimes | None) -> str | None:
    """Say that int8 weights would be slower here than float32, with both numbers.

    Args:
        kind: "int8", "int8-weight-only" or None.
        times: of this machine, if they are known.

    Returns:
        A sentence, or None where they are faster.
    """
    if kind is None or times is None:
        return None
    quick, plain = times.request_ms(kind), times.request_ms(FLOAT32)
    if quick is None or plain is None or quick <= NOISE * plain:
        return None
    return (
        f"{kind} is slower than float32 on this processor: {quick:.1f} ms against {plain:.1f} ms "
        f"for a prompt of {ROWS[-1]} tokens and {TOKENS} new ones through one matrix of "
        f"{INPUTS} x {OUTPUTS}; it saves memory only"
    )


def use_products(*, again: bool = False) -> ProductTimes | None:
    """Choose the kernels of float32 products, and of layers quantised from now on.

    Args:
        again: measure even where something is kept.

    Returns:
        What was measured, now or earlier; None where measuring is switched off.

    Raises:
        UserError: the environment variable names no kernel of this machine.
    """
    wishes = environment_wishes()
    if OFF in wishes:
        return None
    machine = machine_key()
    times = None if again else kept(machine)
    if times is None:
        times = measure_products(machine)
        if times.fastest is not None:  # not cut short
            keep(times)
    CHOSEN.kernel = next((w for w in wishes if w in kernels()), times.fastest or CHOSEN.kernel)
    float32 = next((w for w in wishes if w in (ONEDNN, TORCH)), None)
    FLOAT32_CHOICE.use(*(times.float32 if float32 is None else (float32,) * 3))
    return times


def environment_wishes() -> list[str]:
    """Read the environment variable.

    Returns:
        Names, in order.

    Raises:
        UserError: it names no kernel of this machine.
    """
    told = os.environ.get(ENVIRONMENT, "")
    known = (OFF, *kernels(), *((ONEDNN,) if HAS_ONEDNN else ()), TORCH, LOOP, NO_LOOP)
    wishes = [part.strip() for part in told.split(",") if part.strip()]
    if any(wish not in known for wish in wishes):
        raise UserError(f"{ENVIRONMENT} is {told!r}; expected some of {', '.join(known)}")
    return wishes


def machine_key() -> str:
    """Name what times depend on: processor, its vector units, torch."""
    caps = [f"{name}={os.environ[name]}" for name in CAPS if os.environ.get(name)]
    return ", ".join(
        [
            cpu_name(),
            processor(torch.device("cpu")),
            *caps,
            f"torch {torch.__version__}",
        ]
    )


@torch.inference_mode()
def measure_products(machine: str, timer: Timer | None = None) -> ProductTimes:
    """Time every kernel with few and many rows, for less than a second in all.

    Args:
        machine: of :func:`machine_key`.
        timer: takes the kernel's name, the rows and a call; returns microseconds.

    Returns:
        The times.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of this thread; it waits for no other program's
    try:
        found = _measure(machine, timer)
    finally:
        torch.set_num_threads(threads)
    if threads > 1 and HAS_ONEDNN:
        x, layer = torch.randn(1, INPUTS), AdaptableLinear(INPUTS, OUTPUTS, bias=False)
        for name, kernel in _float32_kernels(layer.weight).items():
            row = f"{ALL_THREADS} {name}"
            found.us[row] = {1: (timer or shortest_us)(row, 1, partial(kernel, x))}
    return found


def _measure(machine: str, timer: Timer | None) -> ProductTimes:
    begin, time_us = time.thread_time(), timer or shortest_us
    built = [(name, make()) for name, make in _makers().items()]
    us: dict[str, dict[int, float]] = {name: {} for name, _ in built}
    best: dict[tuple[str, int], float] = {}
    for number, count in enumerate(ROWS):
        x = torch.randn(count, INPUTS)
        for name, kernel in built:
            kind, fewer = name.split()[0], ROWS[:number]
            if any(us[name].get(n, inf) > HOPELESS * best.get((kind, n), inf) for n in fewer):
                continue
            if timer is None and time.thread_time() - begin > SECONDS:
                continue
            spent = us[name][count] = time_us(name, count, partial(kernel, x))
            best[kind, count] = min(best.get((kind, count), inf), spent)
    seconds = round(time.thread_time() - begin, 3)
    logger.debug("products measured in %.2f s: %s", seconds, us)
    return ProductTimes(machine, us, seconds)


def _makers() -> dict[str, Callable[[], Kernel]]:
    """Return kernel name -> what makes it, the usually faster one of a kind first."""
    layer = AdaptableLinear(INPUTS, OUTPUTS, bias=False)

    def int8(name: str) -> Kernel:
        return Int8Linear(layer, round_activations=True, kernel=name)

    return {
        **{
            f"{FLOAT32} {name}": partial(lambda kernel: kernel, kernel)
            for name, kernel in _float32_kernels(layer.weight).items()
        },
        **{f"{INT8} {name}": partial(int8, name) for name in kernels()},
        WEIGHT_ONLY: lambda: Int8Linear(layer, round_activations=False),
    }


def _float32_kernels(weight: Tensor) -> dict[str, Kernel]:
    """Return name -> kernel. Not the compilers' operator: its first call loads a compiler."""
    found: dict[str, Kernel] = {ONEDNN: partial(onednn, weight=weight)} if HAS_ONEDNN else {}
    return {**found, TORCH: partial(F.linear, weight=weight)}


def shortest_us(name: str, rows: int, call: Callable[[], object]) -> float:
    """Return the microseconds of the shortest of several calls, after one to warm up."""
    by_clock = name.startswith(ALL_THREADS)
    clock, most = (time.perf_counter, TRIES_BY_CLOCK) if by_clock else (time.thread_time, TRIES)
    found: list[float] = []
    begin = clock()
    while len(found) < 2 or (len(found) < most and clock() - begin < SECONDS_EACH):
        start = clock()
        call()
        found.append(clock() - start)
    return round(1e6 * min(found[1:]), 1)


def kept(machine: str) -> ProductTimes | None:
    """Read what was measured on this machine earlier, if it can be read."""
    entry: Any = _file_content().get(machine)
    try:
        us = {name: {int(n): float(v) for n, v in row.items()} for name, row in entry["us"].items()}
        return ProductTimes(machine, us, float(entry["seconds"]))
    except (TypeError, ValueError, KeyError, AttributeError):
        return None


def keep(times: ProductTimes) -> None:
    """Write times beside those of other machines; a cache that cannot be written is none."""
    file = user_cache() / FILE
    content = {**_file_content(), times.machine: {"us": times.us, "seconds": times.seconds}}
    half = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        half.write_text(json.dumps(content, indent=1), encoding="utf-8")
        os.replace(half, file)
    except OSError as error:
        logger.debug("%s cannot be written: %s", file, error)


def _file_content() -> dict[str, Any]:
    file: Path = user_cache() / FILE
    try:
        found = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
