"""Stored tensors -> the model, strictly. Names and layout are those of ``core.checkpoint.key_map``.

In: the paths of a resolved checkpoint (see ``core.checkpoint.hub``). Out: a :class:`GraniteSpeech`,
or the model of another family, on its device in its dtype, with a report of what was used. Reads
safetensors only, memory-mapped, one tensor at a time; a missing, surplus or misshapen tensor is an
error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from core.checkpoint.key_map import FIRST_RELEASE, POINTWISE, native_name, stored_name
from core.checkpoint.safetensors_io import CheckpointError, open_safetensors, refuse_non_finite
from core.model.config import ModelConfig
from core.model.ctc import BpeHead
from core.model.granite_speech import GraniteSpeech

_DROPPED = re.compile(r"(rotary_emb\.inv_freq|attention_dists|position_ids)$")
_TODAYS = ("encoder.input_linear.", "encoder.layers.")
_HEAD = "decoder.lm_head.weight"

Model = TypeVar("Model", bound=nn.Module)


class _NoInitialisation(TorchFunctionMode):
    """Leaves new parameters as they are: on ``meta``, drawing them imports torch's compiler."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        if func is torch.randn:
            func = torch.empty
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class LoadReport:
    """Tensors that loading used. unused: stored tensors that belong to nothing here, by name."""

    num_tensors: int
    unused: tuple[str, ...]


