"""Which words of growing speech are certain: those that two passes in a row agree on.

In: the words of one pass after another over the same, growing stretch of speech. Out: words that
stay (committed) and words that may still change (tentative). Local agreement of two passes
(Liu et al. 2020, section 3; Machacek et al. 2023), told apart by time where words have times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from core.text.transcript import Word

HOLD_S = 0.3  # a word that ends this close to the end of the sound may be half a word
SLACK_S = 0.08  # by how much a word's time moves from one pass to the next


@dataclass
class Agreement:
    """The words of one stretch of speech. committed never changes but at its end."""

    committed: list[Word] = field(default_factory=list)
    tentative: list[Word] = field(default_factory=list)

    def update(self, words: Sequence[Word], sound_s: float) -> None:
        """Take another pass over the first ``sound_s`` seconds."""
        fresh = self._after(words)
        agreed = 0
        for old, new in zip(self.tentative, fresh, strict=False):
            if not _same(old, new) or (new.end is not None and new.end > sound_s - HOLD_S):
                break
            agreed += 1
        self.committed += fresh[:agreed]
        self.tentative = fresh[agreed:]

    def close(self, words: Sequence[Word]) -> None:
        """Take the last pass, over the whole stretch: all its words are certain."""
        self.committed += self._after(words)
        self.tentative = []

    def _after(self, words: Sequence[Word]) -> list[Word]:
        """The words that come after what is committed."""
        if not self.committed:
            return list(words)
        last = self.committed[-1].end
        timed = last is not None and all(w.start is not None and w.end is not None for w in words)
        if not timed:
            return list(words[len(self.committed) :])
        return [w for w in words if ((w.start or 0) + (w.end or 0)) / 2 > (last or 0) + SLACK_S]


def _same(a: Word, b: Word) -> bool:
    return a.text.strip(".,?!;:").casefold() == b.text.strip(".,?!;:").casefold()
