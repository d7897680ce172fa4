"""Generated bad input of every kind: one line of advice or a right result, soon, in a little space.

More checkpoints are in ``test_broken_checkpoints.py``. Seeds are fixed; a case's name says what
was done.
Run alone: ``python -m pytest -m slow tests/test_generated_inputs.py``.
"""

from __future__ import annotations

import gzip
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

import core
import readers
import tiny_models
from app.service.profiles.library import SHIPPED
from core import Lab
from core.checkpoint.peft_format import CONFIG, WEIGHTS
from mutation import damaged_bytes, damaged_gzip, damaged_json, damaged_zip, generated
from promise import hold
from recorded import RUN, TRACE, trace_of_gpu
from recordings import clip, encode, timed, written

pytestmark = pytest.mark.slow


SHORT = 0.4
SOUNDS: dict[str, Callable[[], bytes]] = {
    ".wav": lambda: written(clip(16_000, SHORT), 16_000, "WAV", "PCM_16"),
    ".float.wav": lambda: written(clip(8_000, SHORT), 8_000, "WAV", "FLOAT"),
    ".w64": lambda: written(clip(16_000, SHORT), 16_000, "W64", "PCM_24"),
    ".flac": lambda: written(clip(44_100, SHORT), 44_100, "FLAC", "PCM_16"),
    ".ogg": lambda: written(clip(44_100, SHORT), 44_100, "OGG", "VORBIS"),
    ".opus": lambda: encode("ogg", "libopus", 48_000, clip(48_000, SHORT), "stereo"),
    ".mp3": lambda: encode("mp3", "libmp3lame", 44_100, clip(44_100, SHORT)),
    ".m4a": lambda: encode("ipod", "aac", 44_100, clip(44_100, SHORT), "stereo"),
    ".aac": lambda: encode("adts", "aac", 44_100, clip(44_100, SHORT)),
    ".webm": lambda: encode("webm", "libopus", 48_000, clip(48_000, SHORT)),
    ".mkv": lambda: timed("matroska", "flac", [(0.0, clip(48_000, SHORT))], picture_s=SHORT),
    ".aiff": lambda: written(clip(16_000, SHORT), 16_000, "AIFF", "PCM_16"),
    ".au": lambda: written(clip(16_000, SHORT), 16_000, "AU", "PCM_16"),
    ".caf": lambda: written(clip(16_000, SHORT), 16_000, "CAF", "PCM_16"),
}


def test_damaged_recordings(tmp_path: Path) -> None:
    whole = {suffix: make() for suffix, make in SOUNDS.items()}

    def make(rng: random.Random) -> tuple[str, tuple[bytes, str]]:
        suffix = rng.choice(list(whole))
        done, data = [], whole[suffix]
        for _ in range(rng.choice((1, 1, 2, 4))):
            said, data = damaged_bytes(rng, data or b"\0", list(whole.values()))
            done.append(said)
        return f"{suffix}: {', '.join(done)}", (data, suffix)

    cases = generated("audio", 400, make)
    hold(cases, lambda case: readers.read_audio(case[0], tmp_path, case[1])).check()


def test_damaged_traces(tmp_path: Path) -> None:
    whole = [json.loads(TRACE.read_text()), trace_of_gpu()]

    def make(rng: random.Random) -> tuple[str, bytes]:
        said, data = damaged_json(rng, rng.choice(whole))
        if rng.random() < 0.2:
            packed, data = damaged_gzip(rng, data)
            said = f"{said}, {packed}"
        return said, data

    hold(generated("trace", 180, make), lambda case: readers.read_a_trace(case, tmp_path)).check()


def whole_run() -> dict[str, Any]:
    """A short run with every part: the bundled example's, fewer samples of it."""
    file = next(iter(sorted(SHIPPED.glob("*compile*speculative*/run.json"))))
    run = json.loads(file.read_text())
    for name in run["samples"]:
        run["samples"][name] = run["samples"][name][:8]
    run["warm_up_ms"], run["token_ids"] = run["warm_up_ms"][:2], run["token_ids"][:3]
    run["tokens"], run["memory"] = run["tokens"][:2], run["memory"][:3]
    return run


def test_damaged_runs(tmp_path: Path) -> None:
    whole = whole_run()
    cases = generated("run", 200, lambda rng: damaged_json(rng, whole))
    hold(cases, lambda case: readers.read_run_json(case, tmp_path)).check()


def test_damaged_archives_of_runs(tmp_path: Path) -> None:
    files = {
        "run.json": json.dumps(RUN).encode(),
        "trace.json.gz": gzip.compress(TRACE.read_bytes()),
    }

    def make(rng: random.Random) -> tuple[str, bytes]:
        said, inside = "", dict(files)
        if rng.random() < 0.3:
            said, inside["run.json"] = damaged_json(rng, RUN)
        done, data = damaged_zip(rng, inside)
        return f"{said} {done}", data

    hold(generated("archive", 120, make), lambda case: readers.read_archive(case, tmp_path)).check()


