"""``core.load``: a name, a device and a dtype -> a :class:`core.lab.Lab`.

In: a catalog name, a Hub repository id or a folder. Out: the checkpoint, built once, cast once,
moved once. Every problem with the name, the files or the device is one ``ValueError``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from core.checkpoint.hub import resolve
from core.engine.compiling import CompileLedger
from core.engine.products import slower_note, use_products
from core.errors import UserError
from core.families import family_of
from core.lab import Lab
from core.memory import keep_freed_memory, run_within_memory
from core.session import ModelSession
from core.text.tokenizer import Tokenizer
from core.transcription.recognizer import Checkpoint, Family

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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

    Returns:
        The loaded checkpoint.

    Raises:
        OutOfMemory: the model does not fit.
        UserError: unknown name, unreachable Hub, incomplete or foreign files, no such device.
    """
    begin = time.perf_counter()
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    files = resolve(str(name), revision=revision, check=_family_of_config)
    family = _family_of_config(files.json("config.json"), files.source)
    if quantize is not None and family.quantize is None:
        raise UserError(
            f"quantize is {quantize!r}; models of the family {family.model_type} are not quantised"
        )
    config = family.parse_config(files)

    def build() -> Lab:
        if where.type == "cpu":
            keep_freed_memory()
            note = slower_note(quantize, use_products())
            if note is not None:
                logger.warning("%s", note)
        model, report = family.build(config, files, kind, where)
        tokenizer = files.find("tokenizer.json")
        checkpoint = Checkpoint(
            files=files,
            config=model.config,
            model=model,
            report=report,
            tokenizer=None if tokenizer is None else Tokenizer(tokenizer),
            model_info=family.describe(files, config),
            device=where,
            dtype=kind,
            ledger=CompileLedger(),
        )
        session = ModelSession(family, checkpoint)
        if quantize is not None and family.quantize is not None:
            family.quantize(model, quantize)
        session.quantize = quantize
        session.load_ms = 1000 * (time.perf_counter() - begin)
        return Lab(session)

    lab = run_within_memory(build, where)
    logger.info("loaded %s on %s in %s, %.0f ms", name, where, kind, lab.load_ms)
    return lab


def _family_of_config(config: Mapping[str, Any], source: str) -> Family:
    return family_of(config.get("model_type"), f"{source}/config.json")


def pick_device(device: str | torch.device | None) -> torch.device:
    """Pick the device asked for, or the best there is.

    Returns:
        The device.

    Raises:
        UserError: no such device here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"device {device!r} cannot be used here: {first}") from error
    return chosen


def pick_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """Pick the dtype asked for, or bfloat16 on CUDA and float32 elsewhere.

    Returns:
        The dtype.

    Raises:
        UserError: not a dtype weights can have here.
    """
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    raise UserError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
