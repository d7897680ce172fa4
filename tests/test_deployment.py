"""Where the app runs: the environment, limits of strangers, a GPU that is lent by the call."""

from __future__ import annotations

import pickle
import runpy
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.deployment import Deployment, read_deployment
from app.limits import Limits
from app.serving import serve
from app.settings import Settings
from app.shelf import Shelf
from app.studio import Studio
from app.ui import build_app
from app.zero_gpu import HEAR, LEAST_S, MOST_S, TRANSCRIBE, Failed, LentGpu, seconds_needed
from core.lab import Lab as RealLab
from measuring import RECORDING

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
                "GSL_MCP": "1",
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
        )

    @pytest.mark.parametrize(
        ("name", "value"),
        [("GSL_PUBLIC", "maybe"), ("GSL_MAX_AUDIO_S", "long"), ("GSL_MAX_UPLOAD_MB", "-1")],
    )
    def test_a_value_nobody_understands_names_its_variable(self, name: str, value: str) -> None:
        with pytest.raises(ValueError, match=f"{name} is '{value}'"):
            read_deployment({name: value})

    def test_every_variable_is_in_the_guide(self) -> None:
        source = (ROOT / "app" / "deployment.py").read_text(encoding="utf-8")
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

    def test_a_studio_never_loads_what_is_not_allowed(self) -> None:
        loaded: list[str] = []
        studio = Studio(loader=lambda name, **_: loaded.append(name), limits=self.public)  # type: ignore[arg-type, return-value]
        for ask in (
            lambda: list(studio.stream("me", "x.wav", Settings(model="/etc"))),
            lambda: list(studio.ask("me", "/etc", "hello")),
        ):
            with pytest.raises(ValueError, match="not run on this public page"):
                ask()
        assert loaded == []

    def test_long_recordings_are_refused_before_they_are_decoded(self, tmp_path: Path) -> None:
        file = tmp_path / "noise.wav"
        file.write_bytes(RECORDING)  # two seconds
        with pytest.raises(ValueError, match="this page takes up to"):
            self.public.check_recording(str(file))
        assert Limits().check_recording(str(file)) == str(file)

    def test_compiling_is_refused_with_the_reason_and_only_where_it_is_off(self) -> None:
        asked = Settings(model="tiny", engine="compile")
        with pytest.raises(ValueError, match="Compiling is off on ZeroGPU"):
            Limits.of(Deployment(zero_gpu=True)).check(asked)
        Limits().check(asked)


class Lab:
    """Yields what it was asked, then fails."""

    def stream(self, recording: str, *, cancelled: Callable[[], bool], **_: Any) -> Iterator[Any]:
        for number in range(5):
            if cancelled():
                return
            yield number
        raise ValueError(f"{Path(recording).name} is broken")


def other_process(work: Callable[..., Iterator[Any]], duration: Any) -> Callable[..., Any]:
    """``spaces.GPU``: values are pickled on the way in and on the way out."""

    def call(*values: Any) -> Iterator[Any]:
        call.seconds = duration(*values)  # type: ignore[attr-defined]
        for value in work(*pickle.loads(pickle.dumps(values))):
            yield pickle.loads(pickle.dumps(value))

    return call


