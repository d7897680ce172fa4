"""Voice-menu English: a seeded grammar of what people and machines say on the telephone.

In: a ``random.Random``. Out: a ``Line``: what a voice is asked to say, and its transcript. Digits,
number strings, cardinals, ordinals, money, clock times, dates, letters and spelt words, the NATO
alphabet, directions, playing cards, yes and no, commands of a home, and phrases of voice menus.
A quarter of the lines are single words, and some are any words in any order: recordings of menus
are full of the former, and a recogniser that met sentences only would recite them.

``python -m training.corpus.menu_grammar`` prints the vocabulary and examples of every kind.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from training.corpus import menu_words as words

HALVES = {"a": "ay em", "p": "pee em"}  # as a voice should say them; written "a m", "p m"


@dataclass(frozen=True)
class Line:
    """said: for a voice, with commas and spelt letters. text: the transcript, words only."""

    said: str
    text: str


def plain(said: str) -> Line:
    """Write a line as it is said, but for the letters of a.m. and p.m."""
    text = " ".join(re.sub(r"[^a-z' ]", " ", said).split())
    return Line(re.sub(r"\b([ap]) m\b", lambda found: HALVES[found.group(1)], said), text)


def cardinal(number: int) -> str:
    """Spell a whole number up to 999 billion, American style (no "and").

    Returns:
        Its words.

    Raises:
        ValueError: a number below zero or of 10^12 and more.
    """
    if not 0 <= number < 10**12:
        raise ValueError(f"{number} came; expected 0 to {10**12 - 1}")
    if number < 20:
        return (*words.UNITS, *words.TEENS)[number]
    if number < 100:
        tens, unit = words.TENS[number // 10 - 2], number % 10
        return f"{tens} {words.UNITS[unit]}" if unit else tens
    size, name = (100, "hundred")
    for power, scale in enumerate(words.SCALES, start=1):
        if number >= 1000**power:
            size, name = 1000**power, scale
    rest = f" {cardinal(number % size)}" if number % size else ""
    return f"{cardinal(number // size)} {name}{rest}"


def ordinal(number: int) -> str:
    """Spell an ordinal, as ``twenty first`` for 21; see :func:`cardinal` for the limits."""
    *start, last = cardinal(number).split()
    if last in words.ORDINALS:
        last = words.ORDINALS[last]
    else:
        last = f"{last.removesuffix('y')}ieth" if last.endswith("y") else f"{last}th"
    return " ".join((*start, last))


def _number(rng: random.Random) -> str:
    """Mostly small numbers; any length of digits is as likely as any other."""
    return cardinal(rng.randrange(10 ** rng.choice((1, 2, 2, 2, 3, 3, 4, 5, 6))))


def _digit(rng: random.Random) -> str:
    return "oh" if rng.random() < 0.06 else rng.choice(words.UNITS)


def digits(rng: random.Random) -> str:
    """Draw two to ten digits, now and then with a double, pauses where a speaker makes them."""
    said: list[str] = []
    for _ in range(rng.choice((2, 3, 3, 4, 4, 4, 5, 6, 7, 10))):
        double = ("double " if rng.random() < 0.8 else "triple ") if rng.random() < 0.06 else ""
        comma = "," if said and rng.random() < 0.12 else ""
        said[-1:] = [said[-1] + comma] if said else []
        said.append(double + _digit(rng))
    return " ".join(said)


def _money(rng: random.Random) -> str:
    number = _number(rng)
    dollars = f"{number} {'dollar' if number == 'one' else 'dollars'}"
    if rng.random() < 0.4:
        return dollars
    return f"{dollars} and {cardinal(rng.randint(2, 99))} cents"


def _clock(rng: random.Random) -> str:
    hour, minute = rng.randint(1, 12), rng.randrange(60)
    half = rng.choice(("a m", "p m"))
    kind = rng.random()
    if kind < 0.25:
        return f"{cardinal(hour)} o'clock"
    if kind < 0.4:
        return f"{cardinal(hour)} {half}"
    if kind < 0.5:
        part = rng.choice(("half past", "quarter past", "quarter to"))
        return f"{part} {cardinal(hour)}"
    minutes = f"oh {cardinal(minute)}" if 0 < minute < 10 else cardinal(max(10, minute))
    return f"{cardinal(hour)} {minutes}" + (f" {half}" if rng.random() < 0.5 else "")


def _date(rng: random.Random) -> str:
    month, day = rng.choice(words.MONTHS), rng.randint(1, 31)
    kind = rng.random()
    if kind < 0.2:
        return rng.choice((*words.DAYS, *words.WHEN))
    if kind < 0.4:
        return f"{rng.choice(words.DAYS)}, {month} {ordinal(day)}"
    if kind < 0.6:
        return f"{month} {ordinal(day)}"
    if kind < 0.8:
        return f"the {ordinal(day)} of {month}"
    year = rng.choice(("nineteen", "twenty")) + f" {cardinal(rng.randint(10, 99))}"
    return f"{month} {ordinal(day)}, {year}"


def _card(rng: random.Random) -> str:
    rank = rng.choice((*words.FACES, *words.UNITS[2:], "ten"))
    return f"{rank} of {rng.choice(words.SUITS)}"


def _menu(rng: random.Random) -> str:
    """Draw what a voice menu says, from its parts or as a fixed sentence."""
    key = rng.choice((*words.UNITS, "star", "pound", "pound", "hash"))
    kind = rng.randrange(8)
    if kind == 0:
        end = rng.choice(("", f" followed by the {key} key", " now", " again"))
        return f"please {rng.choice(('enter', 'say', 'dial'))} {rng.choice(words.OBJECTS)}{end}"
    if kind == 1:
        please = rng.choice(("", "", "please "))
        return f"{please}press {key} to {rng.choice(words.ACTIONS)}"
    if kind == 2:
        return f"to {rng.choice(words.ACTIONS)} press {key}"
    if kind == 3:
        return f"press {key} for {rng.choice((*words.OPTIONS, *words.FOLDERS))}"
    if kind in (4, 5):
        return f"{rng.choice(words.THINGS)} {rng.choice(words.STATES)}"
    return _filled(rng, rng.choice(words.SENTENCES), key)


def _filled(rng: random.Random, pattern: str, key: str = "star") -> str:
    """A pattern with its ``{slots}`` drawn anew, one by one."""
    slots: dict[str, Callable[[], str]] = {
        "number": lambda: cardinal(rng.randint(1, 99)),
        "digits": lambda: digits(rng),
        "digit": lambda: rng.choice(words.UNITS),
        "clock": lambda: _clock(rng),
        "key": lambda: key,
        "nato": lambda: rng.choice(words.NATO),
        "device": lambda: rng.choice(words.DEVICES),
        "way": lambda: rng.choice(words.WAYS),
        "place": lambda: rng.choice(words.PLACES),
        "length": lambda: rng.choice(words.LENGTHS),
    }
    return re.sub(r"{(\w+)}", lambda slot: slots[slot.group(1)](), pattern)


def _letters(rng: random.Random) -> Line:
    """One letter, or a few spelt out: written ``b c``, said so that no voice reads a word."""
    chosen = [rng.choice(words.LETTERS) for _ in range(rng.choice((1, 1, 1, 2, 3, 3, 4, 5)))]
    said = ", ".join(words.LETTER_SOUNDS.get(one, one.upper()) for one in chosen)
    return Line(said, " ".join(chosen))


def _nato(rng: random.Random) -> str:
    return " ".join(rng.choice(words.NATO) for _ in range(rng.choice((1, 1, 2, 3, 4))))


def _single(rng: random.Random) -> str:
    """One word or short phrase of a list; ordinals and tens more often than chance has them."""
    lists = (
        *(words.UNITS, words.UNITS, words.TEENS, words.TENS, ("hundred", *words.SCALES), ("oh",)),
        *(words.DAYS, words.MONTHS, words.WHEN, words.WAYS, words.PLACES, words.ANSWERS),
        *(words.ANSWERS, words.SIGNS, words.NATO, words.DEVICES, words.FOLDERS, words.SENTENCES),
    )
    if rng.random() < 0.1:
        return ordinal(rng.choice((*range(1, 32), 40, 50, 60, 70, 80, 90, 100, 1000, 10**6)))
    return _filled(rng, rng.choice(rng.choice(lists)))


def _salad(rng: random.Random) -> str:
    """Any words of the vocabulary in any order."""
    known = [word for word in sorted(vocabulary()) if len(word) > 1]
    return " ".join(rng.choice(known) for _ in range(rng.randint(2, 6)))


def word_line(rng: random.Random) -> Line:
    """Draw a line that makes rare words frequent: half are salads, a fifth letters.

    Of 11,000 :func:`line` s each digit is in a thousand, six words in ten are in at most fifty.

    Returns:
        The line.
    """
    kind = rng.random()
    if kind < 0.2:
        return _letters(rng)
    draw = _salad if kind < 0.7 else _menu if kind < 0.9 else _single
    return plain(draw(rng))


KINDS: dict[str, tuple[float, Callable[[random.Random], str | Line]]] = {
    "single": (0.20, _single),
    "digits": (0.13, digits),
    "number": (0.06, _number),
    "ordinal": (0.03, lambda rng: ordinal(rng.randint(1, 99))),
    "money": (0.03, _money),
    "clock": (0.05, _clock),
    "date": (0.05, _date),
    "letters": (0.08, _letters),
    "nato": (0.05, _nato),
    "card": (0.02, _card),
    "command": (0.07, lambda rng: _filled(rng, rng.choice(words.COMMANDS))),
    "menu": (0.15, _menu),
    "salad": (0.08, _salad),
}


def line(rng: random.Random) -> Line:
    """Draw one line of the domain."""
    weights = [weight for weight, _ in KINDS.values()]
    (_, draw), *_ = rng.choices(list(KINDS.values()), weights)
    drawn = draw(rng)
    return drawn if isinstance(drawn, Line) else plain(drawn)


@cache
def vocabulary() -> frozenset[str]:
    """List every word that the grammar can write."""
    lists = (words.TEENS, words.TENS, words.SCALES, words.LETTERS, words.NATO, words.SIGNS)
    more = (words.DAYS, words.MONTHS, words.WHEN, words.WAYS, words.PLACES, words.LENGTHS)
    rest = (words.SUITS, words.FACES, words.ANSWERS, words.DEVICES, words.COMMANDS, words.OBJECTS)
    menus = (words.ACTIONS, words.OPTIONS, words.FOLDERS, words.THINGS, words.STATES)
    numbers = [ordinal(n) for n in (*range(1, 21), *range(30, 100, 10), 100, 1000, 10**6, 10**9)]
    phrases = [phrase for part in (*lists, *more, *rest, *menus) for phrase in part]
    frames = (
        "oh double triple dollar dollars and cents o'clock a m p half past quarter to the of",
    )
    glue = ("please enter say dial followed by the key now again press for to hundred",)
    whole = " ".join((*words.UNITS, *phrases, *numbers, *words.SENTENCES, *frames, *glue))
    return frozenset(plain(re.sub(r"{\w+}", " ", whole)).text.split())


if __name__ == "__main__":
    known = sorted(vocabulary())
    print(len(known), "words:", " ".join(known))
    for kind, (share, draw) in KINDS.items():
        samples = (draw(random.Random(number)) for number in range(5))
        shown = " | ".join(one.said if isinstance(one, Line) else one for one in samples)
        print(f"{kind} ({share:.0%}): {shown}", file=sys.stdout)
