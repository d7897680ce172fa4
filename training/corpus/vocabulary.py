"""The tokenizer and the chat markup of the bundled checkpoint.

In: the exchanges of a domain. Out: a byte-level BPE ``tokenizers.Tokenizer`` with the
special tokens of the 3.x family (``<|end_of_text|>`` is id 0, ``<|audio|>`` the last id), the chat
template, and prompt ids made with both.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from core.errors import UserError
from core.text.ctc_tokenizer import SENTENCEPIECE_BLANK as BLANK_TOKEN
from training.corpus.domains import DOMAINS
from training.corpus.text import TRANSCRIBE, Exchange

END, START_ROLE, END_ROLE, AUDIO = (
    "<|end_of_text|>",
    "<|start_of_role|>",
    "<|end_of_role|>",
    "<|audio|>",
)
END_ID = 0
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] "
    "+ '<|end_of_text|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_of_role|>assistant<|end_of_role|>' }}"
    "{%- endif %}"
)


def train_tokenizer(seed: int, num_exchanges: int = 20_000, domain: str = "digits") -> Tokenizer:
    """Train byte-level BPE over exchanges of a domain, up to its number of entries."""
    rng = random.Random(seed)
    exchanges = (DOMAINS[domain].exchange(rng) for _ in range(num_exchanges))
    lines = (
        text for one in exchanges for text in (one.prompt, one.answer, "system user assistant")
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=DOMAINS[domain].vocab_size - 1,
        special_tokens=[END, START_ROLE, END_ROLE],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.add_special_tokens([AddedToken(AUDIO, special=True, normalized=False)])
    return tokenizer


def word_tokenizer(words: Iterable[str]) -> Tokenizer:
    """Make a tokenizer with a label for each word; id 0 is the blank, and what no word is.

    Letters would be too many: quick speech has more of them than the 12.5 rows a second that a CTC
    head of this family reads.

    Returns:
        The tokenizer.
    """
    pieces = [BLANK_TOKEN, *(f"\N{LOWER ONE EIGHTH BLOCK}{word}" for word in words)]
    labels = {piece: label for label, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordLevel(labels, unk_token=BLANK_TOKEN))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(BLANK_TOKEN, special=True)])
    return tokenizer


def chat_prompt(user: str) -> str:
    """Write one user turn, ready for the assistant's, as the chat template does."""
    return f"{START_ROLE}user{END_ROLE}{user}{END}\n{START_ROLE}assistant{END_ROLE}"


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer and the prompts made with it."""

    tokenizer: Tokenizer

    @classmethod
    def read(cls, file: Path) -> Vocabulary:
        """Read a ``tokenizer.json``.

        Returns:
            Its vocabulary.

        Raises:
            UserError: it is not there.
        """
        if not file.is_file():
            raise UserError(f"{file} is not there; the decoder stage makes it: run that first")
        return cls(Tokenizer.from_file(str(file)))

    @property
    def size(self) -> int:
        """Return the number of ids, special tokens included."""
        return self.tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def audio_id(self) -> int:
        """Return the id of ``<|audio|>``: the last one."""
        return self.size - 1

    def encode(self, text: str) -> list[int]:
        """Encode a text in which special tokens count as such."""
        return list(self.tokenizer.encode(text).ids)

    def exchange(self, one: Exchange) -> tuple[list[int], list[int]]:
        """Encode the prompt with its markup, and the answer with the end token."""
        return self.encode(chat_prompt(one.prompt)), [*self.encode(one.answer), END_ID]

    def speech(self, num_audio: int, answer: str) -> tuple[list[int], list[int]]:
        """Encode the same for ``num_audio`` audio positions and a transcript."""
        ids = self.encode(chat_prompt(AUDIO + TRANSCRIBE))
        place = ids.index(self.audio_id)
        prompt = [*ids[:place], *[self.audio_id] * num_audio, *ids[place + 1 :]]
        return prompt, [*self.encode(answer), END_ID]
