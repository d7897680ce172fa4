"""A path, bytes or an open file -> an FFmpeg container that is safe to decode.

In: what a caller names. Out: an :class:`AudioContainer`: the open container, the sound track that
is read, and what its header says. FFmpeg never sees a name or an address, only bytes, and may use
only the formats listed here: play lists and scripts (m3u8, sdp, concat), which can open other files
or hosts, are refused unread. Everything that goes wrong while a recording is open becomes one
:class:`AudioError`.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer

from core.audio.joined import FilePart, JoinedFile, find_parts
from core.audio.report import DecodeReport
from core.audio.track import FORMATS, choose_track, stated_length
from core.audio.waveform import AudioError, check_rate

logger = logging.getLogger(__name__)

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO

# FFmpeg's names for what may be opened. "mov" is also m4a and mp4, "matroska" also webm.
DEMUXERS = "wav,w64,flac,mp3,ogg,mov,matroska,aac,aiff,au,caf,amr,g722"
# These state no length; FFmpeg guesses one from the first frames, which can be far off.
GUESSED_LENGTH = frozenset({"mp3", "aac", "amr", "g722"})
# Below any codec, even on silence: a header that claims more seconds than this cannot be true.
MIN_BYTES_PER_SECOND = 10


@dataclass(frozen=True)
class AudioInfo:
    """Facts of a recording's header; ``duration_s`` is None where it says nothing believable."""

    name: str
    duration_s: float | None
    sample_rate: int
    channels: int
    codec: str
    container: str


@dataclass(frozen=True)
class AudioContainer:
    """An open container, its track that is read, and what its header says.

    claim_s: when the track ends on the file's clock, if it says so itself. later: recordings that
    were joined to this one. continues: it is one of those.
    """

    info: AudioInfo
    container: InputContainer
    stream: AudioStream
    claim_s: float | None
    report: DecodeReport
    later: tuple[BinaryIO, ...] = ()
    continues: bool = False

    def parts(self) -> Iterator[AudioContainer]:
        """Yield this recording and then, opened one after another, those joined to it."""
        yield self
        for number, file in enumerate(self.later):
            try:
                container = _container(file, "")
            except (av.error.FFmpegError, ValueError):
                num_left = len(self.later) - number
                self.report.warn(f"{num_left} joined recordings cannot be read: left out")
                return
            with closing(container):
                part = _describe(self.info.name, container, self.report)
                yield replace(part, continues=True)


@contextmanager
def opened(source: Source, report: DecodeReport | None = None) -> Iterator[AudioContainer]:
    """Open for decoding while the block runs.

    Args:
        source: path, bytes, or binary file object.
        report: takes the warnings; they are logged where there is none.

    Yields:
        The open recording.

    Raises:
        AudioError: for whatever goes wrong, in opening as in decoding inside the block.
    """
    name, file, suffix = _binary_file(source)
    kept = report or DecodeReport()
    try:
        joined = _look_into(name, file, kept)
        first, *later = [file]
        if len(joined.parts) > 1:
            first, *later = [cast(BinaryIO, FilePart(file, part)) for part in joined.parts]
        with closing(_container(first, suffix)) as container:
            yield _describe(name, container, kept, tuple(later))
    except AudioError:
        raise
    except av.error.FFmpegError as error:
        advice = "check that it is sound and whole, or convert it"
        raise AudioError(name, "not a recording that can be read", FORMATS, advice) from error
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        advice = "check the file or the object it is read from"
        raise AudioError(name, f"cannot be read ({error})", FORMATS, advice) from error
    finally:
        if not hasattr(source, "read"):
            file.close()
        if report is None:
            for text in kept.warnings:
                logger.warning("%s: %s", name, text)


def _look_into(name: str, file: BinaryIO, report: DecodeReport) -> JoinedFile:
    """Refuse what is empty or text, note what is missing or left over, and find joined parts."""
    if not (hasattr(file, "seekable") and file.seekable()):
        return JoinedFile((), 0)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(8)
    if not head:
        raise AudioError(name, "empty (0 bytes)", FORMATS, "record or copy it again")
    if isinstance(head, str):
        raise AudioError(name, "opened as text", "bytes", "open it with mode 'rb'")
    # FFmpeg takes the end of a wav file for the end of its sound. Programs that write to a pipe
    # put a placeholder of about 2 or 4 GB where the length belongs.
    claim = int.from_bytes(head[4:8], "little") + 8
    if head.startswith(b"RIFF") and size + 1024 < claim < 0x7FFF_0000:
        report.warn(f"cut off? {size} bytes of the {claim} its header claims")
    joined = find_parts(file, size)
    if joined.unread_bytes:
        report.warn(
            f"{joined.unread_bytes} bytes after the recording's end, as its header states it, "
            "were not read"
        )
    file.seek(0)
    return joined


