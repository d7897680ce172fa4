"""``python -m core verify``: equal models pass, a changed weight is found and named by its stage.

The reference runs in this process, as itself; one slow test starts it as the command does.
Run alone: ``python -m pytest tests/test_verification.py -m ""``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bundled import EXAMPLES
from core import verification
from core.__main__ import main
from core.verification import REFUSED, RUNGS, Rung, Stages, compare
from granite_speech5 import write_ctc_folder
from tiny_models import (
    random_model,
    raw_config,
    raw_plus_config,
    write_adapter,
    write_checkpoint,
    write_tokenizer,
)

CLIP = EXAMPLES / "digit_seven.flac"
TEMPLATE = (
    "{% for m in messages %}<|start_of_role|>{{ m['role'] }}<|end_of_role|>{{ m['content'] }}"
    "<|end_of_text|>\n{% endfor %}<|start_of_role|>assistant<|end_of_role|>"
)
LONG = {"max_position_embeddings": 1024}


def decoder_folder(folder: Path, raw: dict[str, Any], *, adapter: bool) -> Path:
    model = random_model(raw, seed=1)
    write_checkpoint(folder, raw, model)
    write_tokenizer(folder / "tokenizer.json")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    if adapter:
        write_adapter(folder, model)
    return folder


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "granite_speech": lambda at: decoder_folder(at, raw_config(decoder=LONG), adapter=True),
    "granite_speech_plus": lambda at: decoder_folder(
        at, raw_plus_config([1, 2], decoder=LONG), adapter=False
    ),
    "granite_speech5_ctc": write_ctc_folder,
}
STAGES = {
    "granite_speech": [rung for rung in RUNGS if rung != "labels"],
    "granite_speech_plus": [rung for rung in RUNGS if rung != "labels"],
    "granite_speech5_ctc": ["features", "encoder", "ctc", "labels"],
}


@pytest.fixture
def reference_folder(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Run the reference here; a folder put into the list is read instead of the checkpoint's."""
    instead: list[Path] = []

    def run_here(command: Sequence[str], **_: Any) -> Any:
        assert command[1:3] == ["-m", "benchmarks.reference"]
        arguments = list(command[3:])
        arguments[0] = str(instead[0]) if instead else arguments[0]
        status = import_module("benchmarks.reference").main(arguments)
        return SimpleNamespace(returncode=status, stderr="why it was refused" if status else "")

    monkeypatch.setattr(verification, "subprocess", SimpleNamespace(run=run_here))
    return instead


def verify_folder(folder: Path, *more: str) -> int:
    return main(["verify", str(folder), "--recording", str(CLIP), "--device", "cpu", *more])


def rungs_in(said: str) -> dict[str, str]:
    """The table's stages, each with its last cell."""
    rows = [line.split() for line in said.splitlines()]
    return {row[0]: row[-1] for row in rows if row[0] in RUNGS}


