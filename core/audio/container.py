"""A path, bytes or an open file -> an FFmpeg container that is safe to decode.

In: what a caller names. Out: a :class:`AudioContainer`: the open container and what its header
says. FFmpeg never sees a name or an address, only bytes, and may use only the formats listed here:
play lists and scripts (m3u8, sdp, concat), which can open other files or hosts, are refused unread.
Everything that goes wrong while a recording is open is told as one :class:`AudioError`.
"""

import io
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import av
from av.container import InputContainer

from core.audio.waveform import AudioError, check_rate, refusal

logger = logging.getLogger(__name__)

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO

FORMATS = "wav, flac, mp3, ogg, opus, m4a, aac, webm or mp4"
# FFmpeg's names for what may be opened. "mov" is also m4a and mp4, "matroska" also webm.
DEMUXERS = "wav,w64,flac,mp3,ogg,mov,matroska,aac,aiff,au,caf,amr,g722"
# These state no length; FFmpeg guesses one from the first frames, which can be far off.
GUESSED_LENGTH = frozenset({"mp3", "aac", "amr", "g722"})
# Below any codec, even on silence: a header that claims more seconds than this cannot be true.
MIN_BYTES_PER_SECOND = 10


@dataclass(frozen=True)
class AudioInfo:
    """What a recording's header says; ``duration_s`` is None where it says nothing believable."""

    name: str
    duration_s: float | None
    sample_rate: int
    channels: int
    codec: str
    container: str


@dataclass(frozen=True)
class AudioContainer:
    """An open container with its header's contents."""

    info: AudioInfo
    container: InputContainer


@contextmanager
def opened(source: Source) -> Iterator[AudioContainer]:
    """Open for decoding while the block runs.

    Raises:
        AudioError: for whatever goes wrong, in opening as in decoding inside the block.
    """
    name, file, suffix = _binary_file(source)
    try:
        with _container(name, file, suffix) as container:
            yield AudioContainer(_info(name, container), container)
    except AudioError:
        raise
    except av.error.FFmpegError as error:
        advice = "check that it is sound and whole, or convert it"
        raise refusal(name, "not a recording that can be read", FORMATS, advice) from error
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        advice = "check the file or the object it is read from"
        raise refusal(name, f"cannot be read ({error})", FORMATS, advice) from error
    finally:
        if not hasattr(source, "read"):
            file.close()


def _container(name: str, file: BinaryIO, suffix: str) -> InputContainer:
    # Without a name FFmpeg judges by content alone, and a wrong extension does no harm.
    nameless, head = SimpleNamespace(read=file.read), b""
    if hasattr(file, "seekable") and file.seekable():
        nameless = SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell)
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(8)
        file.seek(0)
        if not head:
            raise refusal(name, "empty (0 bytes)", FORMATS, "record or copy it again")
        if isinstance(head, str):
            raise refusal(name, "opened as text", "bytes", "open it with mode 'rb'")
        _warn_of_missing_end(name, head, size)
    headed = head.startswith((b"RIFF", b"fLaC", b"OggS", b"ID3", b"\x1aE\xdf\xa3"))
    container = av.open(
        nameless,
        format="g722" if suffix == ".g722" and not headed else None,
        container_options={"format_whitelist": DEMUXERS, "protocol_whitelist": "none"},
        metadata_errors="replace",
    )
    assert isinstance(container, InputContainer)  # what mode "r" gives
    return container


def _warn_of_missing_end(name: str, head: bytes, size: int) -> None:
    """Notice a wav file shorter than its header says; FFmpeg takes the end of the file for its end.

    Programs that write to a pipe put a placeholder of about 2 or 4 GB where the length belongs.
    """
    claim = int.from_bytes(head[4:8], "little") + 8
    if head.startswith(b"RIFF") and size + 1024 < claim < 0x7FFF_0000:
        logger.warning("%s: cut off? %d bytes of the %d its header claims", name, size, claim)


def _binary_file(source: Source) -> tuple[str, BinaryIO, str]:
    """Return a name for messages, the open file, and the path's suffix in lower case."""
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{len(source)} bytes in memory", io.BytesIO(source), ""
    if not isinstance(source, str | os.PathLike):
        if not hasattr(source, "read"):
            kind = type(source).__name__
            raise refusal("recording", kind, "a path, bytes or an open file", "give one of them")
        named = Path(str(getattr(source, "name", "audio stream")))
        return named.name, source, named.suffix.lower()
    path = Path(source)
    name = path.name or str(path)
    if "://" in str(source):
        raise refusal(name, "an address", "a file", "download it first and give its path")
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise refusal(name, "a folder", "a sound file", "name one of its files")
        if not stat.S_ISREG(mode):
            raise refusal(name, "a device or pipe", "a sound file", "save it to a file first")
        return name, path.open("rb"), path.suffix.lower()
    except FileNotFoundError as error:
        raise refusal(name, "no such file", "a sound file", "check the path") from error
    except PermissionError as error:
        advice = "change the file's permissions"
        raise refusal(name, "may not be read", "a readable file", advice) from error
    except AudioError:
        raise
    except (OSError, ValueError) as error:
        raise refusal(name, f"cannot be opened ({error})", "a file", "check the path") from error


def _info(name: str, container: InputContainer) -> AudioInfo:
    if not container.streams.audio:
        raise refusal(
            name, f"{container.format.name} without sound", FORMATS, "choose a file with sound"
        )
    stream = container.streams.audio[0]
    codec = stream.codec_context
    check_rate(name, codec.sample_rate)
    duration_s: float | None = None
    if stream.duration is not None and stream.time_base is not None:
        duration_s = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        duration_s = container.duration / av.time_base
    size = container.size
    if duration_s is not None and 0 < size < duration_s * MIN_BYTES_PER_SECOND:
        logger.warning("%s: header claims %.3g s in %d bytes: ignored", name, duration_s, size)
        duration_s = None
    shape = (codec.sample_rate, codec.channels)
    return AudioInfo(name, duration_s, *shape, codec.name, container.format.name)
