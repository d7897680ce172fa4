"""Parts of the Transcribe tab without a browser: words, files, many recordings, kept settings."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from app.components.batch_panel import FileState, finished_html, rows_html, transcribed
from app.components.kept_settings import accepted, restored
from app.components.settings_panel import FIELDS, SettingsPanel, build_settings
from app.components.switches import build_switches
from app.service.limits import Limits
from app.service.model_summary import summary_of_name
from app.service.service import TranscriptionService
from app.service.transcript_files import archive, transcript_file
from app.wording.words_html import MOST_WORDS, paragraphs, words_html
from app_stubs import SETTINGS, TRANSCRIPT, StubLab, service_of
from core.errors import UserError
from core.text.edit import apply_edit
from core.text.export import EXPORTERS
from core.text.transcript import Segment, Transcript, Word

WORDS = (Word("three", 0.1, 0.5, 0.99), Word("<one>", 0.9, 1.2, 0.41), Word("eight", 3.0, 3.3, 0.9))


def of(words: Sequence[Word], segments: Sequence[Segment] = ()) -> Transcript:
    return replace(TRANSCRIPT, words=tuple(words), segments=tuple(segments))


class TestWords:
    def test_each_is_a_button_with_its_time_lit_until_the_next(self) -> None:
        html = words_html(of(WORDS))
        assert html.count("data-start") == 3
        assert "data-start='0.100' data-until='0.900'" in html
        assert "data-start='0.900' data-until='1.700'" in html  # not through the silence after it

    def test_only_one_is_in_the_tab_order(self) -> None:
        assert words_html(of(WORDS)).count("tabindex='0'") == 1

    def test_doubt_is_told_and_what_came_from_outside_is_escaped(self) -> None:
        html = words_html(of(WORDS))
        assert html.count("class='unsure'") == 1
        assert "title='41 % sure'>&lt;one&gt;" in html

    def test_words_without_times_are_not_offered(self) -> None:
        assert words_html(of([Word("un", None, None, 0.9)])) == ""

    def test_very_many_words_do_not_make_the_page_slow(self) -> None:
        many = [Word("a", float(n), n + 0.5, None) for n in range(MOST_WORDS + 7)]
        assert words_html(of(many)).count("data-start") == MOST_WORDS
        assert "7 more words" in words_html(of(many))


class TestFiles:
    def test_a_file_is_named_after_its_recording_and_has_the_corrected_text(self) -> None:
        file = transcript_file(TRANSCRIPT, "three one ate", "json")
        assert file["name"] == "clip.json"
        assert json.loads(file["text"])["text"] == "three one ate"

    def test_names_in_the_archive_never_meet(self) -> None:
        names = ("a.wav", "a.mp3", "a-2.wav", "A.flac")
        file = archive([replace(TRANSCRIPT, file=name) for name in names])
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(file["base64"]))) as packed:
            assert len({name.casefold() for name in packed.namelist()}) == 4 * len(EXPORTERS)

    def test_the_archive_has_every_format_of_every_recording(self) -> None:
        file = archive([TRANSCRIPT, TRANSCRIPT])
        names = zipfile.ZipFile(io.BytesIO(base64.b64decode(file["base64"]))).namelist()
        assert sorted(names) == sorted(
            f"{name}.{kind}"
            for name in ("clip", "clip-2")
            for kind in ("txt", "srt", "vtt", "tsv", "json")
        )


@pytest.fixture
def recordings(tmp_path: Path) -> list[str]:
    """Three readable recordings of one second."""
    sound = (Path(__file__).parent.parent / "assets/examples/digit_five.flac").read_bytes()
    files = [tmp_path / name for name in ("a.flac", "b.flac", "c.flac")]
    for file in files:
        file.write_bytes(sound)
    return [str(file) for file in files]


class TestSeveralFiles:
    def test_every_file_gets_its_own_row(self, recordings: list[str]) -> None:
        *_, rows = transcribed(service_of([]), "a", recordings, SETTINGS)
        assert [(row.name, row.text, row.state) for row in rows] == [
            (name, name, FileState.DONE) for name in ("a.flac", "b.flac", "c.flac")
        ]
        assert "3 of 3 files finished" in finished_html(rows, 1.0)
        half = [rows[0], replace(rows[1], state=FileState.RUNS), rows[2]]
        assert "2 of 3 files finished, about 30 seconds left" in finished_html(half, 60.0)

    def test_one_bad_file_does_not_stop_the_others(self, recordings: list[str]) -> None:
        Path(recordings[1]).write_text("dear sir")

        class Picky(StubLab):
            def stream(self, path: str, *, cancelled: Callable[[], bool], **_: Any) -> Iterator:
                if path == recordings[1]:
                    raise UserError("b.flac: not a recording")
                return super().stream(path, cancelled=cancelled)

        service = TranscriptionService(loader=lambda name, **_: Picky(name))
        *_, rows = transcribed(service, "a", recordings, SETTINGS)
        assert [row.state for row in rows] == [FileState.DONE, FileState.FAILED, FileState.DONE]
        assert "not a recording" in rows[1].text
        assert rows[1].transcript is None

    def test_stop_leaves_out_the_rest(self, recordings: list[str]) -> None:
        service = service_of([])
        service.begin("a")
        service.stop("a")
        *_, rows = transcribed(service, "a", recordings, SETTINGS)
        assert [row.state for row in rows] == [FileState.STOPPED] * 3

    def test_the_table_escapes_and_no_files_get_a_sentence(self) -> None:
        rows = next(transcribed(service_of([]), "a", ["/x/<b>.wav"], SETTINGS))
        assert "<b>" not in rows_html(rows)
        assert "choose some first" in finished_html([], 0.0)


@pytest.fixture
def service() -> TranscriptionService:
    return service_of([])


@pytest.fixture
def panel(service: TranscriptionService) -> SettingsPanel:
    with gr.Blocks():
        return build_settings(service, build_switches(service))


class TestKeptSettings:
    def test_the_panel_reads_what_it_shows_in_order(self, panel: SettingsPanel) -> None:
        values = tuple(panel.field(name).value for name in FIELDS)
        chosen = panel.read(values)
        assert (chosen.model, chosen.engine, chosen.decoding) == ("tiny", "eager", "greedy")
        assert (chosen.device, chosen.dtype, chosen.quantize) == ("", "", "")

    def test_what_was_chosen_comes_back(
        self, service: TranscriptionService, panel: SettingsPanel
    ) -> None:
        kept = {"model": "tiny", "decoding": "beam", "beams": 3, "lora": False, "dtype": "bfloat16"}
        changes = restored(service, panel, kept)
        assert changes[panel.decoding]["value"] == "beam"
        assert changes[panel.beams]["value"] == 3
        assert changes[panel.beams]["visible"]
        assert changes[panel.field("lora")]["value"] is False
        assert changes[panel.loading.dtype]["value"] == "bfloat16"

    @pytest.mark.parametrize(
        "wanted",
        [
            {"decoding": "magic"},
            {"task": "translate"},  # the bundled model cannot
            {"device": "cuda:99", "dtype": "float8"},
            {"beams": "many", "temperature": "nan"},
            {"keywords": ["a"], "language": None},
        ],
    )
    def test_what_this_app_does_not_offer_is_left_out(self, wanted: dict[str, Any]) -> None:
        assert accepted(summary_of_name("tiny"), wanted) == {}

    def test_a_link_has_words_for_numbers_and_they_are_bounded(self) -> None:
        wanted = {"beams": "99", "temperature": "0.30", "lora": "false", "max_tokens": "-5"}
        assert accepted(summary_of_name("tiny"), wanted) == {
            "lora": False,
            "beams": 8,
            "temperature": 0.3,
            "max_tokens": 10,
        }

    def test_a_link_cannot_choose_a_model_that_is_not_run_here(self) -> None:
        service = service_of([], limits=Limits(only=frozenset({"tiny"}), no_compile="not here"))
        with gr.Blocks():
            panel = build_settings(service, build_switches(service))
        changes = restored(service, panel, {"model": "someone/else", "engine": "compile"})
        assert changes[panel.model]["value"] == "tiny"
        assert panel.engine not in changes


def test_each_segment_is_a_line_with_its_time() -> None:
    parts = (Segment(0.0, 1.3, "three <one>", None), Segment(62.0, 63.0, "eight", None))
    html = words_html(of([*WORDS[:2], replace(WORDS[2], start=62.1, end=62.9)], parts))
    assert html.count("class='segment'") == 2
    assert ">1:02</button><span><button type='button' data-start='62.100'" in html


def test_a_long_text_has_paragraphs_and_a_short_one_stays_as_it_is() -> None:
    parts = [Segment(10.0 * n, 10.0 * n + 9.5, f"part {n}", None) for n in range(10)]
    parts[2] = replace(parts[2], end=28.0)
    said = " ".join(one.text for one in parts)
    long = replace(TRANSCRIPT, segments=tuple(parts), text=said, audio_s=100.0)
    assert [len(one.split("part")) - 1 for one in paragraphs(long).split("\n\n")] == [3, 4, 3]
    assert apply_edit(long, paragraphs(long)) is long
    assert paragraphs(replace(long, audio_s=30.0)) == said


def test_times_of_edited_words_reach_every_format():
    heard = replace(TRANSCRIPT, words=WORDS, text="three <one> eight")
    assert "three two eight" in transcript_file(heard, "three two eight", "srt")["text"]
