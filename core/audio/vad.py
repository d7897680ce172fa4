"""Voice activity detection: the probability of speech in each 32 ms, by the Silero detector.

In: frames of 512 samples at 16 kHz, in order, or a whole waveform [N]. Out: a probability each, or
the seconds of speech. The package's network is shared by all; what a detector remembers of its
recording is its own. Shapes: n frames.
"""

from __future__ import annotations

import warnings
from enum import Enum
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from core.audio.waveform import SAMPLE_RATE, SILENCE_DBFS, speech_level_dbfs

# Importing the package sets torch to one thread for the whole process; put the number back.
_threads = torch.get_num_threads()
from silero_vad import load_silero_vad  # noqa: E402

torch.set_num_threads(_threads)

FRAME = 512  # samples; the only size the detector takes at 16 kHz
FRAME_S = FRAME / SAMPLE_RATE
CONTEXT = 64  # samples before a frame that the network sees too
STATE = 128
SPEECH = 0.5  # a frame at least this likely is speech

# The detector hears weak sound badly, so whole recordings are brought to this level.
LEVEL_DBFS = -10.0
# Words keep it this sure for this many frames, tones and notes do not. Measured where it was not
# tuned: 3 of 800 generated sounds pass, and 6 of 500 single digits of 0.3 s do not.
SURE, MIN_RUN = 0.6, 4
# Hum and hiss keep the level of every band this steady; words do not, in noise as loud as they.
BANDS, STEADY_DB = 16, 2.0
# It needs a moment of speech before it believes it: a shorter recording is heard twice.
TWICE_S = 2.0


class NoSpeech(Enum):
    """Why no words can be expected of a recording; the value is the sentence for its reader."""

    DIGITAL_SILENCE = "no speech was heard: every sample of the recording is zero"
    CANCELLING_CHANNELS = (
        "no speech was heard: the recording's channels cancel each other; keep one of them"
    )
    VERY_QUIET = "no speech was heard, and the recording is very quiet; record it louder"
    NO_SPEECH = "no speech was heard in this recording"


@cache
def _network() -> tuple[Any, nn.LSTM]:
    """Load the package's network, its one recurrent layer as a layer that takes whole sequences."""
    with warnings.catch_warnings():
        # The package ships TorchScript; its loader is deprecated, not removed.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        network = load_silero_vad()._model
    recurrent = nn.LSTM(STATE, STATE)
    weights = network.decoder.rnn.state_dict()
    recurrent.load_state_dict({f"{name}_l0": weight for name, weight in weights.items()})
    return network, recurrent


class SpeechDetector:
    """One recording's detector."""

    def __init__(self) -> None:
        """Begin a recording."""
        self._context = torch.zeros(CONTEXT)
        self._state = (torch.zeros(1, 1, STATE), torch.zeros(1, 1, STATE))

    def probability(self, frame: Tensor) -> float:
        """Return the probability of speech in ``frame`` [512]; the last may be shorter."""
        padded = nn.functional.pad(frame, (0, FRAME - frame.shape[0]))
        return float(self.probabilities(padded[None])[0])

    @torch.inference_mode()
    def probabilities(self, frames: Tensor) -> Tensor:
        """Return the probability [n] of speech in each of ``frames`` [n, 512]; n is at least 1."""
        network, recurrent = _network()
        before = torch.cat((self._context[None], frames[:-1, -CONTEXT:]))
        self._context = frames[-1, -CONTEXT:].clone()
        spectra = network.run_extractors(torch.cat((before, frames), dim=1))
        features = network.encoder(spectra).squeeze(-1)  # [n, STATE]
        hidden, self._state = recurrent(features[:, None], self._state)  # [n, 1, STATE]
        found: Tensor = network.decoder.decoder(hidden.transpose(1, 2))  # [n, 1, 1]
        return found.flatten(1).mean(dim=1)


def speech_seconds(waveform: Tensor) -> float:
    """Measure how much of a recording is speech, however quiet it is.

    Only stretches of at least 0.128 s count, and none of a sound that never changes.

    Args:
        waveform: [N] float32 at 16 kHz.

    Returns:
        Seconds of frames that are speech; 0.0 where there is none.
    """
    centred = waveform - waveform.mean() if waveform.numel() else waveform
    level = speech_level_dbfs(centred)
    if level == -torch.inf:
        return 0.0
    sound = centred * 10 ** ((LEVEL_DBFS - level) / 20)
    if _is_steady(sound):
        return 0.0
    twice = sound.shape[0] < TWICE_S * SAMPLE_RATE
    sound = torch.cat((sound, sound)) if twice else sound
    rest = -sound.shape[0] % FRAME + 8 * FRAME  # a word at the very end is believed a little later
    frames = nn.functional.pad(sound, (0, rest)).view(-1, FRAME)
    likely = SpeechDetector().probabilities(frames) >= SURE
    windows = likely.float().unfold(0, MIN_RUN, 1).sum(dim=1) >= MIN_RUN
    in_run = nn.functional.max_pool1d(
        nn.functional.pad(windows.float()[None], (MIN_RUN - 1, MIN_RUN - 1)), MIN_RUN, 1
    )
    seconds = float(in_run.sum()) * FRAME_S
    return seconds / 2 if twice else seconds


def _is_steady(waveform: Tensor) -> bool:
    """Say whether the level of no frequency band in [N] changes, as in hum and noise."""
    frames = waveform[: waveform.shape[0] // FRAME * FRAME].view(-1, FRAME)
    if frames.shape[0] < 2:
        return False
    powers = torch.fft.rfft(frames * torch.hann_window(FRAME))[:, 1:].abs().square()  # [n, 256]
    levels = 10 * (powers.view(-1, BANDS, FRAME // 2 // BANDS).sum(dim=2) + 1e-10).log10()
    return bool(levels.std(dim=0).max() < STEADY_DB)


def contains_speech(waveform: Tensor) -> bool:
    """Say whether anybody speaks in ``waveform`` [N] at 16 kHz."""
    return speech_seconds(waveform) > 0


def why_no_speech(waveform: Tensor, *, channels_cancel: bool = False) -> NoSpeech | None:
    """Name the reason why no words can be expected of a recording; None where there is speech.

    Args:
        waveform: [N] float32 at 16 kHz.
        channels_cancel: as :class:`core.audio.decode.DecodedAudio` says.

    Returns:
        The reason, or None.
    """
    if contains_speech(waveform):
        return None
    if channels_cancel:
        return NoSpeech.CANCELLING_CHANNELS
    level = speech_level_dbfs(waveform)
    if level == -torch.inf:
        return NoSpeech.DIGITAL_SILENCE
    return NoSpeech.VERY_QUIET if level < SILENCE_DBFS else NoSpeech.NO_SPEECH
