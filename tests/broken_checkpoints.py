"""Broken checkpoints and adapters, made from the random one by a seeded generator.

In: a whole checkpoint's folder and a seed. Out: copies of it, each with one file damaged: a value
of another type, null, huge, negative, not a number or deeply nested, a key or a file missing, a
file cut or filled with noise, weights that are not finite.
"""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.checkpoint.hub import resolve
from core.checkpoint.safetensors_io import CheckpointError

JSON_FILES = (
    *("config.json", "adapter_config.json", "preprocessor_config.json", "processor_config.json"),
    "model.safetensors.index.json",
)
WEIGHT_FILES = ("model.safetensors", "adapter_model.safetensors")
# No key of these files may hold any of them. A negative number stands apart: see below.
NEVER = [{"a": {"b": [1]}}, [[[["x"]]]], "seven", "", 10**30, 1e300, float("nan"), float("inf")]
NEVER += [-7, -0.5, True]
# Keys that nothing reads, or that any value suits.
UNREAD = {"bos_token_id", "target_modules", "feature_extractor_type", "architectures"}
UNREAD |= {"ctc_loss_reduction", "ctc_zero_infinity", "activation_dropout", "attention_dropout"}
UNREAD |= {"initializer_range", "metadata"}
TEXTS = ["", "null", "[1]", "3", "{", '{"a": 1', "\x00\x01", "[" * 100_000, '{"a":' * 100_000]
FRONT_END = {"melspec_kwargs": {"n_fft": 512, "n_mels": 80, "hop_length": 160, "win_length": 400}}


def failure(name: object, **options: Any) -> str:
    """Return the one line with which a checkpoint is refused before it is loaded."""
    with pytest.raises(CheckpointError) as caught:
        resolve(str(name), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def prepare(folder: Path, whole: Path) -> Path:
    """Copy the whole checkpoint and give it a front end of its own."""
    shutil.copytree(whole, folder)
    if (folder / "adapter_config.json").is_file():
        (folder / "preprocessor_config.json").write_text(json.dumps(FRONT_END))
    else:
        extractor = {"n_fft": 512, "num_mel_bins": 6, "hop_length": 160, "delta_win_length": 3}
        (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": extractor}))
    index = {"weight_map": dict.fromkeys(load_file(folder / WEIGHT_FILES[0]), WEIGHT_FILES[0])}
    (folder / JSON_FILES[-1]).write_text(json.dumps(index))
    return folder


def broken(whole: Path, into: Path, *, seed: int, count: int) -> Iterator[tuple[str, Path]]:
    """Yield ``count`` broken copies of ``whole``, each with what was done to it."""
    rng = random.Random(seed)
    for number in range(count):
        folder = into / str(number)
        shutil.copytree(whole, folder)
        damage = rng.choice([_value, _value, _value, _missing_key, _text, _cut, _weights])
        yield damage(folder, rng), folder
        shutil.rmtree(folder)


def _files(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()]


def _leaves(raw: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in raw.items():
        if key in UNREAD or (*path, key) == ("encoder_config", "model_type"):
            continue
        yield (*path, key)
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))


def _edit(folder: Path, rng: random.Random, change: Callable[[dict[str, Any], str], str]) -> str:
    file = rng.choice(_files(folder, JSON_FILES))
    raw = json.loads(file.read_text())
    path = rng.choice(list(_leaves(raw)))
    inner = raw
    for key in path[:-1]:
        inner = inner[key]
    done = change(inner, path[-1])
    file.write_text(json.dumps(raw))
    return f"{file.name}: {'.'.join(path)} {done}"


def _value(folder: Path, rng: random.Random) -> str:
    def change(inner: dict[str, Any], key: str) -> str:
        kind = type(inner[key])
        choices = [v for v in NEVER if not (kind in (str, dict) and isinstance(v, kind))]
        if kind is bool:
            choices.remove(True)
        inner[key] = value = rng.choice(choices)
        return f"= {value!r}"

    return _edit(folder, rng, change)


def _missing_key(folder: Path, rng: random.Random) -> str:
    needed = {"num_layers", "hidden_dim", "vocab_size", "hidden_size", "rope_theta", "text_config"}
    needed |= {"encoder_config", "subsample_layers"}
    file = folder / "config.json"
    raw = json.loads(file.read_text())
    path = rng.choice([path for path in _leaves(raw) if path[-1] in needed])
    inner = raw
    for key in path[:-1]:
        inner = inner[key]
    if rng.random() < 0.5:
        del inner[path[-1]]
    else:
        inner[path[-1]] = None
    file.write_text(json.dumps(raw))
    return f"config.json without {'.'.join(path)}"


def _text(folder: Path, rng: random.Random) -> str:
    file, text = rng.choice(_files(folder, JSON_FILES)), rng.choice(TEXTS)
    file.write_text(text)
    return f"{file.name} is {text[:10]!r}"


def _cut(folder: Path, rng: random.Random) -> str:
    file = rng.choice(_files(folder, WEIGHT_FILES))
    data = file.read_bytes()
    kind = rng.choice(["cut", "noise", "pointer", "header"])
    if kind == "cut":
        data = data[: rng.randrange(len(data))]
    elif kind == "noise":
        data = rng.randbytes(1_000)
    elif kind == "pointer":
        data = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    else:
        data = (2**40).to_bytes(8, "little") + data[8:]
    file.write_bytes(data)
    return f"{file.name}: {kind}"


def _weights(folder: Path, rng: random.Random) -> str:
    file = rng.choice(_files(folder, WEIGHT_FILES))
    tensors = load_file(file)
    name = rng.choice(sorted(key for key, t in tensors.items() if t.is_floating_point()))
    kind = rng.choice(["nan", "inf", "integers", "shape", "rename", "remove", "scalar"])
    tensor = tensors.pop(name)
    if kind in ("nan", "inf"):
        tensor.view(-1)[rng.randrange(tensor.numel())] = float(kind)
    elif kind == "integers":
        tensor = tensor.bfloat16().view(torch.int16)
    elif kind == "shape":
        tensor = tensor.new_zeros(*tensor.shape, 2)
    elif kind == "scalar":
        tensor = tensor.new_zeros(())
    if kind != "remove":
        tensors[f"{name}.x" if kind == "rename" else name] = tensor.contiguous()
    save_file(tensors, file)
    return f"{file.name}: {name} {kind}"
