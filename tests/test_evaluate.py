"""Variants over a data set: what is counted, what is gone on with, what is refused."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import jiwer
import numpy as np
import pytest
import soundfile
import torch

from core.checkpoint.catalog import ASSETS
from core.errors import UserError
from core.text.normalizers import normalize
from core.text.word_errors import ratio_interval, word_errors
from core.transcription.options import Finished
from profiling.__main__ import main
from profiling.evaluate.data import doubts, read_data
from profiling.evaluate.page import evaluation_page
from profiling.evaluate.results import RESULTS, Result, ResultFile
from profiling.evaluate.run import evaluate
from profiling.evaluate.table import Score, frontier, scores, table_text
from profiling.evaluate.variants import Labs, Variant, parse_variants, runnable
from profiling.figures.quality import error_against_speed
from profiling.measure.energy import EnergyMeter
from profiling.measure.timing import Cancelled

EXAMPLES = ASSETS / "examples"
TEXTS = json.loads((EXAMPLES / "transcripts.json").read_text())
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Three one eight.", "318"),
        ("one hundred and five", "105"),
        ("two thousand twenty six", "2026"),
        ("twenty-one thousand three hundred", "21300"),
        ("six three oh seven", "6307"),
        ("Oh, someone ones a weight", "oh someone ones a weight"),
        ("I can't, Mr. Smith [laughs] (uh)", "i can not mister smith"),
        ("1,000 % um café", "1000 percent cafe"),
        ("it's ninety nineteen", "it is 9019"),
    ],
)
def test_the_english_normaliser_writes_numbers_and_contractions_in_one_way(
    text: str, plain: str
) -> None:
    assert normalize(text, "english") == plain
    assert normalize(plain, "english") == plain


def test_a_normaliser_decides_what_is_an_error() -> None:
    assert word_errors("Yes, three.", "yes three", "none") == (2, 2)
    assert word_errors("Yes, three.", "yes three", "basic") == (0, 2)
    assert word_errors("Yes, three.", "yes 3", "english") == (0, 2)
    with pytest.raises(UserError, match="expected one of none, basic, english"):
        normalize("yes", "whisper")


def test_intervals_cover_the_true_rate_about_as_often_as_they_say() -> None:
    rng, covered = np.random.default_rng(1), 0
    for trial in range(200):
        words = rng.integers(3, 20, 60)
        errors = rng.binomial(words, rng.beta(2, 18, 60))  # recordings differ; the mean is 0.1
        low, high = ratio_interval(errors, words, seed=trial)
        covered += low <= 0.1 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_variants_are_every_combination_of_what_is_named() -> None:
    found = parse_variants(["tiny,engine=eager+compile,lora=on+off", "tiny", "tiny"])
    assert [one.name for one in found] == [
        "tiny,lora=on",
        "tiny,lora=off",
        "tiny,engine=compile,lora=on",
        "tiny,engine=compile,lora=off",
        "tiny",
    ]
    assert [v for one in found for v in parse_variants([one.name])] == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no variants"),
        ("engine=compile", "begins with no model"),
        ("tiny,engine=fast", "engine is 'fast'"),
        ("tiny,speed=2", "key=value"),
        ("tiny,lora=yes", "expected on or off"),
        ("tiny,batch=0", "batch is 0"),
        ("tiny,batch=two", "whole number"),
        ("tiny,dtype=half", "dtype is 'half'"),
        ("tiny,decoding=sample", "same text each time"),
    ],
)
def test_a_wrong_variant_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_variants([text])


def _write_wav(file: Path) -> Path:
    file.write_bytes((EXAMPLES / "digit_five.flac").read_bytes())
    return file


def test_texts_and_recordings_that_have_no_partner_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write_wav(tmp_path / f"{name}.flac")
    (tmp_path / "a.txt").write_bytes("fünf".encode("utf-16"))
    (tmp_path / "c.txt").write_text("nobody says this")
    data = read_data(tmp_path)
    assert [(one.name, one.text) for one in data.samples] == [("a.flac", "fünf")]
    assert data.warnings == (
        "1 text without a recording, left out: c.txt",
        "1 recording without a text, left out: b.flac",
    )


def test_what_is_no_data_set_says_what_was_expected(tmp_path: Path) -> None:
    _write_wav(tmp_path / "a.flac")
    with pytest.raises(UserError, match=r"no recording with a text .*expected a \.txt beside"):
        read_data(tmp_path)
    for unmarked in (b"caf\xe9", "five".encode("utf-16-le")):
        (tmp_path / "a.txt").write_bytes(unmarked)
        with pytest.raises(UserError, match=r"a\.txt is not text in UTF-8"):
            read_data(tmp_path)
    with pytest.raises(UserError, match="expected a folder, or a manifest"):
        read_data(tmp_path / "a.flac")
    (tmp_path / "transcripts.json").write_text("[1]")
    with pytest.raises(UserError, match="expected an object"):
        read_data(tmp_path)


def test_a_manifest_of_10000_rows_is_read_and_its_missing_files_are_counted(tmp_path: Path) -> None:
    _write_wav(tmp_path / "a.flac")
    rows = [{"audio_filepath": "a.flac", "text": "five"}] * 2
    rows += [{"audio_filepath": f"{n}.flac", "text": "five"} for n in range(9_998)]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = read_data(manifest)
    assert len(data.samples) == 1
    assert data.warnings[0].startswith("9,998 texts without a recording, left out: 0.flac")
    assert data.warnings[1] == "1 row left out, whose recording came before"


def test_texts_a_normaliser_is_not_meant_for_are_named(tmp_path: Path) -> None:
    for name, text in (("a", "今日は良い天気です"), ("b", "..."), ("c", "five")):
        _write_wav(tmp_path / f"{name}.flac")
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    said = doubts(read_data(tmp_path).samples, "english")
    assert said == [
        "1 text empty once normalised, so that all that is written there is an error: b.flac",
        "1 text not in Latin letters, for which 'english' is not meant: a.flac",
        "1 text without spaces between words, so that CER says more than WER: a.flac",
    ]
    assert doubts(read_data(tmp_path).samples[2:], "english") == []


def _folder(tmp_path: Path, names: list[str]) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes((EXAMPLES / name).read_bytes())
    (folder / "transcripts.json").write_text(json.dumps({n: TEXTS[n] for n in names}))
    return folder


def test_a_stopped_evaluation_goes_on_and_gives_the_table_of_one_that_was_not(
    tmp_path: Path,
) -> None:
    names = ["digit_five.flac", "string_three_six.flac", "digit_nine.flac"]
    samples = read_data(_folder(tmp_path, names)).samples
    variants, labs = parse_variants(["tiny,lora=on+off", "tiny,batch=2"]), Labs("cpu").open

    whole = ResultFile(tmp_path / "whole")
    steps = list(evaluate(samples, variants, whole, labs))
    assert steps[-1].done == 3
    assert not any(step.problem for step in steps)

    parts = tmp_path / "parts"

    def two_are_there() -> bool:
        return len(ResultFile(parts).rows) == 2

    with pytest.raises(Cancelled):
        list(evaluate(samples, variants, ResultFile(parts), labs, cancelled=two_are_there))
    done = (parts / RESULTS).read_bytes()
    (parts / RESULTS).write_bytes(done + b'{"variant": "tiny,lora=on", "recor')  # killed in a row
    again = ResultFile(parts)
    assert len(again.rows) == 2
    assert (parts / RESULTS).read_bytes() == done
    list(evaluate(samples, variants, again, labs))
    assert (parts / RESULTS).read_bytes().startswith(done)  # nothing was done twice

    first, second = (scores(samples, variants, r, "basic", {}) for r in (whole, again))
    for one, other in zip(first, second, strict=True):
        assert (one.wer, one.wer_interval, one.cer) == (other.wer, other.wer_interval, other.cer)
        assert (one.done, one.total) == (other.done, other.total) == (3, 3)
    pairs = [(r.text, r.pred_text) for (name, _), r in whole.rows.items() if name == "tiny,lora=on"]
    said, heard = ([normalize(pair[side] or "") for pair in pairs] for side in (0, 1))
    assert first[0].wer == pytest.approx(jiwer.wer(said, heard))
    assert first[0].rtfx is not None
    assert first[0].peak_bytes != 0


def test_variants_that_cannot_run_are_told_before_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _folder(tmp_path, ["digit_five.flac"])
    status = main(
        ["evaluate", "--data", str(folder), "--out", str(tmp_path / "out"), "--json"]
        + ["--html", str(tmp_path / "page.html"), "--device", "cpu"]
        + ["--variants", "nowhere", "tiny,adapter=/nowhere", "tiny"]
    )
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert status == 1
    assert lines[0].startswith("nowhere cannot run here:")
    assert lines[1].startswith("tiny,adapter=/nowhere cannot run here:")
    assert [row["done"] for row in json.loads(out)["variants"]] == [0, 0, 1]
    assert "Evaluation on data" in (tmp_path / "page.html").read_text()


class BrokenLab:
    """Fails on every recording but those of a good name."""

    device, dtype = CPU, torch.float32

    def stream_batch(self, sources: list[Path], **options: object) -> Iterator[Finished]:
        for index, source in enumerate(sources):
            if "bad" in source.name:
                raise RuntimeError("shapes differ")
            found = SimpleNamespace(text="five", audio_s=1.0, time_to_first_token_ms=None)
            yield Finished(index, found)  # type: ignore[arg-type]


def test_a_recording_that_fails_is_a_row_and_its_batch_is_not_lost(tmp_path: Path) -> None:
    for name in ("bad", "good", "other"):
        _write_wav(tmp_path / f"{name}.flac")
        (tmp_path / f"{name}.txt").write_text("five")
    samples, variant = read_data(tmp_path).samples, Variant(batch=3)
    results = ResultFile(tmp_path / "out")
    list(evaluate(samples, [variant], results, lambda variant: BrokenLab()))  # type: ignore[return-value]
    [row] = scores(samples, [variant], results, "basic", {})
    assert (row.done, row.failed, row.total, row.wer) == (2, 1, 3, 0.0)
    errors = [one.error for one in results.rows.values() if one.error]
    assert errors == ["RuntimeError: shapes differ"]


def test_a_file_that_holds_no_results_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text('{"id": 3}\n')
    with pytest.raises(UserError, match="row 1 is no result"):
        ResultFile(tmp_path)


def _score(name: str, wer: float, rtfx: float, peak: int | None = None) -> Score:
    return Score(
        variant=name,
        done=9,
        failed=0,
        total=9,
        wer=wer,
        wer_interval=(wer - 0.01, wer + 0.02),
        rtfx=rtfx,
        peak_bytes=peak,
    )


def test_the_picture_shows_intervals_frontier_and_memory() -> None:
    rows = [_score("a", 0.05, 2, 10**9), _score("b", 0.10, 8, 4 * 10**9), _score("c", 0.2, 3)]
    best = [row.variant for row in frontier(rows)]
    assert best == ["a", "b"]
    line, points = error_against_speed([row.to_json() for row in rows], best).data
    assert list(line.x) == [2, 8]
    assert list(points.y) == pytest.approx([5, 10, 20])
    assert list(points.error_y.array) == pytest.approx([2, 2, 2])
    assert list(points.error_y.arrayminus) == pytest.approx([1, 1, 1])
    one, four, unknown = points.marker.size
    assert four == 2 * one
    assert unknown < one
    assert "No variant" in error_against_speed([]).layout.annotations[0].text


def test_names_and_problems_are_escaped_on_the_page() -> None:
    rows = [Score(variant="<b>", done=0, failed=0, total=1, problem="</script>")]
    page = evaluation_page(rows, data="d", normalizer="basic", warnings=["<i>"])
    assert "<b>" not in page.split("plotly")[0]
    assert "&lt;i&gt;" in page
    assert table_text(rows).endswith("<b>: </script>")


def test_energy_is_what_the_counters_say_or_nothing(tmp_path: Path) -> None:
    assert EnergyMeter(CPU, tmp_path).method is None
    assert EnergyMeter(CPU, tmp_path).joules({}, {}) is None
    for name in ("intel-rapl:0", "intel-rapl:0:1"):  # the second is a part of the first
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text("4000000")
        (tmp_path / name / "max_energy_range_uj").write_text("5000000")
    meter = EnergyMeter(CPU, tmp_path)
    assert meter.method == "RAPL, 1 processor package(s), all processes"
    before = meter.read()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("1000000")  # the counter began anew
    assert meter.joules(before, meter.read()) == pytest.approx(2.0)


def test_what_is_known_only_of_some_recordings_is_no_figure(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write_wav(tmp_path / f"{name}.flac")
        (tmp_path / f"{name}.txt").write_text("five")
    samples, results = read_data(tmp_path).samples, ResultFile(tmp_path / "out")
    for sample, peak in zip(samples, (5, None), strict=True):
        results.add(
            [
                Result(
                    variant="tiny",
                    recording=sample.name,
                    key=sample.key,
                    text="five",
                    pred_text="five",
                    audio_s=1.0,
                    time_s=0.5,
                    peak_bytes=peak,
                    joules=peak,
                )
            ]
        )
    [row] = scores(samples, [Variant()], results, "basic", {})
    assert (row.rtfx, row.rtfx_interval, row.peak_bytes, row.joules_per_minute) == (
        2.0,
        None,  # too few recordings
        None,
        None,
    )


def test_models_that_share_weights_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(model: str, **keys: object) -> SimpleNamespace:
        loaded.append((model, keys["quantize"]))
        return SimpleNamespace(check=lambda **options: None)

    monkeypatch.setattr("profiling.evaluate.variants.load", load)
    variants = parse_variants(["a,engine=eager+compile", "a,quantize=int8", "b"])
    assert set(runnable(variants, Labs("cpu").open).values()) == {None}
    assert loaded == [("a", None), ("a", "int8"), ("b", None)]


@pytest.mark.slow
def test_100_recordings_and_4_variants_killed_and_resumed_count_as_jiwer_does(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    files = sorted(EXAMPLES.glob("*.flac"))
    rows = []
    for number in range(100):
        file = files[number % len(files)]
        waveform, rate = soundfile.read(file)
        gain, speed = 0.5 + 0.1 * (number // len(files)), 0.94 + 0.03 * (number // len(files))
        name = f"{number:03}.wav"
        soundfile.write(folder / name, gain * waveform, round(rate * speed))
        rows.append({"audio_filepath": name, "text": TEXTS[file.name]})
    manifest = folder / "all.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "profiling", "evaluate", "--data", str(manifest), "--json"]
    command += ["--device", "cpu", "--variants", "tiny,lora=on+off", "tiny,quantize=int8"]
    command += ["tiny,decoding=speculative,batch=4", "--out"]
    parts = tmp_path / "parts"
    killed = subprocess.Popen([*command, str(parts)], stderr=subprocess.PIPE, text=True)
    assert killed.stderr is not None
    for line in killed.stderr:
        if "tiny,lora=off: 10 of" in line:
            killed.send_signal(signal.SIGKILL)
    killed.wait()
    found = []
    for out in (parts, tmp_path / "whole"):
        done = subprocess.run([*command, str(out)], capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout)["variants"])
    for one, other in zip(*found, strict=True):
        kept = ("variant", "done", "total", "wer", "wer_interval", "cer", "cer_interval")
        assert [one[key] for key in kept] == [other[key] for key in kept]
        assert one["done"] == 100
        texts = [json.loads(row) for row in (parts / RESULTS).read_text().splitlines()]
        mine = [row for row in texts if row["variant"] == one["variant"]]
        assert len(mine) == 100
        said, heard = ([normalize(row[key]) for row in mine] for key in ("text", "pred_text"))
        assert one["wer"] == pytest.approx(jiwer.wer(said, heard))
        low, high = one["wer_interval"]
        assert low <= one["wer"] <= high
