"""Starts the second process of a server's start model, once that is loaded."""

from __future__ import annotations

import logging
from threading import Thread

from app.service.batching.queue import BatchingQueue
from app.service.service import TranscriptionService
from app.service.settings import Settings
from core.batch_process import second_process_for

logger = logging.getLogger(__name__)


def start_second_process(service: TranscriptionService, queue: BatchingQueue) -> None:
    """Have batches of the start model also run in a second process, where it is of use.

    Nothing waits for it: until it is there, and where it cannot be had, all batches run here.

    Args:
        service: of the server.
        queue: its clips.
    """
    queue.awaits_second = True

    def begin() -> None:
        settings, process = Settings(model=service.model), None
        try:
            lab = service.lab(settings)
            process = second_process_for(lab, service.model)
        except (ValueError, OSError) as error:  # the first request for the model says it too
            logger.warning("there is no second process: %s", error)
        if process is None:
            queue.awaits_second = False
            return
        longest_s = min(lab.model_info.reliable_s, lab.max_audio_s)
        arguments = (process, settings, longest_s)
        Thread(target=queue.run_beside, args=arguments, daemon=True).start()

    service.worker.submit(begin)
