"""Search for input that breaks a promise, guided by the code it reaches: needs atheris (libFuzzer).

    .venv/bin/python -m pip install atheris      # Linux, Python 3.11 to 3.13
    .venv/bin/python tests/fuzz.py trace --seconds 600

Targets: ``trace`` (the trace reader and all it fills), ``settings`` (the JSON files of checkpoints,
adapters and runs), ``http`` (OpenAI's routes). Each new fault is printed once and its input kept
below ``--out``; exit status 1 says that there were some. ``--replay FILE`` reads one again. Not one
of the tests: what it finds becomes one, by the generators of ``mutation.py`` or by hand.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
mutation = import_module("mutation")  # of this folder

SHIPPED = ROOT / "assets" / "runs"
OURS = ["core", "profiling", "app"]
LONGEST = 100_000  # bytes of an input
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
Read = Callable[[bytes], None]


def is_shown(data: bytes) -> bool:
    """Draw figures for one input of eight: they take most of the time."""
    return sha256(data).digest()[0] < 32


def trace_target(folder: Path) -> tuple[Read, list[bytes]]:
    """What reads a trace, and traces to begin with."""
    readers, recorded = import_module("readers"), import_module("recorded")

    def read(data: bytes) -> None:
        readers.read_a_trace(data, folder, shown=is_shown(data))

    bundled = gzip.decompress(next(SHIPPED.glob("*compile*greedy*/trace.json.gz")).read_bytes())
    whole = json.loads(bundled)
    whole["traceEvents"] = whole["traceEvents"][::40]  # a short one, of compiled code
    traces = [json.loads(recorded.TRACE.read_text()), recorded.trace_of_gpu(), whole]
    return read, [json.dumps(trace).encode() for trace in traces]


def settings_target(folder: Path) -> tuple[Read, list[bytes]]:
    """What reads settings; an input is the name of a file, a line end, and the file."""
    readers, broken = import_module("readers"), import_module("broken_checkpoints")
    tiny_models, recorded = import_module("tiny_models"), import_module("recorded")
    whole, used = folder / "whole", folder / "used"
    raw = tiny_models.raw_config()
    first = folder / "first"
    model = tiny_models.random_model(raw, seed=1)
    tiny_models.write_checkpoint(first, raw, model)
    tiny_models.write_adapter(first, model, seed=2)
    tiny_models.write_tokenizer(first / "tokenizer.json")
    broken.prepare(whole, first)
    used.mkdir()
    seeds = {file.name: json.loads(file.read_text()) for file in whole.glob("*.json")}
    seeds["tokenizer_config.json"] = {"bos_token": "<|end_of_text|>", "eos_token": {"content": "x"}}
    seeds["generation_config.json"] = {"eos_token_id": [300]}
    seeds["chat_template.json"] = {"chat_template": TEMPLATE}
    seeds["lab.json"] = {"family": "3.3", "text_mode": True, "num_beams": 4}
    seeds["run.json"] = recorded.RUN | json.loads(next(SHIPPED.glob("*/run.json")).read_text())

    def read(data: bytes) -> None:
        name, _, content = data.partition(b"\n")
        if name == b"run.json":
            readers.read_run_json(content, folder, shown=is_shown(content))
        elif (known := name.decode("ascii", "replace")) in seeds:
            readers.read_checkpoint({known: content}, used, whole)

    return read, [f"{name}\n{json.dumps(value)}".encode() for name, value in seeds.items()]


def http_target(folder: Path) -> tuple[Read, list[bytes]]:
    """What answers a request; an input is its fields as JSON, or else a whole body."""
    calls, requests = import_module("api_caller"), import_module("test_generated_requests")
    asgi, deployments = import_module("app.api.asgi"), import_module("app.service.deployment")
    service = requests.service_of_random_model(folder / "model")
    caller = calls.HttpCaller(asgi.create_api(service, deployments.Deployment()))
    caller.ask(calls.form([], requests.WAV))
    boundary = {"Content-Type": "multipart/form-data; boundary=y"}

    def read(data: bytes) -> None:
        try:
            fields = [(str(name), str(text)) for name, text in json.loads(data)]
        except (ValueError, TypeError, RecursionError):
            caller.ask(calls.Request(calls.TRANSCRIBE, (data,), headers=boundary))
            return
        caller.ask(calls.form([(name[:500], text) for name, text in fields], requests.WAV))

    seeds = [
        json.dumps([[name, value]]).encode() for name, values in requests.VALUES.items()
        for value in values[:3]
    ]  # fmt: skip
    part = b'--y\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    file = part % (b"file", b'; filename="a.wav"', requests.WAV[:2_000])
    return read, [*seeds, part % (b"model", b"", b"tiny") + file + b"--y--\r\n"]


TARGETS = {"trace": trace_target, "settings": settings_target, "http": http_target}


def mutated(data: bytes, most: int, seed: int, plain: Callable[[bytes, int], bytes]) -> bytes:
    """Change an input by its structure where it has one, else by its bytes."""
    rng = random.Random(seed)
    head, line_end, content = data.partition(b"\n")
    if not head.endswith(b".json"):
        head, line_end, content = b"", b"", data
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return bytes(plain(data, most))
    if rng.random() < 0.2:
        return bytes(plain(data, most))
    _, changed = mutation.damaged_json(rng, value)
    done = head + line_end + changed
    return done if len(done) <= most else bytes(plain(data, most))


class Faults:
    """Faults by kind, each kept once below ``folder``."""

    def __init__(self, read: Read, folder: Path) -> None:
        self._hold = import_module("promise").hold
        self._read, self._folder, self._known = read, folder, set[str]()

    def check(self, data: bytes) -> None:
        """Read one input; print and keep what it breaks."""
        for fault in self._hold([("", data)], self._read).broken:
            kind = re.sub(r"'[^']*'|\"[^\"]*\"|[\d.]+ (s|MB)", "", fault)
            if kind not in self._known:
                self._known.add(kind)
                name = self._folder / f"fault-{sha256(data).hexdigest()[:12]}"
                name.write_bytes(data)
                print(f"\nFAULT {name}: {fault}", flush=True)


@contextmanager
def instrumented(atheris: Any) -> Iterator[None]:
    """Count which lines of ours run, of all that is imported inside."""
    with atheris.instrument_imports(include=OURS):
        yield


def main() -> int:
    """Run one target; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "fuzz")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="only read this input")
    chosen = parser.parse_args()
    kept = chosen.out / chosen.target
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        if chosen.replay:
            read, _ = TARGETS[chosen.target](Path(scratch))
            read(chosen.replay.read_bytes())
            return 0
        try:
            atheris = import_module("atheris")
        except ImportError:
            parser.error(f"atheris is not installed: {sys.executable} -m pip install atheris")
        with instrumented(atheris):
            read, seeds = TARGETS[chosen.target](Path(scratch))
        corpus = kept / "corpus"
        corpus.mkdir(exist_ok=True)
        for seed in seeds:
            (corpus / sha256(seed).hexdigest()[:12]).write_bytes(seed)
        limits = [f"-max_total_time={chosen.seconds}", f"-max_len={LONGEST}", "-timeout=200"]
        arguments = [sys.argv[0], *limits, f"-seed={chosen.seed}", "-rss_limit_mb=6000"]
        atheris.Setup(
            [*arguments, "-print_final_stats=1", f"-artifact_prefix={kept}/", str(corpus)],
            Faults(read, kept).check,
            custom_mutator=lambda data, most, seed: mutated(data, most, seed, atheris.Mutate),
        )
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
