"""Recorded steps: caches are leased to one request at a time, replays give the eager tokens.

On the CPU a replay calls again; the test that records on a GPU carries the marker ``gpu``.
Run alone: ``python -m pytest tests/test_cuda_graphs.py``.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import core
from core.engine.cuda_graphs import (
    MOST_CACHES,
    Recorder,
    Replay,
    power_of_two_bucket,
    recorded_engine,
)
from core.engine.graphs import Arguments, Graph, graph_engine
from core.engine.stages import Engine, eager_engine
from core.generation.greedy import PromptBatch, generate
from core.generation.sampling import GenerationOptions
from core.model.granite_speech import GraniteSpeech
from core.phases import PhaseClock
from tiny_models import random_model

CPU = torch.device("cpu")


def by_calling_again(call: Callable[[], tuple[Tensor, ...]]) -> Replay:
    """What a recording does, without a GPU: the same work on the same addresses."""
    kept = call()

    def replay() -> None:
        for own, new in zip(kept, call(), strict=True):
            own.copy_(new)

    return replay


@pytest.fixture(scope="module")
def model() -> GraniteSpeech:
    return random_model()


def recording_engine(model: GraniteSpeech, recorder: Recorder) -> Engine:
    return recorded_engine(graph_engine("compile", model, recorder), recorder)


def run_plainly(graph: Graph, arguments: Arguments) -> tuple[Tensor, ...]:
    return graph.run(*arguments)


def tokens(engine: Engine, model: GraniteSpeech, prompts: list[list[int]], limit: int = 20):
    inputs = PromptBatch(prompts, torch.zeros(len(prompts), 1, 32), None)
    options = GenerationOptions(max_new_tokens=limit, ignore_eos=True)
    *_, rows = generate(engine, model.config.decoder, inputs, options, clock=PhaseClock())
    return [row.ids for row in rows]


def cache_of(recorder: Recorder, model: GraniteSpeech, batch: int = 1, num_slots: int = 64):
    return recorder.new_cache(
        model.config.decoder, batch=batch, num_slots=num_slots, dtype=torch.float32, device=CPU
    )


def test_replayed_steps_give_the_eager_tokens_request_after_request(model: GraniteSpeech):
    recorded = []

    def record(call: Callable[[], tuple[Tensor, ...]]) -> Replay:
        recorded.append(call)
        return by_calling_again(call)

    engine = recording_engine(model, Recorder(run_plainly, record))
    for prompts in ([[1, 2, 3]], [[9] * 40], [[1, 2], [3, 4, 5]], [[7]], [[4], [5] * 9]):
        assert tokens(engine, model, prompts) == tokens(eager_engine(model), model, prompts)
    assert len(recorded) == 2  # one step of one row, one of two


def test_two_requests_at_once_never_share_a_cache(model: GraniteSpeech):
    recorder = Recorder(run_plainly, by_calling_again)
    first, second = cache_of(recorder, model), cache_of(recorder, model)
    assert first.keys[0].data_ptr() != second.keys[0].data_ptr()


def test_a_cache_let_go_is_leased_again(model: GraniteSpeech):
    recorder = Recorder(run_plainly, by_calling_again)
    first = cache_of(recorder, model)
    address = first.keys[0].data_ptr()
    del first
    assert cache_of(recorder, model).keys[0].data_ptr() == address


def test_a_cache_leased_again_is_empty(model: GraniteSpeech):
    recorder = Recorder(run_plainly, by_calling_again)
    first = cache_of(recorder, model)
    first.keys[0].fill_(float("nan"))
    del first
    assert cache_of(recorder, model).keys[0].eq(0).all()


def test_a_request_that_finds_no_cache_free_runs_unrecorded(model: GraniteSpeech):
    recorded = []
    recorder = Recorder(run_plainly, lambda call: recorded.append(call) or by_calling_again(call))
    held = [cache_of(recorder, model, num_slots=256) for _ in range(MOST_CACHES)]
    engine = recording_engine(model, recorder)
    assert tokens(engine, model, [[1, 2]]) == tokens(eager_engine(model), model, [[1, 2]])
    assert not recorded
    del held
    tokens(engine, model, [[1, 2]])
    assert recorded


def test_caches_of_sizes_no_longer_used_make_room(model: GraniteSpeech):
    recorder = Recorder(run_plainly, by_calling_again)
    for num_slots in range(64, 64 + 2 * MOST_CACHES):
        cache_of(recorder, model, num_slots=num_slots)
    kept = cache_of(recorder, model, num_slots=500)
    del kept
    assert len(recorder._fixed) == MOST_CACHES


def test_a_batch_that_shrinks_goes_on_unrecorded(model: GraniteSpeech):
    seen: list[int] = []

    def run(graph: Graph, arguments: Arguments) -> tuple[Tensor, ...]:
        first = arguments[0]
        assert first is not None
        seen.append(first.shape[0])
        return graph.run(*arguments)

    recorder = Recorder(run, by_calling_again)
    engine = recording_engine(model, recorder)
    cache = cache_of(recorder, model, batch=2, num_slots=256)
    with torch.inference_mode():
        ids, audio = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.zeros(2, 1, 32)
        engine.prefill(ids, audio, torch.tensor([[2], [2]]), cache, None)
        both = engine.decode(torch.tensor([[7], [8]]), torch.tensor([[3], [3]]), cache, None)
        left = cache.keep_rows(torch.tensor([1]))
        alone = engine.decode(torch.tensor([[8]]), torch.tensor([[3]]), left, None)
    torch.testing.assert_close(alone[0], both[1], rtol=1e-4, atol=1e-4)
    assert seen[-1] == 1


def test_results_of_a_step_outlive_the_next(model: GraniteSpeech):
    recorder = Recorder(run_plainly, by_calling_again)
    engine = recording_engine(model, recorder)
    cache = cache_of(recorder, model, num_slots=256)
    with torch.inference_mode():
        first = engine.decode(torch.tensor([[1]]), torch.tensor([[0]]), cache, None)
        kept = first.clone()
        engine.decode(torch.tensor([[2]]), torch.tensor([[1]]), cache, None)
    assert torch.equal(first, kept)


def test_caches_come_in_powers_of_two():
    assert [power_of_two_bucket(n) for n in (1, 256, 257, 1000)] == [256, 256, 512, 1024]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_recorded_steps_give_the_eager_tokens():
    lab = core.load("tiny", device="cuda", dtype="float32")
    clip = torch.randn(32_000) * 0.1
    for decoding in ("greedy", "speculative"):
        options = {"max_new_tokens": 24, "ignore_eos": True, "decoding": decoding}
        eager = lab.transcribe(clip, skip_silence=False, **options)
        for _ in range(2):  # the second replays what the first recorded
            found = lab.transcribe(clip, skip_silence=False, engine="compile", **options)
            assert found.token_ids == eager.token_ids
