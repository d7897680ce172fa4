"""``python -m profiling``: every command on a random checkpoint, as a person would type it.

Run alone: ``python -m pytest tests/test_profiling_cli.py``.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from measuring import RECORDING
from profiling.__main__ import main
from profiling.measure.capture import MAX_TRACE_BYTES
from profiling.measure.length_table import tiled
from profiling.measure.timed_pass import FEWEST_BLOCKS, TimingSettings
from profiling.measure.timing import Cancelled
from profiling.measure.workload import ClipInfo, Workload
from profiling.runs import session
from profiling.runs.store import RunStore
from profiling.statistics.baseline import PUBLISHED
from profiling.statistics.compare import compare
from tiny_models import noise

QUICK = ("--max-new-tokens", "8", "--force-tokens", "--threads", "1")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("clip") / "noise.wav"
    file.write_bytes(RECORDING)
    (file.parent / "transcripts.json").write_text('{"noise.wav": "nothing at all"}')
    return file


@pytest.fixture(scope="module")
def runs(clip: Path, speech_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two interleaved runs, LoRA on and off."""
    out = tmp_path_factory.mktemp("runs")
    model = ("--clip", str(clip), "--model", str(speech_folder))
    status = main(["run", *model, *QUICK, "--lora", "on,off", "--repeats", "6", "--out", str(out)])
    assert status == 0
    return out


