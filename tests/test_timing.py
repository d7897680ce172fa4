"""Timing: warm-up, order, sums, and that phases account for the whole in eager and compiled runs.

Run alone: ``python -m pytest tests/test_timing.py``.
"""

import gc
import weakref
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import core
import tiny_models
from core.lab import Lab
from core.memory import begin_peak, peak_memory_bytes
from core.phases import DECODE, DETOKENIZE, PREFILL, VERIFY
from measuring import RECORDING, workload
from profiling.measure.metrics import (
    DEFINITIONS,
    acceptance,
    inter_token_ms,
    real_time_factor,
    spread,
)
from profiling.measure.quiet_process import settled, undisturbed
from profiling.measure.timed_pass import MOST_BLOCKS, TimingSettings, blocks_asked
from profiling.measure.timing import (
    END_TO_END,
    MOST_WARM_UPS,
    OTHER,
    Arm,
    Cancelled,
    interleave,
    phase_table,
    samples_by_phase,
    time_once,
    token_table,
    warm_up,
)


@dataclass
class Fake:
    end_to_end_ms: float


def test_warming_up_ends_when_three_runs_agree():
    times = iter([90.0, 20.0, 10.0, 10.4, 10.2, 10.1])
    done = warm_up(lambda: Fake(next(times)))
    assert [run.end_to_end_ms for run in done] == [90.0, 20.0, 10.0, 10.4, 10.2]


def test_warming_up_ends_after_ten_runs_that_never_agree():
    times = (2.0**n for n in range(100))
    assert len(warm_up(lambda: Fake(next(times)))) == MOST_WARM_UPS


def test_where_runs_are_slow_fewer_blocks_are_asked_for_but_enough_for_an_interval():
    how = TimingSettings(blocks=10, at_most_s=20.0, fewest=6)
    found = [blocks_asked(how, [run_ms] * 3) for run_ms in (50.0, 400.0, 5000.0)]
    assert found == [10, 8, 6]
    assert blocks_asked(TimingSettings(blocks=10), [5000.0] * 3) == 10
    assert blocks_asked(TimingSettings(), [1.0]) == MOST_BLOCKS


def test_arms_run_forwards_and_backwards_and_take_turns_to_begin():
    order: list[str] = []

    def arm(name: str) -> Arm[Fake]:
        def run() -> Fake:
            order.append(name)
            return Fake(float(len(order)))

        return Arm(name, run)

    found = interleave([arm("a"), arm("b"), arm("c")], 3)
    assert "".join(order) == "abccba" + "bcaacb" + "cabbac"
    assert {name: len(blocks) for name, blocks in found.items()} == {"a": 3, "b": 3, "c": 3}
    # A machine that slows down steadily slows every arm of a block alike.
    assert len({sum(run.end_to_end_ms for run in found[name][0]) for name in found}) == 1


def test_between_blocks_others_may_run_and_then_every_arm_runs_once_uncounted():
    order: list[str] = []

    def arm(name: str) -> Arm[Fake]:
        def run() -> Fake:
            order.append(name)
            return Fake(float(len(order)))

        return Arm(name, run)

    gaps = iter([True, False])

    def between() -> bool:
        order.append("-")
        return next(gaps)

    found = interleave([arm("a"), arm("b")], 3, between=between)
    assert "".join(order) == "abba" + "-" + "ba" + "baab" + "-" + "abba"
    assert [run.end_to_end_ms for pair in found["b"] for run in pair] == [2, 3, 8, 11, 14, 15]


