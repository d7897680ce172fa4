"""A second process that runs batches beside the one that loaded the model, on a CPU.

In: batches of waveforms and their options. Out: their transcripts. Python runs one thread at a
time, so two batches in one process take turns; in two processes they run on two cores. The process
loads the weights again, ends with this one, and holds its own model as it was loaded.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from core.background_build import PackageRequest, fits_twice
from core.bulk.executors import usable_cores
from core.bulk.processes import end_with_parent
from core.lab import Lab
from core.loading import load
from core.text.transcript import Transcript
from core.transcription.options import Finished, OptionFields

logger = logging.getLogger(__name__)

LOOK_S = 0.05  # between two looks at whether everybody left
CANCEL = "cancel"


class ProcessEnded(Exception):
    """The process is gone, and with it its batch."""


@dataclass(frozen=True)
class Batch:
    """Waveforms [N] at 16 kHz as arrays, and the keywords of ``Lab.stream_batch``."""

    waveforms: tuple[Any, ...]
    options: OptionFields


class BatchProcess:
    """The process, from this one's side.

    Args:
        model: what it loads.
        threads: of torch over there.
    """

    def __init__(self, model: PackageRequest, threads: int) -> None:
        self.threads = threads
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, model, threads), daemon=True)
        self._process.start()
        theirs.close()

    def wait_until_loaded(self) -> None:
        """Wait for its model.

        Raises:
            ProcessEnded: it could not be loaded.
        """
        self._receive()

    def run(
        self, waveforms: Sequence[Tensor], options: OptionFields, cancelled: Callable[[], bool]
    ) -> tuple[Transcript, ...] | None:
        """Transcribe waveforms as one batch.

        Args:
            waveforms: [N] each, at 16 kHz.
            options: of all of them.
            cancelled: asked now and then.

        Returns:
            A transcript each; None where it failed over there: the error will be met here too.

        Raises:
            ProcessEnded: it died.
        """
        arrays = tuple(waveform.numpy() for waveform in waveforms)
        asked = False
        try:
            self._connection.send(Batch(arrays, options))
            while not self._connection.poll(LOOK_S):
                if not asked and cancelled():
                    asked = True
                    self._connection.send(CANCEL)
        except OSError as error:
            raise ProcessEnded from error
        return self._receive()

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.join()

    def _receive(self) -> tuple[Transcript, ...] | None:
        try:
            found: tuple[Transcript, ...] | None = self._connection.recv()
        except (EOFError, OSError) as error:
            raise ProcessEnded from error
        return found


def second_process_for(lab: Lab, name: str) -> BatchProcess | None:
    """Start the second process of a loaded model where it is of use.

    Args:
        lab: the model.
        name: as it was loaded.

    Returns:
        The process; None on another device than a CPU, on one core, or where memory does not hold
        the weights twice.
    """
    cores = len(usable_cores())
    if lab.device.type != "cpu" or cores < 2 or not fits_twice(lab):
        return None
    return BatchProcess(
        PackageRequest.of(lab, name), max(1, min(torch.get_num_threads(), cores // 2))
    )


def serve(connection: Connection, model: PackageRequest, threads: int) -> None:
    """Transcribe what comes in, in a process of its own, until the other side ends.

    Args:
        connection: to the other side.
        model: what to load.
        threads: of torch.
    """
    # Ctrl-C reaches every process of a terminal; the other side decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    lab = load(model.model, device=model.device, dtype=model.dtype, quantize=model.quantize)
    connection.send(())
    while True:
        try:
            message = connection.recv()
        except EOFError:
            return
        if isinstance(message, Batch):  # else what was cancelled is over by now
            connection.send(transcribed(lab, message, cancelled=connection.poll))


def transcribed(
    lab: Lab, batch: Batch, *, cancelled: Callable[[], bool]
) -> tuple[Transcript, ...] | None:
    """Transcribe a batch; None where it fails."""
    sources = [torch.from_numpy(waveform) for waveform in batch.waveforms]
    done = dict[int, Transcript]()
    try:
        for event in lab.stream_batch(sources, cancelled=cancelled, **batch.options):
            if isinstance(event, Finished):
                done[event.index] = event.transcript
    except Exception as error:
        logger.info("a batch of %d failed (%s)", len(sources), error)
        return None
    return tuple(done[index] for index in range(len(sources)))


def is_waveform(source: object) -> bool:
    """Return whether a source is one that can be sent."""
    return isinstance(source, Tensor)


@contextmanager
def leaving_cores(taken: int) -> Iterator[None]:
    """Use no more threads here than ``taken`` ones elsewhere leave cores for; 0 changes nothing."""
    threads = torch.get_num_threads()
    if taken:
        torch.set_num_threads(max(1, min(threads, len(usable_cores()) - taken)))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
