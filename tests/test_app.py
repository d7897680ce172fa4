"""Settings and the wiring of the page, without a browser and without a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest

from app.components.failures import failures_shown, plain_errors
from app.service.examples import read_examples
from app.service.settings import Settings, split_keywords
from app.ui import build_app
from app_stubs import service_of
from core.errors import UserError


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


class TestPage:
    def test_the_api_names(self) -> None:
        page = build_app(service_of([]))
        public = {f.api_name for f in page.fns.values() if f.api_visibility == "public"}
        assert public == {"transcribe", "models", "compare", "profile", "read_trace"}

    def test_model_events_reach_the_line_that_says_what_runs_and_leave_threads_to_others(
        self,
    ) -> None:
        page = build_app(service_of([]))
        kinds = {
            kind: [f for f in page.fns.values() if f.concurrency_id == kind]
            for kind in ("model", "measurement")
        }
        names = {
            kind: {str(f.api_name).partition("_")[0] for f in found}
            for kind, found in kinds.items()
        }
        # The page's own (run, ask, load, unload, look) and those of programs.
        assert names["model"] >= {"run", "ask", "load", "unload", "look", "transcribe"}
        assert names["measurement"] == {"run", "compare", "profile"}
        limits = [{f.concurrency_limit for f in found} for found in kinds.values()]
        assert all(len(same) == 1 for same in limits)  # or Gradio would take the smallest
        assert 2 <= sum(sum(same) for same in limits) <= 20

    def test_uploads_are_deleted(self) -> None:
        assert build_app(service_of([])).delete_cache == (600, 3600)

    def test_a_callers_mistake_is_shown_and_escaped(self) -> None:
        with pytest.raises(gr.Error) as caught, plain_errors():
            raise UserError("a <b> came")
        assert caught.value.message == "a &lt;b&gt; came"
        assert not caught.value.print_exception

    def test_an_error_from_inside_is_logged_with_its_stack_and_not_shown(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(gr.Error) as caught, plain_errors():
            list(zip([1], [], strict=True))
        assert caught.value.message.endswith("(ValueError); the log says more")
        (record,) = caplog.records
        assert "zip() argument 2 is shorter" in caplog.text
        assert record.exc_info

    def test_a_failed_job_shows_one_message_and_logs_it_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        def run(session: str) -> Iterator[dict[str, str]]:
            yield {"status": session}
            raise ValueError("secret")

        shown = failures_shown(lambda message: {"status": message}, run, "me")
        assert next(shown) == {"status": "me"}
        told = next(shown)["status"]
        with pytest.raises(gr.Error, match="the log says more") as caught:
            next(shown)
        assert caught.value.message == told
        assert len(caplog.records) == 1

    def test_examples_have_texts(self, tmp_path: Path) -> None:
        assert read_examples(tmp_path) == []
        (tmp_path / "a.wav").touch()
        (tmp_path / "transcripts.json").write_text('{"a.wav": "one", "gone.wav": "two"}')
        assert [example.text for example in read_examples(tmp_path)] == ["one"]