def by_lora(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    stored = [RunStore(root).read(name) for name in RunStore(root).names()]
    on, off = sorted(stored, key=lambda run: not run["workload"]["lora"])
    return on, off


def test_a_run_holds_everything_the_contract_names(runs: Path):
    on, off = by_lora(runs)
    assert Workload.from_json(on["workload"]).lora is True
    assert (on["baseline"], off["baseline"]) == (True, False)
    assert on["session"] == off["session"]
    assert [row["name"] for row in on["phases"]][-1] == "decode"
    assert {row["n"] for row in on["phases"]} == {12}
    shares = sum(row["share"] for row in on["phases"])
    assert 0.5 < shares <= 1
    assert len(on["samples"]["encoder"]) == len(on["samples"]["end_to_end"]) == 6
    assert len(on["samples_again"]["end_to_end"]) == 6
    assert off["samples_again"] is None
    assert {row["name"] for row in off["noise"]} >= {"encoder", "decode", "end_to_end"}
    assert [token["index"] for token in on["tokens"]] == list(range(1, 8))
    assert {row["phase"] for row in on["memory"]} >= {"encoder", "decode"}
    assert on["compile"] is None
    assert on["profiler_tax"] > 0
    assert on["trace"]["num_bytes"] < MAX_TRACE_BYTES
    assert len(on["token_ids"]) == on["metrics"]["new_tokens"] == 8
    assert on["metrics"]["launches_per_token"] > 100
    assert on["same_tokens_every_time"]
    assert on["reference_text"] == "nothing at all"
    rows = {row["name"]: row for row in on["roofline"]["rows"]}
    assert set(rows) == {"encoder", "projector", "prefill", "decode"}
    assert 0 < rows["decode"]["share"] < 1
    assert rows["decode"]["calls"] == 7
    paper = {gpu["machine"]: gpu for gpu in on["roofline"]["paper"]}
    assert 0 < paper["H200"]["floor_ms"] < paper["L4"]["floor_ms"]


def test_runs_of_one_session_are_compared_in_pairs(runs: Path):
    result = compare(*by_lora(runs))
    assert result.paired
    assert result.num_blocks == 6
    assert "end_to_end" in result.noise_floor


@pytest.mark.slow
def test_a_compiled_arm_has_a_ledger_the_same_phases_and_the_same_tokens(
    clip: Path, speech_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model = ("--clip", str(clip), "--model", str(speech_folder), "--out", str(tmp_path))
    assert main(["run", *model, *QUICK, "--engine", "eager,compile", "--repeats", "2"]) == 0
    out = capsys.readouterr().out
    assert "Both made the same tokens." in out
    assert "too few blocks (2) to say" in out
    stored = [RunStore(tmp_path).read(name) for name in RunStore(tmp_path).names()]
    compiled, eager = sorted(stored, key=lambda run: run["workload"]["engine"])
    names = [[row["name"] for row in run["phases"]] for run in (eager, compiled)]
    assert names[0] == names[1]
    assert eager["compile"] is None
    ledger = compiled["compile"]
    assert (ledger["graphs"], ledger["breaks"]) == (4, {})
    assert set(ledger["seconds_by_stage"]) == {"encoder", "projector", "prefill", "decode"}
    assert compiled["warnings"] == []  # nothing was compiled while timing
    fewer = (run["metrics"]["launches_per_token"] for run in (compiled, eager))
    assert next(fewer) < next(fewer)


def test_comparing_prints_verdicts_and_says_that_tokens_differ(
    runs: Path, capsys: pytest.CaptureFixture[str]
):
    on, off = by_lora(runs)
    status = main(["compare", on["id"], str(runs / off["id"]), "--out", str(runs)])
    out = capsys.readouterr().out
    assert status == 1  # the adapter changes the text
    assert "The tokens differ from the" in out
    assert "Words wrong: 100.0 % for A, 100.0 % for B." in out
    assert "noise, from running A twice" in out


def test_comparing_gives_the_same_numbers_as_json(runs: Path, capsys: pytest.CaptureFixture[str]):
    on, off = by_lora(runs)
    main(["compare", on["id"], off["id"], "--out", str(runs), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["end_to_end"]["ratio"] == compare(on, off).end_to_end.ratio


def test_a_report_is_one_page(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    on, off = by_lora(runs)
    for names in ([on["id"]], [on["id"], off["id"]]):
        page = tmp_path / f"{len(names)}.html"
        assert main(["report", *names, "--out", str(runs), "--html", str(page)]) == 0
        assert page.read_text().lstrip().lower().startswith("<!doctype html")
        assert str(page) in capsys.readouterr().out


def test_a_trace_is_read_into_tables(runs: Path, capsys: pytest.CaptureFixture[str]):
    trace = RunStore(runs).trace_path(by_lora(runs)[0]["id"])
    assert main(["read", str(trace)]) == 0
    assert "absent" in capsys.readouterr().out
    main(["read", str(trace), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {row["phase"] for row in found["phases"]} >= {"encoder", "prefill", "decode"}
    assert found["phases"][0]["device_ms"] is None


def test_the_machine_and_gpus_on_paper_are_shown(capsys: pytest.CaptureFixture[str]):
    assert main(["machine"]) == 0
    out = capsys.readouterr().out
    assert "CPU threads (measured)" in out
    assert "H200 (data sheet): copy 4800.0 GB/s" in out


def test_the_table_stands_beside_the_published_one(
    clip: Path, speech_folder: Path, capsys: pytest.CaptureFixture[str]
):
    model = ("--clip", str(clip), "--model", str(speech_folder))
    assert main(["table", *model, *QUICK, "--repeats", "1", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert [row["seconds"] for row in found["rows"]] == [3, 10, 30]
    # The checkpoint's context holds no 30 s: they are cut, and all of them are heard.
    assert [row["num_passes"] for row in found["rows"]][:2] == [1, 1]
    assert found["rows"][2]["num_passes"] >= 3
    for row in found["rows"]:
        assert row["decoder_ms"] > row["prefill_ms"] > 0
        assert row["total_ms"] > row["encoder_ms"] + row["decoder_ms"]


def test_the_published_speeds_count_tokens_that_nobody_generated():
    assert [old.counted_tokens for old in PUBLISHED] == [60, 134, 435]
    assert [old.new_tokens for old in PUBLISHED] == [23, 25, 128]
    assert [round(old.true_tokens_per_s, 1) for old in PUBLISHED] == [48.8, 48.6, 48.4]
    assert [round(old.ms_per_token, 2) for old in PUBLISHED] == [20.51, 20.56, 20.65]
    assert [round(old.rtf, 3) for old in PUBLISHED] == [0.163, 0.053, 0.089]
    assert all(0.16 < old.bandwidth_share < 0.17 for old in PUBLISHED)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--clip", "none.wav"], "none.wav: cannot be read"),
        (["run", "--engine", "fast"], "--engine is 'fast'; expected some of eager, compile"),
        (["run", "--repeats", "0"], "--repeats is 0"),
        (["run", "--threads", "0"], "--threads is 0"),
        (["table", "--lora", "maybe"], "--lora is 'maybe'"),
        (["compare", "a", "b", "--out", "nowhere"], "there is no run 'a'"),
        (["report", "a", "--html", "x.html", "--out", "nowhere"], "there is no run 'a'"),
        (["read", "none.json"], "none.json"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_session_that_is_stopped_stores_nothing(clip: Path, lab: Any, tmp_path: Path):
    work = Workload(
        clip=ClipInfo.of(clip),
        model="x",
        revision=None,
        engine="eager",
        lora=True,
        decoding="greedy",
        device="cpu",
        dtype="float32",
        max_new_tokens=4,
        ignore_eos=True,
        threads=1,
        seed=0,
    )
    asked = iter([False] * 12 + [True] * 100)
    with pytest.raises(Cancelled):
        session.measure(lab, [work], RunStore(tmp_path), cancelled=lambda: next(asked))
    assert RunStore(tmp_path).names() == []
    stopped = False

    def after_a_block(share: float, text: str) -> None:
        nonlocal stopped  # how many warm-ups come first depends on how steady the machine is
        stopped = stopped or text.startswith("run 6 of")

    kept = session.measure(
        lab,
        [work],
        RunStore(tmp_path),
        TimingSettings(keep=True),
        progress=after_a_block,
        cancelled=lambda: stopped,
    )
    run = RunStore(tmp_path).read(kept[0])
    assert "blocks; nothing was traced" in run["warnings"][0]
    assert 1 <= len(run["samples"]["end_to_end"]) < FEWEST_BLOCKS
    assert run["trace"] is None
    with pytest.raises(ValueError, match="expected pairs"):
        session.measure([lab, lab], [work], RunStore(tmp_path))
    with pytest.raises(ValueError, match="all different"):
        session.measure(lab, [work, work], RunStore(tmp_path))


def test_a_clip_is_repeated_to_the_length_asked_for():
    clip = noise(0.5)
    longer = tiled(clip, 1.2)
    assert longer.shape[0] == 19_200
    assert (longer[8_000:16_000] == clip).all()
    with pytest.raises(ValueError, match="more than 0"):
        tiled(clip[:0], 1.0)
