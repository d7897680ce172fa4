"""The two kinds of tokenizer.json of CTC models, and whether one belongs to its model.

Run alone: ``python -m pytest tests/test_ctc_tokenizer.py``.
"""

from pathlib import Path

import pytest

from core.errors import UserError
from core.generation.ctc_greedy import collapse, timed_words
from core.text.ctc_tokenizer import check_ctc_tokenizer, decode_emitted
from core.text.tokenizer import Tokenizer
from granite_speech5 import write_byte_level_tokenizer, write_sentencepiece_tokenizer

TEXTS = ["he the", "naïve café", "日本 👍", "the  the"]


@pytest.fixture(params=["byte-level", "SentencePiece", "SentencePiece, stripped"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    file = tmp_path / "tokenizer.json"
    if request.param == "byte-level":
        return Tokenizer(write_byte_level_tokenizer(file))
    return Tokenizer(write_sentencepiece_tokenizer(file, strips=request.param.endswith("stripped")))


@pytest.mark.parametrize("text", TEXTS)
def test_emitted_tokens_become_their_text(text: str, tokenizer: Tokenizer):
    ids = tokenizer.encode_continuation(text)
    assert 0 not in ids
    assert decode_emitted(tokenizer, ids) == text


@pytest.mark.parametrize("text", TEXTS)
def test_words_are_found_in_tokens_of_either_kind(text: str, tokenizer: Tokenizer):
    ids = tokenizer.encode_continuation(text)
    labels = [label for token in ids for label in (0, token)]  # tokens at rows 1, 3, 5, ...
    words = timed_words(tokenizer, collapse(labels, [0.0] * len(labels)), 1.0)
    assert [word.text for word in words] == text.split()
    assert words[-1].end == len(labels)
    assert all(a.end <= b.start for a, b in zip(words, words[1:], strict=False))


def test_only_the_sentencepiece_kind_loses_its_leading_space(tmp_path: Path):
    byte_level = Tokenizer(write_byte_level_tokenizer(tmp_path / "one.json"))
    ids = byte_level.encode_continuation(" the")
    assert decode_emitted(byte_level, ids) == " the"
    pieces = Tokenizer(write_sentencepiece_tokenizer(tmp_path / "two.json", strips=False))
    ids = pieces.encode_continuation("the")
    assert pieces.decode(ids) == " the"
    assert decode_emitted(pieces, ids) == "the"


def test_reserved_names_are_text(tmp_path: Path):
    pieces = Tokenizer(write_sentencepiece_tokenizer(tmp_path / "tokenizer.json", strips=True))
    assert decode_emitted(pieces, [1]) == "<reserved_1>"


def test_a_tokenizer_of_its_model_is_taken(tokenizer: Tokenizer):
    check_ctc_tokenizer(tokenizer, tokenizer.vocab_size, "here")


def test_another_vocabulary_is_refused(tokenizer: Tokenizer):
    with pytest.raises(UserError, match=f"^here: .* has {tokenizer.vocab_size} tokens.*16384"):
        check_ctc_tokenizer(tokenizer, 16384, "here")


def test_a_tokenizer_without_a_blank_is_refused(tokenizer_file: Path):
    decoder_kind = Tokenizer(tokenizer_file)
    with pytest.raises(UserError, match="id 0 of tokenizer.json is .* expected the blank"):
        check_ctc_tokenizer(decoder_kind, decoder_kind.vocab_size, "here")


@pytest.mark.parametrize("source", ["ibm-granite/granite-speech-5.0-470m-turboctc", "/here/mine"])
def test_the_tokenizer_of_the_other_published_checkpoint_is_refused(source: str, tmp_path: Path):
    byte_level = Tokenizer(write_byte_level_tokenizer(tmp_path / "one.json"))
    pieces = Tokenizer(write_sentencepiece_tokenizer(tmp_path / "two.json", strips=True))
    check_ctc_tokenizer(byte_level, byte_level.vocab_size, source)
    if source == "/here/mine":
        check_ctc_tokenizer(pieces, pieces.vocab_size, source)
        return
    check_ctc_tokenizer(pieces, pieces.vocab_size, f"{source}-nc")
    for wrong, place in ((pieces, source), (byte_level, f"{source}-nc")):
        with pytest.raises(UserError, match="tokenizer of the other of the two checkpoints"):
            check_ctc_tokenizer(wrong, wrong.vocab_size, place)
