"""Packages: the stages of a model compiled ahead of time, by ``python -m core package``.

In: a model. Out: a folder that ``core.engine.aot_load`` loads. Each graph is exported
(``torch.export``) with its varying sizes as symbols and compiled by AOTInductor into a library of
its own, without the weights. The folder appears whole or not at all; graphs that a builder had
finished when it was stopped are taken over by the next one.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.func import functional_call

from core.engine.aot_load import (
    ENVIRONMENT,
    Manifest,
    Packaged,
    Refused,
    load_package,
    package_name,
    packages_folder,
    read_manifest,
)
from core.engine.compiled_row import decide_compiled_row
from core.engine.compiling import remove_half_written, retried, trust_the_processor
from core.engine.fingerprint import Fingerprint, fingerprint
from core.engine.graphs import Arguments, Graph, variant
from core.engine.layer_graphs import LayerGraph, tensors_of
from core.engine.programs import program_of
from core.engine.side_by_side import build_all, most_builders
from core.errors import UserError
from core.model.lora import is_merged

try:
    import fcntl
except ImportError:  # Windows: two builders of one package take turns nowhere
    fcntl = None  # type: ignore[assignment]

CONFIGURATION = {
    "aot_inductor.package_constants_in_so": False,  # the loaded model lends its weights
    "cpp.dynamic_threads": True,  # as many threads as the process has, not as the builder had
}
LONGEST_FIRST = ("decode", "verify", "encode", "encode_blocks", "prefill", "project")


class Stage(nn.Module):
    """A graph as a module whose weights are the model's, as exporting wants it."""

    def __init__(self, model: nn.Module, graph: Graph, *, has_switch: bool) -> None:
        super().__init__()
        self.model = model
        self._graph, self._has_switch = graph, has_switch

    def forward(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run the graph; a model without an adapter has no switch among ``tensors``."""
        arguments: list[Tensor | None] = list(tensors)
        if not self._has_switch:
            arguments.insert(self._graph.lora, None)
        return self._graph.run(*arguments)


class OneLayer(nn.Module):
    """A layer as a module without weights: they are arguments, for each layer has its own."""

    def __init__(self, graph: LayerGraph, present: tuple[bool, ...]) -> None:
        super().__init__()
        self._run, self._present = graph.run, present
        self._layer = (graph.layers[0],)  # in a tuple: its weights are not this module's
        self._names = tuple(tensors_of(graph.layers[0]))

    def forward(self, tensors: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> Tensor:
        """Run the layer; arguments that are None are not among ``tensors``."""
        given = iter(tensors)
        arguments = tuple(next(given) if there else None for there in self._present)
        own = {f"layer.{name}": w for name, w in zip(self._names, weights, strict=True)}
        return functional_call(_Call(self._layer[0], self._run), own, arguments)


class _Call(nn.Module):
    def __init__(self, layer: nn.Module, run: Callable[..., Tensor]) -> None:
        super().__init__()
        self.layer, self._run = layer, run

    def forward(self, *arguments: Tensor | None) -> Tensor:
        return self._run(self.layer, *arguments)


@dataclass(frozen=True)
class BuildProgress:
    """Progress of a build. graphs: all names; seconds: what each finished one took.

    builders: how many are built at a time. ready_s: seconds to load the whole package and run each
    graph, once it is built.
    """

    graphs: tuple[str, ...]
    seconds: dict[str, float]
    builders: int = 1
    ready_s: float | None = None


def build_package(
    model: nn.Module,
    *,
    name: str,
    into: Path | None = None,
    batches: bool = False,
    report: Callable[[BuildProgress], None] = lambda progress: None,
) -> Path:
    """Compile every graph of ``model`` and keep the result.

    One builder at a time works on a package; another one waits and takes over what it finds.

    Args:
        model: the checkpoint, on the device and in the precision it will run in.
        name: what it is called.
        into: folder that holds packages; by default the user's cache.
        batches: also the graphs for several clips at once.
        report: told before the first graph and after each.

    Returns:
        The package's folder.

    Raises:
        UserError: LoRA is merged into the weights, the folder cannot be written, or a graph cannot
            be compiled here.
    """
    if is_merged(model):
        raise UserError("LoRA is merged into the weights; unmerge it before packaging")
    here = fingerprint(model)
    target = (into or packages_folder()) / package_name(name, here.structure)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_builder(target):
            work = _work_folder(target, here)
            try:
                seconds = _build_graphs(model, work, here, batches=batches, report=report)
            finally:
                if not _graphs_for(here, work):
                    shutil.rmtree(work, ignore_errors=True)
            ready_s = _seconds_to_ready(work, model, batches)
            report(BuildProgress(tuple(seconds), seconds, ready_s=ready_s))
            if target.exists():
                shutil.rmtree(target)
            os.replace(work, target)
    except OSError as error:
        raise UserError(
            f"packages cannot be written to {target.parent} ({error.strerror}); set {ENVIRONMENT} "
            "to a folder that can be written"
        ) from error
    return target


@contextmanager
def _only_builder(target: Path) -> Iterator[None]:
    """Wait until no other process builds ``target``; the system frees a killed builder's lock."""
    with target.with_name(f".{target.name}.lock").open("w") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _work_folder(target: Path, here: Fingerprint) -> Path:
    """Return the folder to build in, with the finished graphs of a builder before this one."""
    work = target.with_name(f".building-{target.name}")
    if _graphs_for(here, work):
        return work
    shutil.rmtree(work, ignore_errors=True)
    if _graphs_for(here, target):
        shutil.copytree(target, work)
    else:
        work.mkdir()
    return work


def _graphs_for(here: Fingerprint, folder: Path) -> dict[str, float]:
    """Return the graphs in ``folder``, and their seconds, if they were made for ``here``."""
    try:
        manifest = read_manifest(folder)
    except Refused:
        return {}
    return manifest.graphs if manifest.fingerprint == here else {}


def _build_graphs(
    model: nn.Module,
    work: Path,
    here: Fingerprint,
    *,
    batches: bool,
    report: Callable[[BuildProgress], None],
) -> dict[str, float]:
    """Compile the graphs that ``work`` lacks.

    Args:
        model: the checkpoint.
        work: the folder.
        here: the model's fingerprint.
        batches: also the graphs for several clips at once.
        report: told about each.

    Returns:
        Name of each graph -> the seconds it took.
    """
    trust_the_processor()
    remove_half_written()  # once: later a half may be what another builder is writing
    retried(partial(decide_compiled_row, model))
    seconds = _graphs_for(here, work)
    examples = _examples(model, batches)
    names = tuple(dict.fromkeys([*seconds, *examples]))
    ahead = [name for name in names if name not in seconds]
    builders = most_builders(next(model.parameters()).device, len(ahead))

    def build(name: str) -> None:
        file = work / f"{name}.pt2"
        retried(partial(_compile, model, *examples[name], file))

    report(BuildProgress(names, dict(seconds), builders))
    for name, spent in build_all(sorted(ahead, key=_longest_first), build, builders):
        seconds[name] = round(spent, 1)
        Manifest(here, seconds).write(work)
        report(BuildProgress(names, dict(seconds), builders))
    return seconds


def _longest_first(name: str) -> int:
    """Order graphs so that no long one is left for the end, when the other builders are done."""
    stage = name.split("-")[0]
    return LONGEST_FIRST.index(stage) if stage in LONGEST_FIRST else len(LONGEST_FIRST)


def _seconds_to_ready(folder: Path, model: nn.Module, batches: bool) -> float:
    """Load the package and run each of its graphs once.

    Returns:
        Seconds that it took.

    Raises:
        Refused: what cannot be loaded here is no package.
    """
    begin = time.perf_counter()
    graphs, program = load_package(folder, model, fingerprint(model)), program_of(model)
    program.warm_up(program.engine("package", Packaged(graphs, model, _lacking)), batches=batches)
    return time.perf_counter() - begin


def _lacking(graph: Graph, arguments: Arguments) -> Any:
    raise AssertionError(f"the package lacks {variant(graph, arguments)}")


def _examples(model: nn.Module, batches: bool) -> dict[str, tuple[Graph, Arguments]]:
    """Collect every variant that a warm-up meets, with arguments of the sizes it met."""
    met: dict[str, tuple[Graph, Arguments]] = {}

    def note(graph: Graph, arguments: Arguments) -> Any:
        met.setdefault(variant(graph, arguments), (graph, arguments))
        return graph.run(*arguments)

    program = program_of(model)
    program.warm_up(program.engine("notes", note), batches=batches)
    return {key: (graph, _plain(arguments)) for key, (graph, arguments) in met.items()}


def _plain(arguments: Arguments) -> Arguments:
    """Copy sizes, strides and types into ordinary tensors: exporting takes no inference ones."""
    return tuple(
        None
        if t is None
        else torch.empty_strided(t.size(), t.stride(), dtype=t.dtype, device=t.device).zero_()
        for t in arguments
    )


def _compile(model: nn.Module, graph: Graph, arguments: Arguments, file: Path) -> None:
    """Export one graph, or one layer of it, and compile it into ``file``."""
    module: nn.Module = Stage(model, graph, has_switch=arguments[graph.lora] is not None)
    weights: tuple[Tensor, ...] = ()
    sizes_of = graph.sizes_of
    if graph.layer is not None:
        arguments, sizes_of = _first_call(graph, graph.layer, arguments), graph.layer.sizes_of
        module = OneLayer(graph.layer, tuple(tensor is not None for tensor in arguments))
        weights = tuple(tensors_of(graph.layer.layers[0]).values())
    tensors = tuple(tensor for tensor in arguments if tensor is not None)
    varying = tuple(
        {dimension: Dim.DYNAMIC for dimension in sizes_of(place) if tensor.shape[dimension] > 1}
        for place, tensor in enumerate(arguments)
        if tensor is not None
    )
    given: tuple[Any, ...] = (tensors, weights) if weights else (tensors,)
    shapes = {"tensors": varying} | ({"weights": tuple({} for _ in weights)} if weights else {})
    with torch.no_grad():
        exported = torch.export.export(module, given, dynamic_shapes=shapes, strict=False)
        torch._inductor.aoti_compile_and_package(
            exported, package_path=str(file), inductor_configs=CONFIGURATION
        )


def _first_call(graph: Graph, layer: LayerGraph, arguments: Arguments) -> Arguments:
    """Run the stage and return what its first layer was called with."""
    calls: list[Arguments] = []

    def call(module: nn.Module, tensors: Arguments) -> Tensor:
        calls.append(_plain(tensors))
        return layer.run(module, *tensors)

    with torch.no_grad():
        layer.stage(call)(*arguments)
    return calls[0]
