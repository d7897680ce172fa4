"""Stages compiled ahead of time: found, checked, loaded in a fraction of a second.

In: a model. Out: an engine that runs the package's graphs, and the compiler for what the package
lacks. ``core.engine.aot_build`` makes packages (``python -m core package MODEL``).

A package is a folder: ``package.json`` (what it was made for) and one ``.pt2`` file a graph, from
AOTInductor. It holds code and no weights: the loaded model's own tensors are lent to it, so weights
are in memory once, and merging or unmerging LoRA reaches the package too. A package made for
another torch, processor, model or version of this project is refused with the reason, and stages
compile when they are met, as without one.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.compiling import CompileLedger, compiled_engine
from core.engine.fingerprint import Fingerprint, difference, fingerprint, user_cache
from core.engine.graphs import Arguments, Graph, Runner, variant
from core.engine.layer_graphs import tensors_of
from core.engine.stages import Engine
from core.model.granite_speech import GraniteSpeech
from core.model.lora import adapted_layers
from core.plain_json import parse_json

logger = logging.getLogger(__name__)

ENVIRONMENT = "GRANITE_SPEECH_PACKAGES"
OFF = "off"  # as its value: no package is used
MANIFEST = "package.json"
BESIDE_MODEL = "packages"  # folder inside a checkpoint's own
PREFIX = "model."  # of a weight's name inside a package

Loaded = Callable[[list[Tensor]], list[Tensor]]


class Refused(Exception):
    """A package that is not used; the message says why."""


@dataclass(frozen=True)
class Manifest:
    """package.json. graphs: variant -> seconds it took to build."""

    fingerprint: Fingerprint
    graphs: dict[str, float]

    def write(self, folder: Path) -> None:
        """Write the file into ``folder``, whole or not at all."""
        content = {"fingerprint": vars(self.fingerprint), "graphs": self.graphs}
        begun = folder / f"{MANIFEST}.part"
        begun.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        begun.replace(folder / MANIFEST)


def packages_folder() -> Path:
    """Return where packages are kept: by the environment variable, or in the user's cache."""
    chosen = os.environ.get(ENVIRONMENT)
    if chosen and chosen != OFF:
        return Path(chosen)
    return user_cache() / "packages"


def package_name(name: str, structure: str) -> str:
    """Return the folder's name: the model's, and a short hash of shapes, dtypes and constants."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).name).strip("-.") or "model"
    return f"{plain}-{structure[:12]}"


def ready_engine(
    model: GraniteSpeech, ledger: CompileLedger, *, name: str, beside: Path | None = None
) -> Engine:
    """Make the compiled stages of ``model``, from a package where a fresh one is there.

    Args:
        model: the checkpoint.
        ledger: filled as graphs are compiled; says what came from a package, or why none did.
        name: what the model is called.
        beside: the checkpoint's folder, which may hold packages of its own.

    Returns:
        The engine.
    """
    packaged = fresh_package(model, ledger, name=name, beside=beside)
    return compiled_engine(model, ledger, packaged=packaged)


def fresh_package(
    model: nn.Module, ledger: CompileLedger, *, name: str, beside: Path | None = None
) -> Callable[[Runner], Runner] | None:
    """Load the package of ``model``, if a fresh one is there; Args: as of :func:`ready_engine`.

    Returns:
        What puts the package's graphs before the runner of those it lacks, or None.
    """
    if os.environ.get(ENVIRONMENT) == OFF:
        return None
    here = fingerprint(model)
    for folder in package_places(name, here.structure, beside):
        if not (folder / MANIFEST).is_file():
            continue
        try:
            graphs = load_package(folder, model, here)
        except Refused as reason:
            ledger.refused = f"the package in {folder} is not used: {reason}"
            logger.warning("%s; python -m core package makes a new one", ledger.refused)
            continue
        ledger.packaged, ledger.refused = tuple(sorted(graphs)), None
        ledger.code |= {name: (str(folder / f"{name}.pt2"),) for name in graphs}
        ledger.packaged_seconds = sum(read_manifest(folder).graphs.values())
        return partial(Packaged, graphs, model)
    return None


def package_places(name: str, structure: str, beside: Path | None = None) -> list[Path]:
    """List the folders in which a package may be, the user's cache first."""
    wanted = package_name(name, structure)
    places = [packages_folder() / wanted]
    return places if beside is None else [*places, beside / BESIDE_MODEL / wanted]


