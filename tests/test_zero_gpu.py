"""A GPU that is lent by the call: what is computed there, and what the page offers then."""

from __future__ import annotations

import pickle
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.service.deployment import Deployment
from app.service.limits import Limits
from app.service.model_cache import ModelCache
from app.service.service import TranscriptionService
from app.service.settings import Settings
from app.service.zero_gpu import (
    HEAR,
    LEAST_S,
    MOST_S,
    TRANSCRIBE,
    LentGpu,
    RemoteError,
    seconds_needed,
)
from app.ui import build_app
from core.errors import UserError
from core.lab import Lab as RealLab
from measuring import RECORDING

ROOT = Path(__file__).resolve().parent.parent


class Lab:
    """Yields what it was asked, then fails."""

    def stream(self, recording: str, *, cancelled: Callable[[], bool], **_: Any) -> Iterator[Any]:
        for number in range(5):
            if cancelled():
                return
            yield number
        raise UserError(f"{Path(recording).name} is broken")


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
        models = ModelCache("tiny", None, None, lambda *_, **__: Lab())  # type: ignore[arg-type, return-value]
        return LentGpu(models, other_process)

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
            monkeypatch.setattr("app.service.zero_gpu.probe", lambda _, found=found: found)
            assert seconds_needed(TRANSCRIBE, "stop", recording) == seconds

    def test_a_quota_that_is_used_up_says_what_to_do(self, recording: str) -> None:
        class Lender(Exception):
            message = "You have exceeded your GPU quota."

        def borrow(work: Any, duration: Any) -> Callable[..., Iterator[Any]]:
            def call(*values: Any) -> Iterator[Any]:
                raise Lender
                yield

            return call

        lent = LentGpu(ModelCache("tiny", None, None), borrow)
        with pytest.raises(ValueError, match="exceeded your GPU quota. Sign in"):
            list(lent(TRANSCRIBE, lambda: False, recording, Settings(model="tiny")))

    def test_a_failure_can_be_pickled(self) -> None:
        assert pickle.loads(pickle.dumps(RemoteError("x", True))) == RemoteError("x", True)


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
    service = TranscriptionService(loader=lambda *_, **__: lab, borrow=lender.GPU)
    view = service.encoder_view(str(tmp_path / "noise.wav"), Settings(model="tiny"))
    assert view.mel.shape[0] > 100
    assert lender.kinds == [HEAR]
    assert lent
    assert all(lent)


@pytest.mark.parametrize("zero_gpu", ["true", ""])
def test_the_app_borrows_the_gpu_on_zero_gpu_and_only_there(
    zero_gpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lender, made = Lender(), []
    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=lender.GPU))
    monkeypatch.setattr(
        "app.service.service.TranscriptionService.warm", lambda self: made.append(self)
    )
    monkeypatch.setattr("app.serving.serve", lambda *_, **__: "")
    monkeypatch.setenv("SPACE_ID", "me/lab")
    monkeypatch.setenv("SPACES_ZERO_GPU", zero_gpu)
    monkeypatch.setattr(sys, "argv", ["app.py"])
    runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
    (service,) = made
    assert (service._work.lent is not None) is bool(zero_gpu)


def test_what_spaces_lends_is_imported_before_anything_of_ours() -> None:
    source = (ROOT / "app.py").read_text(encoding="utf-8")
    assert source.index("import spaces") < source.index("from app.")


def test_the_page_of_a_zero_gpu_space_offers_what_works_there() -> None:
    where = Deployment(public=True, zero_gpu=True, runs=None)
    page = build_app(TranscriptionService(limits=Limits.of(where)), where)
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
