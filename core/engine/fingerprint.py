"""Conditions of compiled code, as strings: a package is used only where all of them agree.

In: a model. Out: a :class:`Fingerprint`. The weights' values are not part of it, because packages
carry no weights: a fine-tuned checkpoint of the same shapes runs on the same code.
"""

from __future__ import annotations

import ast
import hashlib
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import torch
from torch import nn

from core.engine.programs import program_of

CPU_FACTS = Path("/proc/cpuinfo")
ROOT = Path(__file__).resolve().parents[2]  # the folder that holds the package `core`
_WORDS = {
    "structure": "another model or precision",
    "device": "device {}",
    "torch": "torch {}",
    "processor": "processor {}",
    "code": "another version of this project's model",
}


@dataclass(frozen=True)
class Fingerprint:
    """Conditions a package was made for.

    structure: shapes, dtypes and constants of the model. processor: its instructions, since code is
    compiled for them. code: a hash of the model's source.
    """

    structure: str
    device: str
    torch: str
    processor: str
    code: str


def fingerprint(model: nn.Module) -> Fingerprint:
    """Compute the fingerprint of ``model``, whose graphs are known, on this machine."""
    roots = {program_of(model).module, *(type(part).__module__ for part in model.modules())}
    device = next(model.parameters()).device
    return Fingerprint(
        structure=structure_of(model),
        device=device.type,
        torch=torch.__version__,
        processor=processor(device),
        code=code_of_graphs(frozenset(roots)),
    )


def difference(made_for: Fingerprint, here: Fingerprint) -> str | None:
    """Say how a package's fingerprint differs from the one here; None if it does not."""
    for field in fields(Fingerprint):
        theirs, ours = getattr(made_for, field.name), getattr(here, field.name)
        if theirs != ours:
            words = _WORDS[field.name]
            told = f", here is {words.format(ours)}" if "{}" in words else ""
            return f"it was made for {words.format(theirs)}{told}"
    return None


def structure_of(model: nn.Module) -> str:
    """Hash everything a compiler takes from the model as a constant."""
    digest = hashlib.sha256(repr(model.config).encode())
    for name, module in model.named_modules():
        simple = {
            key: value
            for key, value in sorted(vars(module).items())
            if isinstance(value, bool | int | float | str | tuple)
        }
        digest.update(f"{name} {type(module).__name__} {simple}\n".encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
    return digest.hexdigest()


def user_cache() -> Path:
    """Return the folder of what this project keeps for a user between starts."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "granite-speech-lab"


def cpu_field(name: str) -> str | None:
    """Return a field of the first processor in what the system says of it, None if it does not."""
    try:
        lines = CPU_FACTS.read_text().splitlines()
    except OSError:
        return None
    found = (line.split(":", 1)[1].strip() for line in lines if line.startswith(name))
    return next(found, None)


def cpu_name() -> str:
    """Return the processor's name."""
    return cpu_field("model name") or platform.processor() or "unknown"


def processor_class() -> str:
    """Name the vector units that torch uses here, as in "AVX512 with VNNI"."""
    capability = torch.backends.cpu.get_cpu_capability()
    flags = (cpu_field("flags") or cpu_field("Features") or "").split()
    # A cap on torch's vector units is meant for integers too.
    vnni = {"AVX512": "avx512_vnni", "AVX2": "avx_vnni"}.get(capability)
    capped = capability == "AVX2" and "avx512f" in flags
    return f"{capability} with VNNI" if vnni in flags and not capped else capability


def processor(device: torch.device) -> str:
    """Name what code for ``device`` may use: a GPU's generation, or a CPU's instructions."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"{torch.cuda.get_device_name(device)} (sm_{major}{minor})"
    flags = cpu_field("flags") or cpu_field("Features") or ""
    words = " ".join(sorted(flags.split())) or platform.processor() or platform.machine()
    short = hashlib.sha256(words.encode()).hexdigest()[:8]
    return f"{torch.backends.cpu.get_cpu_capability()} ({short})"


@cache
def code_of_graphs(modules: frozenset[str]) -> str:
    """Hash the source that compilers read: ``modules`` and all of :mod:`core` that they import.

    Args:
        modules: names of modules of :mod:`core`.

    Returns:
        The hash, in hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, file in sorted(reached(modules).items()):
        digest.update(name.encode() + file.read_bytes())
    return digest.hexdigest()


def reached(modules: Iterable[str]) -> dict[str, Path]:
    """List the modules of :mod:`core` that ``modules`` import, they and their importers included.

    Imports are read from the source, so nothing has to be kept by hand; packages themselves hold
    no code that a graph could contain and are left out.

    Args:
        modules: dotted names, such as "core.engine.graphs".

    Returns:
        Dotted name -> file.
    """
    found: dict[str, Path] = {}
    ahead = list(modules)
    while ahead:
        name = ahead.pop()
        file = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        if name in found or not name.startswith("core.") or not file.is_file():
            continue
        found[name] = file
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                ahead += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                ahead += [alias.name for alias in node.names]
    return found
