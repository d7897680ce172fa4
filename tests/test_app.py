"""Settings and the wiring of the page, without a browser and without a model."""

from __future__ import annotations

import ast
from pathlib import Path

import gradio as gr
import pytest

from app.components.failures import plain_errors
from app.service.examples import read_examples
from app.service.settings import Settings, split_keywords
from app.ui import build_app
from app_stubs import service_of

ROOT = Path(__file__).resolve().parent.parent


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

    def test_model_events_share_one_place_in_the_queue(self) -> None:
        page = build_app(service_of([]))
        shared = [f for f in page.fns.values() if f.concurrency_id == "model"]
        # The page's own (run, ask, load, unload, look) and those of programs.
        assert {str(f.api_name).partition("_")[0] for f in shared} >= {
            *("run", "ask", "load", "unload", "look", "transcribe", "compare", "profile"),
        }
        assert all(f.concurrency_limit == 1 for f in shared)

    def test_uploads_are_deleted(self) -> None:
        assert build_app(service_of([])).delete_cache == (600, 3600)

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
        for file in sorted((ROOT / "app").rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not any(name.split(".")[0] == "torch" for name in names), file.name