def adapter_parts(lab: Lab, folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and tensors of an adapter of the model."""
    folder.mkdir()
    tensors = tiny_models.write_adapter(folder, lab.model, seed=3)
    return json.loads((folder / CONFIG).read_text()), tensors


def damaged_tensors(rng: random.Random, tensors: dict[str, Tensor]) -> tuple[str, bytes]:
    """A safetensors file: its header changed as JSON, or its bytes, or what it holds."""
    data = save(tensors)
    size = int.from_bytes(data[:8], "little")
    kind = rng.choice(("header", "header", "header", "bytes", "values"))
    if kind == "header":
        said, header = damaged_json(rng, json.loads(data[8 : 8 + size]))
        return f"header: {said}", len(header).to_bytes(8, "little") + header + data[8 + size :]
    if kind == "bytes":
        return damaged_bytes(rng, data, (b"PK\3\4" + data[4:], b"\x80\x02" + data[2:]), head=300)
    name = rng.choice(sorted(tensors))
    changes: dict[str, Tensor | None] = {
        "huge": tensors[name] * 1e30,
        "double": tensors[name].double(),
        "half": tensors[name].half(),
        "eight bits": tensors[name].to(torch.float8_e4m3fn),
        "empty": tensors[name][:0].clone(),
        "flipped": tensors[name].T.contiguous(),
        "nan": torch.full_like(tensors[name], float("nan")),
        "gone": None,
    }
    said = rng.choice(list(changes))
    changed = changes[said]
    left = {key: value for key, value in tensors.items() if key != name}
    return f"{name} {said}", save(left if changed is None else {**left, name: changed})


def test_damaged_adapters(tmp_path: Path, speech_folder: Path) -> None:
    lab = core.load(speech_folder, device="cpu", dtype="float32")
    settings, tensors = adapter_parts(lab, tmp_path / "whole")
    whole = {CONFIG: json.dumps(settings).encode(), WEIGHTS: save(tensors)}

    def make(rng: random.Random) -> tuple[str, dict[str, bytes]]:
        files, kind = dict(whole), rng.choice(("settings", "settings", "weights", "weights", "zip"))
        if kind == "settings":
            more = {"rank_pattern": {"v_proj": 4}, "alpha_pattern": {"0.*q_proj": 2.0}}
            said, files[CONFIG] = damaged_json(rng, settings | more | {"use_rslora": False})
        elif kind == "weights":
            said, files[WEIGHTS] = damaged_tensors(rng, tensors)
        else:
            said, packed = damaged_zip(rng, files)
            files = {"theirs.zip": packed}
        return f"{kind}: {said}", files

    cases = generated("adapter", 250, make)
    hold(cases, lambda files: readers.read_adapter_files(files, tmp_path, lab)).check()


TEMPLATES = (
    "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    "{% for m in messages %}{{ m['content'] * 10 ** 9 }}{% endfor %}",
    "{{ messages[0]['content'].__class__.__mro__ }}",
    "{% for i in range(10 ** 9) %}{{ i }}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    *("{% if %}", "{{ nothing.at.all }}", "", "\0", "{{ raise_exception('no') }}"),
)


def test_damaged_texts_of_checkpoints(tmp_path: Path, speech_folder: Path) -> None:
    """What ``test_broken_checkpoints.py`` leaves alone: tokenizer, templates, descriptions."""
    folder, rest = tmp_path / "model", tmp_path / "rest"
    shutil.copytree(speech_folder, rest)
    folder.mkdir()
    whole = {
        "tokenizer.json": json.loads((rest / "tokenizer.json").read_text()),
        "tokenizer_config.json": {"bos_token": "<|end_of_text|>", "eos_token": {"content": "x"}},
        "generation_config.json": {"eos_token_id": [300], "max_length": 20},
        "lab.json": {"family": "3.3", "tasks": ["transcribe"], "num_beams": 4}
        | {"languages": ["en"], "reliable_s": 30.0, "text_mode": True, "title": "x"},
        "chat_template.json": {"chat_template": TEMPLATES[0]},
    }

    def make(rng: random.Random) -> tuple[str, dict[str, bytes]]:
        name = rng.choice(list(whole))
        said, data = damaged_json(rng, whole[name])
        files = {name: data}
        if rng.random() < 0.2:
            said, name = rng.choice(TEMPLATES), "chat_template.jinja"
            files[name] = said.encode()
        return f"{name}: {said}", files

    cases = generated("text", 120, make)
    hold(cases, lambda files: readers.read_checkpoint(files, folder, rest)).check()
