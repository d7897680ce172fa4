"""Tokenizers of models that read their text with CTC alone: do they belong to the model?

In: a tokenizer and the size of the CTC head. Out: an error, or the text of emitted tokens. Two
kinds are published for heads of the same size, so the wrong one gives fluent nonsense: a byte-level
BPE whose id 0 is ``<|blank|>``, and a BPE made from a SentencePiece model whose id 0 is ``<unk>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from core.errors import UserError
from core.model.ctc import BLANK
from core.text.tokenizer import Tokenizer

BYTE_LEVEL_BLANK, SENTENCEPIECE_BLANK = "<|blank|>", "<unk>"
# By repository or folder: two checkpoints whose config.json is the same.
PUBLISHED_BLANKS = {
    "granite-speech-5.0-470m-turboctc": BYTE_LEVEL_BLANK,
    "granite-speech-5.0-470m-turboctc-nc": SENTENCEPIECE_BLANK,
}


def check_ctc_tokenizer(tokenizer: Tokenizer, vocab_size: int, source: str) -> None:
    """See that ``tokenizer`` names the labels of a CTC head of ``vocab_size``.

    Raises:
        UserError: another number of tokens, a label 0 that stands for text, or the tokenizer of the
            other published checkpoint.
    """
    if tokenizer.vocab_size != vocab_size:
        raise UserError(
            f"{source}: tokenizer.json has {tokenizer.vocab_size} tokens, the CTC head "
            f"{vocab_size} labels; expected the tokenizer of this checkpoint"
        )
    blank = tokenizer.token_of(BLANK)
    if blank not in (BYTE_LEVEL_BLANK, SENTENCEPIECE_BLANK):
        raise UserError(
            f"{source}: id {BLANK} of tokenizer.json is {blank!r}; expected the blank, "
            f"{BYTE_LEVEL_BLANK!r} or {SENTENCEPIECE_BLANK!r}"
        )
    published = PUBLISHED_BLANKS.get(PurePath(source).name, blank)
    if blank != published:
        raise UserError(
            f"{source}: id {BLANK} of tokenizer.json is {blank!r}; expected {published!r}: it is "
            "the tokenizer of the other of the two checkpoints, take this one's own"
        )


def decode_emitted(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Decode emitted ``ids``, without the space a SentencePiece text begins with."""
    text = tokenizer.decode(ids)
    is_sentencepiece = tokenizer.token_of(BLANK) == SENTENCEPIECE_BLANK
    return text.removeprefix(" ") if is_sentencepiece else text
