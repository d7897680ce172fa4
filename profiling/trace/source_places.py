"""Places in source files, without the folders of the machine they were found on.

In: paths, or texts with paths in them. Out: the same with ours relative to the project and others
as their name: runs and reports are passed on.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = f"{Path(__file__).resolve().parents[2]}/"
_STEPS = r"(?<![\w./<:])/(?:[\w.+@~-]+/)"
_FOLDERS = re.compile(f"{_STEPS}*site-packages/|{_STEPS}+")  # what is installed keeps its package


def without_folders(text: str) -> str:
    """Take the folders out of every path in a text."""
    return _FOLDERS.sub("", text.replace(ROOT, ""))


def place_in(file: str | None, line: int | None, function: str | None) -> str | None:
    """Write a place in the source; None where the file is unknown."""
    if not file:
        return None
    where = without_folders(file) + (f":{line}" if line else "")
    return where + (f", in {function}" if function else "")
