"""Numbers, errors and models in words."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from app.service.model_summary import summary_of_name
from app.service.updates import RequestResult
from app.service.user_errors import user_message
from app.wording import models, phrases, results
from app_stubs import TRANSCRIPT
from core.errors import UserError
from core.text.prompts import TASKS
from core.text.transcript import DraftReport
from core.transcription.options import DECODINGS, ENGINES


class TestWording:
    outcome = RequestResult(TRANSCRIPT, compile_s=0.0, load_s=0.0, summary=summary_of_name("tiny"))

    def test_a_fast_run(self) -> None:
        said = results.headline(self.outcome)
        assert said == "Transcribed 3.0 s of audio in 100 ms, 30.3x faster than real time."

    def test_compiling_and_loading_are_told(self) -> None:
        said = results.headline(replace(self.outcome, compile_s=21.34, load_s=1.5))
        assert "21.3 s compiled its graphs" in said
        assert "Loading the model took 1.5 s" in said

    def test_silence(self) -> None:
        nothing = replace(TRANSCRIPT, text="", warnings=("no speech was heard in this recording",))
        said = results.headline(replace(self.outcome, transcript=nothing))
        assert said.startswith("No speech was heard in this recording.")

    def test_a_stopped_run_keeps_its_text_and_says_so_once(self) -> None:
        stopped = replace(self.outcome, transcript=replace(TRANSCRIPT, stopped=True))
        assert results.headline(stopped).startswith("Stopped after 100 ms.")
        assert "Stopped" not in results.notes_html(stopped)

    def test_warnings_stand_under_the_text(self) -> None:
        cut = replace(TRANSCRIPT, warnings=("the text was cut",))
        html = results.notes_html(replace(self.outcome, transcript=cut))
        assert "<p class='note warning'>The text was cut.</p>" in html

    def test_everything_from_outside_is_escaped(self) -> None:
        summary = replace(summary_of_name("x"), title="<b>", licence="<script>", notes="<i>")
        for html in (models.model_html(summary), models.models_html([summary])):
            assert "<script>" not in html
            assert "<i>" not in html
        assert "<x>" not in phrases.status_html("<x>") + results.notes_html(self.outcome)

    def test_unsure_words_are_named_gently(self) -> None:
        assert results.unsure(TRANSCRIPT) == "Least sure of: “one” (41 %)"

    def test_numbers_have_an_equivalent_for_screen_readers(self) -> None:
        html = results.figures_html(self.outcome)
        assert "<th scope='row'>encoder</th><td>60.0 ms</td>" in html
        assert "<th scope='row'>other</th><td>10.0 ms</td>" in html

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (UserError("one\ntwo"), "one"),
            (MemoryError(), "not enough memory"),
            (RuntimeError("can't allocate memory"), "not enough memory"),
            (ValueError("secret: zip() argument 2 is shorter"), "(ValueError); the log says more"),
            (FileNotFoundError("/root/secret"), "the log says more"),
            (RuntimeError("/root/secret"), "the log says more"),
        ],
    )
    def test_errors_in_words(self, error: Exception, said: str) -> None:
        assert said in user_message(error)
        assert "secret" not in user_message(error)

    def test_a_question_and_its_text_become_one_message(self) -> None:
        assert phrases.question("reverse", "one two") == "reverse: one two"
        assert phrases.question("What was said?", "one") == "What was said?\n\none"

    def test_every_choice_of_the_core_has_a_title(self) -> None:
        assert tuple(phrases.ENGINES) == ENGINES
        assert tuple(phrases.DECODINGS) == DECODINGS
        assert tuple(phrases.TASKS) == TASKS

    def test_drafts_are_counted(self) -> None:
        drafted = replace(TRANSCRIPT, draft=DraftReport(drafted=9, accepted=7, passes=2))
        rows = results.figures(replace(self.outcome, transcript=drafted))
        assert ("Drafts kept", "7 of 9", "in 2 passes of the decoder") in rows

    def test_an_edited_draft_is_shown_beside_its_edit(self) -> None:
        edited = replace(TRANSCRIPT, text="three, <b> two", draft=DraftReport(3, 2, 1, "three <b>"))
        html = results.notes_html(replace(self.outcome, transcript=edited))
        assert "<p><mark>three</mark> &lt;b&gt;</p>" in html
        assert "<p><mark>three,</mark> &lt;b&gt; <mark>two</mark></p>" in html
        same = replace(edited, text="three <b>")
        html = results.notes_html(replace(self.outcome, transcript=same))
        assert "left the CTC draft as it was" in html
        assert "<mark>" not in html
        plain = replace(edited, draft=DraftReport(3, 2, 1))
        assert "<mark>" not in results.notes_html(replace(self.outcome, transcript=plain))


class TestModelSummaries:
    def test_a_text_mode_says_what_it_cannot_answer(self) -> None:
        tiny = summary_of_name("tiny")
        tiny.check_question(" Write in digits")
        with pytest.raises(UserError, match="cannot answer .*: it knows repeat"):
            tiny.check_question("In which month was that?")
        summary_of_name("granite-speech-3.3-2b").check_question("In which month was that?")

    def test_known_models_state_licence_size_and_abilities(self) -> None:
        html = models.model_html(summary_of_name("ibm-granite/granite-speech-3.3-2b"))
        for part in ("Apache-2.0", "3.0 billion parameters", "6.06 GB", "French", "translates"):
            assert part in html

    def test_lora_is_explained_where_there_is_none(self) -> None:
        assert summary_of_name("granite-speech-4.1-2b").has_adapter is False
        assert "no adapter" in models.lora_note(summary_of_name("granite-speech-4.1-2b"))

    def test_unknown_models_promise_nothing(self) -> None:
        summary = summary_of_name("someone/something")
        assert summary.has_adapter is None
        assert not summary.known
        json.dumps(summary.to_dict())


def test_a_message_is_one_line_of_bounded_length_whatever_it_repeats() -> None:
    error = UserError(f"the name is {'x' * 100_000!r}\nof two lines\u2028; choose another")
    said = str(error)
    assert len(said) <= 1_000
    assert len(said.splitlines()) == 1
    assert said.startswith("the name is 'xxx")
    assert said.endswith("; choose another")
    assert user_message(error) == said
