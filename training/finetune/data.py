"""Manifest rows -> batches for fine-tuning: features, prompts, answers.

In: draws (rows of manifests, see ``training.finetune.row_schedule``) and a loaded checkpoint. Out:
:class:`SpeechBatch`, which depends on its draws alone, so a run that was stopped goes on alike.

Sound is augmented as power mels (``training.stages.augment``). Clips of one batch are of like
length; what is padded is masked by the encoder. Prompts are the checkpoint's own, through
``core.text.prompts``.

Shapes: B clips, T frames at 50 Hz, F features, P prompt and answer length, M mel frames at 100 Hz.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.audio.decode import load_audio
from core.audio.waveform import SAMPLE_RATE
from core.errors import UserError
from core.lab import Lab
from core.model.ctc import label_of
from core.model.encoder import padded_length
from core.model.features import log_compress, pad_features, stack_frames
from training.corpus.manifest import MAX_SECONDS, ManifestRow
from training.finetune.row_schedule import Draw
from training.stages.augment import augment, stretch
from training.stages.decoder_stage import pad_rows

KEPT_BYTES = 2**30  # of power mels in memory; what does not fit is read again each time
FLOOR = 1e-10
TEMPO = 0.15  # how much faster or slower at full strength


@dataclass(frozen=True)
class SpeechBatch:
    """features [B, T, F], lengths [B], ids [B, P], targets [B, P] (IGNORE where nothing counts).

    labels: the texts' characters one after the other; label_counts [B]; num_tokens of the answers.
    """

    features: Tensor
    lengths: Tensor
    ids: Tensor
    targets: Tensor
    labels: Tensor
    label_counts: Tensor
    num_tokens: int
    num_characters: int


class Recordings:
    """Reads rows as power mels [M, mels], and keeps as many as fit in memory."""

    def __init__(self, lab: Lab, max_seconds: float = MAX_SECONDS) -> None:
        self._lab, self._max_seconds = lab, max_seconds
        self._kept: dict[ManifestRow, Tensor] = {}
        self._free = KEPT_BYTES

    def power(self, row: ManifestRow) -> Tensor:
        """Read the power mel of a row's recording, float32.

        Returns:
            [M, mels].

        Raises:
            ManifestError: the recording cannot be read.
        """
        if row in self._kept:
            return torch.pow(10.0, self._kept[row].float())
        mel = self._lab.feature_extractor.mel
        samples = waveform_of(row, self._max_seconds)
        power = mel(samples.to(self._lab.device)).T.clamp(min=FLOOR).cpu()
        log = power.log10().half()
        if log.numel() * 2 <= self._free:
            self._kept[row] = log
            self._free -= log.numel() * 2
        return torch.pow(10.0, log.float())


def waveform_of(row: ManifestRow, max_seconds: float = MAX_SECONDS) -> Tensor:
    """Read the samples of a row at 16 kHz, cut to its start and end.

    Returns:
        [N] float32.

    Raises:
        ManifestError: not a readable recording, nothing between start and end, or longer than
            ``max_seconds``.
    """
    whole = row.start is None and row.end is None
    try:
        # A whole clip that is too long is refused by its header, before it is decoded.
        samples = load_audio(row.audio, max_seconds=max_seconds if whole else None)
    except (UserError, OSError) as error:
        raise row.error(str(error)) from error
    begin = round((row.start or 0.0) * SAMPLE_RATE)
    end = None if row.end is None else round(row.end * SAMPLE_RATE)
    part = samples[begin:end]
    if part.shape[0] < SAMPLE_RATE // 20:
        raise row.error(
            f"{part.shape[0] / SAMPLE_RATE:.2f} s of sound between start and end, of "
            f"{samples.shape[0] / SAMPLE_RATE:.2f} s; expected at least 0.05 s"
        )
    if part.shape[0] > max_seconds * SAMPLE_RATE:
        raise row.error(
            f"{part.shape[0] / SAMPLE_RATE:.1f} s between start and end; expected at most "
            f"{max_seconds:g} s: cut it into shorter rows"
        )
    return part


class Batcher:
    """Draws -> tensors on the model's device.

    lead: what stands between the prompt and the text, "" or " "; strength: of the augmentation.
    """

    def __init__(self, lab: Lab, recordings: Recordings, *, strength: float, lead: str) -> None:
        self._lab, self._recordings = lab, recordings
        self.strength, self._lead = strength, lead

    def batch(self, draws: Sequence[Draw]) -> SpeechBatch:
        """Make the batch of some draws."""
        lab = self._lab
        features = [self._features(draw) for draw in draws]
        longest = max(clip.shape[0] for clip in features)
        padded = pad_features(features, padded_length(longest, lab.config.encoder.context_size))
        texts = [draw.row.text for draw in draws]
        pairs = [
            (lab.prompt_ids(frames), self.answer(text))
            for frames, text in zip(padded.lengths, texts, strict=True)
        ]
        ids, targets = pad_rows(pairs, lab.config.decoder.pad_token_id)
        labels = [ctc_labels(text, lab.config.encoder.output_dim) for text in texts]
        to = lab.device
        return SpeechBatch(
            features=padded.values.to(to),
            lengths=torch.tensor(padded.lengths, device=to),
            ids=ids.to(to),
            targets=targets.to(to),
            labels=torch.tensor([one for each in labels for one in each], device=to),
            label_counts=torch.tensor([len(each) for each in labels], device=to),
            num_tokens=sum(len(answer) for _, answer in pairs),
            num_characters=sum(len(each) for each in labels),
        )

    def answer(self, text: str) -> list[int]:
        """Encode a transcript and the token that ends it."""
        tokenizer = self._lab.tokenizer
        assert tokenizer is not None
        end = self._lab.config.decoder.eos_token_ids[0]
        return [*tokenizer.encode_continuation(self._lead + text), end]

    def ids_of(self, rows: Sequence[ManifestRow]) -> set[int]:
        """Collect every token of these rows' answers, and of the prompt."""
        found = set(self._lab.prompt_ids(1))
        for row in rows:
            found.update(self.answer(row.text))
        return found

    def _features(self, draw: Draw) -> Tensor:
        """[T, F] of one draw."""
        power = self._recordings.power(draw.row)
        if self.strength > 0:
            power = augmented(power, self.strength, draw.seed)
        return stack_frames(log_compress(power))


def augmented(power: Tensor, strength: float, seed: str) -> Tensor:
    """Augment a power mel [M, mels], its tempo included, as ``seed`` decides."""
    rng = random.Random(seed)
    tempo = 1.0 + TEMPO * strength * rng.uniform(-1.0, 1.0)
    noise = torch.Generator().manual_seed(rng.randrange(2**62))
    return augment(stretch(power, tempo), strength, noise)


def ctc_labels(text: str, num_labels: int) -> list[int]:
    """Convert characters to CTC labels; those that the head lacks are left out."""
    found = (label_of(character) for character in text)
    return [label for label in found if label is not None and label < num_labels]
