"""Named normalisers: what two texts are reduced to before their words are counted.

In: a text. Out: words with single spaces. "none" keeps case and punctuation, so that "Yes." and
"yes" differ. "basic" keeps letters, digits and apostrophes, in lower case; for any language.
"english" follows the rules of the Open ASR Leaderboard's (Whisper's) English normaliser, written
anew: brackets and fillers go, contractions and titles are written out, accents go, spelled numbers
become digits. It knows no currencies, fractions or decimals in words, and no table of British and
American spellings or of compounds, so its rates are near that board's but are not the same figures.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from core.errors import UserError

_BRACKETS = re.compile(r"[<\[][^>\]]*[>\]]|\([^)]*\)")
_FILLERS = frozenset(("hmm", "mm", "mhm", "mmm", "uh", "um"))
_WRITTEN_OUT = {
    re.compile(pattern): text
    for pattern, text in (
        (r"\bwon't\b", "will not"),
        (r"\bcan't\b", "can not"),
        (r"\bcannot\b", "can not"),
        (r"\blet's\b", "let us"),
        (r"\b(\w+)n't\b", r"\1 not"),
        (r"'re\b", " are"),
        (r"'ll\b", " will"),
        (r"'ve\b", " have"),
        (r"'m\b", " am"),
        (r"'d\b", " would"),
        (r"\b(he|she|it|that|there|here|what|where|who|how)'s\b", r"\1 is"),
        (r"\bmr\b", "mister"),
        (r"\bmrs\b", "missus"),
        (r"\bdr\b", "doctor"),
        (r"\bst\b", "saint"),
        (r"\bprof\b", "professor"),
        (r"(?<=\d),(?=\d)", ""),
        (r"%", " percent"),
    )
}
_UNITS = "one two three four five six seven eight nine"
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_VALUES = (
    {word: value for value, word in enumerate(f"zero {_UNITS} {_TEENS}".split())}
    | {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)}
    | {"oh": 0}
)


def _any(words: str) -> str:
    return f"(?:{words.replace(' ', '|')})"


_SMALL = rf"(?:{_any(_TENS)}(?: {_any(_UNITS)}\b)?|{_any(_TEENS)}|{_any(_UNITS)}|zero)\b"
_GROUP = rf"{_SMALL}(?: hundred\b(?:(?: and)? {_SMALL})?)?"
_NUMBER = rf"{_GROUP}(?: {_any(' '.join(_SCALES))}\b(?:(?: and)? {_GROUP})?)*"
_ONE_NUMBER = re.compile(rf"{_NUMBER}|oh")
_NUMBERS = re.compile(rf"\b{_NUMBER}(?: (?:{_NUMBER}|oh\b))*")


def normalize(text: str, normalizer: str = "basic") -> str:
    """Reduce a text by the normaliser of that name.

    Returns:
        What is left, words with single spaces.

    Raises:
        UserError: there is none of that name.
    """
    if normalizer not in NORMALIZERS:
        raise UserError(f"normalizer is {normalizer!r}; expected one of {', '.join(NORMALIZERS)}")
    return NORMALIZERS[normalizer](text)


def _none(text: str) -> str:
    return " ".join(text.split())


def _basic(text: str) -> str:
    return " ".join(re.findall(r"[\w']+", text.lower().replace("\u2019", "'")))


def _english(text: str) -> str:
    text = _BRACKETS.sub(" ", text.lower().replace("\u2019", "'"))
    for pattern, plain in _WRITTEN_OUT.items():
        text = pattern.sub(plain, text)
    letters = unicodedata.normalize("NFKD", text)
    text = "".join(one for one in letters if not unicodedata.combining(one))
    words = re.findall(r"\d+(?:\.\d+)?|\w+(?:'\w+)?", text)
    text = " ".join(word for word in words if word not in _FILLERS)
    return _NUMBERS.sub(_in_digits, text)


def _in_digits(found: re.Match[str]) -> str:
    """Write numbers in digits; those that follow each other are one: "three one eight" is 318."""
    return "".join(str(_value(number)) for number in _ONE_NUMBER.findall(found[0]))


def _value(number: str) -> int:
    total = group = 0
    for word in number.split():
        if word in _SCALES:
            total, group = total + group * _SCALES[word], 0
        elif word == "hundred":
            group *= 100
        else:
            group += _VALUES.get(word, 0)  # "and" adds nothing
    return total + group


NORMALIZERS: dict[str, Callable[[str], str]] = {"none": _none, "basic": _basic, "english": _english}
