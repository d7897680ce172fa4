"""The recordings that ship with the project: what is said in them, which the model cannot know.

In: nothing. Out: file name -> text. A test that needs the files says so itself.
"""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "assets" / "examples"


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


def tracked_files() -> list[Path]:
    """The files under version control, relative to the checkout, as it is now."""
    command = ["git", "ls-files", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    names = (Path(name) for name in listed.stdout.split("\0") if name)
    return [name for name in names if (ROOT / name).is_file()]
