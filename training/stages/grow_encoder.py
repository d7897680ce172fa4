"""A trained model with more encoder layers and nearly the same output: the start of a round.

In: a folder of checkpoints that ``joint`` has trained. Out: another folder with ``encoder.pt``,
``align.pt``, ``decoder.pt`` and ``tokenizer.json`` for an encoder as deep as
:mod:`training.architecture` says, from which ``joint`` begins at step 0.

A new layer is a copy of the one before it whose four half-steps end in zeros, so that it passes its
input on; its last norm is set to give back about the mean and the size that its input has. After
that it learns like every other (growing in depth: arXiv 1511.05641).

The middle of the encoder, where it reads its own characters, stays between the same two layers.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from core.errors import UserError
from training.architecture import ENCODER_LAYERS
from training.saving import read_state, write_state

ENDS = ("ff1.down_proj", "attn.to_out", "conv.down_conv", "ff2.down_proj")


def plan(old: int, new: int) -> list[tuple[int, bool]]:
    """Plan the new layers.

    Returns:
        For each, counted from 0: the old layer it comes from, and whether it is that one.

    Raises:
        UserError: a half would have no layer or fewer layers, so that the middle would move.
    """
    halves = ((0, old // 2, new // 2), (old // 2, old - old // 2, new - new // 2))
    if any(more < count or not count for _, count, more in halves):
        raise UserError(f"an encoder of {old} layers; expected at least 2 and at most {new}")
    out: list[tuple[int, bool]] = []
    for first, count, more in halves:
        # Copies stand as far from both ends of their half as they can, at most one behind another
        # layer until there are more copies than layers.
        places = [
            first + (2 * one + 1) * count // (2 * (more - count)) for one in range(more - count)
        ]
        for layer in range(first, first + count):
            out.append((layer, True))
            out += [(layer, False)] * places.count(layer)
    return out


def grow(encoder: Mapping[str, Tensor], layers: int = ENCODER_LAYERS) -> dict[str, Tensor]:
    """Grow an encoder to ``layers`` layers.

    Returns:
        Its weights, by names as "layers.0.ff1...".

    Raises:
        UserError: see ``plan``.
    """
    by_layer: dict[int, dict[str, Tensor]] = {}
    out: dict[str, Tensor] = {}
    for name, value in encoder.items():
        if name.startswith("layers."):
            number, rest = name.removeprefix("layers.").split(".", 1)
            by_layer.setdefault(int(number), {})[rest] = value
        else:
            out[name] = value
    for index, (source, same) in enumerate(plan(len(by_layer), layers)):
        weights = by_layer[source] if same else identity_layer(by_layer[source])
        out |= {f"layers.{index}.{name}": value.clone() for name, value in weights.items()}
    return out


def identity_layer(layer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Change a layer's weights so that its input passes through nearly as it is."""
    out = dict(layer)
    for name in ENDS:
        for part in (f"{name}.weight", f"{name}.bias"):
            out[part] = torch.zeros_like(layer[part])
    scale, shift = layer["post_norm.weight"], layer["post_norm.bias"]
    # A frame behind that norm is n * scale + shift, where n has mean 0 and size 1.
    size = (scale.square().mean() + shift.var(unbiased=False)).sqrt()
    out["post_norm.weight"] = size.expand_as(scale).clone()
    out["post_norm.bias"] = shift.mean().expand_as(shift).clone()
    return out


def run(source: Path, target: Path) -> Path:
    """Write the deeper model's checkpoints to ``target``.

    Returns:
        Its ``align.pt``.

    Raises:
        SaveError: a file cannot be written.
        UserError: ``target`` has checkpoints of its own, or ``source`` no trained model.
    """
    if there := sorted(file.name for file in target.glob("*.pt")):
        raise UserError(f"{target} holds {', '.join(there)} already; give an empty folder")
    if not (source / "joint.pt").exists():
        raise UserError(f"{source} has no joint.pt; train a model with `joint` first")
    weights = read_state(source / "joint.pt", ("weights",))["weights"]
    inside = {name: value for name, value in weights.items() if name.startswith("encoder.")}
    encoder = grow({name.removeprefix("encoder."): value for name, value in inside.items()})
    others = {name: value for name, value in weights.items() if name not in inside}
    target.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "decoder.pt"):
        shutil.copyfile(source / name, target / name)
    write_state(target / "encoder.pt", {"encoder": encoder})
    grown = others | {f"encoder.{name}": value for name, value in encoder.items()}
    write_state(target / "align.pt", {"weights": grown})
    return target / "align.pt"
