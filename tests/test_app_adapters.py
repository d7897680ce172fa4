"""Adapters in the app, without a browser: a random checkpoint and random adapters of it.

Run alone: ``python -m pytest tests/test_app_adapters.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

import core
from adapters import TOKENS, add, text, write_mine
from app.components.adapters_panel import list_html
from app.components.kept_settings import accepted, restored
from app.components.settings_panel import FIELDS, build_settings
from app.service import measurement_job
from app.service.measurement import Measuring
from app.service.measurement_job import How, Measured
from app.service.model_actions import remove_adapter, unload_model
from app.service.profile_library import RunShelf
from app.service.service import Studio
from app.service.settings import Settings
from app.serving import serve
from app.ui import build_app
from app.wording.comparison import names
from app.wording.models import lora_note, model_html
from measuring import RECORDING
from profiling.roofline.machine_peaks import GPUS
from profiling.runs import session


@pytest.fixture
def studio(speech_folder: Path) -> Iterator[Studio]:
    """The random checkpoint; its name in the app is its folder."""
    made = Studio(model=str(speech_folder), device="cpu", dtype="float32")
    yield made
    made.close()


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with an adapter of that checkpoint."""
    return write_mine(tmp_path)


@pytest.fixture
def clip(tmp_path: Path) -> str:
    file = tmp_path / "noise.wav"
    file.write_bytes(RECORDING)
    return str(file)


class TestRequests:
    def test_each_runs_with_the_adapter_it_names(
        self, studio: Studio, mine: Path, clip: str, speech_folder: Path
    ) -> None:
        before = text(studio, clip)
        assert add(studio, mine) == "mine"
        lab = core.load(speech_folder, device="cpu", dtype="float32")
        lab.add_adapter("x", mine)
        expected = lab.transcribe(clip, adapter="x", max_new_tokens=TOKENS).text
        assert expected != before
        assert text(studio, clip, adapter="mine") == expected
        assert text(studio, clip) == before
        assert text(studio, clip, adapter="default") == before
        assert text(studio, clip, lora=False) not in (before, expected)

    def test_a_model_that_was_unloaded_or_loaded_anew_has_it_again(
        self, studio: Studio, mine: Path, clip: str
    ) -> None:
        add(studio, mine)
        expected = text(studio, clip, adapter="mine")
        assert unload_model(studio, studio.model)
        assert studio.card(studio.model).adapters == ("mine",)
        assert text(studio, clip, adapter="mine") == expected
        assert text(studio, clip, adapter="mine", dtype="bfloat16")

    def test_one_that_was_removed_is_told_with_those_there_are(
        self, studio: Studio, mine: Path, clip: str
    ) -> None:
        before = text(studio, clip)
        add(studio, mine, "one")
        add(studio, mine, "two")
        text(studio, clip, adapter="one")
        remove_adapter(studio, studio.model, "one")
        assert studio.card(studio.model).adapters == ("two",)
        with pytest.raises(ValueError, match="no adapter 'one' was added.*there are: two.*Models"):
            text(studio, clip, adapter="one")
        with pytest.raises(ValueError, match="no adapter 'one'"):
            remove_adapter(studio, studio.model, "one")
        assert text(studio, clip) == before

    def test_what_the_encoder_heard_takes_it_too(
        self, studio: Studio, mine: Path, clip: str
    ) -> None:
        with pytest.raises(ValueError, match="no adapter 'mine'"):
            studio.hear(clip, Settings(model=studio.model, adapter="mine"))
        add(studio, mine)
        assert studio.hear(clip, Settings(model=studio.model, adapter="mine")).mel.size

    def test_two_adapters_are_compared_by_their_names(
        self, studio: Studio, mine: Path, clip: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(measurement_job, "measure_ceilings", lambda *_: GPUS["H200"])
        monkeypatch.setattr(session, "capture", partial(session.capture, num_steps=1, tax_blocks=1))
        add(studio, mine)
        measuring = Measuring(studio, RunShelf(None))
        own = Settings(model=studio.model, max_new_tokens=4)
        other = Settings(model=studio.model, max_new_tokens=4, adapter="mine")
        *_, end = measuring.compare("me", clip, own, other, How(blocks=1, fixed_length=True))
        assert isinstance(end, Measured)
        assert names(*end.runs) == ("LoRA on", "adapter mine")
        assert "adapter mine" in end.runs[1]["workload"]["label"]
        assert end.runs[1]["transcript_text"] != end.runs[0]["transcript_text"]


class TestPage:
    def test_the_choice_is_there_once_there_is_one(self, studio: Studio, mine: Path) -> None:
        with gr.Blocks():
            panel = build_settings(studio)
        adapter = panel.field("adapter")
        assert not adapter.visible
        add(studio, mine)
        card = studio.card(studio.model)
        changes = panel.refresh(card, "transcribe", "mine")
        assert changes[adapter]["visible"]
        assert changes[adapter]["choices"] == [("The model's own", ""), ("mine", "mine")]
        assert changes[adapter]["value"] == "mine"
        assert panel.refresh(card, "transcribe", "gone")[adapter]["value"] == ""
        assert "chosen here" in lora_note(card)
        assert "Adapters added here: mine" in model_html(card)

    def test_it_counts_while_lora_is_on(self, studio: Studio) -> None:
        with gr.Blocks():
            panel = build_settings(studio)
        values = {name: panel.field(name).value for name in FIELDS} | {"adapter": "mine"}
        assert panel.read(tuple(values.values())).options()["adapter"] == "mine"
        off = panel.read(tuple((values | {"lora": False}).values())).options()
        assert off["lora"] is False
        assert "adapter" not in off

    def test_a_link_keeps_it_where_it_exists(self, studio: Studio, mine: Path) -> None:
        wanted = {"model": studio.model, "adapter": "mine"}
        assert "adapter" not in accepted(studio.card(studio.model), wanted)
        add(studio, mine)
        assert accepted(studio.card(studio.model), wanted)["adapter"] == "mine"
        with gr.Blocks():
            panel = build_settings(studio)
        change = restored(studio, panel, wanted)[panel.field("adapter")]
        assert (change["value"], change["visible"]) == ("mine", True)
        assert ("mine", "mine") in change["choices"]

    def test_names_from_outside_are_escaped(self, studio: Studio, mine: Path) -> None:
        add(studio, mine, "<b>mine")
        html = list_html(studio, studio.model) + model_html(studio.card(studio.model))
        assert "&lt;b&gt;mine" in html
        assert "<b>mine" not in html.replace("<b>&lt;b&gt;mine", "")


def test_programs_name_it_and_see_it(studio: Studio, mine: Path, clip: str) -> None:
    app = build_app(studio)
    client = Client(serve(app, block=False), verbose=False, analytics_enabled=False)
    try:

        def ask(**options: Any) -> str:
            options["max_new_tokens"] = TOKENS
            answer = client.predict(handle_file(clip), api_name="/transcribe", **options)
            return str(answer["text"])

        with pytest.raises(AppError, match="no adapter 'mine' was added to"):
            ask(adapter="mine")
        own = ask()
        add(studio, mine)
        assert ask(adapter="mine") == text(studio, clip, adapter="mine") != own
        (card,) = [c for c in client.predict(api_name="/models") if c["name"] == studio.model]
        assert card["adapters"] == ["mine"]
        with pytest.raises(AppError, match="came with LoRA off; give one or the other"):
            ask(adapter="mine", lora="off")
    finally:
        client.close()
        app.close()
