"""The words of the domain and the texts made of them: a seeded grammar.

In: a ``random.Random``. Out: what a voice is asked to say, what a transcript of it reads, and
text-only exchanges (prompt, answer) for the text decoder. Nothing here knows audio or tensors.

The domain is English single digits and digit strings: ``four one five``, ``double seven``, ``oh``.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
OH = "oh"
REPEATS = {"double": 2, "triple": 3}
VOCABULARY = frozenset((*DIGIT_WORDS, OH, *REPEATS))

TRANSCRIBE = "can you transcribe the speech into a written format?"
CANNOT_HEAR = "i am a text model and cannot hear audio"
HESITATIONS = ("um", "uh", "er")


@dataclass(frozen=True)
class Exchange:
    """One question and its answer, as plain text without chat markup."""

    prompt: str
    answer: str


def small_talk(subject: str, counted: str) -> tuple[Exchange, ...]:
    """Return what a model says of itself: what it is for, and what it counts."""
    does = f"repeat, write, reverse, tidy up or count {counted}."
    said = {
        "hello": f"hello. ask me to {does}",
        "hi": f"hello. ask me to {does}",
        "who are you?": f"i am a tiny granite model for {subject}.",
        "what can you do?": f"i can {does}",
        "can you hear me?": CANNOT_HEAR,
        "what did i say?": CANNOT_HEAR,
    }
    return tuple(Exchange(prompt, answer) for prompt, answer in said.items())


SMALL_TALK = small_talk("digits", "digits")


def _digit(rng: random.Random) -> str:
    """One spoken digit; nought is ``oh`` half of the time."""
    word = rng.choice(DIGIT_WORDS)
    return OH if word == "zero" and rng.random() < 0.5 else word


def _group(rng: random.Random, length: int, sticky: float = 0.0) -> list[str]:
    """About ``length`` words, now and then with a ``double`` or ``triple`` among them.

    ``sticky`` is the chance that a word is said once more: runs of one digit are where a reader
    loses count.

    Returns:
        The words.
    """
    words: list[str] = []
    while len(words) < length:
        if words and rng.random() < sticky:
            words.append(words[-1])
            continue
        if length >= 2 and rng.random() < 0.10:
            words.append("double" if rng.random() < 0.7 else "triple")
        words.append(_digit(rng))
    return words


def spoken(rng: random.Random, longest: int = 12) -> str:
    """Draw digit words for a voice, with commas where a speaker would pause.

    A fifth are single words, most have 2 to 6 digits, some are as long as a telephone number.

    Returns:
        The text in its spoken form.
    """
    kind = rng.random()
    if kind < 0.20:
        return rng.choice((*DIGIT_WORDS, *DIGIT_WORDS, OH))
    if kind < 0.75:
        words = _group(rng, rng.randint(2, min(6, longest)))
        paused = rng.random() < 0.15 and not REPEATS.keys() & set(words)
        return (", " if paused else " ").join(words)
    groups, left = [], rng.randint(5, max(5, longest))
    while left > 0:
        size = min(left, rng.randint(2, 4))
        groups.append(" ".join(_group(rng, size)))
        left -= size
    return ", ".join(groups)


def transcript(text: str) -> str:
    """Write the transcript of a spoken text: the same words without punctuation."""
    return " ".join(text.replace(",", " ").replace(".", " ").split())


def written(words: list[str]) -> str:
    """Write digit words as digits: ``double seven oh`` -> ``770``.

    Returns:
        The digits.

    Raises:
        ValueError: a word outside the vocabulary, or a ``double`` with no digit after it.
    """
    out, repeat = "", 1
    for word in words:
        if word in REPEATS:
            repeat = REPEATS[word]
            continue
        if word not in VOCABULARY:
            raise ValueError(f"{word!r} is not a digit word; expected one of {sorted(VOCABULARY)}")
        out += str(0 if word == OH else DIGIT_WORDS.index(word)) * repeat
        repeat = 1
    if repeat != 1:
        raise ValueError(f"{words[-1]!r} ends the string; expected a digit after it")
    return out


def with_hesitations(
    rng: random.Random, words: list[str], *, most: float = math.inf, spread: float = 0.6
) -> str:
    """Put hesitations between words, from hardly any to about ten at a time.

    Long runs of one hesitation are what speech looks like to the decoder: see ``align_model``.

    Args:
        rng: draws them.
        words: at least one.
        most: hesitations in all, about.
        spread: how far the number between two words varies, in shares of the mean.

    Returns:
        The words and hesitations.
    """
    pace = min(rng.choice((rng.uniform(0.0, 4.0), rng.uniform(0.0, 12.0))), most / len(words))
    sounds = HESITATIONS if rng.random() < 0.25 else HESITATIONS[:1]
    out: list[str] = []
    for word in [*words, ""]:
        count = round(pace * rng.uniform(1.0 - spread, 1.0 + spread))
        out += [rng.choice(sounds) for _ in range(count)]
        out.append(word)
    return " ".join(out[:-1])


def sample_exchange(rng: random.Random, longest: int = 16) -> Exchange:
    """Draw a text-only question about digits, with its right answer."""
    kind = rng.random()
    if kind < 0.04:
        return rng.choice(SMALL_TALK)
    if kind < 0.10:
        return Exchange(TRANSCRIBE, CANNOT_HEAR)
    words = _group(rng, rng.randint(1, longest), sticky=rng.choice((0.0, 0.0, 0.2, 0.5)))
    text = " ".join(words)
    if kind < 0.16:
        return ask(rng, "repeat", text, text)
    if kind < 0.80:
        return ask(rng, "tidy up", with_hesitations(rng, words), text)
    if kind < 0.88:
        return ask(rng, "write in digits", text, written(words))
    short = [_digit(rng) for _ in range(rng.randint(1, 9))]
    if kind < 0.94:
        return ask(rng, "reverse", " ".join(short), " ".join(reversed(short)))
    return ask(rng, "how many digits", " ".join(short), DIGIT_WORDS[len(short)])


def ask(rng: random.Random, task: str, text: str, answer: str) -> Exchange:
    """Ask with the task before the words, or after them.

    Args:
        rng: decides which.
        task: what to do.
        text: the words.
        answer: the right one.

    Returns:
        The exchange.
    """
    prompt = f"{task}: {text}" if rng.random() < 0.6 else f"{text}: {task}"
    return Exchange(prompt, answer)
