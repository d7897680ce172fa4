"""The benchmark: its arithmetic on hand-written numbers, and one quick session on a micro model.

Run alone: ``python -m pytest tests/test_benchmarks.py``; the session is marked slow.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import process, worker
from benchmarks.__main__ import STUDIES, main
from benchmarks.bars import MET, MISSED, NOT_MEASURED, judge
from benchmarks.clips import SHIFT_S, batch_of, clip_of
from benchmarks.numbers import equal_tokens, faster, summary
from benchmarks.quality import difference_interval, references_of
from benchmarks.session import SessionPlan, work_of
from benchmarks.shapes import SHAPES, folder_of
from benchmarks.studies.drafts import DraftedClip, drafts_text, summary_of
from benchmarks.studies.kernels import products_text, time_products
from benchmarks.studies.models import models_text
from benchmarks.systems import COMPILE, EAGER, INT8, PEER_COMPILE, PEER_EAGER, SYSTEMS, Answer
from benchmarks.table import quality_text, session_text
from core.checkpoint.hub import resolve

ROOT = Path(process.__file__).parent


def answer(
    ms: float, decode_ms: float = 63.0, ids: tuple[int, ...] = (1, 2), **more: Any
) -> Answer:
    return Answer(
        ms, {"prefill": 5.0, "decode": decode_ms}, ids, more.pop("graphs", 0), 10**8, **more
    )


def row_of(ms: float, decode_ms: float = 63.0, ids: tuple[int, ...] = (1, 2)) -> dict[str, Any]:
    return summary([(answer(ms, decode_ms, ids), answer(ms, decode_ms, ids))] * 6, 64)


def session(rows: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A session that saw one shape at 10 s."""
    shape = {
        "name": "small",
        "config": SHAPES["small"].raw,
        "parameters": {"encoder": 10**7, "projector": 10**6, "decoder": 2 * 10**7},
        "num_tokens": 64,
        "together": True,
        "systems": {
            name: {
                "import_s": 2.0,
                "load_s": 0.5,
                "cold_start_s": 3.0 if name == COMPILE else 12.0,
                "later_graphs": 0,
                "peak_bytes": 10**9,
            }
            for name in rows
        },
        "lengths": {"10": rows},
    }
    ceiling = {
        "dtype": "float32",
        "flops_per_s": 1e11,
        "gemv_bytes_per_s": 2e10,
        "cached_gemv_bytes_per_s": None,
    }
    machine = {
        "cpu": "a processor",
        "cores": 2,
        "threads": 2,
        "cpu_capability": "AVX512",
        "torch": "2",
        "others_cpu_share": 0.01,
        "stolen_share": 0.0,
    }
    return {
        "when": "2026-01-01T00:00:00+00:00",
        "machine": machine,
        "ceilings": {"copy_bytes_per_s": 1e10, "dtypes": [ceiling]},
        "shapes": [shape],
        "failures": [],
        **more,
    }


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {bar.what: bar.verdict for bar in judge(found)}


def test_milliseconds_a_token_leave_out_the_first():
    found = row_of(100.0, decode_ms=126.0)
    assert found["ms_per_token"] == pytest.approx(2.0)
    assert found["blocks_ms"] == [100.0] * 6
    uneven = summary([(answer(100.0), answer(180.0))] * 6, 64)
    assert uneven["blocks_ms"] == [100.0] * 6  # interruptions only add: the quicker run counts
    assert found["phases_ms"] == {"prefill": 5.0, "decode": 126.0}
    assert found["same_every_time"]


def test_how_much_faster_is_slow_over_fast():
    found = {PEER_EAGER: row_of(90.0), EAGER: row_of(30.0)}
    times = faster(found, PEER_EAGER, EAGER, paired=True)
    assert times is not None
    assert times["ratio"] == pytest.approx(3.0)
    assert faster(found, PEER_EAGER, COMPILE, paired=True) is None


def test_tokens_are_compared_with_transformers_where_it_ran():
    found = {EAGER: row_of(1.0, ids=(1, 3)), PEER_EAGER: row_of(1.0, ids=(1, 2))}
    equal_tokens(found, [EAGER, PEER_EAGER])
    assert found[EAGER]["first_difference"] == 1
    assert found[PEER_EAGER]["first_difference"] is None
    alone = {EAGER: row_of(1.0)}
    equal_tokens(alone, [EAGER])
    assert alone[EAGER]["compared_with"] == EAGER


