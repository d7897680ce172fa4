"""The app without a browser and without a model: studio, wording, settings, the page's wiring."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app import model_wording, result_wording, wording
from app.examples import read_examples
from app.failures import plain_errors
from app.jobs import Job, Worker
from app.model_card import card_of_name
from app.settings import Settings, split_keywords
from app.studio import NotBegun, Outcome, Paced, Studio, Update
from app.ui import build_app
from core.catalog import CATALOG
from core.options import DECODINGS, ENGINES, Finished, PartialText, PhaseStarted
from core.prompts import TASKS
from core.transcribe import STOPPED
from core.transcript import DraftReport, PhaseTime, Transcript, Word

ROOT = Path(__file__).resolve().parent.parent
TRANSCRIPT = Transcript(
    file="/secret/folder/clip.wav",
    text="three one eight",
    segments=(),
    words=(Word("three", None, None, 0.99), Word("one", None, None, 0.41)),
    language=None,
    model="tiny",
    engine="eager",
    lora=True,
    decoding="greedy",
    token_ids=(1, 2, 3),
    audio_s=3.0,
    phases=(PhaseTime("encoder", 60.0), PhaseTime("decode", 30.0)),
    end_to_end_ms=100.0,
    rtf=0.033,
    time_to_first_token_ms=70.0,
    new_tokens=3,
    new_tokens_per_s=66.0,
    peak_memory_bytes=3 * 2**20,
    draft=None,
    warnings=(),
)
SETTINGS = Settings(model="tiny")


class StubLab:
    """Says the name of its recording, a letter at a time, and waits at ``gate`` before the last."""

    def __init__(self, name: str, gate: Event | None = None) -> None:
        self.entry = replace(CATALOG["tiny"], name=name)
        self.compile_ledger = SimpleNamespace(seconds={})
        self.files = SimpleNamespace(num_bytes=10)
        self.device, self.dtype, self.has_adapter = "cpu", "torch.float32", True
        self.gate, self.busy, self.begun = gate, False, Event()

    def stream(self, path: str, *, cancelled: Callable[[], bool], **_: Any) -> Iterator[Any]:
        assert not self.busy, "two requests at once"
        self.busy = True
        text = ""
        try:
            for letter in Path(path).name:
                text += letter
                yield PartialText(0, text, len(text))
                self.begun.set()
                while self.gate is not None and not self.gate.wait(0.01) and not cancelled():
                    pass
                if cancelled():
                    break
            warnings = ("stopped before the end of the text",) if cancelled() else ()
            yield Finished(0, replace(TRANSCRIPT, file=path, text=text, warnings=warnings))
        finally:
            self.busy = False

    def stream_chat(self, message: str, *, cancelled: Callable[[], bool]) -> Iterator[str]:
        yield from message.split()


def studio_of(loaded: list[str], gate: Event | None = None, **more: Any) -> Studio:
    """A studio whose models are stubs; ``loaded`` gets the name of each one loaded."""

    def load(name: str, **_: Any) -> StubLab:
        loaded.append(name)
        return StubLab(name, gate)

    return Studio(loader=load, **more)


def last(updates: Iterator[Update]) -> Outcome:
    """The outcome of a stream."""
    *_, end = updates
    assert isinstance(end, Outcome)
    return end


class TestStudio:
    def test_a_model_is_loaded_once(self) -> None:
        loaded: list[str] = []
        studio = studio_of(loaded)
        for name in ("tiny", CATALOG["tiny"].source, " tiny "):
            last(studio.stream("a", "x.wav", Settings(model=name)))
        assert loaded == ["tiny"]

    def test_the_first_update_says_that_the_model_is_loading(self) -> None:
        studio = studio_of([])
        assert next(studio.stream("a", "x.wav", SETTINGS)) == PhaseStarted(0, "load")

    def test_the_start_model_stays_and_one_more(self) -> None:
        loaded: list[str] = []
        studio = studio_of(loaded)
        for name in ("tiny", "a/b", "c/d", "tiny", "a/b"):
            last(studio.stream("a", "x.wav", Settings(model=name)))
        assert loaded == ["tiny", "a/b", "c/d", "a/b"]
        assert [card.name for card in studio.cards() if card.loaded] == ["tiny", "a/b"]

    def test_where_an_upload_lies_is_not_told(self) -> None:
        outcome = last(studio_of([]).stream("a", "upload/x.wav", SETTINGS))
        assert outcome.transcript.file == "x.wav"

    def test_two_callers_do_not_mix(self) -> None:
        studio, texts = studio_of([]), {}

        def call(name: str) -> None:
            updates = list(studio.stream(name, f"upload/{name}.wav", SETTINGS))
            partial = [u.text for u in updates if isinstance(u, PartialText)]
            assert all(f"{name}.wav".startswith(text) for text in partial)
            texts[name] = last(iter(updates)).transcript.text

        names = [f"caller-{number}" for number in range(8)]
        threads = [Thread(target=call, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert texts == {name: f"{name}.wav" for name in names}

    def test_stop_keeps_what_came_and_frees_the_model(self) -> None:
        gate = Event()
        studio = studio_of([], gate)
        studio.begin("a")
        updates = studio.stream("a", "long.wav", SETTINGS)
        while not isinstance(next(updates), PartialText):
            pass
        assert studio.stop("a")
        outcome = last(updates)
        assert outcome.transcript.text == "l"
        assert outcome.transcript.warnings == ("stopped before the end of the text",)
        assert not studio.stop("a")
        gate.set()
        assert last(studio.stream("b", "next.wav", SETTINGS)).transcript.text == "next.wav"

    def test_stop_reaches_a_request_that_waits(self) -> None:
        studio = studio_of([])
        studio.begin("a")
        studio.stop("a")
        assert list(studio.stream("a", "x.wav", SETTINGS)) == [NotBegun()]
        assert last(studio.stream("a", "x.wav", SETTINGS)).transcript.text == "x.wav"

    def test_who_leaves_is_forgotten(self) -> None:
        studio = studio_of([])
        studio.begin("a")
        studio.leave("a")
        assert not studio.stop("a")
        assert studio._jobs == {}

    def test_warming_loads_the_start_model_once_and_survives_its_absence(self) -> None:
        loaded: list[str] = []
        studio = studio_of(loaded)
        studio.warm()
        last(studio.stream("a", "x.wav", SETTINGS))
        assert loaded == ["tiny"]

        def fail(name: str, **_: Any) -> StubLab:
            raise ValueError("not there")

        absent = Studio(loader=fail)
        absent.warm()
        with pytest.raises(ValueError, match="not there"):
            list(absent.stream("a", "x.wav", SETTINGS))

    def test_stop_leaves_others_alone(self) -> None:
        studio = studio_of([])
        studio.begin("a")
        studio.begin("b")
        studio.stop("b")
        assert last(studio.stream("a", "x.wav", SETTINGS)).transcript.text == "x.wav"

    def test_work_whose_page_is_gone_for_long_ends(self) -> None:
        studio = studio_of([], gate=Event(), grace_s=0.05)  # its gate never opens
        run = studio.start("a", "x.wav", SETTINGS)
        studio.leave("a")
        *_, outcome = run.watch()
        assert isinstance(outcome, Outcome)
        assert outcome.transcript.warnings == (STOPPED,)

    def test_a_page_that_is_loaded_again_finds_its_run(self) -> None:
        gate = Event()
        studio = studio_of([], gate)
        run = studio.start("before", "x.wav", SETTINGS)
        updates = studio.watch("before", run)
        while not isinstance(next(updates), PartialText):
            pass
        studio.leave("before")
        again = studio.resume("after", run.id)
        assert again is run
        gate.set()
        assert last(studio.watch("after", again)).transcript.text == "x.wav"
        assert last(studio.watch("later", again)).transcript.text == "x.wav"

    def test_stop_reaches_a_run_from_the_page_that_found_it_again(self) -> None:
        studio = studio_of([], gate=Event())
        run = studio.start("before", "long.wav", SETTINGS)
        studio.leave("before")
        assert studio.resume("after", run.id) is run
        assert studio.stop("after")
        assert last(studio.watch("after", run)).transcript.warnings == (STOPPED,)

    def test_nobody_finds_a_run_by_guessing(self) -> None:
        studio = studio_of([])
        run = studio.start("a", "x.wav", SETTINGS)
        assert len(run.id) >= 32
        assert studio.resume("b", run.id[:-1]) is None

    def test_the_same_model_in_another_number_format_is_loaded_anew(self) -> None:
        asked: list[dict[str, Any]] = []

        def load(name: str, **how: Any) -> StubLab:
            asked.append(how)
            return StubLab(name)

        studio = Studio(loader=load, device="cpu")
        for settings in (SETTINGS, replace(SETTINGS, dtype="bfloat16", quantize="int8"), SETTINGS):
            last(studio.stream("a", "x.wav", settings))
        assert asked == [
            {"device": "cpu", "dtype": None},
            {"device": "cpu", "dtype": "bfloat16", "quantize": "int8"},
        ]

    def test_an_error_reaches_its_caller_and_nobody_else(self) -> None:
        def load(name: str, **_: Any) -> StubLab:
            if name == "bad/one":
                raise ValueError("no such model")
            return StubLab(name)

        studio = Studio(loader=load)
        with pytest.raises(ValueError, match="no such model"):
            list(studio.stream("a", "x.wav", Settings(model="bad/one")))
        assert last(studio.stream("a", "x.wav", SETTINGS)).transcript.text == "x.wav"

    @pytest.mark.parametrize(
        ("recording", "settings", "message"),
        [
            (None, SETTINGS, "no recording came"),
            ("x.wav", Settings(model=" "), "no model came"),
            ("x.wav", Settings(model="tiny", engine="fast"), "expected one of eager, compile"),
            ("x.wav", Settings(model="tiny", max_new_tokens=0), "at least 1"),
        ],
    )
    def test_what_cannot_work_is_refused_before_loading(
        self, recording: str | None, settings: Settings, message: str
    ) -> None:
        loaded: list[str] = []
        with pytest.raises(ValueError, match=message):
            list(studio_of(loaded).stream("a", recording, settings))
        assert loaded == []

    def test_asking_does_not_disturb_transcribing(self) -> None:
        studio = studio_of([])
        studio.begin("a")
        assert list(studio.ask("a", "tiny", "one two")) == ["one", "onetwo"]
        assert last(studio.stream("a", "x.wav", SETTINGS)).transcript.text == "x.wav"


class TestWorker:
    def test_values_come_in_order_from_another_thread(self) -> None:
        assert list(Worker().stream(Job(), lambda: iter(range(5)))) == list(range(5))

    def test_cancelled_work_never_begins(self) -> None:
        job, began = Job(), []
        job.cancel()
        assert list(Worker().stream(job, lambda: iter([began.append(1)]))) == []
        assert began == []


class TestSettings:
    def test_only_what_the_task_knows_is_passed_on(self) -> None:
        chosen = Settings(
            model="m", task="instruct", instruction="count", keywords="a", language="en"
        )
        assert chosen.options() == {
            "engine": "eager",
            "lora": None,
            "task": "instruct",
            "decoding": "greedy",
            "max_new_tokens": 200,
            "instruction": "count",
        }

    def test_beams_and_temperature_follow_the_decoding(self) -> None:
        assert Settings(model="m", decoding="beam", num_beams=3).options()["num_beams"] == 3
        assert "temperature" not in Settings(model="m").options()

    def test_translation_has_a_target_and_automatic_means_none(self) -> None:
        chosen = Settings(model="m", task="translate", language="auto", target_language="fr")
        assert chosen.options()["target_language"] == "fr"
        assert chosen.options()["language"] is None

    def test_keywords_are_parted_by_commas_semicolons_and_lines(self) -> None:
        assert split_keywords(" Zürich, ,IBM;\nGranite ") == ("Zürich", "IBM", "Granite")


class TestWording:
    outcome = Outcome(TRANSCRIPT, compile_s=0.0, load_s=0.0, card=card_of_name("tiny"))

    def test_a_fast_run(self) -> None:
        said = result_wording.summary(self.outcome)
        assert said == "3.0 s of sound became text in 100 ms, 30.3 times faster than real time."

    def test_compiling_and_loading_are_told(self) -> None:
        said = result_wording.summary(replace(self.outcome, compile_s=21.34, load_s=1.5))
        assert "21.3 s built compiled graphs" in said
        assert "Loading the model took 1.5 s" in said

    def test_silence(self) -> None:
        nothing = replace(TRANSCRIPT, text="", warnings=("no speech was heard in this recording",))
        said = result_wording.summary(replace(self.outcome, transcript=nothing))
        assert said.startswith("No speech was heard in this recording.")

    def test_a_stopped_run_keeps_its_text_and_says_so_once(self) -> None:
        stopped = replace(self.outcome, transcript=replace(TRANSCRIPT, warnings=(STOPPED,)))
        assert result_wording.summary(stopped).startswith("Stopped after 100 ms.")
        assert "Stopped" not in result_wording.notes_html(stopped, "")

    def test_warnings_stand_under_the_text(self) -> None:
        cut = replace(TRANSCRIPT, warnings=("the text was cut",))
        html = result_wording.notes_html(replace(self.outcome, transcript=cut), "")
        assert "<p class='note warning'>The text was cut.</p>" in html

    def test_everything_from_outside_is_escaped(self) -> None:
        card = replace(card_of_name("x"), title="<b>", licence="<script>", notes="<i>")
        for html in (model_wording.model_html(card), model_wording.models_html([card])):
            assert "<script>" not in html
            assert "<i>" not in html
        assert "<x>" not in wording.status_html("<x>") + result_wording.notes_html(
            self.outcome, "<x>"
        )

    def test_unsure_words_are_named_gently(self) -> None:
        assert result_wording.unsure(TRANSCRIPT) == "Least sure of: “one” (41 %)"

    def test_agreement_with_what_was_said(self) -> None:
        assert result_wording.agreement("three one", "Three  one")[0] == "right"
        assert result_wording.agreement("three one", "three")[0] == "aside"

    def test_numbers_have_an_equivalent_for_screen_readers(self) -> None:
        html = result_wording.figures_html(self.outcome)
        assert "<th scope='row'>encoder</th><td>60.0 ms</td>" in html
        assert "<th scope='row'>other</th><td>10.0 ms</td>" in html

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (ValueError("one\ntwo"), "one"),
            (MemoryError(), "not enough memory"),
            (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), "not enough memory"),
            (type("InductorError", (RuntimeError,), {})("g++"), "choose the eager engine"),
            (RuntimeError("/root/secret"), "the log says more"),
        ],
    )
    def test_errors_in_words(self, error: Exception, said: str) -> None:
        assert said in wording.failure(error)
        assert "secret" not in wording.failure(error)

    def test_a_question_and_its_text_become_one_message(self) -> None:
        assert wording.question("reverse", "one two") == "reverse: one two"
        assert wording.question("What was said?", "one") == "What was said?\n\none"

    def test_a_compiled_run_says_that_it_may_take_long(self) -> None:
        started = PhaseStarted(0, "encoder")
        assert "minute" in str(wording.doing(started, engine="compile"))
        assert "minute" not in str(wording.doing(started, engine="eager"))

    def test_every_choice_of_the_core_has_a_title(self) -> None:
        assert tuple(wording.ENGINES) == ENGINES
        assert tuple(wording.DECODINGS) == DECODINGS
        assert tuple(wording.TASKS) == TASKS

    def test_a_long_recording_tells_how_far_it_is(self) -> None:
        paced = Paced(done_s=30.0, total_s=95.4, spent_s=10.0)
        assert wording.doing(paced, engine="eager") == "Heard 0:30 of 1:35, about 21.8 s left"
        assert wording.doing(Paced(3700.0, None, 1.0), engine="eager") == "Heard 1:01:40"

    def test_drafts_are_counted(self) -> None:
        drafted = replace(TRANSCRIPT, draft=DraftReport(drafted=9, accepted=7, passes=2))
        rows = result_wording.figures(replace(self.outcome, transcript=drafted))
        assert ("Drafts kept", "7 of 9", "in 2 passes of the decoder") in rows


class TestModelCards:
    def test_known_models_state_licence_size_and_abilities(self) -> None:
        html = model_wording.model_html(card_of_name("ibm-granite/granite-speech-3.3-2b"))
        for part in ("Apache-2.0", "3.0 billion parameters", "5.6 GiB", "French", "translates"):
            assert part in html

    def test_lora_is_explained_where_there_is_none(self) -> None:
        assert card_of_name("granite-speech-4.1-2b").has_adapter is False
        assert "no adapter" in model_wording.lora_note(card_of_name("granite-speech-4.1-2b"))

    def test_unknown_models_promise_nothing(self) -> None:
        card = card_of_name("someone/something")
        assert card.has_adapter is None
        assert not card.known
        json.dumps(card.to_dict())


class TestPage:
    def test_the_api_names(self) -> None:
        page = build_app(studio_of([]))
        public = {f.api_name for f in page.fns.values() if f.api_visibility == "public"}
        assert public == {"transcribe", "models", "compare", "profile", "read_trace"}

    def test_model_events_share_one_place_in_the_queue(self) -> None:
        page = build_app(studio_of([]))
        shared = [f for f in page.fns.values() if f.concurrency_id == "model"]
        # The page's own (run, ask, load, unload, look) and those of programs.
        assert {str(f.api_name).partition("_")[0] for f in shared} >= {
            *("run", "ask", "load", "unload", "look", "transcribe", "compare", "profile"),
        }
        assert all(f.concurrency_limit == 1 for f in shared)

    def test_uploads_are_deleted(self) -> None:
        assert build_app(studio_of([])).delete_cache == (600, 3600)

    def test_errors_become_plain_sentences(self) -> None:
        with pytest.raises(gr.Error) as caught, plain_errors():
            raise ValueError("a <b> came")
        assert caught.value.message == "a &lt;b&gt; came"
        assert not caught.value.print_exception

    def test_examples_have_texts(self, tmp_path: Path) -> None:
        assert read_examples(tmp_path) == []
        (tmp_path / "a.wav").touch()
        (tmp_path / "transcripts.json").write_text('{"a.wav": "one", "gone.wav": "two"}')
        assert [example.text for example in read_examples(tmp_path)] == ["one"]

    def test_the_app_never_imports_torch(self) -> None:
        for file in sorted((ROOT / "app").glob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not any(name.split(".")[0] == "torch" for name in names), file.name
