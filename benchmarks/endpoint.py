"""Cost of the speech API and its gain under load: ``python -m app.api`` and many callers.

In: an :class:`EndpointPlan`. Out: a plain dict (see :func:`measure_endpoint`). The server runs in a
process of its own; the texts it must give are those that ``Lab.transcribe`` gives here.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import torch

from benchmarks.bars import MET, MISSED, Bar
from benchmarks.clips import EXAMPLES, recordings_in
from core import Lab, load
from core.audio.decode import probe
from core.checkpoint.catalog import ASSETS
from profiling.measure.machine import Busyness, describe_machine

ROUTE = "/v1/audio/transcriptions"
GAUGES = ("gsl_queue_length", "gsl_running_clips")
LOADING = "gsl_second_process_loading"
START_S, ANSWER_S, SETTLE_S = 240.0, 600.0, 20.0
MAX_COST_MS, MIN_GAIN = 5.0, 1.8

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class EndpointPlan:
    """The load to generate. leaving: share of the callers' requests that are given up midway."""

    model: str = "tiny"
    requests: int = 200
    callers: int = 20
    leaving: float = 1 / 3
    threads: int = 1
    seed: int = 0


@dataclass(frozen=True)
class ReferenceClip:
    """A recording as it is sent, its length, and the text that it must get."""

    data: bytes
    seconds: float
    text: str


@dataclass(frozen=True)
class CallerRecord:
    """One request. text: what came; None where the caller left before it did."""

    clip: ReferenceClip
    wait_s: float
    text: str | None