def load_model(
    config: ModelConfig,
    shards: Mapping[str, Path],
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[GraniteSpeech, LoadReport]:
    """Build on ``meta``, fill from ``shards``, cast once, move once.

    Args:
        config: the dimensions.
        shards: stored tensor name -> file.
        dtype: of the model's weights.
        device: of the model.

    Returns:
        The model, and what loading used.

    Raises:
        CheckpointError: tensors missing, misshapen, surplus, or a file that cannot be read.
    """
    config = _settle_tying(config, any(native_name(key) == _HEAD for key in shards))
    return load_into(lambda: GraniteSpeech(config), shards, dtype=dtype, device=device)


def load_into(
    build: Callable[[], Model],
    shards: Mapping[str, Path],
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Model, LoadReport]:
    """Do what :func:`load_model` does for the model of any family.

    A tensor gets the dtype that ``build().to(dtype)`` gives it, so a module that stays in float32
    is filled in float32.

    Args:
        build: makes the empty model.
        shards: stored tensor name -> file.
        dtype: of the model's weights.
        device: of the model.

    Returns:
        The model, and what loading used.

    Raises:
        CheckpointError: tensors missing, misshapen, surplus or not finite, or a file that cannot be
            read.
    """
    stored, unused = _by_native_name(shards)
    with torch.device("meta"), _NoInitialisation():
        model = build().to(dtype)
    wanted = model.state_dict()
    _compare_names(set(wanted), set(stored), shards)
    state = {}
    for name, tensor in _read(stored):
        if POINTWISE.match(name) and tensor.ndim == 3:
            tensor = tensor.squeeze(-1)
        if tensor.shape != wanted[name].shape:
            raise CheckpointError(
                f"tensor {stored[name][0]!r} in {stored[name][1].name} has shape "
                f"{tuple(tensor.shape)}; config.json asks for {tuple(wanted[name].shape)}"
            )
        if tensor.is_floating_point() != wanted[name].is_floating_point():
            raise CheckpointError(
                f"tensor {stored[name][0]!r} in {stored[name][1].name} is {tensor.dtype}; expected "
                "floating-point weights: convert the checkpoint to bfloat16 or float32"
            )
        state[name] = tensor.to(device=device, dtype=wanted[name].dtype)
    for file in set(shards.values()):
        here = {key: state[name] for name, (key, where) in stored.items() if where == file}
        refuse_non_finite(here, file.name)
    model.load_state_dict(state, strict=True, assign=True)
    model.requires_grad_(False).eval()
    return model, LoadReport(len(state), unused)


def _by_native_name(
    shards: Mapping[str, Path],
) -> tuple[dict[str, tuple[str, Path]], tuple[str, ...]]:
    """Map our names to (stored name, file); list the stored names known to be of no use."""
    stored: dict[str, tuple[str, Path]] = {}
    unused = []
    first = next((key for key in shards if key.startswith(FIRST_RELEASE)), None)
    todays = next((key for key in shards if key.startswith(_TODAYS)), None)
    if first is not None and todays is not None:
        raise CheckpointError(
            f"{first!r} is a name of the first 3.2 release and {todays!r} one of today's; expected "
            "the files of one revision: delete the others and load again"
        )
    for key, file in shards.items():
        name = native_name(key)
        if _DROPPED.search(name) or ".lora_" in name:
            unused.append(key)
        elif name in stored:
            raise CheckpointError(f"{key!r} and {stored[name][0]!r} are the same tensor twice")
        else:
            stored[name] = (key, file)
    return stored, tuple(unused)


def _settle_tying(config: ModelConfig, has_head: bool) -> ModelConfig:
    """Untie the head where one is stored, whatever the config claims: the file is the truth."""
    if has_head and config.decoder.tie_word_embeddings:
        return replace(config, decoder=replace(config.decoder, tie_word_embeddings=False))
    return config


def _compare_names(wanted: set[str], stored: set[str], shards: Mapping[str, Path]) -> None:
    # A counter that inference never reads; some writers leave it out.
    missing = sorted(n for n in wanted - stored if not n.endswith("num_batches_tracked"))
    surplus = sorted(stored - wanted)
    if not missing and not surplus:
        return
    parts = [
        f"{len(names)} tensors {label} (first: {stored_name(names[0])!r})"
        for label, names in (("are missing", missing), ("fit no part of the model", surplus))
        if names
    ]
    files = ", ".join(sorted({file.name for file in shards.values()}))
    raise CheckpointError(
        f"{files}: {' and '.join(parts)}; expected exactly the tensors that config.json describes"
    )


def _read(stored: Mapping[str, tuple[str, Path]]) -> Iterator[tuple[str, Tensor]]:
    """Yield (our name, tensor), file by file so that each is opened once."""
    by_file: dict[Path, list[tuple[str, str]]] = {}
    for name, (key, file) in stored.items():
        by_file.setdefault(file, []).append((name, key))
    for file, names in by_file.items():
        with open_safetensors(file) as handle:
            present = set(handle.keys())
            for name, key in names:
                if key not in present:
                    raise CheckpointError(
                        f"{file.name} has no tensor {key!r}, though the index says so; "
                        "expected a complete download: delete the file and load again"
                    )
                yield name, handle.get_tensor(key)


def load_bpe_head(
    file: Path, config: ModelConfig, *, dtype: torch.dtype, device: torch.device
) -> BpeHead:
    """Load the BPE CTC head of ``out_llm.safetensors``: weight [V + 1, D], bias [V + 1].

    Args:
        file: where it is.
        config: the model it belongs to.
        dtype: of its weights.
        device: of its weights.

    Returns:
        The head.

    Raises:
        CheckpointError: not a head for this model.
    """
    with open_safetensors(file) as handle:
        stored = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    shape = (config.encoder.hidden_dim,)
    weight, bias = stored.get("weight"), stored.get("bias")
    if set(stored) != {"weight", "bias"} or weight is None or bias is None:
        raise CheckpointError(f"{file.name} holds {sorted(stored)}; expected weight and bias")
    if weight.shape[1:] != shape or bias.shape != weight.shape[:1]:
        raise CheckpointError(
            f"{file.name}: weight {tuple(weight.shape)} and bias {tuple(bias.shape)}; expected "
            f"[labels, {shape[0]}] and [labels]"
        )
    refuse_non_finite(stored, file.name)
    return BpeHead(weight.to(device, dtype), bias.to(device, dtype))