def test_bars_are_met_missed_or_not_measured():
    rows = {
        PEER_EAGER: row_of(90.0),
        PEER_COMPILE: row_of(60.0),
        EAGER: row_of(60.0),
        COMPILE: row_of(50.0, ids=(1, 3)),
    }
    equal_tokens(rows, list(rows))
    found = verdicts(session(rows))
    peers = f"small, 10 s: {SYSTEMS[COMPILE].title} against"
    assert found[f"{peers} {SYSTEMS[PEER_EAGER].title}"] == MISSED  # 1.8 of 2
    assert found[f"{peers} {SYSTEMS[PEER_COMPILE].title}"] == MISSED  # 1.2 of 1.25
    assert found[f"small, 10 s: {SYSTEMS[EAGER].title} against {SYSTEMS[PEER_EAGER].title}"] == MET
    assert found["greedy tokens equal to transformers, share of runs"] == MISSED
    assert found["small: cold start of compiling over that of transformers"] == MET
    assert found["1b: int8 against float32, milliseconds a token"] == NOT_MEASURED


def test_bandwidth_is_the_decoders_weights_over_time_and_ceiling():
    raw = {**session({EAGER: row_of(90.0, decode_ms=63 * 10.0), INT8: row_of(1.0, 63 * 2.0)})}
    raw["shapes"][0]["name"] = "1b"
    bars = {bar.what: bar for bar in judge(raw)}
    # About 22.0 M weights and a little cache in 10 ms, of 20 GB/s.
    share = bars["1b: decode bandwidth over the measured one"].value
    assert share == pytest.approx(22.2e6 * 4 / 0.010 / 2e10, rel=0.05)
    assert bars["1b: int8 against float32, milliseconds a token"].value == pytest.approx(5.0)


def test_bandwidth_is_compared_with_what_was_reachable_at_that_time():
    raw = {**session({EAGER: row_of(90.0, decode_ms=63 * 10.0)})}
    raw["shapes"][0]["name"] = "1b"
    before = next(bar.value for bar in judge(raw) if "bandwidth" in bar.what)
    raw["shapes"][0]["lengths"]["10"][EAGER]["reachable_bytes_per_s"] = 1e10  # half as much
    after = next(bar.value for bar in judge(raw) if "bandwidth" in bar.what)
    assert before is not None
    assert after == pytest.approx(2 * before)


def test_extras_have_their_bars():
    extras = {
        "batch": {EAGER: {"times": {"ratio": 3.4}}, COMPILE: {"times": {"ratio": 2.0}}},
        "lengths": {"lengths": 30, "first_graphs": 9, "later_graphs": 1},
        "recordings": {
            "texts_differ": [],
            "passes": {EAGER: 60, "drafts": 15},
            "times": {"drafts": {"ratio": 1.2}},
        },
        "package": {"build_s": 100.0, "load_s": 0.2, "ready_s": 1.2, "graphs": 0},
        "long": [{"minutes": 10, "peak_bytes": 100}, {"minutes": 60, "peak_bytes": 120}],
    }
    quality = {"int8": {"cosine": 0.9995}}
    found = verdicts(session({EAGER: row_of(1.0)}, extras=extras, quality=quality))
    assert found["small: batch of 16 against one by one"] == MET
    assert found["exact drafts: recordings whose tokens differ"] == MET
    assert found["exact drafts: times fewer decoder passes"] == MET
    assert found["exact drafts: times faster end to end"] == MET
    assert found["peak memory of the longest file over that of the shortest"] == MISSED
    assert found["int8: cosine of the logits"] == MET
    assert MISSED in {v for what, v in found.items() if "from its package" in what}
    assert MISSED in {v for what, v in found.items() if what.startswith("graphs compiled")}


def test_the_page_says_everything_with_units():
    rows = {PEER_EAGER: row_of(90.0), EAGER: row_of(30.0, ids=(4,))}
    equal_tokens(rows, list(rows))
    found = session(rows, failures=["ours, compiled: no compiler"])
    text = session_text(found, judge(found))
    assert "ours, eager" in text
    assert "3.00x faster" in text
    assert "TOKENS DIFFER from token 0" in text
    assert "not measured: ours, compiled: no compiler" in text
    assert "float32 weights 20.0 GB/s" in text
    assert "reads 89.4 GB/s (447 %)" in text  # 22 M weights in a millisecond


def test_an_interval_holds_no_difference_exactly_when_there_is_none():
    words = np.array([5] * 20)
    assert difference_interval(np.zeros(20), words) == (0.0, 0.0)
    low, high = difference_interval(np.array([1] * 10 + [0] * 10), words)
    assert 0.02 < low < 0.1 < high < 0.18


