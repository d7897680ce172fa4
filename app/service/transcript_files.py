"""Files that the browser makes itself: nothing of a transcript is written to this machine's disk.

In: transcripts and, where a person corrected one, its text. Out: the object that :data:`SAVE` hands
to the browser: a name, a type, and the content as text or as base64.
"""

from __future__ import annotations

import io
import zipfile
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

from core.text.edit import apply_edit
from core.text.export import EXPORTERS
from core.text.output_names import unique_names
from core.text.transcript import Transcript

File = dict[str, str]
LISTING = "renamed"  # the file in a zip that lists them

SAVE = """(file) => {
  if (!file || !file.name) return;
  const bytes = file.base64 && Uint8Array.from(atob(file.base64), (c) => c.charCodeAt(0));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes || file.text], { type: file.type }));
  link.download = file.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""


def transcript_file(transcript: Transcript, text: str, kind: str) -> File:
    """Write one transcript in one format, named after its recording."""
    content = EXPORTERS[kind](apply_edit(transcript, text))
    return {"name": f"{stem(transcript)}.{kind}", "type": "text/plain", "text": content}


def archive(transcripts: Sequence[Transcript]) -> File:
    """Pack all transcripts in all formats into one zip, under names of their own.

    Returns:
        The zip. Where some had to be renamed, a file in it says which recording became what.
    """
    packed = io.BytesIO()
    endings = [f".{kind}" for kind in EXPORTERS]
    *names, listing = unique_names([*map(stem, transcripts), LISTING], endings)
    renamed = [
        f"{transcript.file}: {name}\n"
        for name, transcript in zip(names, transcripts, strict=True)
        if name != stem(transcript)
    ]
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        if renamed:
            out.writestr(f"{listing}.txt", "".join(renamed))
        for name, transcript in zip(names, transcripts, strict=True):
            for kind, write in EXPORTERS.items():
                out.writestr(f"{name}.{kind}", write(transcript))
    content = b64encode(packed.getvalue()).decode("ascii")
    return {"name": "transcripts.zip", "type": "application/zip", "base64": content}


def stem(transcript: Transcript) -> str:
    """Return the recording's name without its ending."""
    return Path(transcript.file).stem or "transcript"