def test_interleaving_reports_progress_and_can_be_stopped():
    seen: list[tuple[int, int]] = []
    arms = [Arm("a", lambda: Fake(1.0))]
    interleave(arms, 2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with pytest.raises(Cancelled):
        interleave(arms, 2, cancelled=lambda: True)


def test_arms_need_names_of_their_own():
    arm = Arm("a", lambda: Fake(1.0))
    for arms, blocks in (([], 1), ([arm, arm], 1), ([arm], 0)):
        with pytest.raises(ValueError, match="blocks came"):
            interleave(arms, blocks)


def test_nothing_collects_garbage_inside_and_all_is_put_back():
    threads = torch.get_num_threads()
    with undisturbed(2):
        assert not gc.isenabled()
        assert torch.get_num_threads() == 2
    assert gc.isenabled()
    assert torch.get_num_threads() == threads


def test_collections_between_runs_pass_over_what_was_there_before():
    class Loop:
        """Garbage that only a collection finds."""

        def __init__(self) -> None:
            self.me = self

    left: list[weakref.ref[Loop]] = []
    frozen: list[int] = []

    def run() -> Fake:
        with undisturbed(1):
            frozen.append(gc.get_freeze_count())
            assert all(garbage() is None for garbage in left)  # made by the run before this one
            left.append(weakref.ref(Loop()))
            return Fake(1.0)

    assert gc.get_freeze_count() == 0
    interleave([Arm("a", run)], 2)
    assert min(frozen) > 10_000
    with pytest.raises(Cancelled):
        interleave([Arm("a", run)], 2, cancelled=lambda: True)
    assert gc.get_freeze_count() == 0


def test_the_peak_of_a_timed_run_is_its_own(lab: Lab):
    device = torch.device("cpu")
    torch.ones(2**28, dtype=torch.uint8)  # freed at once
    before = peak_memory_bytes(device)
    if not begin_peak(device):
        pytest.skip("the system keeps the peak since the start of the process")
    torch.ones(2**28, dtype=torch.uint8)
    run = time_once(lab, workload(lab), RECORDING)
    assert 0 < run.transcript.peak_memory_bytes < before - 2**26


def test_what_is_frozen_stays_so_until_the_outermost_block_ends() -> None:
    with settled():
        with settled():
            assert gc.get_freeze_count() > 0
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0


def test_timing_under_a_profiler_is_refused():
    with torch.profiler.profile(), pytest.raises(RuntimeError, match="profiler"), undisturbed(1):
        pass


def test_a_sample_has_every_phase_step_and_gap(lab: Lab):
    run = time_once(lab, workload(lab), RECORDING)
    assert list(run.phases_ms)[:4] == ["decode_audio", "features", "encoder", "projector"]
    assert len(run.step_ms) == len(run.gap_ms) == 23  # 24 tokens, the first from the prefill
    assert all(gap >= step for gap, step in zip(run.gap_ms, run.step_ms, strict=True))
    assert sum(run.step_ms) == pytest.approx(run.phases_ms[DECODE])
    before = ("decode_audio", "features", "encoder", "projector", PREFILL)
    assert run.first_token_ms >= sum(run.phases_ms[name] for name in before)
    assert run.other_ms == pytest.approx(run.end_to_end_ms - sum(run.phases_ms.values()))


def test_drafts_and_beams_have_no_single_decode_steps(lab: Lab):
    drafted = time_once(lab, workload(lab, decoding="speculative"), RECORDING)
    assert (drafted.step_ms, VERIFY in drafted.phases_ms) == ((), True)
    beams = time_once(lab, workload(lab, decoding="beam", max_new_tokens=4), RECORDING)
    assert beams.step_ms == beams.gap_ms == ()
    assert beams.first_token_ms > 0


def test_tables_add_up_to_the_whole(lab: Lab):
    one = workload(lab)
    blocks = interleave([Arm("a", lambda: time_once(lab, one, RECORDING))], 2)["a"]
    rows = phase_table(blocks)
    rest = sum(run.other_ms for pair in blocks for run in pair)
    whole = sum(run.end_to_end_ms for pair in blocks for run in pair)
    assert sum(row.share for row in rows) + rest / whole == pytest.approx(1.0)
    assert all(row.n == 4 for row in rows)
    table = samples_by_phase(blocks)
    assert {len(values) for values in table.values()} == {2}
    assert list(table)[-2:] == [OTHER, END_TO_END]
    tokens = token_table(blocks)
    assert [token["index"] for token in tokens] == list(range(1, 24))


@pytest.fixture(scope="module")
def working_lab(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Lab:
    """Wide enough that arithmetic takes time; the usual test model is all overhead."""
    folder = tmp_path_factory.mktemp("wide")
    raw = tiny_models.raw_config(
        encoder={"hidden_dim": 256, "dim_head": 64},
        projector={"encoder_hidden_size": 256},
        decoder={"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4},
        has_lora_adapter=False,
    )
    tiny_models.write_checkpoint(folder, raw, tiny_models.random_model(raw))
    (folder / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    return core.load(folder, device="cpu", dtype="float32")


def rest_share(lab: Lab, engine: str) -> float:
    one = workload(lab, engine=engine, max_new_tokens=32)
    time_once(lab, one, RECORDING)
    runs = [time_once(lab, one, RECORDING) for _ in range(7)]
    assert all(run.phases_ms[DETOKENIZE] > 0 for run in runs)
    # The middle: another program's turn can fall outside every phase once.
    return sorted(run.other_ms / run.end_to_end_ms for run in runs)[3]


def test_eager_phases_account_for_all_but_3_percent(working_lab: Lab):
    assert 0 <= rest_share(working_lab, "eager") < 0.03


@pytest.mark.slow
def test_compiled_phases_account_for_all_but_3_percent(working_lab: Lab):
    assert 0 <= rest_share(working_lab, "compile") < 0.03


def test_every_metric_is_defined_in_a_sentence():
    for title, _, sentence in DEFINITIONS.values():
        assert title
        assert sentence.endswith(".")
    assert "never" in DEFINITIONS["new_tokens_per_s"][2]


def test_spreads_interpolate():
    seen = spread([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (seen.n, seen.median, seen.p90, seen.iqr, seen.least) == (5, 3.0, 4.6, 2.0, 1.0)
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_metrics_of_nothing_are_none():
    assert real_time_factor(100.0, 0.0) is None
    assert real_time_factor(500.0, 2.0) == 0.25
    assert inter_token_ms([]) is None
    assert inter_token_ms([1.0, 3.0])["median"] == 2.0
    assert acceptance(0, 0) is None
    assert acceptance(10, 4) == 0.4


def test_stopping_keeps_whole_blocks_where_that_was_asked():
    runs = 0

    def run() -> Fake:
        nonlocal runs
        runs += 1
        return Fake(1.0)

    arms = [Arm("a", run), Arm("b", run)]
    found = interleave(arms, 5, cancelled=lambda: runs >= 10, keep=True)
    assert {name: len(blocks) for name, blocks in found.items()} == {"a": 2, "b": 2}
    runs = 0
    with pytest.raises(Cancelled):
        interleave(arms, 5, cancelled=lambda: runs >= 2, keep=True)
