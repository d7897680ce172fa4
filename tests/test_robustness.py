"""Stopping, running out of memory, two callers at once: the model stays as it was."""

import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import core
from core import phases
from core.__main__ import main
from core.engine.stages import Engine
from core.lab import Lab
from core.memory import (
    OutOfMemory,
    begin_peak,
    is_out_of_memory,
    peak_memory_bytes,
    within_memory,
)
from core.model.cache import KVCache
from core.text.transcript import Transcript
from core.transcription.options import Finished, PartialText, PhaseDone
from recordings import pcm_wav

OPTIONS = {"max_new_tokens": 8, "ignore_eos": True, "skip_silence": False}
STAGES = ("encode", "project", "prefill", "decode")
ROOT = Path(__file__).parents[1]
CPU = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"
RAN_OUT = [torch.OutOfMemoryError("CUDA out of memory. Tried"), RuntimeError(CPU), MemoryError()]


class Watched:
    """An engine that keeps weak references to all that its stages make, and to the cache."""

    def __init__(self, engine: Engine) -> None:
        self.made: list[weakref.ref[Tensor]] = []
        stages = {name: self._watch(getattr(engine, name)) for name in STAGES}
        self.engine = replace(engine, **stages)

    def _watch(self, stage: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            result = stage(*arguments)
            caches = [one for one in arguments if isinstance(one, KVCache)]
            kept = [tensor for cache in caches for tensor in cache.keys]
            kept += [result] if isinstance(result, Tensor) else list(result)
            self.made += map(weakref.ref, kept)
            return result

        return run

    def alive(self) -> int:
        """How many of them are still in memory."""
        return sum(one() is not None for one in self.made)


@pytest.fixture
def watched(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Watched:
    found = Watched(lab.engine("eager"))
    monkeypatch.setitem(lab.autoregressive._engines, "eager", found.engine)
    return found


def stopped_after(lab: Lab, clip: Tensor, phase: str, decoding: str) -> Transcript:
    """The transcript of a request that is told to stop once ``phase`` is done."""
    seen: set[str] = set()
    for event in lab.stream(clip, cancelled=lambda: phase in seen, decoding=decoding, **OPTIONS):
        if isinstance(event, PhaseDone):
            seen.add(event.name)
        if isinstance(event, PartialText):
            seen.add(phases.DECODE)
        if isinstance(event, Finished):
            return event.transcript
    raise AssertionError("no transcript")


@pytest.mark.parametrize("decoding", ["greedy", "speculative"])
@pytest.mark.parametrize(
    "phase",
    [
        phases.DECODE_AUDIO,
        phases.FEATURES,
        phases.ENCODER,
        phases.PROJECTOR,
        phases.PREFILL,
        phases.DECODE,
    ],
)
def test_stopping_in_any_phase_frees_memory_and_leaves_the_model_usable(
    lab: Lab, noise: Callable[..., Tensor], watched: Watched, phase: str, decoding: str
) -> None:
    clip = noise(1.0)
    expected = lab.transcribe(clip, decoding=decoding, **OPTIONS)
    found = stopped_after(lab, clip, phase, decoding)
    assert watched.made
    assert watched.alive() == 0
    assert found.stopped
    assert len(found.token_ids) < 8
    assert lab.transcribe(clip, decoding=decoding, **OPTIONS).token_ids == expected.token_ids


def test_a_stream_that_nobody_reads_to_its_end_frees_its_memory(
    lab: Lab, noise: Callable[..., Tensor], watched: Watched
) -> None:
    events = lab.stream(noise(1.0), **OPTIONS)
    assert any(isinstance(event, PartialText) for event in events)
    assert watched.alive() > 0
    events.close()  # type: ignore[attr-defined]
    assert watched.alive() == 0


def broken(engine: Engine, stage: str, error: BaseException) -> Engine:
    """The engine, one of whose stages finds no more memory."""

    def run(*_tensors: object) -> None:
        raise error

    return replace(engine, **{stage: run})


@pytest.mark.parametrize("error", RAN_OUT, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("stage", STAGES)
def test_running_out_of_memory_is_one_clear_line_and_leaves_the_model_usable(
    lab: Lab,
    noise: Callable[..., Tensor],
    monkeypatch: pytest.MonkeyPatch,
    watched: Watched,
    stage: str,
    error: BaseException,
) -> None:
    clip = noise(1.0)
    expected = lab.transcribe(clip, **OPTIONS)
    monkeypatch.setitem(lab.autoregressive._engines, "eager", broken(watched.engine, stage, error))
    with pytest.raises(OutOfMemory, match="memory ran out on cpu") as caught:
        lab.transcribe(clip, **OPTIONS)
    message = str(caught.value)
    assert "\n" not in message
    assert "shorter recording" in message
    assert caught.value.__context__ is None  # it would keep the failed call's tensors alive
    error.__traceback__ = None  # the test's own reference to the failed call
    assert watched.alive() == 0
    monkeypatch.setitem(lab.autoregressive._engines, "eager", watched.engine)
    assert lab.transcribe(clip, **OPTIONS).token_ids == expected.token_ids


def test_other_errors_are_not_called_memory() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))

    def failing() -> Iterator[int]:
        yield 1
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        list(within_memory(failing(), torch.device("cpu")))


def test_a_batch_too_large_for_memory_is_done_one_by_one(
    speech_folder: Path,
    noise: Callable[..., Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = []
    for number in range(2):
        files.append(tmp_path / f"{number}.wav")
        sound = (noise(1.0, seed=number).clamp(-1, 1) * 32_000).short().numpy()
        files[-1].write_bytes(pcm_wav(sound))
    lab = core.load(speech_folder, device="cpu", dtype="float32")
    whole = lab.engine("eager")

    def encode(features: Tensor, *more: Tensor) -> object:
        if features.shape[0] > 1:
            raise RuntimeError(CPU)
        return whole.encode(features, *more)

    lab.autoregressive._engines["eager"] = replace(whole, encode=encode)  # type: ignore[arg-type]
    monkeypatch.setattr("core.cli.load", lambda *_args, **_more: lab)
    command = ["transcribe", *map(str, files), "--batch-size", "2", "--max-new-tokens", "4"]
    assert main([*command, "--model", str(speech_folder), "--format", "json"]) == 0
    assert "memory" not in capsys.readouterr().err


def test_two_callers_never_share_state(lab: Lab, noise: Callable[..., Tensor]) -> None:
    requests = [
        {"decoding": "greedy", "lora": True},
        {"decoding": "speculative", "lora": False},
    ]
    clips = [noise(1.0), noise(2.1, seed=1)]
    options = {**OPTIONS, "max_new_tokens": 24}
    alone = [
        lab.transcribe(clip, **more, **options) for clip, more in zip(clips, requests, strict=True)
    ]
    found: dict[tuple[int, int], Transcript] = {}
    start = threading.Barrier(2)

    def caller(number: int) -> None:
        start.wait()
        for turn in range(4):
            found[number, turn] = lab.transcribe(clips[number], **requests[number], **options)

    threads = [threading.Thread(target=caller, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert alone[0].token_ids != alone[1].token_ids
    for number, turn in found:
        assert found[number, turn].token_ids == alone[number].token_ids
        assert found[number, turn].draft == alone[number].draft
    assert len(found) == 8


def test_two_streams_read_in_turns_stay_apart(lab: Lab, noise: Callable[..., Tensor]) -> None:
    clips = [noise(1.0), noise(1.7, seed=2)]
    alone = [lab.transcribe(clip, **OPTIONS).token_ids for clip in clips]
    streams = [lab.stream(clip, **OPTIONS) for clip in clips]
    done: dict[int, Transcript] = {}
    while len(done) < 2:
        for number, events in enumerate(streams):
            event = next(events, None)
            if isinstance(event, Finished):
                done[number] = event.transcript
    assert [done[0].token_ids, done[1].token_ids] == alone


def test_a_model_that_does_not_fit_says_so(
    speech_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load_model(*_args: object, **_more: object) -> None:
        raise RuntimeError(CPU)

    monkeypatch.setattr("core.transcription.autoregressive.load_model", load_model)
    assert main(["inspect", str(speech_folder)]) == 2
    error = capsys.readouterr().err
    assert "memory ran out on cpu" in error
    assert error.count("\n") == 1


def test_chat_and_token_ids_run_out_of_memory_in_the_same_words(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = broken(lab.engine("eager"), "prefill", RuntimeError(CPU))
    monkeypatch.setitem(lab.autoregressive._engines, "eager", failing)
    with pytest.raises(OutOfMemory, match="memory ran out on cpu"):
        lab.chat("hello")
    with pytest.raises(OutOfMemory, match="memory ran out on cpu"):
        lab.generate_ids([[5, 6, 7]])


def test_a_peak_begun_anew_forgets_what_was_freed_before() -> None:
    device = torch.device("cpu")
    torch.ones(2**28, dtype=torch.uint8)  # freed at once
    before = peak_memory_bytes(device)
    if not begin_peak(device):
        pytest.skip("the system keeps the peak since the start of the process")
    assert peak_memory_bytes(device) < before


def test_peak_memory_is_that_of_this_process_and_not_of_the_one_that_started_it() -> None:
    child = "import torch, core.memory as m; print(m.peak_memory_bytes(torch.device('cpu')))"
    starter = (
        "import subprocess, sys\n"
        "held = bytearray(b'x') * (1536 * 2**20)\n"
        f"subprocess.run([sys.executable, '-c', {child!r}], check=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", starter], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert 50 * 2**20 < int(done.stdout) < 1024 * 2**20
