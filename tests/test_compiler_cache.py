"""Libraries that a killed process left half-written are found before they are loaded.

Run alone: ``python -m pytest tests/test_compiler_cache.py``.
"""

import os
import re
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from core.engine import compiler_cache
from core.engine.compiler_cache import (
    blamed,
    cache_folder,
    compiling_failed,
    half_written,
    is_whole,
    use_processors_folder,
)


@pytest.fixture
def library() -> bytes:
    """A real library, as this system's linker writes them."""
    spec = find_spec("_ctypes")
    content = Path(spec.origin).read_bytes() if spec and spec.origin else b""
    if not content.startswith(b"\x7fELF"):
        pytest.skip("this system's libraries are of another kind")
    return content


def test_a_library_is_whole_only_to_its_last_byte(tmp_path: Path, library: bytes):
    file = tmp_path / "kernel.so"
    file.write_bytes(library)
    assert is_whole(file)
    for length in (len(library) - 1, len(library) // 2, 100, 40, 3, 0):
        file.write_bytes(library[:length])
        assert not is_whole(file), length


def test_other_kinds_of_files_are_not_judged(tmp_path: Path):
    file = tmp_path / "kernel.so"
    file.write_bytes(b"\xcf\xfa\xed\xfe" + bytes(60))  # macOS
    assert is_whole(file)


def test_a_file_that_may_still_be_written_is_left_alone(tmp_path: Path, library: bytes):
    old, young, good = (tmp_path / name / f"{name}.so" for name in ("old", "young", "good"))
    for file, content in ((old, library[:500]), (young, library[:500]), (good, library)):
        file.parent.mkdir()
        file.write_bytes(content)
    past = time.time() - 60
    os.utime(old, (past, past))
    os.utime(good, (past, past))
    assert list(half_written(tmp_path)) == [old]


def test_a_folder_that_is_not_there_has_no_broken_files(tmp_path: Path):
    assert list(half_written(tmp_path / "nothing")) == []


def test_each_kind_of_processor_has_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(compiler_cache.ENVIRONMENT, str(tmp_path))
    monkeypatch.setattr(compiler_cache, "processor", lambda device: "AVX512 (12ab)")
    for _ in range(2):  # the second time a child process of the first
        use_processors_folder()
        assert cache_folder() == tmp_path.resolve() / "avx512-12ab"
    monkeypatch.setenv(compiler_cache.ENVIRONMENT, str(tmp_path))
    monkeypatch.setattr(compiler_cache, "processor", lambda device: "AVX2 (34cd)")
    use_processors_folder()
    assert cache_folder() == tmp_path.resolve() / "avx2-34cd"


def test_only_a_library_in_the_cache_is_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiler_cache, "cache_folder", lambda: tmp_path.resolve())
    mine = tmp_path / "a" / "kernel.so"
    mine.parent.mkdir()
    mine.touch()
    assert blamed(ImportError(f"{mine}: file too short")) == mine.resolve()
    assert blamed(ImportError(f"{mine}: permission denied")) is None
    assert blamed(ImportError("/usr/lib/libm.so: invalid ELF header")) is None


@pytest.mark.parametrize(
    ("cache", "error", "told"),
    [
        ("/c", RuntimeError("InvalidCxxCompiler: No working C++ compiler"), "install g++"),
        ("/c", RuntimeError("OSError: [Errno 28] No space left on device"), "no room .* in /c"),
        ("/c", OSError(13, "Permission denied"), "/c cannot be used .*TORCHINDUCTOR_CACHE_DIR"),
        ("/Zoë M", RuntimeError("CppCompileError: C++ compile error"), "letter outside ASCII"),
        ("/c", RuntimeError("\nCppCompileError: C++ compile error\nmore"), "delete that folder"),
    ],
)
def test_each_cause_of_a_failed_compilation_has_its_own_advice(
    cache: str, error: Exception, told: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", cache)
    said = compiling_failed(error)
    assert re.search(told, said)
    assert said.endswith("use the eager engine")
    assert "\n" not in said
