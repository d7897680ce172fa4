"""Batches beside the model's thread: who runs where, equal texts, and what happens when it dies.

Run alone: ``python -m pytest tests/test_second_process.py``.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from app.service.batching.beside import start_second_process
from app.service.batching.queue import BatchingQueue, BatchReport
from app.service.batching.waiting_line import Failed, QueuedClip
from app.service.settings import Settings
from app_stubs import SETTINGS, TRANSCRIPT
from bundled import EXAMPLES, inside
from core import Lab, Transcript, batch_process, load
from core.audio.decode import load_audio
from core.background_build import PackageRequest
from core.batch_process import (
    Batch,
    BatchProcess,
    ProcessEnded,
    second_process_for,
    transcribed,
)
from core.errors import UserError
from core.transcription.options import Finished

LONGEST_S, PATIENCE_S = 30.0, 20.0


class StubProcess:
    """Says "there" of every clip; ``texts`` None fails, an exception is raised."""

    threads = 1

    def __init__(self, outcome: Exception | str | None = "there") -> None:
        self.outcome, self.batches = outcome, list[list[Tensor]]()

    def wait_until_loaded(self) -> None:
        """It is."""

    def run(
        self, waveforms: Sequence[Tensor], options: Any, cancelled: Callable[[], bool]
    ) -> tuple[Transcript, ...] | None:
        self.batches.append(list(waveforms))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if self.outcome is None:
            return None
        return tuple(replace(TRANSCRIPT, text=self.outcome) for _ in waveforms)


class Server:
    """A queue whose model's thread is held in its first batch, so that others wait."""

    def __init__(self, process: StubProcess) -> None:
        self.entered, self.go_on = Event(), Event()
        self.turns: list[Callable[[], None]] = []
        self.threads: list[int] = []
        self.reports: list[BatchReport] = []
        self.texts: dict[str, str] = {}
        self.queue = BatchingQueue(
            self.turns.append, lambda settings: cast(Lab, self), report=self.reports.append
        )
        self.model_info, self.max_audio_s = SimpleNamespace(reliable_s=LONGEST_S), 100.0
        self.beside = Thread(
            target=self.queue.run_beside,
            args=(cast(BatchProcess, process), SETTINGS, LONGEST_S),
            daemon=True,
        )

    def stream_batch(self, sources: Sequence[Any], **_: Any) -> Iterator[Finished]:
        self.threads.append(torch.get_num_threads())
        self.entered.set()
        assert self.go_on.wait(PATIENCE_S)
        for index in range(len(sources)):
            yield Finished(index, replace(TRANSCRIPT, text="here"))

    def put(self, name: str, **more: Any) -> None:
        def tell(event: Any) -> None:
            self.texts[name] = (
                str(event.error) if isinstance(event, Failed) else event.transcript.text
            )

        values: dict[str, Any] = {"seconds": 3.0, "settings": SETTINGS, "tell": tell}
        clip = QueuedClip(client=name, source=torch.zeros(8), **(values | more))
        self.queue.put(clip)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """The model's thread has a batch until the end of this block; then it does the rest."""
        self.put("first", seconds=20.0)
        thread = Thread(target=self.turns.pop(0))
        thread.start()
        assert self.entered.wait(PATIENCE_S)
        yield
        self.go_on.set()
        thread.join()
        while self.turns:
            self.turns.pop(0)()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_waits_while_the_models_thread_is_busy_runs_beside_it() -> None:
    process = StubProcess()
    server = Server(process)
    server.beside.start()
    server.put("idle")  # nothing else runs: the model's own thread takes it
    time.sleep(0.05)
    assert process.batches == []
    server.go_on.set()
    server.turns.pop(0)()
    assert server.texts == {"idle": "here"}
    server.entered.clear()
    server.go_on.clear()
    with server.busy():
        for name in ("a", "b"):
            server.put(name)
        until(lambda: {"a", "b"} <= server.texts.keys())
    assert server.texts == {"idle": "here", "first": "here", "a": "there", "b": "there"}
    until(lambda: server.queue.running == 0)
    assert server.queue.waiting == 0
    assert sum(len(report.waits_s) for report in server.reports) == 4


