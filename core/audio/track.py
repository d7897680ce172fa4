"""The tracks of an open container -> the one that is read, and how long it says it is.

In: an FFmpeg container. Out: a sound track that can be decoded, or an :class:`AudioError` that says
why there is none.
"""

from __future__ import annotations

import re

import av.logging
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition

from core.audio.waveform import AudioError

FORMATS = "wav, flac, mp3, ogg, opus, m4a, aac, webm or mp4"


def choose_track(name: str, container: InputContainer) -> AudioStream:
    """Choose the sound track that a player would: the default one, else the first it can play.

    Returns:
        A track with a decoder.

    Raises:
        AudioError: there is no sound, or none that can be decoded.
    """
    streams = container.streams.audio
    if not streams:
        raise AudioError(
            name, f"{container.format.name} without sound", FORMATS, "choose a file with sound"
        )
    # Without a decoder for it a track has no codec context, whatever its type says.
    known = [s for s in streams if s.codec_context is not None and s.codec_context.sample_rate]
    if not known:
        came = f"sound in a codec that cannot be decoded here ({_codec_of(container)})"
        raise AudioError(name, came, FORMATS, "convert it")
    flagged = [s for s in known if s.disposition & Disposition.default]
    return (flagged or known)[0]


def _codec_of(container: InputContainer) -> str:
    """Return what FFmpeg calls a sound it cannot decode; it says so only in its description."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)  # below it the description is empty
    try:
        described = container.dumps_format()  # type: ignore[attr-defined]  # not in PyAV's stubs
        found = re.search(r"Audio: (?:none )?\(?([^,)\n]+)", described)
    finally:
        av.logging.set_level(level)
    return found.group(1).split(" / ")[0].strip() if found else "unknown"


def stated_length(container: InputContainer, stream: AudioStream) -> float | None:
    """Return the second at which the track ends, if the track itself states it, else None."""
    if stream.duration is not None and stream.time_base is not None:
        # MP3's first stamp is the encoder's delay, which is cut off the sound.
        timed = container.format.name.startswith("mov")
        start = stream.start_time or 0 if timed else 0
        return float((start + stream.duration) * stream.time_base)
    stated = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)\s*", stream.metadata.get("DURATION", ""))
    if stated is None:
        return None
    hours, minutes, seconds = stated.groups()
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
