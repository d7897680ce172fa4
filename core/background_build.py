"""Packages built by another process while this one answers: nobody waits for a compiler.

In: a loaded model, and how it was asked for. Out: which engine answers now, and how far the build
is. A build is ``python -m core package --background`` at the lowest priority; it ends with this
process. What it made is found again at the next start (``core.engine.aot_load``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from core.builder_process import BackgroundBuild
from core.engine.aot_load import (
    ENVIRONMENT,
    MANIFEST,
    OFF,
    Refused,
    package_places,
    packages_folder,
    read_manifest,
)
from core.engine.fingerprint import fingerprint
from core.errors import UserError
from core.lab import Lab
from core.memory import available_bytes, weight_bytes
from core.transcription.options import TranscribeOptions

LOWEST_PRIORITY = 19  # of a nice value
ROOM = 1.5  # of the weights: graphs, constants and compilers take some besides


@dataclass(frozen=True)
class PackageRequest:
    """The arguments a model was loaded with, so that another process loads the same."""

    model: str
    device: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    revision: str | None = None
    adapters: tuple[Path, ...] = ()

    @classmethod
    def of(
        cls, lab: Lab, model: str, revision: str | None = None, adapters: tuple[Path, ...] = ()
    ) -> PackageRequest:
        """Return the request of a loaded model: in the form it has now.

        Args:
            lab: the model.
            model: its name, repository or folder.
            revision: of a repository.
            adapters: folders of those that were added.

        Returns:
            The request.
        """
        dtype = str(lab.dtype).removeprefix("torch.")
        return cls(model, str(lab.device), dtype, lab.quantize, revision, adapters)

    def command(self, *, batches: bool, nice: bool) -> list[str]:
        """Return the command that builds its package."""
        given = [
            ("--device", self.device),
            ("--dtype", self.dtype),
            ("--quantize", self.quantize),
            ("--revision", self.revision),
            *(("--adapter", str(folder)) for folder in self.adapters),
        ]
        words = [word for name, value in given if value for word in (name, value)]
        low = [] if os.name != "posix" or not nice else ["nice", "-n", str(LOWEST_PRIORITY)]
        more = ["--batches"] if batches else []
        python = [sys.executable, "-m", "core", "package", "--background"]
        return [*low, *python, *words, *more, "--", self.model]


class BackgroundBuilds:
    """The builders of this process, one for each package.

    Args:
        start: starts a builder from a request, whether batches too, and whether it keeps back.
    """

    def __init__(
        self, start: Callable[[PackageRequest, bool, bool], BackgroundBuild] | None = None
    ) -> None:
        self._start = start or start_build
        self._builds: dict[tuple[str, bool], BackgroundBuild] = {}
        self._lock = Lock()

    def missing(
        self, lab: Lab, request: PackageRequest, *, batches: bool = False, nice: bool = True
    ) -> BackgroundBuild | None:
        """Return the build that a compiled answer has to wait for, begun now if need be.

        Args:
            lab: the model.
            request: how it was asked for.
            batches: whether several clips at once are met.
            nice: whether the build keeps out of the way.

        Returns:
            The build; None where compiled stages are there, or only this process can make them: on
            another device, or where memory does not hold the weights twice.
        """
        if os.environ.get(ENVIRONMENT) == OFF or lab.device.type != "cpu":
            return None
        recognizer, ledger = lab.session.recognizer, lab.compile_ledger
        if recognizer.is_compiled and (not batches or _takes_batches(ledger.packaged)):
            return None
        try:
            structure = fingerprint(lab.model).structure
        except UserError:  # a family whose graphs are compiled where they run
            return None
        names = packaged_graphs(lab)
        if names and (not batches or _takes_batches(names)):
            if recognizer.is_compiled:
                recognizer.forget_compiled()  # the package has more graphs by now
            return None
        with self._lock:
            key = (structure, batches)
            build = self._builds.get(key)
            if build is None and not fits_twice(lab):
                return None
            if build is None:
                build = self._builds[key] = self._start(request, batches, nice)
            elif build.status.is_over:
                build.fail("what was built does not fit this model")
            return build

    def pause(self, *, paused: bool) -> None:
        """Stop every builder where it is, or let them go on."""
        with self._lock:
            for build in self._builds.values():
                build.pause(paused=paused)

    def close(self) -> None:
        """End every builder."""
        with self._lock:
            for build in self._builds.values():
                build.close()


def fits_twice(lab: Lab) -> bool:
    """Return whether a builder, which loads the weights again, has the memory for it."""
    free = available_bytes()
    return free is None or ROOM * weight_bytes(lab.model) < free


def start_build(request: PackageRequest, batches: bool, nice: bool) -> BackgroundBuild:
    """Start the builder of a package."""
    return BackgroundBuild(request.command(batches=batches, nice=nice), learnt_seconds())


def learnt_seconds() -> dict[str, float]:
    """Return graph -> seconds that it took, from the packages there are, stale ones too."""
    found: dict[str, float] = {}
    for manifest in packages_folder().glob(f"*/{MANIFEST}"):
        try:
            found |= read_manifest(manifest.parent).graphs
        except Refused:
            continue
    return found


def packaged_graphs(lab: Lab) -> frozenset[str]:
    """Return the names of the graphs in the model's package; none where no fresh one is there."""
    here = fingerprint(lab.model)
    for folder in package_places(lab.model_info.name, here.structure, lab.files.folder):
        try:
            manifest = read_manifest(folder)
        except Refused:
            continue
        if manifest.fingerprint == here:
            return frozenset(manifest.graphs)
    return frozenset()


def _takes_batches(graphs: Sequence[str] | frozenset[str]) -> bool:
    # A package without the graphs of several clips has no "encode" beside its "encode-B1". Stages
    # that no package gave compile what they lack.
    return not graphs or "encode" in graphs


def needs_batches(lab: Lab, options: TranscribeOptions, lengths_s: Sequence[float | None]) -> bool:
    """Return whether a request meets several clips at once: beams, files, spans of a long one."""
    longest = lab.session.recognizer.longest_pass_s(options)
    beams = options.decoding == "beam" and "sample" in lab.session.recognizer.decodings
    long = any(length is None or length > longest for length in lengths_s)
    return beams or long or len(lengths_s) > 1
