"""The code that compiling generated: collected, packed beside a run, read back, cut for reading.

In: the files that a model's ledger names: Inductor's Python modules, or packages with C++ in them.
Out: :class:`GeneratedCode`, at most :data:`MAX_TOTAL` characters of it, and the bytes of
:data:`CODE_FILE`. Folders of this machine are taken out. What is read back may be a stranger's: it
is bounded, checked, and only ever shown.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from core.engine.compiling import STAGE_PHASES
from core.errors import UserError
from profiling.trace.source_places import without_folders

CODE_FILE = "compiled_code.json.gz"
MAX_FILE, MAX_TOTAL = 1_000_000, 8_000_000  # characters
MAX_JSON_BYTES = 40_000_000  # of the file unpacked: a character takes a few bytes in JSON
MAX_FILES = 200
SHOWN_LINES, LONGEST_LINE = 120, 240
CUT = "\n… cut here; the file goes on.\n"
SOURCES = {".kernel.cpp": "kernels", ".wrapper.cpp": "wrapper"}  # in a package, kernels first
# Where a generated file begins to say something: before it are imports and macros.
_BEGIN = re.compile(r'^(cpp_fused|triton_|@triton|extern "C"|def call|void AOTInductorModel::run)')


@dataclass(frozen=True)
class GeneratedCode:
    """One generated file. graph: a variant of a stage, ``decode-B1``; part: what of it."""

    graph: str
    part: str
    language: str
    source: str

    @property
    def stage(self) -> str:
        """Return the phase that the graph computes."""
        name = self.graph.partition("-")[0]
        return STAGE_PHASES.get(name, name)

    @property
    def num_lines(self) -> int:
        """Count lines."""
        return len(self.source.splitlines())

    @property
    def file_name(self) -> str:
        """Return a name to save it by."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{self.graph}.{self.part}").strip("._")
        return f"{plain or 'code'}.{'py' if self.language == 'python' else 'cpp'}"

    def excerpt(self) -> tuple[str, str]:
        """Return which lines a reader sees first, in words, and these lines."""
        lines = self.source.splitlines()
        begin = next((n for n, line in enumerate(lines) if _BEGIN.match(line)), 0)
        shown = lines[begin : begin + SHOWN_LINES]
        cut = [x if len(x) <= LONGEST_LINE else f"{x[: LONGEST_LINE - 1]}…" for x in shown]
        end = begin + len(shown)
        said = f"{len(lines):,} lines" if len(shown) == len(lines) else ""
        return said or f"lines {begin + 1:,} to {end:,} of {len(lines):,}", "\n".join(cut)


def generated_code(files: Mapping[str, Sequence[str]]) -> list[GeneratedCode]:
    """Read the generated files of each graph; what is gone or unreadable is left out.

    Args:
        files: variant of a stage -> paths, as of :class:`core.engine.compiling.CompileLedger`.

    Returns:
        The files, in that order, kernels before what calls them.
    """
    found: list[GeneratedCode] = []
    left = MAX_TOTAL
    for graph, paths in files.items():
        for part, language, source in (one for path in paths for one in _sources(Path(path))):
            most = min(MAX_FILE, left)
            if most <= len(CUT) or len(found) == MAX_FILES:
                return found
            plain = without_folders(source)
            plain = plain if len(plain) <= most else plain[: most - len(CUT)] + CUT
            found.append(GeneratedCode(graph, part, language, plain))
            left -= len(plain)
    return found


def _sources(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield part, language and text of the sources in a file."""
    try:
        if path.suffix == ".py":
            yield "module", "python", path.read_text(encoding="utf-8", errors="replace")
            return
        with zipfile.ZipFile(path) as package:
            for ending, part in SOURCES.items():
                for name in package.namelist():
                    if name.endswith(ending):
                        yield part, "c++", package.read(name).decode("utf-8", errors="replace")
    except (OSError, zipfile.BadZipFile, zlib.error):
        return


def pack_code(codes: Sequence[GeneratedCode]) -> bytes:
    """Return the bytes of :data:`CODE_FILE`."""
    return gzip.compress(json.dumps({"files": [asdict(code) for code in codes]}).encode(), mtime=0)


def read_code(file: Path) -> list[GeneratedCode]:
    """Read :data:`CODE_FILE`, whoever wrote it.

    Returns:
        The generated files.

    Raises:
        UserError: damaged, too large, or something else.
    """
    try:
        rows = json.loads(_unpacked(file))["files"][:MAX_FILES]
        return [GeneratedCode(*(_text(row[key]) for key in _KEYS)) for row in rows]
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, RecursionError) as why:
        raise UserError(
            f"{CODE_FILE} cannot be read ({type(why).__name__}); expected at most "
            f"{MAX_JSON_BYTES / 1e6:.0f} MB of generated code as a run stores it: measure again"
        ) from None


def _unpacked(file: Path) -> bytes:
    with gzip.open(file) as packed:
        text = packed.read(MAX_JSON_BYTES + 1)
    return text if len(text) <= MAX_JSON_BYTES else b""


_KEYS = ("graph", "part", "language", "source")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value[:MAX_FILE]


def named_sources(codes: Sequence[GeneratedCode]) -> dict[str, str]:
    """Return the text of every file by a name of its own."""
    found: dict[str, str] = {}
    for number, code in enumerate(codes):
        name = code.file_name
        found[name if name not in found else f"{number}-{name}"] = code.source
    return found


def code_archive(codes: Sequence[GeneratedCode]) -> bytes:
    """Pack every file by its name into a zip."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in named_sources(codes).items():
            archive.writestr(name, source)
    return packed.getvalue()
