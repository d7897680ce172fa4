"""The encoder's view of a recording: its log-mel features and its CTC characters.

In: a loaded checkpoint and a recording. Out: :class:`EncoderView`, plain arrays for a picture. This
is a pass of its own over the first seconds: the features and the encoder run once more, the decoder
does not run.

Shapes: T feature frames (50 Hz), M = 2T mel frames (100 Hz).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from core.audio.container import Source
from core.audio.decode import stream_audio
from core.checkpoint.adapter_set import DEFAULT
from core.engine.encode import embed
from core.lab import Lab
from core.model.ctc import BLANK, label_character, read_greedily

LONGEST_S = 12.0  # more does not fit a picture whose letters can be read


@dataclass(frozen=True)
class Letter:
    """A character the CTC head wrote. at_s: when; probability: how sure it was."""

    at_s: float
    text: str
    probability: float


@dataclass(frozen=True)
class EncoderView:
    """mel: [M, bands] as the model gets it. letters in order; text: the same, read as words.

    speech: [T] how likely each frame is any character at all; frame_s: seconds of one such frame.
    """

    mel: NDArray[np.float32]
    letters: tuple[Letter, ...]
    text: str
    speech: NDArray[np.float32]
    frame_s: float
    cut: bool


@torch.inference_mode()
def encoder_view(
    lab: Lab, source: Source, *, lora: bool | None = None, adapter: str | None = None
) -> EncoderView:
    """Run the encoder over the first :data:`LONGEST_S` seconds of ``source``.

    Args:
        lab: the checkpoint.
        source: a path, bytes or a binary file.
        lora: off, or None for on where there is an adapter.
        adapter: one that was added to the model, or None for its own.

    Returns:
        The mel picture, the characters and how sure each was.

    Raises:
        AudioError: no readable recording.
        UserError: no such adapter.
    """
    features, logits, cut = ctc_of(lab, source, lora=lora, adapter=adapter)
    probabilities = logits.softmax(-1).cpu()  # [T, V]
    frame_s = lab.feature_extractor.config.seconds_of_frames(1)
    bands = lab.feature_extractor.config.n_mels
    return EncoderView(
        mel=features.float().reshape(-1, bands).cpu().numpy(),
        letters=_letters(probabilities, frame_s),
        text=" ".join(read_greedily(logits).split()),
        speech=(1 - probabilities[:, BLANK]).numpy(),
        frame_s=frame_s,
        cut=cut,
    )


@torch.inference_mode()
def ctc_of(
    lab: Lab, source: Source, *, lora: bool | None = None, adapter: str | None = None
) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Compute the features and CTC logits of the start of ``source``.

    Args: and errors are those of :func:`encoder_view`.

    Returns:
        Features [T, 2 * bands], logits [T, V], and whether the recording goes on.
    """
    chunks = list(islice(stream_audio(source, chunk_s=LONGEST_S), 2))
    checkpoint, extractor = lab.session.checkpoint, lab.feature_extractor
    chosen = adapter or (DEFAULT if lab.has_adapter and lora is not False else None)
    state = chosen is not None if lab.adapters.names else None
    with lab.adapters.using(chosen):
        encoded, features = embed(
            extractor,
            lab.engine("eager"),
            [chunks[0]],
            like=checkpoint.like,
            lora=checkpoint.lora_switch(state, 1),
        )
    length = features.lengths[0]
    return features.values[0, :length], encoded.ctc_logits[0, :length].float(), len(chunks) > 1


def _letters(probabilities: torch.Tensor, frame_s: float) -> tuple[Letter, ...]:
    """Each run of one label, at its surest frame; blanks and spaces are left out."""
    best, labels = probabilities.max(dim=-1)
    letters: list[Letter] = []
    before = BLANK
    for frame, (label, sure) in enumerate(zip(labels.tolist(), best.tolist(), strict=True)):
        if label == before and letters and label not in (BLANK, ord(" ")):
            if sure > letters[-1].probability:
                letters[-1] = Letter(frame * frame_s, letters[-1].text, sure)
        elif label not in (BLANK, ord(" ")):
            letters.append(Letter(frame * frame_s, label_character(label), sure))
        before = label
    return tuple(letters)
