"""Many files -> their transcripts, in batches; a file that fails does not take others with it.

In: a loaded checkpoint, files, options. Out: (file, transcript or error) in the files' order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from core.lab import Lab
from core.text.transcript import Transcript
from core.transcription.options import Finished, OptionFields


def transcribe_files(
    lab: Lab,
    files: Sequence[str],
    *,
    at_once: int,
    resume: Path | None = None,
    **options: Unpack[OptionFields],
) -> Iterator[tuple[str, Transcript | ValueError]]:
    """Transcribe ``files``, ``at_once`` at a time; ``resume`` as for ``Lab.stream``.

    Each gets the text it would get alone. The phases of a batch's transcripts are the batch's.
    """
    for start in range(0, len(files), at_once):
        group = list(files[start : start + at_once])
        try:
            events = lab.stream_batch(group, resume=resume, **options)
            done = [event.transcript for event in events if isinstance(event, Finished)]
        except ValueError as error:
            if len(group) == 1:
                yield group[0], error
            else:  # one of them is bad: find out which, and keep the others
                yield from transcribe_files(lab, group, at_once=1, resume=resume, **options)
            continue
        for file, transcript in zip(group, done, strict=True):
            yield file, replace(transcript, file=file)
