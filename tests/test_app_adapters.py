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
from app.components.switches import build_switches
from app.service import measurement_job
from app.service.measurement import MeasurementService
from app.service.measurement_job import MeasurementOptions, MeasurementResult
from app.service.model_actions import remove_adapter, unload_model
from app.service.profiles.library import ProfileLibrary
from app.service.service import TranscriptionService
from app.service.settings import Settings
from app.serving import serve
from app.ui import build_app
from app.wording.comparison import names
from app.wording.models import lora_note, model_html
from measuring import RECORDING
from profiling.measure.capture import TraceLimits
from profiling.roofline.machine_peaks import GPUS
from profiling.runs import session


@pytest.fixture
def service(speech_folder: Path) -> Iterator[TranscriptionService]:
    """The random checkpoint; its name in the app is its folder."""
    made = TranscriptionService(model=str(speech_folder), device="cpu", dtype="float32")
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
        self, service: TranscriptionService, mine: Path, clip: str, speech_folder: Path
    ) -> None:
        before = text(service, clip)
        assert add(service, mine) == "mine"
        lab = core.load(speech_folder, device="cpu", dtype="float32")
        lab.add_adapter("x", mine)
        expected = lab.transcribe(clip, adapter="x", max_new_tokens=TOKENS).text
        assert expected != before
        assert text(service, clip, adapter="mine") == expected
        assert text(service, clip) == before
        assert text(service, clip, adapter="default") == before
        assert text(service, clip, lora=False) not in (before, expected)

    def test_a_model_that_was_unloaded_or_loaded_anew_has_it_again(
        self, service: TranscriptionService, mine: Path, clip: str
    ) -> None:
        add(service, mine)
        expected = text(service, clip, adapter="mine")
        assert unload_model(service, service.model)
        assert service.summary(service.model).adapters == ("mine",)
        assert text(service, clip, adapter="mine") == expected
        assert text(service, clip, adapter="mine", dtype="bfloat16")

    def test_one_that_was_removed_is_told_with_those_there_are(
        self, service: TranscriptionService, mine: Path, clip: str
    ) -> None:
        before = text(service, clip)
        add(service, mine, "one")
        add(service, mine, "two")
        text(service, clip, adapter="one")
        remove_adapter(service, service.model, "one")
        assert service.summary(service.model).adapters == ("two",)
        with pytest.raises(ValueError, match="no adapter 'one' was added.*there are: two.*Models"):
            text(service, clip, adapter="one")
        with pytest.raises(ValueError, match="no adapter 'one'"):
            remove_adapter(service, service.model, "one")
        assert text(service, clip) == before

    def test_what_the_encoder_heard_takes_it_too(
        self, service: TranscriptionService, mine: Path, clip: str
    ) -> None:
        with pytest.raises(ValueError, match="no adapter 'mine'"):
            service.encoder_view(clip, Settings(model=service.model, adapter="mine"))
        add(service, mine)
        assert service.encoder_view(clip, Settings(model=service.model, adapter="mine")).mel.size

    def test_two_adapters_are_compared_by_their_names(
        self, service: TranscriptionService, mine: Path, clip: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(measurement_job, "measure_ceilings", lambda *_: GPUS["H200"])
        monkeypatch.setattr(
            session,
            "capture",
            partial(session.capture, limits=TraceLimits(num_steps=1, tax_blocks=1)),
        )
        add(service, mine)
        measuring = MeasurementService(service, ProfileLibrary(None))
        own = Settings(model=service.model, max_new_tokens=4)
        other = Settings(model=service.model, max_new_tokens=4, adapter="mine")
        *_, end = measuring.compare(
            "me", clip, own, other, MeasurementOptions(blocks=1, fixed_length=True)
        )
        assert isinstance(end, MeasurementResult)
        assert names(*end.runs) == ("LoRA on", "adapter mine")
        assert "adapter mine" in end.runs[1]["workload"]["label"]
        assert end.runs[1]["transcript_text"] != end.runs[0]["transcript_text"]


class TestPage:
    def test_the_choice_is_there_once_there_is_one(
        self, service: TranscriptionService, mine: Path
    ) -> None:
        with gr.Blocks():
            panel = build_settings(service, build_switches(service))
        adapter = panel.field("adapter")
        assert not adapter.visible
        add(service, mine)
        summary = service.summary(service.model)
        changes = panel.refresh(summary, "transcribe", "greedy", "mine")
        assert changes[adapter]["visible"]
        assert changes[adapter]["choices"] == [("The model's own", ""), ("mine", "mine")]
        assert changes[adapter]["value"] == "mine"
        assert panel.refresh(summary, "transcribe", "greedy", "gone")[adapter]["value"] == ""
        assert "chosen here" in lora_note(summary)
        assert "Adapters added here: mine" in model_html(summary)

    def test_it_counts_while_lora_is_on(self, service: TranscriptionService, mine: Path) -> None:
        add(service, mine)
        with gr.Blocks():
            panel = build_settings(service, build_switches(service))
        values = {name: panel.field(name).value for name in FIELDS} | {"adapter": "mine"}
        assert panel.read(tuple(values.values())).options()["adapter"] == "mine"
        off = panel.read(tuple((values | {"lora": False}).values())).options()
        assert off["lora"] is False
        assert "adapter" not in off

    def test_a_link_keeps_it_where_it_exists(
        self, service: TranscriptionService, mine: Path
    ) -> None:
        wanted = {"model": service.model, "adapter": "mine"}
        assert "adapter" not in accepted(service.summary(service.model), wanted)
        add(service, mine)
        assert accepted(service.summary(service.model), wanted)["adapter"] == "mine"
        with gr.Blocks():
            panel = build_settings(service, build_switches(service))
        change = restored(service, panel, wanted)[panel.field("adapter")]
        assert (change["value"], change["visible"]) == ("mine", True)
        assert ("mine", "mine") in change["choices"]

    def test_names_from_outside_are_escaped(
        self, service: TranscriptionService, mine: Path
    ) -> None:
        add(service, mine, "<b>mine")
        html = list_html(service, service.model) + model_html(service.summary(service.model))
        assert "&lt;b&gt;mine" in html
        assert "<b>mine" not in html.replace("<b>&lt;b&gt;mine", "")


def test_programs_name_it_and_see_it(service: TranscriptionService, mine: Path, clip: str) -> None:
    app = build_app(service)
    client = Client(serve(app, block=False), verbose=False, analytics_enabled=False)
    try:

        def ask(**options: Any) -> str:
            options["max_new_tokens"] = TOKENS
            answer = client.predict(handle_file(clip), api_name="/transcribe", **options)
            return str(answer["text"])

        with pytest.raises(AppError, match="no adapter 'mine' was added to"):
            ask(adapter="mine")
        own = ask()
        add(service, mine)
        assert ask(adapter="mine") == text(service, clip, adapter="mine") != own
        (summary,) = [c for c in client.predict(api_name="/models") if c["name"] == service.model]
        assert summary["adapters"] == ["mine"]
        with pytest.raises(AppError, match="came with LoRA off; give one or the other"):
            ask(adapter="mine", lora="off")
    finally:
        client.close()
        app.close()