def load_package(folder: Path, model: nn.Module, here: Fingerprint) -> dict[str, Loaded]:
    """Load every graph of a package, with the model's weights lent to it.

    Args:
        folder: the package's.
        model: whose weights its graphs read.
        here: the model's fingerprint on this machine.

    Returns:
        Variant's name -> graph.

    Raises:
        Refused: it was made for something else, or cannot be read.
    """
    manifest = read_manifest(folder)
    reason = difference(manifest.fingerprint, here)
    if reason is not None:
        raise Refused(reason)
    weights = {f"{PREFIX}{key}": value for key, value in model.state_dict().items()}
    return {name: _load(folder / f"{name}.pt2", weights) for name in manifest.graphs}


def read_manifest(folder: Path) -> Manifest:
    """Read what a package says of itself.

    Returns:
        The manifest.

    Raises:
        Refused: there is none, or it cannot be read.
    """
    try:
        content = parse_json((folder / MANIFEST).read_text(encoding="utf-8"))
        return Manifest(Fingerprint(**content["fingerprint"]), dict(content["graphs"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"its {MANIFEST} cannot be read ({type(error).__name__})") from error


def _load(file: Path, weights: dict[str, Tensor]) -> Loaded:
    """Load one graph. It reads ``weights`` in place, so the result keeps them alive."""
    try:
        loader = torch._C._aoti.AOTIModelPackageLoader(str(file), "model", False, 1, -1)
        needed = loader.get_constant_fqns()
        missing = [key for key in needed if key not in weights]
        if missing:
            raise Refused(f"it needs {missing[0]}, which this model does not have")
        lent = {key: weights[key].detach() for key in needed}
        loader.load_constants(lent, False, True, True)
    # The loader is private to torch: another release may take other arguments or lack a method.
    except (RuntimeError, TypeError, AttributeError) as error:
        why = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        raise Refused(f"{file.name} cannot be loaded ({why.strip()})") from error

    def run(tensors: list[Tensor], _kept: dict[str, Tensor] = lent) -> list[Tensor]:
        return loader.run(tensors)

    return run


class Packaged:
    """Runs the graphs of a package, and hands those it lacks to ``otherwise``."""

    def __init__(self, graphs: dict[str, Loaded], model: nn.Module, otherwise: Runner) -> None:
        self._graphs, self._otherwise = graphs, otherwise
        self._weights: dict[nn.Module, list[Tensor]] = {}  # of layers that share a graph
        self._adapted = next((layer for _, layer in adapted_layers(model)), None)

    def __call__(self, graph: Graph, arguments: Arguments) -> Any:
        """Run ``graph`` from the package if it is there."""
        loaded = self._graphs.get(variant(graph, arguments))
        if loaded is None:
            return self._otherwise(graph, arguments)
        switch = arguments[graph.lora]
        if switch is not None and self._adapted is not None and self._adapted.is_merged:
            # The weights hold the adapter already; the code would add it a second time.
            zero = torch.zeros_like(switch)
            arguments = (*arguments[: graph.lora], zero, *arguments[graph.lora + 1 :])
        if graph.layer is not None:
            return graph.layer.stage(partial(self._call_layer, loaded))(*arguments)
        return loaded([tensor for tensor in arguments if tensor is not None])

    def _call_layer(self, loaded: Loaded, layer: nn.Module, arguments: Arguments) -> Tensor:
        weights = self._weights.get(layer)
        if weights is None:
            weights = self._weights[layer] = list(tensors_of(layer).values())
        (result,) = loaded([*(tensor for tensor in arguments if tensor is not None), *weights])
        return result
