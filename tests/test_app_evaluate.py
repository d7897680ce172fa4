"""The Evaluate tab: what is dropped is matched, checked, measured and shown; models are stubs.

Run alone: ``python -m pytest tests/test_app_evaluate.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr
import pytest
import torch

from app.service.deployment import Deployment
from app.service.evaluation import EvaluationService, EvaluationUpdate, collected
from app.service.limits import Limits
from app.service.measurement import MeasurementService
from app.service.profiles.library import ProfileLibrary
from app.service.service import TranscriptionService
from app.service.worker import MEASUREMENT, TRANSCRIPTION
from app.tabs.evaluate_tab import chosen_variants, saved
from app.ui import build_app
from app.wording import evaluation as words
from app_stubs import TRANSCRIPT, StubLab, service_of
from core.checkpoint.catalog import ASSETS
from core.errors import UserError
from core.transcription.options import Finished
from profiling.evaluate.results import RESULTS
from profiling.evaluate.variants import Variant, parse_variants

FLAC = (ASSETS / "examples" / "digit_five.flac").read_bytes()
TWO = parse_variants(["tiny", "tiny,lora=off"])


class AnsweringLab(StubLab):
    """Says "three one eight", in one second a pass; without LoRA it has no words."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.device, self.dtype = torch.device("cpu"), torch.float32  # type: ignore[assignment]
        self.passes = 0
        self.go_on = Event()  # waited for before the third pass
        self.go_on.set()

    def check(self, **options: Any) -> None:
        if options["decoding"] == "beam":
            raise UserError("no beams <b>here</b>")

    def stream_batch(self, sources: list[Path], **options: Any) -> Iterator[Finished]:
        self.passes += 1
        if self.passes == 3:
            assert self.go_on.wait(20)
        for index, _ in enumerate(sources):
            text = "" if options["lora"] is False else TRANSCRIPT.text
            yield Finished(index, replace(TRANSCRIPT, text=text))


def evaluating(gives_way: bool = False, **more: Any) -> tuple[EvaluationService, AnsweringLab]:
    lab = AnsweringLab("tiny")
    service = TranscriptionService(loader=lambda name, **_: lab, **more)  # type: ignore[arg-type]
    measuring = MeasurementService(service, ProfileLibrary(None), gives_way=gives_way)
    evaluation = EvaluationService(measuring)
    evaluation.every_s = -1e9
    return evaluation, lab


def dropped(folder: Path, **texts: str | None) -> list[str]:
    """Files as a browser sends them: each in a folder of its own."""
    paths = []
    for name, text in texts.items():
        for suffix, content in ((".flac", FLAC), (".txt", text and text.encode())):
            if content:
                path = folder / f"{name}{suffix}-upload" / f"{name}{suffix}"
                path.parent.mkdir(parents=True)
                path.write_bytes(content)
                paths.append(str(path))
    return paths


def run(evaluation: EvaluationService, files: list[str], variants: list[Variant]) -> Any:
    evaluation.begin("me")
    *_, end = evaluation.evaluate("me", files, variants, "basic")
    return end


def test_the_table_fills_and_a_second_press_measures_nothing_again(tmp_path: Path) -> None:
    evaluation, lab = evaluating()
    files = dropped(tmp_path, a="Three one eight.", b="three two eight", c=None)
    updates = list(evaluation.evaluate("me", files, TWO, "basic"))
    assert all(isinstance(update, EvaluationUpdate) for update in updates)
    seen = [sum(row.done for row in one.rows) for one in updates]  # type: ignore[union-attr,misc]
    assert seen == sorted(seen)
    assert {1, 2, 3, 4} <= set(seen)
    end = updates[-1]
    assert isinstance(end, EvaluationUpdate)
    assert end.over
    assert [row.wer for row in end.rows] == [pytest.approx(1 / 6), 1.0]
    assert "c.flac" in end.warnings[0]
    assert str(tmp_path) not in end.warnings[0]
    before = lab.passes
    again = run(evaluation, files, TWO)
    assert lab.passes == before
    assert again.rows == end.rows


def test_a_stopped_evaluation_shows_what_there_is_and_goes_on(tmp_path: Path) -> None:
    evaluation, _ = evaluating()
    files = dropped(tmp_path, a="three one eight", b="three one eight")
    evaluation.begin("me")
    last = None
    for update in evaluation.evaluate("me", files, TWO, "basic"):
        last = update
        if isinstance(update, EvaluationUpdate) and update.rows[0].done == 1:
            evaluation.stop("me")
    assert isinstance(last, EvaluationUpdate)
    assert last.over
    assert "goes on" in last.said
    assert 1 <= sum(row.done for row in last.rows) < 4
    assert [row.done for row in run(evaluation, files, TWO).rows] == [2, 2]