def measure_endpoint(plan: EndpointPlan, say: Say) -> dict[str, Any]:
    """Ask a server one at a time, then by many callers who stay, then by many of whom some leave.

    Returns:
        ``machine, plan, cost_ms, alone, together, leaving, leaked, memory_bytes``. cost_ms: median
        of a request's time over ``Lab.transcribe``'s for the same clip, one after the other.
    """
    torch.set_num_threads(plan.threads)
    busy = Busyness()
    say("reading every clip without a server")
    lab = load(plan.model, device="cpu")
    clips = [
        ReferenceClip(file.read_bytes(), probe(file).duration_s or 0.0, lab.transcribe(file).text)
        for file in recordings_in(EXAMPLES)
    ]
    say("starting the server")
    with running_server(plan) as address, httpx.Client(base_url=address, timeout=ANSWER_S) as http:
        say("one at a time, beside the same clip without the server")
        costs_ms = own_costs_ms(http, lab, clips)
        few = len(clips) * max(1, plan.requests // 4 // len(clips))  # every clip equally often
        say(f"{few} requests one at a time")
        alone = asyncio.run(_crowd(address, clips, plan, callers=1, count=few))
        say(f"{plan.requests} requests of {plan.callers} callers")
        together = asyncio.run(_crowd(address, clips, plan))
        patience_s = float(np.median([one.wait_s for one in together[0]]))
        say(f"{plan.requests} requests of {plan.callers} callers, {plan.leaving:.0%} of whom leave")
        leaving = asyncio.run(_crowd(address, clips, plan, patience_s=patience_s))
        leaked = _leaked(http)
        memory = _sample(http, "process_resident_memory_bytes")
    return {
        "machine": {**describe_machine(torch.device("cpu")), **busy.read()},
        "plan": vars(plan),
        "cost_ms": float(np.median(costs_ms)),
        "alone": summary(*alone),
        "together": summary(*together),
        "leaving": summary(*leaving),
        "leaked": leaked,
        "memory_bytes": memory,
    }


@contextmanager
def running_server(plan: EndpointPlan) -> Iterator[str]:
    """Start the API alone, wait until its model is loaded, end it afterwards.

    Yields:
        Its address.

    Raises:
        ValueError: it did not start.
    """
    command = [sys.executable, "-m", "app.api", "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--model", plan.model],
        cwd=ASSETS.parent,
        env={**os.environ, "OMP_NUM_THREADS": str(plan.threads), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        if found is None:
            raise ValueError(f"the server ended with {process.wait()}; run {' '.join(command[1:])}")
        deadline = time.monotonic() + START_S
        while httpx.get(f"{found[0]}/readyz").status_code != 200:
            if time.monotonic() > deadline:
                raise ValueError(f"the model was not loaded within {START_S:.0f} s")
            time.sleep(0.1)
        with httpx.Client(base_url=found[0]) as http:
            while _sample(http, LOADING) and time.monotonic() < deadline:
                time.sleep(0.1)
        yield found[0]
    finally:
        process.terminate()
        process.wait()


def own_costs_ms(http: httpx.Client, lab: Lab, clips: Sequence[ReferenceClip]) -> list[float]:
    """Return, for each clip, how much longer a request takes than the transcription alone."""
    costs = []
    for clip in clips:
        differences = []
        for _ in range(3):
            begin = time.perf_counter()
            lab.transcribe(clip.data)
            between = time.perf_counter()
            http.post(ROUTE, files={"file": ("clip.flac", clip.data)}).raise_for_status()
            differences.append(time.perf_counter() - between - (between - begin))
        costs.append(1000 * float(np.median(differences)))
    return costs


async def _crowd(
    address: str,
    clips: Sequence[ReferenceClip],
    plan: EndpointPlan,
    *,
    callers: int | None = None,
    count: int | None = None,
    patience_s: float | None = None,
) -> tuple[list[CallerRecord], float]:
    """Have callers take clips in turn.

    Args:
        address: of the server.
        clips: what is sent.
        plan: how many callers and requests, and how many of them leave.
        callers: another number of callers than the plan's.
        count: another number of requests.
        patience_s: how long those who leave wait at most; None: everybody stays.

    Returns:
        The requests, and the seconds they took together.
    """
    chance = random.Random(plan.seed)
    left = iter(itertools.islice(itertools.cycle(clips), count or plan.requests))
    found: list[CallerRecord] = []
    limits = httpx.Limits(max_connections=None)

    async def caller(client: httpx.AsyncClient) -> None:
        for clip in left:
            leaves = patience_s is not None and chance.random() < plan.leaving
            patience = chance.uniform(0.0, patience_s or 0.0) if leaves else None
            begin, text = time.perf_counter(), None
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    answer = await client.post(ROUTE, files={"file": ("clip.flac", clip.data)})
                    text = answer.json()["text"] if answer.is_success else answer.text
            found.append(CallerRecord(clip, time.perf_counter() - begin, text))

    async with httpx.AsyncClient(base_url=address, timeout=ANSWER_S, limits=limits) as client:
        begin = time.perf_counter()
        await asyncio.gather(*(caller(client) for _ in range(callers or plan.callers)))
        return found, time.perf_counter() - begin


def summary(found: Sequence[CallerRecord], seconds: float) -> dict[str, Any]:
    """Return counts, waits in seconds, and seconds of audio that were answered a second."""
    done = [one for one in found if one.text is not None]
    waits = [one.wait_s for one in done]
    return {
        "requests": len(found),
        "left": len(found) - len(done),
        "wrong": sum(one.text != one.clip.text for one in done),
        "seconds": seconds,
        "audio_per_s": sum(one.clip.seconds for one in done) / seconds,
        "median_wait_s": float(np.median(waits)),
        "p95_wait_s": float(np.percentile(waits, 95)),
    }


def _leaked(http: httpx.Client) -> int:
    """Return how many clips are still in the server after everybody left."""
    deadline = time.monotonic() + SETTLE_S
    while (count := sum(_sample(http, name) for name in GAUGES)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return count


def _sample(http: httpx.Client, name: str) -> int:
    found = re.search(rf"^{name} (\S+)$", http.get("/metrics").text, re.MULTILINE)
    assert found is not None, f"the server counts no {name}"
    return int(float(found[1]))


def endpoint_bars(found: dict[str, Any]) -> list[Bar]:
    """Return what was promised, and whether it was kept."""
    runs = [found["alone"], found["together"], found["leaving"]]
    wrong, leaked = sum(run["wrong"] for run in runs), found["leaked"]
    gain = found["together"]["audio_per_s"] / found["alone"]["audio_per_s"]
    cost = found["cost_ms"]
    rows = (
        ("wrong answers", "0", wrong, f"{wrong}", wrong == 0),
        ("places never freed", "0", leaked, f"{leaked}", leaked == 0),
        (
            *("throughput against one at a time", f">= {MIN_GAIN}x", gain, f"{gain:.2f}x"),
            gain >= MIN_GAIN,
        ),
        (
            *("cost over Lab.transcribe", f"<= {MAX_COST_MS:g} ms", cost, f"{cost:.1f} ms"),
            cost <= MAX_COST_MS,
        ),
    )
    return [
        Bar(what, bar, float(value), shown, MET if kept else MISSED)
        for what, bar, value, shown, kept in rows
    ]


def endpoint_text(found: dict[str, Any], bars: Sequence[Bar]) -> str:
    """Return the page."""
    lines = [f"{'':22}{'requests':>9}{'left':>6}{'audio s/s':>11}{'median':>9}{'p95 wait':>10}"]
    for name, title in (
        ("alone", "one at a time"),
        ("together", f"{found['plan']['callers']} callers"),
        ("leaving", "some of whom leave"),
    ):
        run = found[name]
        lines.append(
            f"{title:22}{run['requests']:>9}{run['left']:>6}{run['audio_per_s']:>11.1f}"
            f"{run['median_wait_s']:>7.2f} s{run['p95_wait_s']:>8.2f} s"
        )
    lines += ["", *(f"{bar.what:34}{bar.bar:>10}{bar.shown:>10}  {bar.verdict}" for bar in bars)]
    return "\n".join(lines)
