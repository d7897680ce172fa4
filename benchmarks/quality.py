"""The word errors of quicker decoding (int8, faster drafts) beside those of exact decoding.

In: recordings with their transcripts, and the name of a system. Out: both word error rates, their
difference with a 95 % interval (whole recordings are resampled, always for both systems),
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
from core.errors import UserError
from core.lab import Lab
from core.model.quantize import MODES
from core.text.word_errors import ratio_interval, word_errors
from core.transcription.options import OptionFields

FAST = "fast-draft"
QUICKER = (*MODES, FAST)
TRANSCRIPTS = "transcripts.json"


@dataclass(frozen=True)
class Quality:
    """One system beside exact decoding. Rates: errors over words; difference: it minus exact."""

    system: str
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
        """Return plain JSON types."""
        return asdict(self)


def references_of(folder: Path) -> dict[Path, str]:
    """Read what is said in each recording from ``transcripts.json`` beside them.

    Returns:
        Text by recording.

    Raises:
        UserError: no such file, or a recording it does not know.
    """
    file = folder / TRANSCRIPTS
    if not file.is_file():
        raise UserError(f"{folder} has no {TRANSCRIPTS}; expected an object of file name to text")
    texts = json.loads(file.read_text(encoding="utf-8"))
    known = {path: texts[path.name] for path in recordings_in(folder) if path.name in texts}
    if not known:
        raise UserError(f"{file} names none of the recordings beside it")
    return known


def compare_systems(
    model: str,
    references: dict[Path, str],
    systems: Sequence[str],
    *,
    engine: str = "eager",
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Quality]:
    """Measure what each system costs in words.

    Args:
        model: a name, repository id or folder, as for ``core.load``.
        references: recording -> what is said in it.
        systems: some of :data:`QUICKER`.
        engine: "eager" or "compile".
        say: takes progress.

    Returns:
        The cost by name of the system.
    """
    files = list(references)
    lab = core.load(model, device="cpu", dtype="float32")
    say(f"exact: {len(files)} recordings")
    exact = [lab.transcribe(file, engine=engine) for file in files]
    found = {}
    for name in systems:
        say(f"{name}: {len(files)} recordings")
        options: OptionFields = {"engine": engine}
        if name == FAST:
            other, options["decoding"] = lab, FAST
        else:
            other = core.load(model, dtype="float32", device="cpu", quantize=name)
        texts = [other.transcribe(file, **options).text for file in files]
        cosine = None
        if other is not lab:
            ids = [list(one.token_ids) for one in exact]
            cosine = logits_cosine(lab, other, files, ids, engine=engine)
        said = list(references.values())
        found[name] = _judge(name, said, [one.text for one in exact], texts, cosine)
    return found


def _judge(
    system: str,
    said: Sequence[str],
    exact: Sequence[str],
    texts: Sequence[str],
    cosine: float | None,
) -> Quality:
    before = np.array([word_errors(a, b) for a, b in zip(said, exact, strict=True)])  # [N, 2]
    after = np.array([word_errors(a, b) for a, b in zip(said, texts, strict=True)])
    words = before[:, 1]
    low, high = ratio_interval(after[:, 0] - before[:, 0], words)
    total = max(1, int(words.sum()))
    return Quality(
        system=system,
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


def logits_cosine(
    lab: Lab, other: Lab, files: Sequence[Path], ids: Sequence[list[int]], *, engine: str
) -> float:
    """Compute the least cosine, over all tokens, of two models' logits along the same tokens.

    Args:
        lab: one model.
        other: the other.
        files: recordings.
        ids: the tokens of each.
        engine: of both.

    Returns:
        The cosine of the token where they differ most.
    """
    least = 1.0
    for file, tokens in zip(files, ids, strict=True):
        waveform = load_audio(file)
        a, b = (one.logits_along(waveform, tokens, engine=engine) for one in (lab, other))
        least = min(least, float(F.cosine_similarity(a, b, dim=-1).min()))
    return least
