"""What the Compare tab says of two measured runs, and what it is asked; no model is needed.

Run alone: ``python -m pytest tests/test_app_compare.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.service.api_settings import known_text, settings_of
from app.service.examples import read_examples
from app.service.limits import Limits
from app.service.measurement_job import MeasurementProgress, MeasurementResult, MeasurementStage
from app.service.settings import Settings
from app.tabs.compare_tab import preset_choices
from app.wording import comparison as words
from app_stubs import service_of
from measuring import RECORDING
from profiling.statistics.text_agreement import agreement_said

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


def comparison(num_blocks: int = 20, **whole: Any) -> dict[str, Any]:
    row = {"a_ms": 20.0, "b_ms": 10.0, "ratio": 0.5, "low": 0.4, "high": 0.6, "shown": True}
    return {
        "end_to_end": {**row, "verdict": "2.0x faster, 1.7 to 2.5", **whole},
        "num_blocks": num_blocks,
        "phases": [{"name": "decode", **row, "verdict": "2.0x faster, 1.7 to 2.5"}],
        "tokens_identical": True,
        "first_difference": None,
        "wer_a": None,
        "wer_b": None,
        "compile_seconds": 12.0,
        "break_even": "compiling took 12.0 s: pays off after 1200 clips like this one",
        "warnings": ["other processes used 40% of the processor while A was measured"],
    }


def measured(num_blocks: int = 20, **whole: Any) -> MeasurementResult:
    return MeasurementResult((), (RUN_A, RUN_B), comparison(num_blocks, **whole), stopped=False)


class TestWords:
    def test_runs_are_named_by_what_sets_them_apart(self) -> None:
        assert words.names(RUN_A, RUN_B) == ("eager", "compiled")
        assert words.names(RUN_A, RUN_A) == ("A", "B")
        int8 = {"workload": {**WORK, "quantize": "int8", "lora": False}}
        assert words.names(RUN_A, int8) == ("LoRA on, full weights", "LoRA off, int8")

    def test_a_difference_is_said_with_its_bounds_and_times(self) -> None:
        said = words.verdict(measured())
        assert said.startswith("Compiled is 2.0x faster, 1.7 to 2.5, than eager: ")
        assert "10.0 ms against 20.0 ms" in said

    def test_no_difference_and_too_few_blocks_claim_nothing(self) -> None:
        none = words.verdict(measured(shown=False, verdict="no difference shown"))
        assert none.startswith("No difference shown between compiled and eager")
        few = words.verdict(measured(2, shown=False, verdict="too few blocks (2) to say; ..."))
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
        html = words.measuring_html(
            MeasurementProgress(MeasurementStage.TIMING, 0.5, "run 3 of 6 <b>", 12.0)
        )
        assert "Run 3 of 6 &lt;b&gt;, about 10 seconds left" in html
        assert "value='50'" in html
        assert "minutes" in words.measuring_html(
            MeasurementProgress(MeasurementStage.COMPILING, 0.1, "eager", None)
        )


class TestAsked:
    def test_settings_come_as_an_object_or_as_text(self) -> None:
        assert settings_of("tiny", '{"engine": "compile"}').engine == "compile"
        assert settings_of("tiny", None) == Settings(model="tiny")
        assert settings_of("tiny", {"model": "x", "lora": False}) == Settings(model="x", lora=False)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("[1]", "expected an object"),
            ("{", "not JSON"),
            ("[" * 100_000, "not JSON"),
            (0.5, "settings are 0.5; expected an object"),
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


def test_presets_are_those_that_the_model_of_a_can_do() -> None:
    service = service_of([])
    assert [key for _, key in preset_choices(service, "tiny")] == [
        *("compile", "drafts", "lora", "int8", "families", "own"),
    ]
    ctc = [key for _, key in preset_choices(service, "granite-speech-5.0-470m-turboctc")]
    assert ctc == ["compile", "families", "own"]
    alone = service_of([], limits=Limits(only=frozenset({"tiny"}), no_compile="not here"))
    assert "families" not in [key for _, key in preset_choices(alone, "tiny")]