@pytest.mark.oracle
@pytest.mark.parametrize("kind", FOLDERS)
def test_every_stage_of_equal_models_is_equal(
    kind: str,
    tmp_path: Path,
    reference_folder: list[Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert verify_folder(FOLDERS[kind](tmp_path), "--against", "transformers") == 0
    assert rungs_in(capsys.readouterr().out) == dict.fromkeys(STAGES[kind], "ok")


@pytest.mark.oracle
def test_a_prompt_without_a_template_of_its_own_is_not_compared_and_it_is_said(
    tmp_path: Path, reference_folder: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = FOLDERS["granite_speech_plus"](tmp_path)
    (folder / "chat_template.jinja").unlink()
    assert verify_folder(folder) == 0
    said = capsys.readouterr()
    assert "prompt" not in rungs_in(said.out)
    assert "not compared: prompt" in said.err


@pytest.mark.oracle
def test_a_changed_weight_is_found_from_its_stage_on(
    tmp_path: Path, reference_folder: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, other = write_ctc_folder(tmp_path / "ours"), write_ctc_folder(tmp_path / "theirs")
    weights = load_file(other / "model.safetensors")
    weights["encoder.layers.2.conv.depthwise_conv.weight"][0] += 0.5
    save_file(weights, other / "model.safetensors")
    reference_folder.append(other)
    assert verify_folder(folder) == 1
    rungs = rungs_in(capsys.readouterr().out)
    assert rungs | {"labels": ""} == dict(
        features="ok", encoder="DIFFERS", ctc="DIFFERS", labels=""
    )


def test_without_transformers_the_checkpoint_is_checked_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verification, "find_spec", lambda _name: None)
    folder = write_ctc_folder(tmp_path)
    assert verify_folder(folder) == 0
    said = capsys.readouterr()
    assert "transformers or the folder benchmarks/ is not here" in said.err
    assert "142 used, 0 unused" in said.out
    assert "transcript  '" in said.out
    assert verify_folder(folder, "--against", "transformers") == 2


@pytest.mark.oracle
def test_a_model_that_transformers_lacks_is_said_and_no_difference(
    tmp_path: Path,
    reference_folder: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reference = import_module("benchmarks.reference")
    monkeypatch.setattr(reference, "CLASSES", {})
    assert verify_folder(write_ctc_folder(tmp_path)) == 0
    said = capsys.readouterr().err
    assert "has no class for granite_speech5_ctc" in said
    assert "why it was refused" in said
    assert reference.REFUSED == REFUSED


@pytest.mark.oracle
def test_weights_that_transformers_does_not_read_are_no_comparison(tmp_path: Path) -> None:
    reference = import_module("benchmarks.reference")
    folder = write_ctc_folder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["encoder.odd"] = weights.pop("encoder.out_mid.bias")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(reference.ReferenceRefused, match="2 tensors, first 'encoder.odd'"):
        reference.load_reference(folder, torch.float32, "cpu")


def test_an_unknown_model_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "whisper"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert main(["verify", str(tmp_path)]) == 2
    assert "model_type is 'whisper'; expected one of: granite_speech" in capsys.readouterr().err


def rung_of(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype, name: str) -> Rung:
    scores = torch.tensor([[0.0, 10.0, 9.9], [0.0, 10.0, 1.0]])
    stages = Stages({name: found}, scores, {})
    return compare(stages, {name: expected}, dtype)[0]


@pytest.mark.parametrize(
    ("dtype", "theirs", "is_equal"),
    [
        (torch.bfloat16, [2, 1], True),  # 9.9 against 10
        (torch.bfloat16, [1, 2], False),  # 1 against 10
        (torch.float32, [2, 1], False),
        (torch.float32, [1, 1], True),
    ],
)
@pytest.mark.parametrize("name", ["tokens", "labels"])
def test_a_tie_may_fall_either_way_in_half_precision_alone(
    dtype: torch.dtype, theirs: list[int], is_equal: bool, name: str
) -> None:
    rung = rung_of(torch.tensor([1, 1]), torch.tensor(theirs), dtype, name)
    assert rung.is_equal == is_equal
    assert rung.difference == sum(one != 1 for one in theirs)


def test_another_shape_and_a_value_that_is_no_number_are_differences() -> None:
    ones = torch.ones(2, 3)
    assert not rung_of(ones, torch.ones(2, 4), torch.float32, "ctc").is_equal
    assert not rung_of(ones * float("nan"), ones, torch.float32, "ctc").is_equal
    assert not rung_of(
        torch.ones(2).long(), torch.zeros(2).long(), torch.bfloat16, "prompt"
    ).is_equal


@pytest.mark.slow
@pytest.mark.oracle
def test_the_command_compares_the_bundled_model_in_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "core", "verify", "tiny", "--against", "transformers"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "DIFFERS" not in done.stdout
    assert done.stdout.count(" ok") == len(RUNGS) - 1
