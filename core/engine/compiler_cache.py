"""The compiler's cache of libraries on disk: one folder a processor, and what is broken in it.

In: a cache folder, or the error of a library that could not be loaded. Out: where this processor's
libraries are, and which files a killed process left broken.

A process that is killed while a library is being written leaves half of it. Every later run that
needs it would load it: some halves are refused with an ``ImportError``, others end the process with
a bus error, as their pages lie past the end of the file. The first kind is recognised by what the
loader says, the second must be found before anything is loaded.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import torch

from core.engine.fingerprint import processor

ENVIRONMENT = "TORCHINDUCTOR_CACHE_DIR"
STILL_WRITTEN_S = 30.0  # a younger file may be another process's, on its way
_LIBRARY = re.compile(r"[^\s'\"()]+\.so\b")
# What the system's loader says of a file that was not written to its end.
_SIGNS = (
    "file too short",
    "invalid ELF",
    "ELF load command",
    "cannot read file data",
    "undefined symbol",
)
_NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_ELF_64_LITTLE = b"\x7fELF\x02\x01"
_HEADER = struct.Struct("<16x HHI QQQ I HHHHHH")  # ELF-64 specification, figure 2


def use_processors_folder() -> None:
    """Keep what is compiled on this kind of processor in a folder of its own, from now on.

    The compiler knows its code again by its source alone. Code made for AVX-512 takes 16 numbers a
    step; found where vectors hold 8, it left every second 8 out and said nothing. And what
    ``-march=native`` made may have instructions that another processor lacks.

    Raises:
        OSError: the cache cannot be used.
    """  # noqa: DOC502  (raised by what is called)
    name = re.sub(r"\W+", "-", processor(torch.device("cpu"))).strip("-").lower()
    folder = cache_folder()
    if folder.name != name:  # else set by a parent process
        os.environ[ENVIRONMENT] = str(folder / name)


def cache_folder() -> Path:
    """Return where the compiler keeps its libraries."""
    # torch loads its compiler when it is first asked for; importing it here would slow every start.
    return Path(import_module("torch._inductor.runtime.cache_dir_utils").cache_dir()).resolve()


def is_whole(library: Path) -> bool:
    """Check that a library was written to its end: its last part is the table of sections.

    Returns:
        False if it was not; True also for kinds of libraries that this cannot judge.
    """
    size = library.stat().st_size
    with library.open("rb") as file:
        head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        return False  # no kind of library is this short
    if not head.startswith(_ELF_64_LITTLE):
        return True
    *_, table, _flags, _own, _entry, _entries, section_bytes, sections, _names = _HEADER.unpack(
        head
    )
    return table > 0 and table + section_bytes * sections <= size


def half_written(folder: Path) -> Iterator[Path]:
    """Find the libraries below ``folder`` that are not whole and that nobody is writing now."""
    for library in folder.rglob("*.so"):
        try:
            old = time.time() - library.stat().st_mtime > STILL_WRITTEN_S
            if old and not is_whole(library):
                yield library
        except OSError:
            continue  # gone, or not ours to read: then it is not ours to load either


def blamed(error: BaseException) -> Path | None:
    """Return the library in the cache that ``error`` says could not be loaded, if there is one."""
    text = str(error)
    if not any(sign in text for sign in _SIGNS):
        return None
    cache = cache_folder()
    for found in _LIBRARY.findall(text):
        path = Path(found).resolve()
        if path.is_relative_to(cache) and path.is_file():
            return path
    return None


def compiling_failed(error: BaseException) -> str:
    """Say in a line why compiling failed and what to do about that cause.

    Returns:
        The sentence.
    """
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    names = {type(one).__name__ for one in chain} | set(re.findall(r"\w+", str(error)[:200]))
    why = next(
        (line.strip() for line in str(error).splitlines() if line.strip()), "no reason given"
    )
    cache = os.environ.get(ENVIRONMENT, tempfile.gettempdir())
    elsewhere = f"set {ENVIRONMENT} to another folder, or use the eager engine"
    found = {int(code) for code in re.findall(r"\[Errno (\d+)\]", str(error))}
    if "InvalidCxxCompiler" in names:
        return (
            "compiling needs a C++ compiler and none was found; install g++ (or set CXX to one), "
            "or use the eager engine"
        )
    if found & _NO_ROOM:
        cause, advice = f"there is no room for files in {cache}", f"free some space, {elsewhere}"
    elif found:
        cause, advice = f"{cache} cannot be used", elsewhere
    elif re.search(r"[^!-~]", cache):
        cause, advice = (
            f"compilers cannot use {cache}: a space or a letter outside ASCII",
            elsewhere,
        )
    else:
        return (
            f"compiling failed: {why}; a run that was killed while compiling may have left broken "
            f"files in {cache}: delete that folder and try again, or use the eager engine"
        )
    return f"compiling failed: {cause} ({why}); {advice}"
