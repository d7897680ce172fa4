"""The stages compiled: the only file that calls ``torch.compile``.

In: a model. Out: an :class:`Engine` whose stages are whole graphs (``fullgraph=True``). Lengths are
symbols in them (see ``core.engine.graphs``), so a new clip length, prompt, draft or cache size
meets a graph that exists already; LoRA is a tensor argument, never a different graph.

A stage compiles when it is first met, which takes seconds to minutes; ``core.engine.warmup`` meets
all of them at once, and ``core.engine.aot_build`` does the work ahead of time. On CUDA the same
graphs are replayed as CUDA graphs (``core.engine.cuda_graphs``).
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from core import phases
from core.engine.compiled_row import decide_compiled_row
from core.engine.compiler_cache import (
    blamed,
    cache_folder,
    compiling_failed,
    half_written,
    use_processors_folder,
)
from core.engine.cuda_graphs import Recorder, recorded_engine
from core.engine.generated_code import generated_files
from core.engine.graphs import Arguments, Graph, Runner, graph_engine, variant
from core.engine.stages import Engine
from core.errors import UserError
from core.model.granite_speech import GraniteSpeech

logger = logging.getLogger(__name__)

MOST_GRAPHS = 64  # variants of one stage; more than any mix of batches and lengths can make
MATRIX_INSTRUCTIONS = {"VecAMX", "VecAVX512VNNI"}  # as the compiler calls them
MOST_BROKEN = 32  # unreadable libraries removed before compiling is given up
# The names of compiled functions -> their phases, where these are called otherwise.
STAGE_PHASES = {
    "encode": phases.ENCODER,
    "encode_blocks": phases.ENCODER,
    "project": phases.PROJECTOR,
    "prefill": phases.PREFILL,
    "decode": phases.DECODE,
    "verify": phases.VERIFY,
}


class CompileError(UserError):
    """A stage that cannot be compiled here. The message is one line and says what to do."""


@dataclass
class CompileLedger:
    """The cost of compiling. seconds: stage -> seconds of the calls that had to compile.

    packaged: graphs that came compiled, from a package; packaged_seconds: what building it took.
    refused: why a package was not used. code: variant -> files that hold its generated code.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    graphs: dict[str, int] = field(default_factory=dict)
    packaged: tuple[str, ...] = ()
    packaged_seconds: float | None = None
    refused: str | None = None
    code: dict[str, tuple[str, ...]] = field(default_factory=dict)


def compiled_engine(
    model: GraniteSpeech,
    ledger: CompileLedger,
    *,
    packaged: Callable[[Runner], Runner] | None = None,
    record: bool = True,
) -> Engine:
    """Put the stages of ``model`` under ``torch.compile``.

    Args:
        model: the checkpoint.
        ledger: filled as graphs are compiled.
        packaged: wraps the compiler with graphs that are compiled already, or None.
        record: on CUDA, replay single steps as CUDA graphs.

    Returns:
        The engine; ``ledger`` collects what compiling costs.
    """
    run: Runner = Compiler(ledger, partial(decide_compiled_row, model))
    if packaged is not None:
        run = packaged(run)
    if not record or model.decoder.embed_tokens.weight.device.type != "cuda":
        return graph_engine("compile", model, run)
    recorder = Recorder(run)
    return recorded_engine(graph_engine("compile", model, recorder), recorder)


class Compiler:
    """Runs graphs through ``torch.compile``, each variant compiled when first met.

    prepare: called before something is compiled.
    """

    def __init__(self, ledger: CompileLedger, prepare: Callable[[], None] = lambda: None) -> None:
        self._ledger, self._prepare = ledger, prepare
        self._compiled: dict[str, Callable[..., Any]] = {}
        self._known: set[str] = set()

    def __call__(self, graph: Graph, arguments: Arguments) -> Any:
        """Run ``graph``.

        Returns:
            What it returns.

        Raises:
            CompileError: it cannot be compiled on this machine.
        """
        name = variant(graph, arguments)
        if name in self._known:
            return self._count(graph, arguments)
        result = without_broken_libraries(lambda: self._first(graph, arguments))
        self._known.add(name)
        return result

    def _first(self, graph: Graph, arguments: Arguments) -> Any:
        trust_the_processor()
        self._prepare()
        mark_varying(graph, arguments)  # loads the compiler, which needs its cache folder at once
        with generated_files() as files:
            result = self._count(graph, arguments)
        if files:
            self._ledger.code[variant(graph, arguments)] = tuple(files)
        return result

    def _count(self, graph: Graph, arguments: Arguments) -> Any:
        """Run, and record the seconds of a call that made new graphs."""
        if graph.name not in self._compiled:
            self._compiled[graph.name] = torch.compile(
                graph.run, fullgraph=True, dynamic=False, **_room_for_variants()
            )
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        begin = time.perf_counter()
        result = self._compiled[graph.name](*arguments)
        new = torch._dynamo.utils.counters["stats"]["unique_graphs"] - before
        if new:
            spent, phase = time.perf_counter() - begin, STAGE_PHASES.get(graph.name, graph.name)
            self._ledger.seconds[phase] = self._ledger.seconds.get(phase, 0.0) + spent
            self._ledger.graphs[phase] = self._ledger.graphs.get(phase, 0) + new
            logger.info("compiled %s in %.1f s", variant(graph, arguments), spent)
        return result


