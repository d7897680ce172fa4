"""The recordings that ship with the project: what is said in them, which the model cannot know.

In: nothing. Out: file name -> text. A test that needs the files says so itself.
"""

import json
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "assets" / "examples"


def transcripts() -> dict[str, str]:
    """All of them; nothing where they are not installed."""
    file = EXAMPLES / "transcripts.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def is_outside(name: str) -> bool:
    """Whether a recording has words that the bundled model does not know."""
    return name.startswith("outside_")


def inside() -> dict[str, str]:
    """Those that the model should hear."""
    return {name: text for name, text in transcripts().items() if not is_outside(name)}
