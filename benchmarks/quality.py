"""What a quicker way of decoding costs in words: its error rate against exact decoding's.

In: recordings with their transcripts, and the name of a way. Out: both word error rates, their
difference with a 95 % interval (whole recordings are resampled, and both ways always together),
and for other weights the cosine of the logits along the exact tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F

import core
from benchmarks.clips import recordings_in
from core.audio.decode import load_audio
from core.lab import Lab
from core.model.quantize import MODES
from core.transcription.options import OptionFields
from profiling.statistics.text_agreement import word_errors

FAST = "fast-draft"
WAYS = (*MODES, FAST)
TRANSCRIPTS = "transcripts.json"
RESAMPLES = 10_000


@dataclass(frozen=True)
class Quality:
    """One way beside exact decoding. Rates are errors over words; difference: way minus exact."""

    way: str
    num_recordings: int
    num_words: int
    exact_rate: float
    rate: float
    difference: float
    difference_low: float
    difference_high: float
    texts_changed: int
    cosine: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def references_of(folder: Path) -> dict[Path, str]:
    """Recording -> what is said in it, from ``transcripts.json`` beside the recordings.

    Raises:
        ValueError: no such file, or a recording it does not know.
    """
    file = folder / TRANSCRIPTS
    if not file.is_file():
        raise ValueError(f"{folder} has no {TRANSCRIPTS}; expected an object of file name to text")
    texts = json.loads(file.read_text(encoding="utf-8"))
    known = {path: texts[path.name] for path in recordings_in(folder) if path.name in texts}
    if not known:
        raise ValueError(f"{file} names none of the recordings beside it")
    return known


def compare_ways(
    model: str,
    references: dict[Path, str],
    ways: Sequence[str],
    *,
    engine: str = "eager",
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Quality]:
    """Way -> what it costs.

    Args:
        model: a name, repository id or folder, as for ``core.load``.
        references: recording -> what is said in it.
        ways: some of :data:`WAYS`.
        engine: "eager" or "compile".
        say: told what is being done.

    Raises:
        ValueError: an unknown way.
    """
    unknown = [way for way in ways if way not in WAYS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no way to compare; expected some of {', '.join(WAYS)}")
    files = list(references)
    lab = core.load(model, device="cpu", dtype="float32")
    say(f"exact: {len(files)} recordings")
    exact = [lab.transcribe(file, engine=engine) for file in files]
    found = {}
    for way in ways:
        say(f"{way}: {len(files)} recordings")
        other = (
            lab if way == FAST else core.load(model, dtype="float32", device="cpu", quantize=way)
        )
        options: OptionFields = {"engine": engine}
        if way == FAST:
            options["decoding"] = FAST
        texts = [other.transcribe(file, **options).text for file in files]
        cosine = None
        if other is not lab:
            ids = [list(one.token_ids) for one in exact]
            cosine = logits_cosine(lab, other, files, ids, engine=engine)
        said = list(references.values())
        found[way] = _judge(way, said, [one.text for one in exact], texts, cosine)
    return found


def _judge(
    way: str, said: Sequence[str], exact: Sequence[str], texts: Sequence[str], cosine: float | None
) -> Quality:
    before = np.array([word_errors(a, b) for a, b in zip(said, exact, strict=True)])  # [N, 2]
    after = np.array([word_errors(a, b) for a, b in zip(said, texts, strict=True)])
    words = before[:, 1]
    low, high = difference_interval(after[:, 0] - before[:, 0], words)
    total = max(1, int(words.sum()))
    return Quality(
        way=way,
        num_recordings=len(said),
        num_words=int(words.sum()),
        exact_rate=float(before[:, 0].sum() / total),
        rate=float(after[:, 0].sum() / total),
        difference=float((after[:, 0] - before[:, 0]).sum() / total),
        difference_low=low,
        difference_high=high,
        texts_changed=sum(a != b for a, b in zip(exact, texts, strict=True)),
        cosine=cosine,
    )


def difference_interval(
    more_errors: np.ndarray[Any, Any], words: np.ndarray[Any, Any], *, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the difference of two rates: recordings are drawn again, with replacement.

    Args:
        more_errors: [N] errors of one way minus errors of the other, by recording.
        words: [N] words that are said in each.
        seed: of the draws.
    """
    draws = np.random.default_rng(seed).integers(0, len(words), (RESAMPLES, len(words)))
    rates = more_errors[draws].sum(axis=1) / np.maximum(1, words[draws].sum(axis=1))
    low, high = np.percentile(rates, (2.5, 97.5)).tolist()
    return low, high


def logits_cosine(
    lab: Lab, other: Lab, files: Sequence[Path], ids: Sequence[list[int]], *, engine: str
) -> float:
    """The least cosine, over all tokens, between two models' logits along the same tokens."""
    least = 1.0
    for file, tokens in zip(files, ids, strict=True):
        waveform = load_audio(file)
        a, b = (one.logits_along(waveform, tokens, engine=engine) for one in (lab, other))
        least = min(least, float(F.cosine_similarity(a, b, dim=-1).min()))
    return least