def test_quality_says_the_difference_and_its_interval():
    row = {
        "rate": 0.05,
        "exact_rate": 0.04,
        "difference": 0.01,
        "difference_low": -0.01,
        "difference_high": 0.03,
        "num_recordings": 12,
        "num_words": 48,
        "texts_changed": 1,
        "cosine": 0.9991,
    }
    text = quality_text({"int8": row})
    assert "difference +1.00 points (-1.00 to +3.00)" in text
    assert "cosine of logits 0.99910" in text


def test_products_are_timed_by_every_kernel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "compile", lambda function, **how: function)  # takes seconds
    found = time_products((1, 2), seconds=0.0, inputs=64, outputs=96, cache_bytes=0)
    kernels = {one.kernel for one in found}
    assert len(found) == 2 * len(kernels) == 12
    assert all(one.ms > 0 for one in found)
    text = products_text(found)
    assert all(kernel in text for kernel in kernels)
    read = {one.kernel: one.weight_bytes for one in found}
    assert read["float32"] == read["float32, compiled"] == 4 * read["int8"]


def test_recordings_without_transcripts_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no transcripts\.json"):
        references_of(tmp_path)


def test_clips_have_their_length_and_a_batch_has_no_two_alike():
    assert clip_of(2.5).shape == (40_000,)
    first, second = batch_of(1.0, 2)
    shift = round(SHIFT_S * 16_000)
    assert torch.equal(first[shift:], second[:-shift])


def test_a_random_checkpoint_is_made_once_and_is_read_by_the_loader(tmp_path: Path):
    folder = folder_of(SHAPES["micro"], tmp_path)
    made = (folder / "model.safetensors.index.json").stat().st_mtime_ns
    assert folder_of(SHAPES["micro"], tmp_path) == folder
    assert (folder / "model.safetensors.index.json").stat().st_mtime_ns == made
    assert resolve(str(folder)).num_bytes > 0
    runner = worker_runner(folder)
    found = runner.once(seconds=2.0, num_tokens=6)
    assert len(found.token_ids) == 6
    assert set(found.phases_ms) >= {"encoder", "projector", "prefill", "decode"}
    batch = runner.batch(seconds=1.0, rows=3, num_tokens=4)
    assert batch.token_ids == runner.one_by_one(seconds=1.0, rows=3, num_tokens=4).token_ids
    assert len(batch.token_ids) == 12


def worker_runner(folder: Path) -> Any:
    from benchmarks.ours import Ours  # noqa: PLC0415 - loads torch._dynamo: here, not everywhere

    return Ours(folder, SYSTEMS[EAGER], 1)


def test_a_worker_answers_errors_with_one_line():
    class Broken:
        def once(self, seconds: float) -> Answer:
            raise RuntimeError("no compiler\nand much more")

    found = worker.answer(Broken(), {"do": "once", "seconds": 3})
    assert found == {"error": "RuntimeError: no compiler"}


