"""Files that are made when somebody asks for them, and saved by the browser at once.

In: a folder, a name and bytes. Out: a path for :func:`build_fetched`'s component, whose file
:data:`FETCH_FILE` then saves. Gradio keeps a copy of its own, which is deleted an hour later.
"""

from __future__ import annotations

import re
from pathlib import Path

import gradio as gr

# Where Gradio's own button needs a second click for a file that is made on the first.
FETCH_FILE = """(file) => {
  if (!file) { return []; }
  const one = Array.isArray(file) ? file[0] : file;
  const link = document.createElement("a");
  link.href = one.url;
  link.download = one.orig_name || "file";
  document.body.appendChild(link);
  link.click();
  link.remove();
  return [];
}"""


def build_fetched() -> gr.File:
    """Build the hidden component that hands a file to the browser."""
    return gr.File(elem_classes="never-shown", label="Saved file", interactive=False)


def write_file(folder: Path, name: str, content: bytes) -> str:
    """Write a file for the browser to fetch; returns its path."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[-100:] or "file"
    path = folder / plain
    path.write_bytes(content)
    return str(path)
