"""A checkpoint's chat template: which one, and what it makes of a conversation.

In: a checkpoint's files, and messages. Out: one string, ready for the assistant's turn. A family
whose checkpoints may lack a template has it here. One that came with a checkpoint is a program of a
stranger's: it is rendered in a sandbox, in a process with bounds, once for each conversation (a
recording's prompt is the same for all recordings).
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache

from jinja2 import TemplateError

from core.checkpoint.hub import CheckpointFiles
from core.errors import UserError
from core.text import template_process
from core.units import format_bytes

logger = logging.getLogger(__name__)

ROLE = "<|start_of_role|>"
_TURNS = (
    "{% for m in messages %}<|start_of_role|>{{ m['role'] }}<|end_of_role|>{{ m['content'] }}"
    "<|end_of_text|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)
_PLAIN = (
    "{% for m in messages %}{% if m['role'] == 'user' %}USER: {{ m['content'] }}\n ASSISTANT:"
    "{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
)
# As the bundled checkpoint has it: the same text as that of the family, spelled with pluses.
BUNDLED = (
    "{%- for message in messages %}"
    "{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + "
    "'<|end_of_text|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif %}"
)
FALLBACK_TEMPLATES = {
    **{"3.2": _TURNS, "3.3": _TURNS, "tiny": BUNDLED, "4.1-plus": _TURNS},
    **{"4.0": _PLAIN, "4.1": _PLAIN},
}
ROLES_ONLY = ("4.1-plus",)  # with the plain template of its base it loops, or says nothing
WALL_S = 20.0  # the process ends itself much sooner, but for a machine that is busy
MAX_TEMPLATE = 500_000  # characters


class ChatTemplate:
    """The template of a checkpoint. names: what it may use besides, such as ``eos_token``."""

    def __init__(self, files: CheckpointFiles, family: str, names: Mapping[str, str]) -> None:
        """Choose and parse the template."""
        self._source, self._names = choose_template(files, family), dict(names)
        try:
            template_process.environment().parse(self._source)
        except (TemplateError, RecursionError) as error:
            raise UserError(f"{files.source}: the chat template is broken ({error})") from error
        self._render = lru_cache(64)(self._rendered)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Write the conversation as one string, ready for the assistant's turn.

        Returns:
            The text.

        Raises:
            UserError: the template refused it, or took too much time or memory.
        """
        return self._render(json.dumps(list(messages)), date.today())

    def _rendered(self, messages: str, _day: date) -> str:
        """Render JSON messages; what the template writes may depend on the day."""
        conversation = {"messages": json.loads(messages), "add_generation_prompt": True}
        values = {**conversation, "tools": None, **self._names}
        if self._source in FALLBACK_TEMPLATES.values():
            return template_process.render(self._source, values)
        return _rendered_apart(json.dumps({"template": self._source, "values": values}))


def _rendered_apart(asked: str) -> str:
    """Render in a process of its own.

    Returns:
        The text.

    Raises:
        UserError: the template's fault.
    """
    command = [sys.executable, "-P", template_process.__file__]
    try:
        done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=WALL_S)
        answer: dict[str, str] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):  # it was ended, and answered nothing
        memory = format_bytes(template_process.MEMORY_BYTES)
        most = f"{template_process.MAX_CPU_S} s or {memory}"
        answer = {"error": f"it takes more than {most}; expected one that only writes turns"}
    if "error" in answer:
        said = " ".join(answer["error"].split())
        raise UserError(f"the chat template refused the conversation: {said}")
    return answer["text"]


def choose_template(files: CheckpointFiles, family: str) -> str:
    """Return the checkpoint's chat template, or its family's where it has none that can work.

    Raises:
        UserError: it is no template by its size.
    """
    found = read_template(files)
    if family in ROLES_ONLY and ROLE not in (found or ""):
        logger.warning(
            "%s: its chat template %s, without which this model repeats itself; the one it was "
            "trained with is used",
            files.source,
            f"has no {ROLE}" if found else "is missing",
        )
        found = None
    if found and len(found) > MAX_TEMPLATE:
        raise UserError(
            f"{files.source}: the chat template has {len(found):,} characters; at most "
            f"{MAX_TEMPLATE:,} are read"
        )
    return found or FALLBACK_TEMPLATES[family]


def read_template(files: CheckpointFiles) -> str | None:
    """Read the checkpoint's chat template: its own file, else inside the tokenizer's settings."""
    file = files.find("chat_template.jinja")
    if file is not None:
        with file.open(encoding="utf-8", errors="replace") as text:
            return text.read(MAX_TEMPLATE + 1)
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        template = files.json(name).get("chat_template")
        if isinstance(template, list):  # several named templates; the default one is ours
            template = next((t["template"] for t in template if t["name"] == "default"), None)
        if isinstance(template, str):
            return template
    return None
