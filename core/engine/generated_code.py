"""Which files hold the code that a compiler generated.

In: a call that compiles. Out: the paths of what it generated or took from its cache. Reading them
is the profiler's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


@contextmanager
def generated_files() -> Iterator[list[str]]:
    """Collect the Python files that Inductor loads inside, one for each graph.

    Also one that it has loaded before: the same model loaded twice compiles to the same file. There
    is no public way to ask; a torch that loads them otherwise yields none.

    Yields:
        The list, filled as files are loaded.
    """
    found: list[str] = []
    cache = import_module("torch._inductor.codecache").PyCodeCache
    original = vars(cache).get("load_by_key_path")
    if original is None:
        yield found
        return
    load = cache.load_by_key_path

    def noting(key: str, path: str, *rest: Any, **named: Any) -> Any:
        module = load(key, path, *rest, **named)
        if hasattr(module, "call") and path not in found:  # a graph; a Triton kernel has none
            found.append(path)
        return module

    cache.load_by_key_path = noting
    try:
        yield found
    finally:
        cache.load_by_key_path = original
