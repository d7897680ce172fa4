"""Comparing through the app, without a browser: a random checkpoint, a stub of the ceilings.

Run alone: ``python -m pytest tests/test_app_compare.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app import compare_wording as words
from app import measure_work as module
from app.asked import known_text, settings_of
from app.examples import read_examples
from app.measure_work import SAME_HERE, Doing, How, Measured
from app.measuring import SAME, Measuring
from app.run_shelf import RunShelf
from app.settings import Settings
from app.studio import NotBegun, Studio
from core.lab import Lab
from measuring import RECORDING
from profiling import session
from profiling.agreement import agreement_said
from profiling.ceilings import GPUS
from profiling.run_file import RunError

GREEDY = Settings(model="random", max_new_tokens=4)
DRAFTS = Settings(model="random", max_new_tokens=4, decoding="speculative")
PLAIN = Settings(model="random", max_new_tokens=4, lora=False)
QUICK = How(blocks=1, fixed_length=True)

WORK = {
    "model": "tiny",
    "engine": "eager",
    "lora": True,
    "decoding": "greedy",
    "dtype": "float32",
    "device": "cpu",
}
RUN_A: dict[str, Any] = {"id": "a", "workload": WORK, "transcript_text": "three one <eight>"}
RUN_B: dict[str, Any] = {
    "id": "b",
    "workload": {**WORK, "engine": "compile"},
    "transcript_text": "three two <eight>",
    "warnings": ["the fan was loud"],
}


def comparison(**whole: Any) -> dict[str, Any]:
    row = {"a_ms": 20.0, "b_ms": 10.0, "ratio": 0.5, "low": 0.4, "high": 0.6, "shown": True}
    return {
        "end_to_end": {**row, "verdict": "2.0x faster, 1.7 to 2.5", **whole},
        "phases": [{"name": "decode", **row, "verdict": "2.0x faster, 1.7 to 2.5"}],
        "tokens_identical": True,
        "first_difference": None,
        "wer_a": None,
        "wer_b": None,
        "compile_seconds": 12.0,
        "break_even": "compiling took 12.0 s: pays off after 1200 clips like this one",
        "warnings": ["other work used 40% of the processor while A was measured"],
    }


def measured(**whole: Any) -> Measured:
    return Measured((), (RUN_A, RUN_B), comparison(**whole), stopped=False)


class TestWords:
    def test_runs_are_named_by_what_sets_them_apart(self) -> None:
        assert words.names(RUN_A, RUN_B) == ("eager", "compiled")
        assert words.names(RUN_A, RUN_A) == ("A", "B")
        int8 = {"workload": {**WORK, "quantize": "int8", "lora": False}}
        assert words.names(RUN_A, int8) == ("LoRA on, full weights", "LoRA off, int8")

    def test_a_difference_is_said_with_its_bounds_and_times(self) -> None:
        said = words.verdict(measured())
        assert said.startswith("Compiled is 2.0x faster, 1.7 to 2.5, than eager: ")
        assert "20.0 ms against 10.0 ms" in said

    def test_no_difference_and_too_few_blocks_claim_nothing(self) -> None:
        none = words.verdict(measured(shown=False, verdict="no difference shown"))
        assert none.startswith("No difference shown between eager and compiled")
        few = words.verdict(measured(shown=False, verdict="too few blocks (2) to say; ..."))
        assert few.startswith("Too few blocks (2) to say")
        assert "faster" not in none + few

    def test_the_answer_tells_tokens_break_even_and_every_warning(self) -> None:
        html = words.answer_html(measured())
        for part in ("same tokens", "pays off after 1200", "fan was loud", "40% of the proc"):
            assert part in html

    def test_differing_words_are_marked_and_nothing_else(self) -> None:
        assert words.marked("a b c", "a x c d") == (
            "a <mark>b</mark> c",
            "a <mark>x</mark> c <mark>d</mark>",
        )
        assert words.marked("", "a")[0] == "<em>no text</em>"
        html = words.texts_html(measured())
        assert "three <mark>one</mark> &lt;eight&gt;" in html
        assert "<eight>" not in html

    @pytest.mark.parametrize(
        ("index", "said"), [(0, "1st"), (1, "2nd"), (2, "3rd"), (10, "11th"), (22, "23rd")]
    )
    def test_the_first_token_that_differs_is_counted_from_one(self, index: int, said: str) -> None:
        found = {**comparison(), "tokens_identical": False, "first_difference": index}
        assert f"from the {said} on" in agreement_said(found)

    def test_progress_says_what_how_far_and_how_long(self) -> None:
        html = words.progress_html(Doing(0.5, "run 3 of 6 <b>", 12.0))
        assert "Run 3 of 6 &lt;b&gt;, about 12.0 s left" in html
        assert "value='50'" in html
        assert "minutes" in words.progress_html(Doing(0.1, "compiling and warming up", None))


class TestAsked:
    def test_settings_come_as_an_object_or_as_text(self) -> None:
        assert settings_of("tiny", '{"engine": "compile"}').engine == "compile"
        assert settings_of("tiny", {"model": "x", "lora": False}) == Settings(model="x", lora=False)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("[1]", "expected an object"),
            ("{", "not JSON"),
            ({"engin": "eager"}, "have engin; expected some of engine"),
            ({"lora": "on"}, "expected true, false or null"),
        ],
    )
    def test_wrong_settings_get_a_sentence(self, given: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            settings_of("tiny", given)

    def test_only_an_untouched_example_is_known(self, tmp_path: Path) -> None:
        example = read_examples()[0]
        copy = tmp_path / Path(example.path).name
        copy.write_bytes(Path(example.path).read_bytes())
        assert known_text(copy) == example.text
        copy.write_bytes(RECORDING)
        assert known_text(copy) is None


@pytest.fixture
def clip(tmp_path: Path) -> str:
    file = tmp_path / "noise.wav"
    file.write_bytes(RECORDING)
    return str(file)


@pytest.fixture
def measuring(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measuring:
    monkeypatch.setattr(module, "measure_ceilings", lambda *_: GPUS["H200"])
    monkeypatch.setattr(session, "capture", partial(session.capture, num_steps=1, tax_blocks=1))
    studio = Studio(model="random", loader=lambda *_, **__: lab)
    return Measuring(studio, RunShelf(None, shipped=tmp_path / "none"))


class TestMeasuring:
    def test_two_settings_become_two_runs_that_only_their_owner_sees(
        self, measuring: Measuring, clip: str
    ) -> None:
        *progress, end = measuring.compare("me", clip, GREEDY, DRAFTS, QUICK)
        assert isinstance(end, Measured)
        shares = [report.share for report in progress if isinstance(report, Doing)]
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
        assert [run["workload"]["decoding"] for run in end.runs] == ["greedy", "speculative"]
        assert end.comparison is not None
        assert end.comparison["end_to_end"]["a_ms"] > 0
        assert "too few" in end.comparison["end_to_end"]["verdict"]
        assert {choice.key for choice in measuring.shelf.choices("me")} == set(end.keys)
        assert measuring.shelf.choices("somebody else") == []
        with pytest.raises(RunError):
            measuring.shelf.chosen("somebody else", end.keys[0])
        measuring.leave("me")
        assert measuring.shelf.choices("me") == []

    def test_stopping_keeps_the_blocks_that_are_done(self, measuring: Measuring, clip: str) -> None:
        measuring.begin("me")
        last: Any = None
        for last in measuring.compare("me", clip, GREEDY, PLAIN, How(blocks=40)):
            if isinstance(last, Doing) and last.text.startswith("run 8 of"):
                assert measuring.stop("me")
        assert isinstance(last, Measured)
        assert last.stopped
        assert 1 <= last.comparison["num_blocks"] < 40
        assert "nothing was traced" in last.runs[0]["warnings"][0]

    def test_stopping_before_a_block_is_done_says_so(self, measuring: Measuring, clip: str) -> None:
        measuring.begin("me")

        def stop_while_warming_up() -> None:
            for report in measuring.compare("me", clip, GREEDY, PLAIN, QUICK):
                if isinstance(report, Doing) and "warming up" in report.text:
                    measuring.stop("me")

        with pytest.raises(ValueError, match="before one block"):
            stop_while_warming_up()

    def test_stopping_reaches_what_waits(self, measuring: Measuring, clip: str) -> None:
        measuring.begin("me")
        measuring.stop("me")
        assert list(measuring.compare("me", clip, GREEDY, PLAIN, QUICK)) == [NotBegun()]

    def test_a_program_gets_everything_and_nothing_is_kept(
        self, measuring: Measuring, clip: str, tmp_path: Path
    ) -> None:
        end = measuring.once(clip, (GREEDY,), QUICK, tmp_path / "runs")
        assert end.comparison is None
        assert end.keys == ()
        assert end.runs[0]["workload"]["clip"]["path"] == "noise.wav"
        assert measuring.shelf.choices("me") == []

    @pytest.mark.parametrize(
        ("ask", "message"),
        [
            (lambda m, clip: m.compare("me", clip, GREEDY, GREEDY, QUICK), SAME),
            (lambda m, clip: m.compare("me", None, GREEDY, PLAIN, QUICK), "no recording came"),
            (lambda m, clip: m.profile("me", clip, GREEDY, How(blocks=0)), "0 blocks came"),
            (
                lambda m, clip: m.profile("me", clip, Settings(model="x", quantize="int2"), QUICK),
                "int2",
            ),
            (lambda m, clip: m.profile("me", clip, Settings(model=" "), QUICK), "no model came"),
        ],
    )
    def test_what_cannot_be_measured_is_said_before_a_model_is_loaded(
        self, measuring: Measuring, clip: str, ask: Callable[..., Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            list(ask(measuring, clip))
        assert not measuring.studio.card("random").loaded

    def test_settings_that_come_to_the_same_are_refused(
        self, measuring: Measuring, clip: str
    ) -> None:
        again = Settings(model="random", max_new_tokens=4, lora=True)
        with pytest.raises(ValueError, match="come to the same"):
            list(measuring.compare("me", clip, GREEDY, again, QUICK))
        assert "adapter" in SAME_HERE

    def test_long_recordings_are_refused_with_advice(
        self, measuring: Measuring, clip: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "LONGEST_S", 1.0)
        with pytest.raises(ValueError, match="is 2 s long.*cut a piece"):
            list(measuring.profile("me", clip, GREEDY, QUICK))

    def test_where_nothing_can_be_timed_the_reason_is_given(self, measuring: Measuring) -> None:
        measuring.refusal = "the GPU is lent"
        with pytest.raises(ValueError, match="the GPU is lent"):
            list(measuring.profile("me", "x.wav", GREEDY, QUICK))
