"""Text <-> token ids, through the checkpoint's own ``tokenizer.json``.

In: text or ids. Out: ids or text. Also the streaming decoder, which never shows half a character.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer as FastTokenizer

from core.errors import UserError

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Tokenizer:
    """A thin face over the ``tokenizers`` library: special tokens by name, text without them."""

    def __init__(self, file: Path) -> None:
        """Read ``file``, a checkpoint's tokenizer.json."""
        if not file.is_file():
            raise UserError(f"{file} does not exist; expected the checkpoint's tokenizer.json")
        try:
            self._fast = FastTokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"{file.name} is not a tokenizer ({error})") from error
        added = self._fast.get_added_tokens_decoder()
        self.special_tokens = {
            token.content: index for index, token in added.items() if token.special
        }

    @property
    def vocab_size(self) -> int:
        """Count the ids the tokenizer knows, special tokens included."""
        return self._fast.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Encode ``text``; special tokens written in it become their ids."""
        return self._ids(text, add_special_tokens=True)

    def encode_continuation(self, text: str) -> list[int]:
        """Encode ``text`` as in the middle of something, with nothing added around it."""
        return self._ids(text, add_special_tokens=False)

    def _ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        try:
            return list(self._fast.encode(text, add_special_tokens=add_special_tokens).ids)
        except TypeError:  # what JSON can escape, but no encoding has
            half = next(letter for letter in text if "\ud800" <= letter <= "\udfff")
            raise UserError(
                f"a text holds {half!r}, half of a character; expected whole ones: write it again"
            ) from None

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ``ids`` without special tokens."""
        return self._fast.decode(list(ids), skip_special_tokens=True)

    def token_of(self, token_id: int) -> str | None:
        """Return the token with ``token_id`` as tokenizer.json spells it, None if there is none."""
        return self._fast.id_to_token(token_id)

    def specials_in(self, text: str) -> list[str]:
        """Find special tokens in ``text``; a person's text should have none."""
        return [token for token in self.special_tokens if token in text]


class TextDecoder(Protocol):
    """Token ids -> text."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ``ids``."""


class StreamDecoder:
    """Text of a growing list of ids, holding back a character until all its bytes are there."""

    # Long enough to see any one character whole and the pieces before it that decide its spacing.
    _CONTEXT = 6

    def __init__(self, tokenizer: TextDecoder) -> None:
        """Begin with no ids."""
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._settled = 0
        self.text = ""

    def push(self, token_id: int) -> str:
        """Add one id; returns the text that became certain (often empty)."""
        self._ids.append(token_id)
        start = max(0, self._settled - self._CONTEXT)
        before = self._tokenizer.decode(self._ids[start : self._settled])
        now = self._tokenizer.decode(self._ids[start:])
        if now.endswith(REPLACEMENT) or len(now) <= len(before):
            return ""
        self._settled = len(self._ids)
        piece = now[len(before) :]
        self.text += piece
        return piece

    def finish(self) -> str:
        """Decode the rest, whatever it is."""
        whole = self._tokenizer.decode(self._ids)
        piece, self.text = whole[len(self.text) :], whole
        return piece


def token_name(value: object) -> str | None:
    """Read a special token's text, a string or an object in ``tokenizer_config.json``."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def read_special_names(settings: Mapping[str, Any]) -> dict[str, str]:
    """Read bos_token, eos_token, ... of ``tokenizer_config.json``, for the chat template."""
    keys = ("bos_token", "eos_token", "pad_token", "unk_token")
    names = {key: token_name(settings.get(key)) for key in keys}
    return {key: name for key, name in names.items() if name is not None}
