"""How likely each 32 ms of sound is speech: the Silero detector, from its own package.

In: frames of 512 samples at 16 kHz, in order. Out: a probability each. A detector remembers what it
heard, so every recording takes a new one.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

# Importing the package sets torch to one thread for the whole process; put the number back.
_threads = torch.get_num_threads()
from silero_vad import load_silero_vad  # noqa: E402

torch.set_num_threads(_threads)

FRAME = 512  # samples; the only size the detector takes at 16 kHz
SAMPLE_RATE = 16_000


class SpeechDetector:
    """One recording's detector."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # The package ships TorchScript; its loader is deprecated, not removed.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            self._model = load_silero_vad()

    @torch.inference_mode()
    def probability(self, frame: Tensor) -> float:
        """Probability of speech in ``frame`` [512]."""
        return float(self._model(frame, SAMPLE_RATE))
