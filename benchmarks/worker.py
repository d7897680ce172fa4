"""One system in a process of its own: ``python -m benchmarks.worker SYSTEM FOLDER THREADS``.

In: one JSON request a line on stdin, ``{"do": "once", "seconds": 10, "num_tokens": 64}``; paths are
strings. Out: one JSON object a line: first what loading took, then an answer or an error for each
request. A process of its own gives each system its own peak memory, compile cache and cold start.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import json  # noqa: E402 - the clock starts before the imports, for they are part of a cold start
import os  # noqa: E402
import sys  # noqa: E402
from importlib import import_module  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, TextIO  # noqa: E402

import torch  # noqa: E402

from benchmarks.systems import SYSTEMS  # noqa: E402

PATHS = ("file",)


def main() -> None:
    """Load the system, then answer until stdin ends."""
    answers = _own_stdout()
    system, folder, threads = SYSTEMS[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    # By name: a worker of ours never pays for importing transformers.
    module = import_module("benchmarks.ours" if system.ours else "benchmarks.peer")
    imported = time.perf_counter()
    runner = (module.Ours if system.ours else module.Peer)(folder, system, threads)
    loaded = time.perf_counter()
    _say(answers, {"import_s": imported - STARTED, "load_s": loaded - imported})
    for line in sys.stdin:
        _say(answers, answer(runner, json.loads(line)))


def answer(runner: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Return the runner's answer as JSON, or its error."""
    arguments = {
        name: Path(value) if name in PATHS else value
        for name, value in request.items()
        if name != "do"
    }
    try:
        done: dict[str, Any] = getattr(runner, request["do"])(**arguments).to_json()
    except Exception as error:  # whatever it is, the other systems are measured all the same
        first = next(iter(str(error).strip().splitlines()), "")
        return {"error": f"{type(error).__name__}: {first}"}
    return done


def _own_stdout() -> TextIO:
    """Take the real stdout; whatever a library prints goes to stderr from now on."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


def _say(answers: TextIO, what: dict[str, Any]) -> None:
    print(json.dumps(what), file=answers, flush=True)


if __name__ == "__main__":
    main()
