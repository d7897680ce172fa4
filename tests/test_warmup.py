"""After a warm-up nothing compiles: lengths, LoRA, decoding, drafts and batches are data.

The graphs are traced and not built, so that the proof takes seconds; the slow one builds them.
Run alone: ``python -m pytest tests/test_warmup.py -m ""``.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from core.engine import compiling
from core.engine.graphs import graphs_of, variant
from core.lab import Lab
from core.loading import load

LENGTHS = [0.12 + 0.13 * number for number in range(30)]  # seconds: 1 to 10 attention blocks
SINGLE = 6  # encoder (one block, more), projector, prefill, step, verify
OPTIONS = {"max_new_tokens": 8, "ignore_eos": True}


@pytest.fixture(autouse=True)
def _no_graphs_of_other_tests() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.set_stance("default")
    torch.compiler.reset()


@pytest.fixture
def fresh(speech_folder: Path) -> Lab:
    """The random checkpoint with an adapter, nothing compiled."""
    return load(speech_folder, device="cpu", dtype="float32")


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> CompileCounter:
    """What ``core.engine.compiling`` compiles is traced only; counts graphs."""
    counter = CompileCounter()
    monkeypatch.setattr(compiling.torch, "compile", partial(torch.compile, backend=counter))
    return counter


def hear_everything(lab: Lab, noise: Callable[..., Tensor], lengths: list[float]) -> None:
    """Every clip, LoRA on and off, greedy and with drafts; compiled ids are the eager ones."""
    drafted = set()
    for number, seconds in enumerate(lengths):
        clip = noise(seconds, seed=number)
        for lora in (True, False):
            eager = lab.transcribe(clip, lora=lora, **OPTIONS)
            for decoding in ("greedy", "speculative"):
                found = lab.transcribe(
                    clip, engine="compile", lora=lora, decoding=decoding, **OPTIONS
                )
                assert found.token_ids == eager.token_ids, (seconds, lora, decoding)
            assert found.draft is not None
            drafted.add(found.draft.drafted)
    assert len(drafted) > 1  # else the lengths of drafts were not varied


def test_thirty_lengths_with_and_without_lora_and_drafts_meet_no_new_graph(
    fresh: Lab, noise: Callable[..., Tensor], counter: CompileCounter
):
    fresh.warm_up()
    assert counter.frame_count == SINGLE
    with torch.compiler.set_stance("fail_on_recompile"):
        hear_everything(fresh, noise, LENGTHS)
    assert counter.frame_count == SINGLE


def test_without_a_warm_up_a_new_graph_is_refused_under_that_stance(
    fresh: Lab, noise: Callable[..., Tensor], counter: CompileCounter
):
    with (
        torch.compiler.set_stance("fail_on_recompile"),
        pytest.raises(RuntimeError, match="recompile"),
    ):
        fresh.transcribe(noise(0.3), engine="compile", **OPTIONS)


@pytest.mark.slow
def test_batches_of_any_size_and_beams_meet_no_new_graph(
    fresh: Lab, noise: Callable[..., Tensor], counter: CompileCounter
):
    fresh.warm_up(batches=True)
    warmed = counter.frame_count
    assert warmed == 2 * SINGLE - 1  # the projector takes windows, whosever they are
    with torch.compiler.set_stance("fail_on_recompile"):
        for size in (2, 3, 5):
            clips = [noise(0.3 * (1 + number), seed=number) for number in range(size)]
            for decoding in ("greedy", "speculative"):
                found = fresh.transcribe_batch(
                    clips, engine="compile", decoding=decoding, **OPTIONS
                )
                eager = fresh.transcribe_batch(clips, **OPTIONS)
                assert [t.token_ids for t in found] == [t.token_ids for t in eager]
        beams = {"decoding": "beam", "num_beams": 3, "max_new_tokens": 6}
        found = fresh.transcribe(noise(0.7), engine="compile", **beams)
        assert found.token_ids == fresh.transcribe(noise(0.7), **beams).token_ids
    assert counter.frame_count == warmed


def test_text_alone_meets_no_new_graph(fresh: Lab, counter: CompileCounter):
    fresh.warm_up()
    with torch.compiler.set_stance("fail_on_recompile"):
        for length in (1, 2, 40):
            rows = fresh.generate_ids([[5] * length], engine="compile")
            assert rows[0].ids == fresh.generate_ids([[5] * length])[0].ids
    assert counter.frame_count == SINGLE


def test_a_variant_names_the_sizes_that_are_one(fresh: Lab):
    graphs = graphs_of(fresh.model)
    short, lengths, switch = torch.zeros(1, 20, 160), torch.zeros(1), torch.zeros(1, 1, 1)
    one, four = torch.zeros(1, 1, 20), torch.zeros(1, 4, 20)
    assert variant(graphs.encode, (short, lengths, one, switch)) == "encode-B1"
    assert variant(graphs.encode, (short[:, :1], lengths, one, switch)) == "encode-B1-T1"
    long = torch.zeros(1, 75, 160)
    assert variant(graphs.encode_blocks, (long, lengths, four, None)) == "encode_blocks-B1"
    many = (long.repeat(3, 1, 1), lengths.repeat(3), four.repeat(3, 1, 1), None)
    assert variant(graphs.encode_blocks, many) == "encode_blocks"


@pytest.mark.slow
def test_built_for_real_thirty_lengths_meet_no_new_graph(fresh: Lab, noise: Callable[..., Tensor]):
    fresh.warm_up()
    with torch.compiler.set_stance("fail_on_recompile"):
        hear_everything(fresh, noise, LENGTHS)
    assert sum(fresh.compile_ledger.graphs.values()) == SINGLE