def _container(file: BinaryIO, suffix: str) -> InputContainer:
    # Without a name FFmpeg judges by content alone, and a wrong extension does no harm.
    nameless, head = SimpleNamespace(read=file.read), b""
    if hasattr(file, "seekable") and (isinstance(file, FilePart) or file.seekable()):
        nameless = SimpleNamespace(read=file.read, seek=_seeker(file), tell=file.tell)
        head = file.read(8)
        file.seek(0)
    headed = head.startswith((b"RIFF", b"fLaC", b"OggS", b"ID3", b"\x1aE\xdf\xa3"))
    container = av.open(
        nameless,
        format="g722" if suffix == ".g722" and not headed else None,
        container_options={"format_whitelist": DEMUXERS, "protocol_whitelist": "none"},
        metadata_errors="replace",
    )
    assert isinstance(container, InputContainer)  # what mode "r" gives
    return container


def _seeker(file: BinaryIO) -> Callable[[int, int], int]:
    """Return a ``seek`` that says no as FFmpeg does: PyAV prints the stack of what it raises."""

    def seek(offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return file.seek(offset, whence)
        except (OSError, ValueError):  # a damaged header leads anywhere
            return -errno.EINVAL

    return seek


def _binary_file(source: Source) -> tuple[str, BinaryIO, str]:
    """Return a name for messages, the open file, and the path's suffix in lower case."""
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{len(source)} bytes in memory", io.BytesIO(source), ""
    if not isinstance(source, str | os.PathLike):
        if not hasattr(source, "read"):
            kind = type(source).__name__
            raise AudioError("recording", kind, "a path, bytes or an open file", "give one of them")
        named = Path(str(getattr(source, "name", "audio stream")))
        return named.name, source, named.suffix.lower()
    path = Path(source)
    name = path.name or str(path)
    if "://" in str(source):
        raise AudioError(name, "an address", "a file", "download it first and give its path")
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(name, "a folder", "a sound file", "name one of its files")
        if not stat.S_ISREG(mode):
            raise AudioError(name, "a device or pipe", "a sound file", "save it to a file first")
        return name, path.open("rb"), path.suffix.lower()
    except FileNotFoundError as error:
        raise AudioError(name, "no such file", "a sound file", "check the path") from error
    except PermissionError as error:
        advice = "change the file's permissions"
        raise AudioError(name, "may not be read", "a readable file", advice) from error
    except AudioError:
        raise
    except (OSError, ValueError) as error:
        raise AudioError(name, f"cannot be opened ({error})", "a file", "check the path") from error


def _describe(
    name: str,
    container: InputContainer,
    report: DecodeReport,
    later: tuple[BinaryIO, ...] = (),
) -> AudioContainer:
    """Choose the track and read the header."""
    stream = choose_track(name, container)
    tracks, codec = list(container.streams.audio), stream.codec_context
    check_rate(name, codec.sample_rate)
    if len(tracks) > 1:
        number = tracks.index(stream) + 1
        report.warn(f"of {len(tracks)} sound tracks number {number} was read")
    duration_s = claim_s = stated_length(container, stream)
    size = container.size
    if duration_s is None and container.duration is not None:
        duration_s = container.duration / av.time_base
        if len(container.streams) == 1:
            claim_s = duration_s
    if duration_s is not None and 0 < size < duration_s * MIN_BYTES_PER_SECOND:
        report.warn(f"header claims {duration_s:.3g} s in {size} bytes: ignored")
        duration_s = claim_s = None
    if container.format.name in GUESSED_LENGTH:
        claim_s = None
    shape = (codec.sample_rate, codec.channels)
    stated_s = None if later else duration_s  # the header speaks of the first recording only
    info = AudioInfo(name, stated_s, *shape, codec.name, container.format.name)
    return AudioContainer(info, container, stream, claim_s, report, later)
