"""``core.load``: a name, a device and a dtype -> a :class:`core.lab.Lab`.

In: a catalog name, a Hub repository id or a folder. Out: the checkpoint, built once, cast once,
moved once. Every problem with the name, the files or the device is one ``ValueError``.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

import torch

from core.checkpoint.config_file import parse_config
from core.checkpoint.hub import CheckpointFiles, resolve
from core.checkpoint.weights import load_model
from core.lab import Lab
from core.memory import run_within_memory
from core.model.config import ConfigError, ModelConfig
from core.model.features import FeatureConfig, LogMel
from core.model.quantize import quantise_decoder

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# The front end of every 3.x and 4.x checkpoint, for folders without preprocessor_config.json.
DEFAULT_FEATURES = FeatureConfig(16_000, 512, 400, 160, 80)


def load(
    name: str | Path = "tiny",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    quantize: str | None = None,
) -> Lab:
    """Load a checkpoint.

    Args:
        name: a catalog name ("tiny"), a Hub repository id, or a folder.
        device: "cpu", "cuda", "cuda:1", "mps"; None takes a GPU if there is one.
        dtype: "float32", "bfloat16" or "float16"; None takes bfloat16 on CUDA, else float32.
        revision: branch, tag or commit of a repository.
        quantize: "int8" or "int8-weight-only" for the decoder, or None.

    Raises:
        OutOfMemory: the model does not fit.
        ValueError: unknown name, unreachable Hub, incomplete or foreign files, no such device.
    """
    begin = time.perf_counter()
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    files = resolve(str(name), revision=revision)
    config = parse_config(files.json("config.json"), source=f"{files.source}/config.json")
    config = with_end_tokens(config, files.json("generation_config.json").get("eos_token_id"))

    def build() -> Lab:
        model, report = load_model(config, files.shards, dtype=kind, device=where)
        lab = Lab(files, model, report, LogMel(read_feature_config(files)), where, kind)
        if quantize is not None:
            quantise_decoder(model, quantize)
        lab.quantize = quantize
        return lab

    lab = run_within_memory(build, where)
    lab.load_ms = 1000 * (time.perf_counter() - begin)
    logger.info("loaded %s on %s in %s, %.0f ms", name, where, kind, lab.load_ms)
    return lab


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the best there is.

    Raises:
        ValueError: no such device here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used here: {first}") from error
    return chosen


def pick_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The dtype asked for, or bfloat16 on CUDA and float32 elsewhere.

    Raises:
        ValueError: not a dtype weights can have here.
    """
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")


def with_end_tokens(config: ModelConfig, eos: int | list[int] | None) -> ModelConfig:
    """The config with the end tokens of ``generation_config.json``, which outrank its own."""
    if eos is None:
        return config
    ids = tuple(eos) if isinstance(eos, list) else (eos,)
    return replace(config, decoder=replace(config.decoder, eos_token_ids=ids))


def read_feature_config(files: CheckpointFiles) -> FeatureConfig:
    """The front end of ``preprocessor_config.json`` (flat or nested), or the family's standard."""
    raw = files.json("preprocessor_config.json")
    raw = raw or files.json("processor_config.json").get("audio_processor", {})
    nested = {**raw, **raw.get("melspec_kwargs", {})}
    standard = DEFAULT_FEATURES
    config = FeatureConfig(
        sampling_rate=nested.get("sample_rate", nested.get("sampling_rate", 16_000)),
        n_fft=nested.get("n_fft", standard.n_fft),
        win_length=nested.get("win_length", standard.win_length),
        hop_length=nested.get("hop_length", standard.hop_length),
        n_mels=nested.get("n_mels", nested.get("feature_size", standard.n_mels)),
    )
    if config.sampling_rate != standard.sampling_rate:
        raise ConfigError(
            f"{files.source}: the front end wants {config.sampling_rate} Hz; expected 16000"
        )
    return config
