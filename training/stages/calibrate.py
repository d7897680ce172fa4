"""The scale by which a checkpoint says that a recording is outside what it knows.

In: a packed checkpoint, clips of its domain and clips of others. Out: the scale of
``core.transcription.out_of_domain`` in the checkpoint's ``lab.json``, and how often it warns on
clips that it was not fitted to: clips are split in two halves by their names.

A warning on a clip of the domain that was misheard is no false alarm: the scale is fitted to those
heard right, and what it does on the others is reported apart.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import core
from core.checkpoint.catalog import DESCRIPTION_FILE
from core.checkpoint.catalog import OUTSIDE as KEY
from core.encoder_view import ctc_of
from core.errors import UserError
from core.lab import Lab
from core.transcription.out_of_domain import OutOfDomainScale, uncertainty_features
from training.corpus.corpus import CorpusClip, recorded_clips

KINDS = ("inside", "misheard", "outside")
FALSE_ALARMS = 0.02  # of the clips of the domain that the scale is fitted to
PULL = 0.01  # of the weights towards nought


@dataclass(frozen=True)
class Judged:
    """A clip's signs, whether it is outside, which set it is of, and whether the fit may see it.

    right: its transcript has no wrong word.
    """

    signs: tuple[float, ...]
    outside: bool
    group: str
    fitted: bool
    right: bool = True


@dataclass(frozen=True)
class Alarms:
    """Of ``count`` clips of a group that were not fitted to, the share that is warned of.

    kind: "inside", "misheard" (inside, with a wrong word), or "outside".
    """

    group: str
    kind: str
    count: int
    share: float


def clips_of(
    corpus: Path, splits: Sequence[str], domain: frozenset[str] | None
) -> list[CorpusClip]:
    """List clips with recordings; with a domain, those of which some word is not in it."""
    clips = recorded_clips(corpus, splits)
    return [clip for clip in clips if domain is None or not domain.issuperset(clip.text.split())]


def judge(
    lab: Lab, corpus: Path, clips: Sequence[CorpusClip], *, outside: bool
) -> Iterator[Judged]:
    """Transcribe clips and compute their signs; clips without any text are left out.

    Args:
        lab: the checkpoint.
        corpus: folder of the clips.
        clips: what to transcribe.
        outside: whether they are outside the domain.

    Yields:
        A judgement a clip.
    """
    for clip in clips:
        file = str(corpus / clip.audio)
        transcript = lab.transcribe(file)
        _, logits, _ = ctc_of(lab, file)
        signs = uncertainty_features(logits, transcript.words)
        if signs is not None:
            group = clip.split if clip.split != "heldout_voice" else clip.speaker
            right = not outside and transcript.text.split() == clip.text.split()
            yield Judged(signs, outside, group, zlib.crc32(clip.audio.encode()) % 2 == 0, right)


def fit(judged: Sequence[Judged], false_alarms: float = FALSE_ALARMS) -> OutOfDomainScale:
    """Fit a logistic scale over the signs; clips heard right and clips outside weigh the same.

    Returns:
        The scale and its limit.

    Raises:
        UserError: clips of one kind only.
    """
    judged = [one for one in judged if one.outside or one.right]
    kinds = torch.tensor([one.outside for one in judged], dtype=torch.double)
    if not 0 < int(kinds.sum()) < len(judged):
        raise UserError(
            f"{int(kinds.sum())} of {len(judged)} clips are outside, the others heard right; "
            "expected some of either kind"
        )
    signs = torch.tensor([one.signs for one in judged], dtype=torch.double)  # [N, S]
    mean, spread = signs.mean(0), signs.std(0).clamp(min=1e-6)
    weights = torch.zeros(signs.shape[1], dtype=torch.double, requires_grad=True)
    bias = torch.zeros((), dtype=torch.double, requires_grad=True)
    share = torch.where(kinds == 1, 0.5 / kinds.sum(), 0.5 / (1 - kinds).sum())  # [N]
    optimiser = torch.optim.LBFGS([weights, bias], max_iter=200)

    def loss() -> Tensor:
        optimiser.zero_grad()
        logits = (signs - mean) / spread @ weights + bias
        wrong = F.binary_cross_entropy_with_logits(logits, kinds, share, reduction="sum")
        total = wrong + PULL * weights.square().sum()
        total.backward()
        return total

    optimiser.step(loss)
    plain = (weights / spread).detach()
    start = float(bias.detach() - (plain * mean).sum())
    scale = OutOfDomainScale(start, tuple(plain.tolist()), 0.5)
    inside = torch.tensor([scale.probability(one.signs) for one in judged if not one.outside])
    return OutOfDomainScale(start, scale.weights, float(inside.quantile(1.0 - false_alarms)))


def alarms(scale: OutOfDomainScale, judged: Sequence[Judged]) -> list[Alarms]:
    """Count how often the scale warns, group by group, on clips it was not fitted to."""
    groups: dict[tuple[int, str], list[bool]] = {}
    for one in judged:
        if not one.fitted:
            kind = KINDS.index("outside" if one.outside else "inside" if one.right else "misheard")
            warned = scale.probability(one.signs) > scale.limit
            groups.setdefault((kind, one.group), []).append(warned)
    return [
        Alarms(group, KINDS[kind], len(warned), sum(warned) / len(warned))
        for (kind, group), warned in sorted(groups.items())
    ]


def run(
    model: str | Path,
    inside: tuple[Path, Sequence[str]],
    outside: tuple[Path, Sequence[str]],
    *,
    limit: int | None = None,
) -> tuple[OutOfDomainScale, list[Alarms]]:
    """Fit a scale for the checkpoint ``model`` and write it into its ``lab.json``.

    Args:
        model: name or folder of a checkpoint.
        inside: corpus folder and splits whose clips are of the domain.
        outside: corpus folder and splits; clips all of whose words the domain has do not count.
        limit: clips of each split, at most.

    Returns:
        The scale, and how often it warns.

    Raises:
        UserError: a corpus lacks clips of either kind.
    """
    lab = core.load(model)
    known = clips_of(*inside, None)
    domain = frozenset(word for clip in known for word in clip.text.split())
    judged: list[Judged] = []
    for (corpus, splits), words, kind in ((inside, None, False), (outside, domain, True)):
        if not clips_of(corpus, splits, words):
            raise UserError(
                f"{corpus} has no recordings {'outside' if kind else 'inside'} the domain in the "
                f"splits {', '.join(splits)}; make them with `python -m training corpus`, or name "
                "other splits"
            )
        for split in splits:
            clips = clips_of(corpus, [split], words)[:limit]
            judged += judge(lab, corpus, clips, outside=kind)
    scale = fit([one for one in judged if one.fitted])
    file = lab.files.folder / DESCRIPTION_FILE
    description = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    description[KEY] = scale.as_dict()
    file.write_text(json.dumps(description, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return scale, alarms(scale, judged)
