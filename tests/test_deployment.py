"""Where the app runs: the environment, limits of strangers, how it is served."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest

from app.service.deployment import PERFETTO, Deployment, read_deployment
from app.service.limits import Limits
from app.service.service import TranscriptionService
from app.service.settings import Settings
from app.serving import serve
from app.ui import build_app
from core.errors import UserError
from measuring import RECORDING
from recordings import clip, encode

ROOT = Path(__file__).resolve().parent.parent


class TestEnvironment:
    def test_at_home_everything_is_allowed_and_runs_are_kept(self) -> None:
        here = read_deployment({})
        assert here == Deployment()
        assert (here.public, here.runs, here.max_audio_s) == (False, Path("runs"), None)
        assert here.no_compile is here.no_timing is here.no_live is None

    def test_a_space_is_public_unless_told_otherwise(self) -> None:
        there = read_deployment({"SPACE_ID": "me/lab"})
        assert (there.public, there.runs, there.max_audio_s) == (True, None, 600.0)
        assert there.max_trace_bytes < Deployment().max_trace_bytes
        own = read_deployment({"SPACE_ID": "me/lab", "GSL_PUBLIC": "0"})
        assert (own.public, own.runs) == (False, Path("runs"))

    def test_zero_gpu_says_why_it_neither_compiles_nor_times(self) -> None:
        there = read_deployment({"SPACE_ID": "me/lab", "SPACES_ZERO_GPU": "true"})
        assert "process" in str(there.no_compile)
        assert "queue" in str(there.no_timing)
        assert "seconds" in str(there.no_live)

    def test_the_second_process_is_there_unless_switched_off(self) -> None:
        assert read_deployment({}).second_process
        assert not read_deployment({"GSL_SECOND_PROCESS": "0"}).second_process

    def test_everything_can_be_set(self) -> None:
        found = read_deployment(
            {
                "GSL_MODEL": "granite-speech-3.3-2b",
                "GSL_DEVICE": "cuda",
                "GSL_DTYPE": "bfloat16",
                "GSL_PUBLIC": "yes",
                "GSL_RUNS": "kept",
                "GSL_MAX_AUDIO_S": "90",
                "GSL_MAX_UPLOAD_MB": "10",
                "GSL_API_KEY": " sesame ",
                "GSL_PASSWORD": "open",
                "GSL_MCP": "1",
                "GSL_PERFETTO": "https://perfetto.example/",
                "GSL_GIVE_WAY": "1",
            }
        )
        assert found == Deployment(
            model="granite-speech-3.3-2b",
            device="cuda",
            dtype="bfloat16",
            public=True,
            runs=Path("kept"),
            max_audio_s=90.0,
            max_upload_mb=10,
            mcp=True,
            perfetto="https://perfetto.example",
            gives_way=True,
            api_key="sesame",
            password="open",
        )
        assert "sesame" not in repr(found)
        assert "open" not in repr(found)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("GSL_PUBLIC", "maybe"),
            ("GSL_MAX_AUDIO_S", "long"),
            ("GSL_MAX_UPLOAD_MB", "-1"),
            ("GSL_PERFETTO", "javascript:alert"),
            ("GSL_PERFETTO", "ui.perfetto.dev"),
        ],
    )
    def test_a_value_nobody_understands_names_its_variable(self, name: str, value: str) -> None:
        with pytest.raises(ValueError, match=f"{name} is '{value}'"):
            read_deployment({name: value})

    def test_perfetto_is_on_unless_switched_off(self) -> None:
        assert read_deployment({"GSL_PERFETTO": "1"}).perfetto == PERFETTO
        assert read_deployment({"GSL_PERFETTO": "0"}).perfetto is None

    def test_every_variable_is_in_the_guide(self) -> None:
        source = (ROOT / "app" / "service" / "deployment.py").read_text(encoding="utf-8")
        guide = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
        names = {part.split('"')[0] for part in source.split('"GSL_')[1:]}
        assert len(names) >= 8
        assert [name for name in sorted(names) if f"`GSL_{name}`" not in guide] == []


class TestLimits:
    public = Limits.of(Deployment(public=True, max_audio_s=1.0))

    def test_strangers_choose_from_the_catalog(self) -> None:
        self.public.check_model("tiny")
        self.public.check_model("ibm-granite/granite-speech-3.3-2b")
        for other in ("/etc", "somebody/something", ".."):
            with pytest.raises(ValueError, match="is not run on this public page"):
                self.public.check_model(other)
            Limits().check_model(other)

    def test_a_service_never_loads_what_is_not_allowed(self) -> None:
        loaded: list[str] = []
        service = TranscriptionService(
            loader=lambda name, **_: loaded.append(name), limits=self.public
        )  # type: ignore[arg-type, return-value]
        for ask in (
            lambda: list(service.stream("me", "x.wav", Settings(model="/etc"))),
            lambda: list(service.ask("me", "/etc", "hello")),
        ):
            with pytest.raises(ValueError, match="not run on this public page"):
                ask()
        assert loaded == []

    def test_long_recordings_are_refused_before_they_are_decoded(self, tmp_path: Path) -> None:
        file = tmp_path / "noise.wav"
        file.write_bytes(RECORDING)  # two seconds
        with pytest.raises(ValueError, match=r"this page takes up to \d+"):
            self.public.check_recording(str(file))
        assert Limits().check_recording(str(file)) == str(file)

    def test_a_header_that_says_less_than_there_is_is_not_believed(self, tmp_path: Path) -> None:
        file = tmp_path / "joined.mp3"
        parts = [encode("mp3", "libmp3lame", 16_000, clip(16_000, s)) for s in (0.5, 3.0)]
        file.write_bytes(b"".join(parts))
        with pytest.raises(ValueError, match="this page takes up to 2 s"):
            Limits(max_audio_s=2.0).check_recording(str(file))
        assert Limits(max_audio_s=5.0).check_recording(str(file)) == str(file)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"model": None},
            {"model": "x" * 10**6},
            {"max_new_tokens": "9"},
            {"max_new_tokens": float("nan")},
            {"num_beams": 2.5, "decoding": "beam"},
            {"temperature": [], "decoding": "sample"},
            {"language": 7},
            {"adapter": {}},
            {"lora": "on"},
            {"engine": None},
        ],
    )
    def test_arguments_of_a_wrong_type_are_one_short_line(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(UserError) as refused:
            Limits().check(Settings(**{"model": "tiny", **wrong}))
        assert len(str(refused.value)) < 300

    def test_compiling_is_refused_with_the_reason_and_only_where_it_is_off(self) -> None:
        asked = Settings(model="tiny", engine="compile")
        with pytest.raises(ValueError, match="Compiling is off on ZeroGPU"):
            Limits.of(Deployment(zero_gpu=True)).check(asked)
        Limits().check(asked)


def test_without_the_package_for_mcp_the_start_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.serving.find_spec", lambda name: None)
    page = build_app(TranscriptionService())
    with pytest.raises(ValueError, match=r"pip install 'gradio\[mcp\]'"):
        serve(page, deployment=replace(Deployment(), mcp=True), block=False)


def test_a_password_is_asked_for_before_the_page_says_anything() -> None:
    with gr.Blocks() as app:
        gr.Markdown("inside")
    address = serve(app, block=False, deployment=Deployment(password="sesame"))
    try:
        with httpx.Client(base_url=address) as visitor:
            assert visitor.get("config").status_code == 401
            wrong = visitor.post("login", data={"username": "me", "password": "sesam"})
            assert wrong.status_code == 400
            assert visitor.get("config").status_code == 401
            right = visitor.post("login", data={"username": "me", "password": "sesame"})
            assert right.status_code == 200
            assert "inside" in visitor.get("config").text
    finally:
        app.close()


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} is taken; choose another"):
            serve(build_app(TranscriptionService()), port=port, block=False)
