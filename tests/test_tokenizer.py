"""Text and ids, and the streaming decoder that never shows half a character.

Run alone: ``python -m pytest tests/test_tokenizer.py``.
"""

import random
from pathlib import Path

import pytest

from core.errors import UserError
from core.text.tokenizer import (
    REPLACEMENT,
    StreamDecoder,
    Tokenizer,
    read_special_names,
    token_name,
)
from tiny_models import AUDIO, AUDIO_ID, END, END_ID, SPECIALS, VOCABULARY

TEXTS = [
    "four one five",
    "naïve café, Zürich",
    "日本語の音声認識",
    "flags 🇩🇪 families 👩‍👩‍👧‍👦 skin 👍🏽",
    "  two  spaces ",
    "a\n\n\tb",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "e\N{COMBINING ACUTE ACCENT}",
    REPLACEMENT + " as written by someone",
]


def streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    decoder = StreamDecoder(tokenizer)
    pieces = [decoder.push(token) for token in ids]
    return [*pieces, decoder.finish()]


def random_texts(count: int) -> list[str]:
    chooser = random.Random(7)
    ranges = [(32, 126), (0xA0, 0x24F), (0x3040, 0x30FF), (0x1F300, 0x1F6FF), (0x10000, 0x10FFF)]

    def character() -> str:
        return chr(chooser.randint(*chooser.choice(ranges)))

    return ["".join(character() for _ in range(chooser.randint(0, 25))) for _ in range(count)]


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_whole(text: str, tokenizer: Tokenizer):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_have_ids_and_vanish_from_text(tokenizer: Tokenizer):
    ids = tokenizer.encode(f"one{AUDIO}two{END}")
    assert ids.count(AUDIO_ID) == 1
    assert ids[-1] == END_ID
    assert tokenizer.decode(ids) == "onetwo"
    assert set(tokenizer.special_tokens) == set(SPECIALS)
    assert tokenizer.vocab_size == VOCABULARY


def test_special_tokens_in_a_persons_text_are_found(tokenizer: Tokenizer):
    assert tokenizer.specials_in("an <|audio|> place") == [AUDIO]
    assert tokenizer.specials_in("5 < 6 | 7 > 2, <audio>") == []


@pytest.mark.parametrize("text", [*TEXTS, *random_texts(60)])
def test_streamed_pieces_add_up_to_the_text(text: str, tokenizer: Tokenizer):
    pieces = streamed(tokenizer, tokenizer.encode(text))
    assert "".join(pieces) == text
    if REPLACEMENT not in text:
        assert not [piece for piece in pieces if REPLACEMENT in piece]


def test_no_piece_is_shown_before_its_character_is_whole(tokenizer: Tokenizer):
    ids = tokenizer.encode("a👍b")
    assert len(ids) == 6  # one byte, four bytes, one byte
    assert streamed(tokenizer, ids) == ["a", "", "", "", "👍", "b", ""]


def test_bytes_that_never_become_a_character_come_out_at_the_end(tokenizer: Tokenizer):
    ids = tokenizer.encode("ab👍")[:-1]
    pieces = streamed(tokenizer, ids)
    assert "".join(pieces[:-1]) == "ab"
    assert "".join(pieces) == tokenizer.decode(ids)


def test_any_sequence_of_ids_streams_to_its_text(tokenizer: Tokenizer):
    # Models may write anything: stray bytes, special tokens, broken characters.
    chooser = random.Random(3)
    for _ in range(80):
        ids = [chooser.randrange(VOCABULARY) for _ in range(chooser.randint(0, 30))]
        assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)


def test_the_text_so_far_is_what_was_shown(tokenizer: Tokenizer):
    decoder = StreamDecoder(tokenizer)
    shown = ""
    for token in tokenizer.encode("日本 👍 done"):
        shown += decoder.push(token)
        assert decoder.text == shown


def test_a_long_text_costs_the_same_per_token(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    lengths: list[int] = []
    decode = tokenizer.decode
    monkeypatch.setattr(tokenizer, "decode", lambda ids: lengths.append(len(ids)) or decode(ids))
    decoder = StreamDecoder(tokenizer)
    for token in tokenizer.encode("zero one two three four 👍 " * 40):
        decoder.push(token)
    assert max(lengths) <= 12


def test_a_missing_or_foreign_file_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="tokenizer.json does not exist"):
        Tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(ValueError, match="tokenizer.json is not a tokenizer"):
        Tokenizer(tmp_path / "tokenizer.json")


def test_special_names_are_strings_or_objects():
    raw = {"bos_token": "<s>", "eos_token": {"content": "</s>", "special": True}, "pad_token": None}
    assert read_special_names(raw) == {"bos_token": "<s>", "eos_token": "</s>"}
    assert read_special_names({}) == {}
    assert token_name(7) is None


def test_half_of_a_character_is_told(tokenizer: Tokenizer):
    for encode in (tokenizer.encode, tokenizer.encode_continuation):
        with pytest.raises(UserError, match=r"holds '\\ud83d', half of a character"):
            encode("a \ud83d b")