@pytest.mark.parametrize(
    "more",
    [
        {"stream": True},
        {"settings": replace(SETTINGS, engine="compile")},
        {"settings": replace(SETTINGS, adapter="mine")},
        {"settings": replace(SETTINGS, quantize="int8")},
        {"settings": replace(SETTINGS, model="another")},
        {"seconds": 31.0},
        {"seconds": None},
        {"source": "a file"},
    ],
    ids=str,
)
def test_what_the_other_process_cannot_run_waits_for_the_models_thread(
    more: dict[str, Any],
) -> None:
    process = StubProcess()
    server = Server(process)
    server.beside.start()
    with server.busy():
        clip = QueuedClip(
            client="other",
            tell=lambda event: None,
            **({"source": torch.zeros(8), "seconds": 3.0, "settings": SETTINGS} | more),
        )
        server.queue.put(clip)
        server.put("a")
        until(lambda: "a" in server.texts)
    assert [len(batch) for batch in process.batches] == [1]
    assert server.texts["a"] == "there"


@pytest.mark.parametrize("outcome", [None, ProcessEnded()], ids=["failed", "died"])
def test_a_batch_that_failed_beside_runs_here(outcome: Exception | None) -> None:
    process = StubProcess(outcome)
    server = Server(process)
    server.beside.start()
    with server.busy():
        server.put("a")
        until(lambda: len(server.turns) > 1)  # its own turn, and one more since it came back
    assert server.texts["a"] == "here"
    assert len(process.batches) == 1
    assert server.queue.running == server.queue.waiting == 0
    if outcome is not None:
        server.beside.join(PATIENCE_S)
        assert not server.beside.is_alive()


def test_the_models_thread_leaves_cores_only_where_there_is_work_for_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_process, "usable_cores", lambda: [0, 1])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        server = Server(StubProcess())
        server.go_on.set()
        server.beside.start()
        until(lambda: server.queue._threads_beside == 1)
        server.put("alone")
        server.turns.pop(0)()
        server.put("one", seconds=20.0)
        server.put("other", seconds=3.0)
        server.turns.pop(0)()
        assert server.threads[:2] == [2, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_failing_batch_says_so_and_a_good_one_gives_what_the_lab_gives(
    lab: Lab, noise: Callable[..., Tensor]
) -> None:
    clips = [noise(seconds, seed=seed) for seed, seconds in enumerate((1.0, 1.7))]
    options = Settings(model="any", max_new_tokens=6).options()
    batch = Batch(tuple(clip.numpy() for clip in clips), options)
    found = transcribed(lab, pickle.loads(pickle.dumps(batch)), cancelled=lambda: False)
    assert found is not None
    alone = [lab.transcribe(clip, **options) for clip in clips]
    sent = pickle.loads(pickle.dumps(found))
    assert [one.token_ids for one in sent] == [one.token_ids for one in alone]
    broken = Batch(batch.waveforms, {**options, "decoding": "no such"})
    assert transcribed(lab, broken, cancelled=lambda: False) is None


@pytest.mark.parametrize(("cores", "device"), [([0], "cpu"), ([0, 1], "cuda")])
def test_there_is_no_second_process_without_a_second_core_or_on_a_gpu(
    cores: list[int], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(batch_process, "usable_cores", lambda: cores)
    monkeypatch.setattr(batch_process, "BatchProcess", never)
    monkeypatch.setattr(batch_process, "fits_twice", lambda lab: True)
    stub = cast(Lab, SimpleNamespace(device=torch.device(device)))
    assert second_process_for(stub, "any") is None


@pytest.mark.slow
@pytest.mark.skipif(not inside(), reason="assets are not there: make demo-model")
def test_a_process_of_its_own_writes_what_the_lab_writes_and_its_end_is_noticed() -> None:
    lab = load("tiny", device="cpu")
    process = BatchProcess(PackageRequest.of(lab, "tiny"), 1)
    process.wait_until_loaded()
    clips = [load_audio(EXAMPLES / name) for name in sorted(inside())[:3]]
    found = process.run(clips, {}, lambda: False)
    assert found is not None
    alone = [lab.transcribe(clip) for clip in clips]
    assert [(one.text, one.token_ids) for one in found] == [
        (one.text, one.token_ids) for one in alone
    ]
    stopped = process.run(clips, {}, lambda: True)  # everybody left: the process is free again
    assert stopped is not None
    assert process.run(clips, {}, lambda: False) is not None
    process.close()
    with pytest.raises(ProcessEnded):
        process.run(clips, {}, lambda: False)


def test_a_model_that_cannot_be_loaded_is_told_and_nothing_waits() -> None:
    def lab(settings: Settings) -> Lab:
        raise UserError("no such model")

    service = SimpleNamespace(
        model="tiny", lab=lab, worker=SimpleNamespace(submit=lambda work: work())
    )
    queue = BatchingQueue(lambda turn: None, lab)
    start_second_process(cast(Any, service), queue)
    assert not queue.awaits_second
