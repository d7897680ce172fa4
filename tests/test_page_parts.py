"""Parts of the Transcribe tab without a browser: words, files, many recordings, kept settings."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import soundfile

from app.components.arm_panel import ArmPanel, build_arm
from app.components.batch_panel import FileState, finished_html, rows_html, transcribed
from app.components.kept_settings import accepted, restored
from app.components.settings_panel import FIELDS, SettingsPanel, build_settings
from app.components.switches import build_switches
from app.service.deployment import Deployment
from app.service.examples import Labelled
from app.service.limits import Limits
from app.service.model_summary import summary_of_name
from app.service.service import TranscriptionService
from app.service.transcript_files import archive, transcript_file
from app.wording.words_html import MOST_WORDS, NUM_COLOURS, paragraphs, words_html
from app_stubs import SETTINGS, TRANSCRIPT, StubLab, service_of
from core.checkpoint.catalog import ASSETS
from core.engine.products import ProductTimes
from core.errors import UserError
from core.text.edit import apply_edit
from core.text.export import EXPORTERS
from core.text.normalizers import NORMALIZERS
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
            assert len({name.casefold() for name in packed.namelist()}) == 4 * len(EXPORTERS) + 1
            listed = packed.read("renamed.txt").decode()
        assert listed == "a.mp3: a-3\nA.flac: A-4\n"

    def test_the_archive_has_every_format_of_every_recording(self) -> None:
        file = archive([TRANSCRIPT, TRANSCRIPT])
        names = zipfile.ZipFile(io.BytesIO(base64.b64decode(file["base64"]))).namelist()
        kinds = ("txt", "srt", "vtt", "tsv", "json")
        expected = [f"{name}.{kind}" for name in ("clip", "clip-2") for kind in kinds]
        assert sorted(names) == sorted([*expected, "renamed.txt"])


@pytest.fixture
def recordings(tmp_path: Path) -> list[Labelled]:
    """Three readable recordings of one second, without texts."""
    sound = (Path(__file__).parent.parent / "assets/examples/digit_five.flac").read_bytes()
    files = [tmp_path / name for name in ("a.flac", "b.flac", "c.flac")]
    for file in files:
        file.write_bytes(sound)
    return [Labelled(str(file)) for file in files]


TEXTS = ("A. flac!", "b is flac", None)  # a stub says the name of its recording


class TestSeveralFiles:
    def test_every_file_gets_its_own_row(self, recordings: list[Labelled]) -> None:
        *_, rows = transcribed(service_of([]), "a", recordings, SETTINGS)
        assert [(row.name, row.text, row.state) for row in rows] == [
            (name, name, FileState.DONE) for name in ("a.flac", "b.flac", "c.flac")
        ]
        assert "3 of 3 files finished" in finished_html(rows, 1.0)
        half = [rows[0], replace(rows[1], state=FileState.RUNS), rows[2]]
        assert "2 of 3 files finished, about 30 seconds left" in finished_html(half, 60.0)

    def test_one_bad_file_does_not_stop_the_others(self, recordings: list[Labelled]) -> None:
        Path(recordings[1].path).write_text("dear sir")

        class Picky(StubLab):
            def stream(self, path: str, *, cancelled: Callable[[], bool], **_: Any) -> Iterator:
                if path == recordings[1].path:
                    raise UserError("b.flac: not a recording")
                return super().stream(path, cancelled=cancelled)

        service = TranscriptionService(loader=lambda name, **_: Picky(name))
        *_, rows = transcribed(service, "a", recordings, SETTINGS)
        assert [row.state for row in rows] == [FileState.DONE, FileState.FAILED, FileState.DONE]
        assert "not a recording" in rows[1].text
        assert rows[1].transcript is None

    def test_stop_leaves_out_the_rest(self, recordings: list[Labelled]) -> None:
        service = service_of([])
        service.begin("a")
        service.stop("a")
        *_, rows = transcribed(service, "a", recordings, SETTINGS)
        assert [row.state for row in rows] == [FileState.STOPPED] * 3

    def test_the_table_escapes_and_no_files_get_a_sentence(self) -> None:
        rows = next(transcribed(service_of([]), "a", [Labelled("/x/<b>.wav", "<i>")], SETTINGS))
        assert "<b>" not in rows_html(rows)
        assert "choose some first" in finished_html([], 0.0)
        wrong = replace(TRANSCRIPT, text="<b> one")
        done = replace(rows[0], state=FileState.DONE, transcript=wrong, said="<i> one <u>")
        for rule in NORMALIZERS:
            html = rows_html([done], rule)
            assert not re.search("<b>|<i>|<u>", html), rule

    def test_recordings_with_texts_get_error_rates_and_marked_words(
        self, recordings: list[Labelled]
    ) -> None:
        *_, rows = transcribed(
            service_of([]),
            "a",
            [replace(one, said=said) for one, said in zip(recordings, TEXTS, strict=True)],
            SETTINGS,
        )
        html = rows_html(rows)
        assert "2 recordings with a text: WER 20.00 %, CER 20.00 %, normaliser basic." in html
        assert "<td>0.0 %</td>" in html
        assert "<td>b <del>is</del> flac</td><td>33.3 %</td>" in html
        assert "<td></td>" in html  # nothing is known of the third
        assert "WER" not in rows_html([replace(row, said=None) for row in rows])


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
        assert changes[panel.field("decoding")]["value"] == "beam"
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
        assert panel.field("engine") not in changes


def test_each_segment_is_a_line_with_its_time() -> None:
    parts = (Segment(0.0, 1.3, "three <one>", None), Segment(62.0, 63.0, "eight", None))
    html = words_html(of([*WORDS[:2], replace(WORDS[2], start=62.1, end=62.9)], parts))
    assert html.count("class='segment'") == 2
    assert ">1:02</button><span><button type='button' data-start='62.100'" in html


def test_words_have_the_colour_of_their_speaker_and_the_name_beside_it() -> None:
    said = zip(WORDS, (1, 2, 8), strict=True)
    html = words_html(of([replace(word, speaker=speaker) for word, speaker in said]))
    assert [f"<div class='segment speaker-{n}'>" in html for n in (1, 2)] == [True, True]
    assert html.count("speaker-2'") == 2  # the eighth has the second's colour
    assert [f"<b class='speaker'>Speaker {n}</b>" in html for n in (1, 2, 8)] == [True] * 3
    alone = words_html(of([replace(word, speaker=1) for word in WORDS]))
    assert alone.count("class='speaker'") == 1
    assert "speaker" not in words_html(of(WORDS))


def test_the_colours_of_speakers_can_be_read_in_light_and_dark() -> None:
    css = (ASSETS / "style.css").read_text()
    for dark, ground in (("", "#ffffff"), (r"\.dark ", "#343a3f")):
        found = re.findall(rf"{dark}\.speaker-\d {{ --speaker: (#\w{{6}})", css)
        colours = found[-NUM_COLOURS:] if dark else found[::2]
        assert len(set(colours)) == NUM_COLOURS
        assert min(contrast(colour, ground) for colour in colours) >= 4.5


def contrast(one: str, two: str) -> float:
    """The contrast ratio of WCAG of two colours."""
    lights = []
    for colour in (one, two):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(lights) / min(lights)


def test_speakers_are_in_every_format_that_has_a_place_for_them() -> None:
    parts = (Segment(0.0, 1.3, "three one", None, 1), Segment(3.0, 3.3, "eight", None, 2))
    words = [replace(w, speaker=n) for w, n in zip(WORDS, (1, 1, 2), strict=True)]
    spoken = replace(of(words, parts), text="three <one> eight")
    files = {kind: transcript_file(spoken, spoken.text, kind)["text"] for kind in ("srt", "vtt")}
    assert "Speaker 2: eight" in files["srt"]
    assert "<v Speaker 2>eight" in files["vtt"]
    made = json.loads(transcript_file(spoken, spoken.text, "json")["text"])
    assert [part["speaker"] for part in made["segments"]] == [1, 2]
    assert [word["speaker"] for word in made["words"]] == [1, 1, 2]


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


class TestWhatAModelCanDo:
    """The page shows what the chosen model can do, and sends nothing of what it hides."""

    LEFT_OVER = replace(
        SETTINGS,
        lora=False,
        language="de",
        keywords="Ada",
        prefix_text="so",
        edit_rounds=3,
        decoding="speculative",
        quantize="int8",
    )

    @pytest.mark.parametrize(
        ("name", "decodings", "shown"),
        [
            ("granite-speech-5.0-470m-turboctc", ("greedy", "beam"), set()),
            ("granite-speech-4.1-2b-nar", ("greedy",), {"edit_rounds", "quantize", "language"}),
            (
                "granite-speech-4.1-2b-plus",
                ("greedy", "speculative", "fast-draft", "beam", "sample"),
                {"prefix_text", "keywords", "quantize", "language"},
            ),
        ],
    )
    def test_each_family_has_its_own_fields(
        self, panel: SettingsPanel, name: str, decodings: tuple[str, ...], shown: set[str]
    ) -> None:
        summary = summary_of_name(name)
        assert summary.decodings_of("transcribe") == decodings
        assert summary.shown("transcribe", "greedy") == shown
        changes = panel.fit(summary, "instruct", "speculative")
        assert changes[panel.task]["value"] == "transcribe"
        assert changes[panel.field("decoding")]["value"] in decodings
        assert changes[panel.field("rounds")]["visible"] == ("edit_rounds" in shown)
        assert changes[panel.field("lora")]["visible"] is False

    def test_what_is_hidden_is_not_sent(self) -> None:
        ctc = summary_of_name("granite-speech-5.0-470m-turboctc").fit(self.LEFT_OVER)
        assert (ctc.decoding, ctc.lora, ctc.keywords, ctc.quantize) == ("greedy", None, "", "")
        assert (ctc.language, ctc.prefix_text, ctc.edit_rounds) == (None, "", 1)
        nar = summary_of_name("granite-speech-4.1-2b-nar").fit(self.LEFT_OVER)
        assert nar.options()["edit_rounds"] == 3
        assert (nar.language, nar.keywords) == ("de", "")

    def test_a_ctc_model_follows_keywords_in_its_beam(self) -> None:
        ctc = summary_of_name("granite-speech-5.0-470m-turboctc")
        assert "keywords" in ctc.shown("transcribe", "beam")
        assert ctc.fit(replace(self.LEFT_OVER, decoding="beam")).keywords == "Ada"

    def test_marks_are_not_drafted_and_a_begun_text_neither(self) -> None:
        plus = summary_of_name("granite-speech-4.1-2b-plus")
        assert "fast-draft" not in plus.decodings_of("speakers")
        assert "prefix_text" not in plus.shown("transcribe", "speculative")
        assert plus.fit(replace(self.LEFT_OVER, decoding="greedy")).prefix_text == "so"

    def test_a_licence_that_forbids_is_said_before_the_download(self, panel: SettingsPanel) -> None:
        twin = summary_of_name("granite-speech-5.0-470m-turboctc-nc")
        note = panel.fit(twin, "transcribe", "greedy")[panel.switches.licence]
        assert note["visible"]
        assert "not allow commercial use" in note["value"]

    def test_channels_are_split_where_there_are_two(
        self, panel: SettingsPanel, recordings: list[str], tmp_path: Path
    ) -> None:
        two = tmp_path / "two.wav"
        soundfile.write(two, np.zeros((800, 2)), 16_000)
        split = panel.field("split")
        assert panel.fields.fit_recording(str(two))[split]["visible"]
        for other in (recordings[0], None, str(tmp_path / "gone.wav")):
            change = panel.fields.fit_recording(other)[split]
            assert (change["visible"], change["value"]) == (False, False)
        values = {name: panel.field(name).value for name in FIELDS} | {"split": True}
        assert panel.read(tuple(values.values())).options()["channels"] == "speakers"

    def test_an_arm_offers_and_reads_the_same(self, service: TranscriptionService) -> None:
        with gr.Blocks():
            arm = build_arm(service, Deployment(), "a")
        name = "granite-speech-5.0-470m-turboctc"
        changes = arm.fit(name, "", "speculative")
        assert changes[arm.quantize]["visible"] is False
        assert changes[arm.switches.decoding]["value"] == "greedy"
        read = arm.read((name, *ArmPanel.usual(decoding="speculative", quantize="int8")), 50)
        assert (read.decoding, read.quantize) == ("greedy", "")

    def test_an_arm_says_which_weights_are_slower_here(
        self, service: TranscriptionService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        us = {"float32 torch": {1: 90.0, 128: 6000.0}, "int8 fbgemm": {1: 300.0, 128: 30_000.0}}
        times = ProductTimes("any", us, 0.1)
        monkeypatch.setattr("core.devices.use_products", lambda: times)
        with gr.Blocks() as page:
            arm = build_arm(service, Deployment(device="cpu"), "a")
        changes = [
            target
            for wired in page.fns.values()
            for target in wired.targets
            if target == (arm.quantize._id, "change")
        ]
        assert changes
        info = arm.say_if_slower("int8")[arm.quantize]["info"]
        assert "39.6 ms against 8.9 ms" in info
        assert arm.say_if_slower("")[arm.quantize]["info"] == ""
