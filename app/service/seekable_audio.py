"""A recording in a format that a browser can seek in.

In: the path of an upload. Out: a path to play. Chromium cannot seek in a short FLAC file (its
player fails for good), so FLAC is played as WAV, which lies beside the file and holds the same
samples, more than two channels mixed into one; :func:`original_path` finds back to the file that
was given, and that one is transcribed. No Gradio.
"""

from __future__ import annotations

import logging
import secrets
from pathlib import Path

import soundfile

from core.audio.decode import probe
from core.errors import UserError

logger = logging.getLogger(__name__)

UNSEEKABLE = (".flac",)
PLAYED = ".wav"
MOST_BYTES = 300_000_000  # of a copy; a longer recording is played as it is, for disks fill
MOST_CHANNELS = 2  # of a copy; more are mixed into one
SAMPLE_BYTES = {"PCM_S8": 1, "PCM_16": 2, "PCM_24": 3}
BLOCK_FRAMES = 1 << 18


def seekable_copy(path: str) -> str:
    """Return the file to play in place of this one; itself where a browser can seek in it.

    A file that cannot be read is left to the request that reads it, which then says why.

    Returns:
        Path of a file that a browser can play.
    """
    source = Path(path)
    if source.suffix.lower() not in UNSEEKABLE:
        return path
    target = source.with_name(source.name + PLAYED)
    if not target.is_file():
        try:
            _copy(source, target)
        except (OSError, RuntimeError, ValueError) as error:  # soundfile raises all three
            logger.info("no copy to play was made: %s", error)
            return path
    return str(target)


def original_path(path: str) -> str:
    """Return the given file of one that is played in its place; any other path as it is."""
    played = Path(path)
    source = played.with_suffix("")
    made_here = played.suffix == PLAYED and source.suffix.lower() in UNSEEKABLE
    return str(source) if made_here and source.is_file() else path


def is_stereo(path: str) -> bool:
    """Return whether a recording has two channels; what cannot be read has not."""
    try:
        return probe(original_path(path)).channels == 2
    except UserError:
        return False


def _copy(source: Path, target: Path) -> None:
    """Write the recording as WAV; the file appears whole or not at all."""
    with soundfile.SoundFile(source) as sound:
        channels = sound.channels if sound.channels <= MOST_CHANNELS else 1
        size = sound.frames * channels * SAMPLE_BYTES.get(sound.subtype, 4)
        if size > MOST_BYTES:
            raise OSError(f"a WAV of {size} bytes is too large; at most {MOST_BYTES} are written")
        part = target.with_suffix(f".{secrets.token_hex(4)}.part")
        try:
            with soundfile.SoundFile(
                part, "w", sound.samplerate, channels, sound.subtype, format="WAV"
            ) as copy:
                for block in sound.blocks(BLOCK_FRAMES, dtype="int32", always_2d=True):
                    mixed = block if channels > 1 else block.mean(axis=1, keepdims=True)
                    copy.write(mixed.astype("int32"))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
