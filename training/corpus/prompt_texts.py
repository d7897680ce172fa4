"""The texts of the Asterisk prompts as the grammar of voice menus writes them.

In: ``core-sounds-en.txt.gz`` of the Debian package ``asterisk-core-sounds-en``. Out: transcripts
by key, in words, and which keys' texts training may read. Recordings are for testing alone; the
texts of a fixed half may be read by synthetic voices, so that the tests can tell a text that was
met from one that was not.
"""

from __future__ import annotations

import gzip
import re
import zlib
from functools import cache
from pathlib import Path

from training.corpus.menu_grammar import cardinal, vocabulary

ASTERISK_TEXTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
PROMPT_SHARE = 0.10  # of the lines that training reads
# What the texts abbreviate, or spell in a way that the recording does not.
_SPELT = {
    **{"a.m.": " a m ", "p.m.": " p m ", "#": " pound ", "*": " star ", "mail box": "mailbox"},
    **{"i'm": "i am", "we're": "we are", "that's": "that is", "you're": "you are"},
    **{"fourtieth": "fortieth", "log in": "login", "exclaimation-point": "exclamation point"},
}
_NOTES = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")


def in_words(text: str) -> str:
    """Spell a text as it is spoken: lower case, notes removed, numbers and signs in words."""
    text = _NOTES.sub(" ", text.lower())
    for short, whole in _SPELT.items():
        text = text.replace(short, whole)
    text = re.sub(r"\d+", lambda number: f" {cardinal(int(number.group()))} ", text)
    return " ".join(re.sub(r"[^a-z' ]", " ", text).split())


def read_prompts(texts: Path) -> dict[str, str]:
    """Read transcripts by key, in the file's order; prompts without words are left out."""
    found = {}
    with gzip.open(texts, "rt", encoding="utf-8") as lines:
        for row in lines:
            key, colon, text = row.partition(":")
            said = in_words(text)
            if colon and said and not key.startswith((";", "silence/")):
                found[key] = said
    return found


def may_be_read(key: str) -> bool:
    """Say whether a key belongs to the half whose texts training may read."""
    return zlib.crc32(f"prompt/{key}".encode()) % 2 == 0


def is_known(text: str) -> bool:
    """Say whether every word of a transcript is in the grammar's vocabulary."""
    return vocabulary().issuperset(text.split())


def readable_texts(texts: Path) -> list[str]:
    """List transcripts that training may read: of one half, wholly in the vocabulary."""
    if not texts.exists():
        return []
    return sorted({t for key, t in read_prompts(texts).items() if may_be_read(key) and is_known(t)})


@cache
def installed_texts() -> tuple[str, ...]:
    """List the readable texts of the prompts that are installed here, if any."""
    return tuple(readable_texts(ASTERISK_TEXTS))
