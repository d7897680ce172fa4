"""The example recordings that ship with the project: real ones, small, with their texts.

In: a corpus folder that holds the Asterisk recordings. Out: a folder of 16 kHz FLAC files,
``transcripts.json`` ({file: text}) and a README that credits them.
"""

from __future__ import annotations

import json
from pathlib import Path

import soundfile

from core.errors import UserError
from training.corpus.corpus import RATE, CorpusClip, read_manifest, read_wav

SINGLE = ("zero", "three", "five", "seven", "nine", "oh")
STRING_LENGTHS = (2, 3, 4, 5, 6, 7)
# Prompts as they are: texts that training may have met (with other voices), and texts it has not.
PROMPT_SPLITS = ("prompts_met", "prompts_unmet", "prompts_letters")
PHRASES = (
    *("please try again", "one moment please", "press star to return to the main menu"),
    *("your message has been saved", "press star to cancel", "november"),
    *("welcome to the directory", "please enter your conference number followed by the pound key"),
)
OUTSIDE = ("weasels have eaten our phone system",)  # to see how a model says: not my domain

README = """# Example recordings

Voice: Allison Smith, from the Asterisk core sounds (English), Debian package
`asterisk-core-sounds-en-g722`, licence CC-BY-SA-3.0. Decoded from G.722 to 16 kHz FLAC.

- `digit_*.flac`: single digits, as recorded.
- `string_*.flac`: digit strings, put together from the recorded single digits with short pauses, as
  a telephone system plays them. The package holds no digit strings spoken in one breath.
- `phrase_*.flac`: phrases of voice menus, as recorded, chosen among those that the bundled
  model hears right (its model card says how many it does).
- `outside_*.flac`: a phrase with words that the bundled model does not know; it should say so.

`transcripts.json` gives the text of each file. None of these recordings was used for training.
They are shared under the same licence, CC-BY-SA-3.0: https://creativecommons.org/licenses/by-sa/3.0/
"""


def choose(corpus: Path) -> dict[str, CorpusClip]:
    """Choose single digits, a string of each length, phrases, and one that is outside.

    Returns:
        Clips by the name of the file.

    Raises:
        UserError: the corpus lacks one of them.
    """
    chosen = {
        f"digit_{clip.text}.flac": clip
        for clip in read_manifest(corpus, ["asterisk_digits"])
        if clip.text in SINGLE
    }
    lacking = [f"the digit {said!r}" for said in SINGLE if f"digit_{said}.flac" not in chosen]
    strings: dict[int, CorpusClip] = {}
    for clip in read_manifest(corpus, ["asterisk_strings"]):
        strings.setdefault(len(clip.text.split()), clip)
    lacking += [f"a string of {n} digits" for n in STRING_LENGTHS if n not in strings]
    chosen |= {_name("string", strings[n]): strings[n] for n in STRING_LENGTHS if n in strings}
    for kind, splits, wanted in (
        ("phrase", PROMPT_SPLITS, PHRASES),
        ("outside", ("prompts_outside",), OUTSIDE),
    ):
        for clip in read_manifest(corpus, splits):
            if clip.text in wanted:
                chosen.setdefault(_name(kind, clip), clip)
        said = {clip.text for clip in chosen.values()}
        lacking += [repr(text) for text in wanted if text not in said]
    if lacking:
        raise UserError(
            f"{corpus} has no recording of {', '.join(lacking)}; "
            "run `python -m training corpus --parts recordings` where the prompts are installed"
        )
    return chosen


def _name(kind: str, clip: CorpusClip) -> str:
    return f"{kind}_{'_'.join(clip.text.split())}.flac"


def write_examples(corpus: Path, folder: Path) -> int:
    """Write the folder; returns how many recordings it holds."""
    chosen = choose(corpus)
    folder.mkdir(parents=True, exist_ok=True)
    for name, clip in chosen.items():
        soundfile.write(folder / name, read_wav(corpus, clip), RATE, subtype="PCM_16")
    texts = {name: clip.text for name, clip in sorted(chosen.items())}
    (folder / "transcripts.json").write_text(json.dumps(texts, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(README, encoding="utf-8")
    return len(chosen)