def mark_varying(graph: Graph, arguments: Arguments) -> None:
    """Tell the compiler which sizes vary; it then refuses to make one of them a number."""
    for place, tensor in enumerate(arguments):
        for dimension in graph.sizes_of(place):
            if tensor is not None and tensor.shape[dimension] > 1:
                torch._dynamo.mark_dynamic(tensor, dimension)


def without_broken_libraries(call: Callable[[], Any]) -> Any:
    """Make a ``call`` that may compile.

    Libraries in the compiler's cache that a killed process left half-written are removed, and the
    call is made again (see ``core.engine.compiler_cache``).

    Returns:
        Its result.

    Raises:
        CompileError: it still cannot be compiled.
        RuntimeError: what the call itself raised.
        ImportError: likewise.
        OSError: likewise.
    """  # noqa: DOC502  (raised by what is called)
    remove_half_written()
    return retried(call)


def remove_half_written() -> None:
    """Remove the libraries in this processor's cache that a killed process left half-written.

    Raises:
        CompileError: the cache cannot be read.
    """
    try:
        use_processors_folder()
        for library in list(half_written(cache_folder())):
            _remove(library)
    except OSError as error:
        raise CompileError(compiling_failed(error)) from error


def retried(call: Callable[[], Any]) -> Any:
    """Make a ``call`` that may compile, and again without a library that could not be loaded.

    Returns:
        Its result.

    Raises:
        CompileError: it cannot be compiled.
        RuntimeError: what the call itself raised.
        ImportError: likewise.
        OSError: likewise.
    """
    for _ in range(MOST_BROKEN):
        try:
            return call()
        except (RuntimeError, ImportError, OSError) as error:
            if not _is_compilers(error):
                raise
            broken = blamed(error)
            if broken is None:
                raise CompileError(compiling_failed(error)) from error
            _remove(broken)
    raise CompileError(compiling_failed(OSError("too many broken files")))


def _remove(library: Path) -> None:
    logger.warning("%s is no whole library: removed, and compiled again", library)
    library.unlink(missing_ok=True)


def _is_compilers(error: Exception) -> bool:
    """Tell a failure of the compiler from one of the arithmetic (or of a test that forbids it)."""
    if isinstance(error, RuntimeError):
        return isinstance(error, torch._dynamo.exc.TorchDynamoException)
    return True


def trust_the_processor() -> None:
    """Use the vector instructions that the processor states, untried.

    The compiler would build and load a test for each set, one after another: some eight processor
    seconds of a cold start, to find C++ compilers that are too old for this torch anyway. Tests of
    VNNI and AMX it makes in any case, so these sets are left out: only its own matrix products,
    which no graph here contains, are written for them.
    """
    settings = import_module("torch._inductor.config").cpp  # not with torch: it takes a second
    if settings.vec_isa_ok is None:  # TORCHINDUCTOR_VEC_ISA_OK says otherwise
        settings.vec_isa_ok = True
        known = getattr(import_module("torch._inductor.cpu_vec_isa"), "supported_vec_isa_list", [])
        known[:] = [one for one in known if type(one).__name__ not in MATRIX_INSTRUCTIONS]


def _room_for_variants() -> dict[str, Any]:
    """Raise Dynamo's limit of eight variants of a whole graph; old torch has one setting."""
    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        return {"recompile_limit": MOST_GRAPHS}
    torch._dynamo.config.recompile_limit = MOST_GRAPHS
    return {}