def test_a_transcription_goes_between_two_passes_where_the_owner_allows_it(tmp_path: Path) -> None:
    evaluation, lab = evaluating(gives_way=True)
    lab.go_on.clear()
    worker, ran = evaluation.service.worker, list[int]()
    files = dropped(tmp_path, a="three one eight", b="three one eight", c="three one eight")
    for update in evaluation.evaluate("me", files, TWO[:1], "basic"):
        if isinstance(update, EvaluationUpdate) and update.rows[0].done == 1 and not ran:
            turn = worker.submit(lambda: ran.append(lab.passes), TRANSCRIPTION)
            place = worker.place(turn)
            assert place is None or (place.between and place.running == MEASUREMENT)
            lab.go_on.set()
    assert isinstance(update, EvaluationUpdate)
    assert update.rows[0].done == 3
    assert 2 <= ran[0] < lab.passes  # one uncounted pass before the first, one after the pause
    assert lab.passes == 3 + 2


def test_a_variant_that_cannot_run_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    evaluation, _ = evaluating(limits=Limits(only=frozenset({"tiny"}), no_compile="no compiler"))
    variants = parse_variants(["elsewhere", "tiny,engine=compile", "tiny,decoding=beam", "tiny"])
    end = run(evaluation, dropped(tmp_path, a="three one eight"), variants)
    problems = [row.problem or "" for row in end.rows]
    assert "not run on this public page" in problems[0]
    assert problems[1:] == ["no compiler", "no beams <b>here</b>", ""]
    assert [row.done for row in end.rows] == [0, 0, 0, 1]
    assert "no beams &lt;b&gt;here" in words.table_html(end)


def test_a_manifest_names_what_was_dropped_and_nothing_else(tmp_path: Path) -> None:
    files = dropped(tmp_path, a=None)
    manifest = tmp_path / "m.jsonl"
    rows = [{"audio_filepath": "/elsewhere/a.flac", "text": "three"}]
    rows.append({"audio_filepath": "/etc/passwd", "text": "root"})
    manifest.write_text("\n".join(map(json.dumps, rows)))
    evaluation, _ = evaluating()
    end = run(evaluation, [*files, str(manifest)], TWO[:1])
    assert end.rows[0].total == 1
    assert end.warnings == ("1 text without a recording, left out: passwd",)
    manifest.write_text(json.dumps({**rows[0], "offset": 1, "duration": 1}))
    with pytest.raises(UserError, match="row 1 is a part"):
        collected([str(manifest)], tmp_path / "new")


def test_a_text_of_another_recording_or_language_is_named_at_the_end(tmp_path: Path) -> None:
    evaluation, _ = evaluating()
    files = dropped(tmp_path, a="three one eight", b="drei eins acht", c="acht")
    updates = list(evaluation.evaluate("me", files, TWO[:1], "basic"))
    assert [one.warnings for one in updates[:-1]] == [()] * (len(updates) - 1)  # type: ignore[union-attr]
    (said,) = updates[-1].warnings  # type: ignore[union-attr]
    assert said.startswith("1 recording sharing no word with the text")
    assert said.endswith(": b.flac")


def test_bad_drops_are_sentences_without_the_servers_folders(tmp_path: Path) -> None:
    evaluation, _ = evaluating()
    with pytest.raises(UserError, match="what was dropped has no recording") as none:
        run(evaluation, dropped(tmp_path, a=None), TWO)
    assert str(evaluation.folder("me")) not in str(none.value)
    twice = dropped(tmp_path / "1", a="x")[:1] + dropped(tmp_path / "2", a="x")[:1]
    with pytest.raises(UserError, match=r"two files are called a\.flac"):
        collected(twice, tmp_path / "new")
    with pytest.raises(UserError, match="at most 2,000"):
        collected(twice * 1001, tmp_path / "new")


def test_what_was_measured_can_be_saved_as_rows_as_a_table_and_as_a_page(tmp_path: Path) -> None:
    evaluation, _ = evaluating()
    folder = evaluation.folder("me")
    with pytest.raises(UserError, match="press Evaluate first"):
        saved(folder, "csv", None)
    end = run(evaluation, dropped(tmp_path, a="three one eight"), TWO)
    files = {kind: Path(saved(folder, kind, (end, "basic"))) for kind in ("jsonl", "csv", "html")}
    assert files["jsonl"].read_bytes() == (folder / RESULTS).read_bytes()
    assert files["csv"].read_text().splitlines()[1].startswith("tiny,1,0,1,0.0")
    assert "Evaluation on own recordings" in files["html"].read_text()


def test_the_fields_name_variants() -> None:
    named = chosen_variants("tiny", ["", "lora=off"], "tiny,batch=2+4\n\n")
    assert [v.name for v in named] == ["tiny", "tiny,lora=off", "tiny,batch=2", "tiny,batch=4"]
    with pytest.raises(UserError, match="no variants came"):
        chosen_variants("tiny", [], "")
    for preset in words.PRESETS:
        assert chosen_variants("tiny", [preset], None)


def test_the_page_has_the_tab_and_says_where_nothing_is_measured() -> None:
    app = build_app(service_of([]), Deployment(runs=None))
    ids = {getattr(block, "elem_id", None) for block in app.blocks.values()}
    assert {"evaluate-go", "evaluate-files", "evaluate-variants", "evaluate-status"} <= ids
    assert isinstance(app, gr.Blocks)
