"""Several requests: batches, streams taken in turn or left, callers in two threads, cancelling.

Each gets what it would get alone.
Run alone: ``python -m pytest tests/test_transcribe_together.py``.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor

from core.audio.vad import NoSpeech
from core.lab import Lab
from core.text.transcript import Transcript
from core.transcription.options import Finished, PartialText

SHORT = {"max_new_tokens": 12}


def comparable(transcript: Transcript) -> tuple[Any, ...]:
    """What may not depend on the company a clip is in; times and memory may."""
    return transcript.text, transcript.token_ids, transcript.warnings, transcript.audio_s


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lora": False},
        {"decoding": "beam", "num_beams": 3},
        {"decoding": "sample", "seed": 4},
        {"decoding": "speculative"},
        {"task": "translate", "target_language": "de"},
        {"no_repeat_ngram_size": 2, "repetition_penalty": 1.2},
    ],
    ids=str,
)
def test_a_batch_gives_each_clip_what_it_gets_alone(
    options: dict[str, Any], lab: Lab, noise: Callable[..., Tensor]
):
    sources = [noise(seconds, seed=n) for n, seconds in enumerate((0.3, 1.1, 0.02, 1.7))]
    sources.insert(2, torch.zeros(8_000))
    together = lab.transcribe_batch(sources, **options, **SHORT)
    assert together[2].warnings == (NoSpeech.NO_SPEECH.value,)
    for source, transcript in zip(sources, together, strict=True):
        assert comparable(transcript) == comparable(lab.transcribe(source, **options, **SHORT))


def test_speculative_decoding_writes_the_greedy_tokens(lab: Lab, noise: Callable[..., Tensor]):
    for seed in range(3):
        greedy = lab.transcribe(noise(1.2, seed), **SHORT)
        drafted = lab.transcribe(noise(1.2, seed), decoding="speculative", **SHORT)
        assert drafted.token_ids == greedy.token_ids
        assert drafted.draft is not None


def test_cancelling_keeps_the_text_so_far(lab: Lab, noise: Callable[..., Tensor]):
    seen = []

    def cancelled() -> bool:
        return len(seen) >= 4

    for event in lab.stream(noise(1.0), cancelled=cancelled, max_new_tokens=100):
        if isinstance(event, PartialText):
            seen.append(event.text)
    assert isinstance(event, Finished)
    assert event.transcript.stopped
    assert 0 < event.transcript.new_tokens < 100
    assert event.transcript.text.startswith(seen[-1].strip())


def test_a_stream_that_is_left_early_leaves_the_lab_usable(lab: Lab, noise: Callable[..., Tensor]):
    stream = lab.stream(noise(1.0), max_new_tokens=100)
    next(stream)
    stream.close()
    assert not torch.is_inference_mode_enabled()
    assert lab.transcribe(noise(1.0), **SHORT).token_ids


def test_callers_in_two_threads_get_what_they_get_alone(lab: Lab, noise: Callable[..., Tensor]):
    requests = [
        (noise(0.8, 1), {"lora": True}),
        (noise(1.4, 2), {"lora": False}),
        (noise(0.5, 3), {"decoding": "beam", "num_beams": 2}),
        (noise(1.0, 4), {"decoding": "sample", "seed": 9}),
    ]
    alone = [comparable(lab.transcribe(clip, **options, **SHORT)) for clip, options in requests]
    barrier = Barrier(2)

    def work(order: list[int]) -> list[tuple[int, tuple[Any, ...]]]:
        barrier.wait()
        return [
            (n, comparable(lab.transcribe(requests[n][0], **requests[n][1], **SHORT)))
            for n in order
        ]

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(work, order) for order in ([0, 1, 2, 3], [1, 0, 3, 2])]
        for future in futures:
            for number, found in future.result():
                assert found == alone[number]


def test_two_streams_taken_in_turn_do_not_mix(lab: Lab, noise: Callable[..., Tensor]):
    clips = [noise(0.8, 1), noise(1.4, 2)]
    alone = [comparable(lab.transcribe(clip, **SHORT)) for clip in clips]
    streams = [lab.stream(clip, **SHORT) for clip in clips]
    last: list[Any] = [None, None]
    for events in zip(*streams, strict=False):
        last = list(events)
    for number, stream in enumerate(streams):
        for last[number] in stream:
            pass
    assert [comparable(event.transcript) for event in last] == alone
