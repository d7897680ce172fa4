"""A process that renders one chat template and ends: what a stranger's program may cost is bounded.

In: on stdin a JSON object of ``template`` and ``values``. Out: on stdout one of ``text`` or
``error``. It limits its own time and memory where the system can; it imports jinja2 alone and is
run by its path. :func:`render` serves the project's own templates too, which need no bounds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_CPU_S, MEMORY_BYTES, MAX_CHARACTERS = 2, 256 * 2**20, 1_000_000
# A template is a program from a file: what fails inside it is the file's fault, not ours.
FAULTS = (
    *(TemplateError, ArithmeticError, LookupError, TypeError, AttributeError, ValueError),
    *(RecursionError, MemoryError),
)


class _Generation(Extension):
    """``{% generation %}``: what training masks by; here it writes what it holds."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        """Parse up to ``{% endgeneration %}``."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller: Callable[[], str]) -> str:
        return caller()


def environment() -> ImmutableSandboxedEnvironment:
    """Return what templates are rendered in, with the names that transformers gives them."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    made.filters["tojson"] = _to_json
    made.globals["raise_exception"] = _raise_template_error
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return made


def render(source: str, values: Mapping[str, Any]) -> str:
    """Compile and render a template."""
    return environment().from_string(source).render(values)


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, **{"ensure_ascii": False, **options})


def _raise_template_error(message: str) -> None:
    raise TemplateError(message)


def _limit() -> None:
    try:
        import resource  # noqa: PLC0415  (not on Windows, where the caller's deadline is all)
    except ImportError:
        return
    seconds = MAX_CPU_S - 1 + int(time.process_time())  # whole ones; starting took its share
    for kind, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, MEMORY_BYTES)):
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, most))


def _answer(asked: Mapping[str, Any]) -> dict[str, str]:
    try:
        text = render(asked["template"], asked["values"])
    except FAULTS as error:
        return {"error": str(error)[:500] or type(error).__name__}
    if len(text) > MAX_CHARACTERS:
        return {"error": f"it writes {len(text):,} characters; at most {MAX_CHARACTERS:,} are read"}
    return {"text": text}


if __name__ == "__main__":
    _limit()
    json.dump(_answer(json.load(sys.stdin)), sys.stdout)