def test_lengths_beyond_what_a_shape_takes_are_left_out(tmp_path: Path):
    plan = SessionPlan((SHAPES["tiny"],), (3.0, 30.0), (EAGER,), 1, tmp_path)
    assert work_of(plan, SHAPES["tiny"]).seconds == (3.0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["speed", "--shapes", "huge"], "--shapes is 'huge'; expected some of micro"),
        (["speed", "--systems", "ours"], "--systems is 'ours'"),
        (["speed", "--seconds", "x"], "--seconds is 'x'"),
        (["speed", "--repeats", "1"], "--repeats is 1"),
        (["quality", "--systems", "int4"], "--systems is 'int4'"),
        (["drafts", "--repeats", "0"], "--repeats is 0"),
        (["models", "--models", "tiny"], "expected two models"),
        (["resampled", "--blocks", "x"], "--blocks is 'x'"),
        (["quality", "--recordings", "nowhere"], "nowhere has no transcripts.json"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    if arguments[0] == "speed":
        arguments = [*arguments, "--out", str(tmp_path)]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_mistake_of_ours_is_logged_in_full_and_told_in_general_words(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    def broken(folder: Path) -> None:
        raise ValueError("shapes do not match")

    monkeypatch.setattr("benchmarks.__main__.references_of", broken)
    assert main(["quality", "--recordings", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: an unexpected problem; its details are above\n"
    assert "shapes do not match" in caplog.text
    assert "Traceback" in caplog.text


def test_every_study_can_be_started_by_its_name(capsys: pytest.CaptureFixture[str]):
    files = {file.stem for file in (ROOT / "studies").glob("[a-z]*.py")}
    assert {name.replace("-", "_") for name in STUDIES} == files
    with pytest.raises(SystemExit, match="0"):
        main(["kernels", "--help"])
    assert "usage: python -m benchmarks kernels" in capsys.readouterr().out


def test_without_transformers_the_rest_can_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("benchmarks.__main__.find_spec", lambda name: None)
    assert main(["speed", "--out", str(tmp_path)]) == 2
    assert "--systems eager,compile,int8,int8-compile" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.oracle
def test_a_quick_session_measures_judges_and_keeps_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    status = main(
        ["speed", "--shapes", "micro", "--seconds", "3", "--systems", "transformers,eager,int8"]
        + ["--quick", "--threads", "1", "--out", str(tmp_path)]
    )
    out = capsys.readouterr().out
    assert status in (0, 1)
    assert "micro: " in out
    (file,) = tmp_path.glob("session-*.json")
    found = json.loads(file.read_text())
    assert found["failures"] == []
    (shape,) = found["shapes"]
    rows = shape["lengths"]["3"]
    assert set(rows) == {"transformers", "eager", "int8"}
    assert rows["eager"]["first_difference"] is None
    assert len(set(rows["eager"]["token_ids"])) > 1  # the model does not merely repeat itself
    assert rows["transformers"]["phases_ms"]["prefill"] > 0
    assert all(row["ms_per_token"] > 0 for row in rows.values())
    assert all(one["peak_bytes"] > 0 for one in shape["systems"].values())
    assert found["extras"]["batch"]["eager"]["first_difference"] is None
    assert len(found["bars"]) == len(judge(found))


def test_a_command_that_fails_says_why_in_its_last_line():
    failing = "import sys; print('first', file=sys.stderr); sys.exit('error: no model')"
    with pytest.raises(process.WorkerFailed, match=r"ended with 1 \(error: no model\)$"):
        process.run_command([sys.executable, "-c", failing], threads=1)


def test_a_worker_compiles_for_itself_unless_it_is_given_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GRANITE_SPEECH_PACKAGES", "/somewhere")
    alone = process._environment(1, tmp_path)
    given = process._environment(1, tmp_path, tmp_path / "packages")
    assert alone["GRANITE_SPEECH_PACKAGES"] == "off"
    assert given["GRANITE_SPEECH_PACKAGES"] == str(tmp_path / "packages")


@pytest.mark.slow
def test_a_worker_that_dies_says_why(tmp_path: Path):
    with pytest.raises(process.WorkerFailed, match="its process ended"):
        process.WorkerProcess(EAGER, tmp_path / "nothing", 1)


def test_two_models_are_timed_on_the_same_recordings(
    speech_folder: Path, capsys: pytest.CaptureFixture[str]
):
    twice = f"{speech_folder},{speech_folder}"
    assert main(["models", "--models", twice, "--limit", "2", "--repeats", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["recordings"], found["faster"]["n"]) == (2, 2)
    assert 0.1 < found["faster"]["ratio"] < 10.0
    found = {"models": ["a", "b"], "recordings": 3, "mean_ms": [50.0, 20.0]}
    found["faster"] = {"ratio": 2.5, "low": 2.0, "high": 3.0}
    assert models_text(found) == (
        "3 recordings, end to end: a 50.0 ms, b 20.0 ms; b is 2.50 times as fast (2.00 to 3.00)"
    )


def test_drafts_are_summed_by_the_length_of_what_was_said():
    def heard(tokens: int, passes: int, same: bool = True) -> DraftedClip:
        return DraftedClip("a.wav", tokens, same, passes, plain_ms=20.0, draft_ms=10.0)

    rows = summary_of([heard(2, 1), heard(3, 2), heard(9, 1), heard(9, 1, same=False)])
    assert [row["tokens"] for row in rows] == ["1 to 3", "7 to 10", "all"]
    assert [row["plain_passes"] for row in rows] == [7, 20, 27]  # each token, and each end
    assert [row["draft_passes"] for row in rows] == [3, 2, 5]
    assert [row["differ"] for row in rows] == [0, 1, 1]
    assert rows[0]["one_pass"] == 0.5
    assert rows[2]["fewer"] == 27 / 5
    assert rows[2]["faster"]["ratio"] == pytest.approx(2.0)
    assert len(drafts_text(rows).splitlines()) == 4
