"""Memory that was freed stays with the process, unless somebody decided otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.memory import MALLOC_SETTINGS

COUNT = """
import resource, sys
import torch
from core.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        kept = [torch.ones(2**18) for _ in range(20)]  # 1 MiB each
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
usual = faults()
print(keep_freed_memory())
faults()
print(usual, faults())
"""


def page_faults(**environment: str) -> tuple[str, int, int]:
    """The answer of keep_freed_memory, and page faults before and after it."""
    own = {name: value for name, value in os.environ.items() if name not in MALLOC_SETTINGS}
    for _ in range(8):  # something small at the end of a heap holds all of it, now and then
        found = subprocess.run(
            [sys.executable, "-c", COUNT],
            cwd=Path(__file__).parents[1],
            env={**own, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        answer, counts = found.stdout.splitlines()
        usual, after = map(int, counts.split())
        if usual > 1000:
            return answer, usual, after
    pytest.skip("this allocator gives nothing back")


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_what_was_freed_is_used_again_without_page_faults() -> None:
    answer, usual, after = page_faults()
    if answer == "False":
        pytest.skip("this C library has no such setting")
    assert after < usual / 10


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_whoever_sets_the_allocator_in_the_environment_decides() -> None:
    answer, _, _ = page_faults(MALLOC_TRIM_THRESHOLD_="1048576")
    assert answer == "False"