class TestLentGpu:
    @pytest.fixture
    def lent(self, monkeypatch: pytest.MonkeyPatch) -> LentGpu:
        shelf = Shelf("tiny", None, None, lambda *_, **__: Lab())  # type: ignore[arg-type, return-value]
        return LentGpu(shelf, other_process)

    @pytest.fixture
    def recording(self, tmp_path: Path) -> str:
        (tmp_path / "noise.wav").write_bytes(RECORDING)
        return str(tmp_path / "noise.wav")

    def test_events_come_out_and_errors_speak_for_themselves(
        self, lent: LentGpu, recording: str
    ) -> None:
        seen: list[int] = []
        events = lent(TRANSCRIBE, lambda: False, recording, Settings(model="tiny"))
        with pytest.raises(ValueError, match="noise.wav is broken"):
            seen.extend(event for event in events)
        assert seen == list(range(5))

    def test_a_stop_reaches_the_other_process(self, lent: LentGpu, recording: str) -> None:
        seen: list[int] = []
        for event in lent(TRANSCRIBE, lambda: len(seen) >= 2, recording, Settings(model="tiny")):
            seen.append(event)
        assert seen == [0, 1]

    def test_the_gpu_is_asked_for_by_the_length_of_the_clip(
        self, recording: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert seconds_needed(TRANSCRIBE, "stop", recording) == LEAST_S
        for length, seconds in ((60.0, 40), (1000.0, MOST_S), (None, 40)):
            found = type("Found", (), {"duration_s": length})
            monkeypatch.setattr("app.zero_gpu.probe", lambda _, found=found: found)
            assert seconds_needed(TRANSCRIBE, "stop", recording) == seconds

    def test_a_quota_that_is_used_up_says_what_to_do(self, recording: str) -> None:
        class Lender(Exception):
            message = "You have exceeded your GPU quota."

        def borrow(work: Any, duration: Any) -> Callable[..., Iterator[Any]]:
            def call(*values: Any) -> Iterator[Any]:
                raise Lender
                yield

            return call

        lent = LentGpu(Shelf("tiny", None, None), borrow)
        with pytest.raises(ValueError, match="exceeded your GPU quota. Sign in"):
            list(lent(TRANSCRIBE, lambda: False, recording, Settings(model="tiny")))

    def test_a_failure_can_be_pickled(self) -> None:
        assert pickle.loads(pickle.dumps(Failed("x", True))) == Failed("x", True)


class Lender:
    """``spaces``, as far as the app uses it; remembers what it was asked to do and where."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.lending = False

    def GPU(self, work: Callable[..., Iterator[Any]], duration: Any) -> Callable[..., Any]:  # noqa: N802
        borrowed = other_process(work, duration)

        def call(kind: str, *values: Any) -> Iterator[Any]:
            self.kinds.append(kind)
            self.lending = True
            try:
                yield from borrowed(kind, *values)
            finally:
                self.lending = False

        return call


def test_what_the_encoder_heard_is_computed_where_the_gpu_is(
    lab: RealLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "noise.wav").write_bytes(RECORDING)
    lender = Lender()
    encode = lab.model.encoder.forward
    lent: list[bool] = []

    def watched(*values: Any, **named: Any) -> Any:
        lent.append(lender.lending)
        return encode(*values, **named)

    monkeypatch.setattr(lab.model.encoder, "forward", watched)
    studio = Studio(loader=lambda *_, **__: lab, borrow=lender.GPU)
    hearing = studio.hear(str(tmp_path / "noise.wav"), Settings(model="tiny"))
    assert hearing.mel.shape[0] > 100
    assert lender.kinds == [HEAR]
    assert lent
    assert all(lent)


@pytest.mark.parametrize("zero_gpu", ["true", ""])
def test_the_app_borrows_the_gpu_on_zero_gpu_and_only_there(
    zero_gpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lender, made = Lender(), []
    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=lender.GPU))
    monkeypatch.setattr("app.studio.Studio.warm", lambda self: made.append(self))
    monkeypatch.setattr("app.serving.serve", lambda *_, **__: "")
    monkeypatch.setenv("SPACE_ID", "me/lab")
    monkeypatch.setenv("SPACES_ZERO_GPU", zero_gpu)
    monkeypatch.setattr(sys, "argv", ["app.py"])
    runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
    (studio,) = made
    assert (studio._work.lent is not None) is bool(zero_gpu)


def test_without_the_package_for_mcp_the_start_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.serving.find_spec", lambda name: None)
    page = build_app(Studio())
    with pytest.raises(ValueError, match=r"pip install 'gradio\[mcp\]'"):
        serve(page, deployment=replace(Deployment(), mcp=True), block=False)


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} is taken; choose another"):
            serve(build_app(Studio()), port=port, block=False)


def test_what_spaces_lends_is_imported_before_anything_of_ours() -> None:
    source = (ROOT / "app.py").read_text(encoding="utf-8")
    assert source.index("import spaces") < source.index("from app.")


def test_the_page_of_a_zero_gpu_space_offers_what_works_there() -> None:
    where = Deployment(public=True, zero_gpu=True, runs=None)
    page = build_app(Studio(limits=Limits.of(where)), where)
    said = " ".join(str(block.value) for block in page.blocks.values() if hasattr(block, "value"))
    assert "no live text on ZeroGPU" in said
    assert "Nothing is timed on ZeroGPU" in said
    ids = {getattr(block, "elem_id", None): block for block in page.blocks.values()}
    assert [value for _, value in ids["engine"].choices] == ["eager"]
    assert "process" in ids["engine"].info
    assert [value for _, value in ids["model"].choices] == ["tiny"]
    assert not ids["model"].allow_custom_value
    assert ids["profile-runs"] is not None
    assert "compare-go" not in ids
    assert "record-go" not in ids
