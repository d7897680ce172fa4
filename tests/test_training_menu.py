"""Training for voice-menu English: its exchanges, its tokenizer, and steps in bfloat16."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from core.checkpoint.catalog import CATALOG
from training.corpus.domains import DOMAINS
from training.corpus.menu_grammar import vocabulary as menu_vocabulary
from training.corpus.menu_text import PLACES, menu_exchange
from training.corpus.text import CANNOT_HEAR, HESITATIONS, TRANSCRIBE
from training.corpus.vocabulary import Vocabulary, train_tokenizer
from training.stages.align_model import build
from training.stages.batches import Batch
from training.stages.decoder_stage import new_decoder, pad_rows, token_loss
from training.stages.encoder_stage import ClipDropout, ctc_loss, new_encoder
from training.stages.joint_stage import WORDS_FIRST, joint_loss

EXCHANGES = [menu_exchange(random.Random(seed)) for seed in range(500)]
BATCH = Batch(
    torch.randn((2, 40, 160), generator=torch.Generator().manual_seed(1)), ("one two", "three")
)


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("menu") / "tokenizer.json"
    train_tokenizer(0, num_exchanges=4000, domain="menu").save(str(file))
    return file


def asked(task: str) -> list[tuple[list[str], str]]:
    """(words asked about, answer) of the exchanges with a task."""
    found = [
        (one.prompt.replace(f"{task}: ", "").replace(f": {task}", ""), one) for one in EXCHANGES
    ]
    return [(words.split(), one.answer) for words, one in found if words != one.prompt]


def test_exchanges_about_menus_are_seeded_and_answered_right() -> None:
    assert [menu_exchange(random.Random(seed)) for seed in range(500)] == EXCHANGES
    tidied = asked("tidy up")
    assert len(tidied) > 250
    for words, answer in tidied:
        assert [word for word in words if word not in HESITATIONS] == answer.split()
        assert set(answer.split()) <= menu_vocabulary()
        assert len(words) - len(answer.split()) <= 2 * PLACES
    for words, answer in asked("reverse"):
        assert list(reversed(words)) == answer.split()
    assert all(answer.isdigit() for _, answer in asked("write in digits"))
    assert {one.answer for one in EXCHANGES if one.prompt == TRANSCRIBE} == {CANNOT_HEAR}


def test_the_catalog_says_how_many_words_the_bundled_model_knows() -> None:
    assert f" {len(menu_vocabulary())} English words" in CATALOG["tiny"].notes


def test_words_of_the_grammar_are_one_token_each(tokenizer_file: Path) -> None:
    vocabulary = Vocabulary.read(tokenizer_file)
    cut = [word for word in menu_vocabulary() if len(vocabulary.encode(f" {word}")) > 1]
    assert len(cut) < len(menu_vocabulary()) / 20, cut
    assert vocabulary.size <= DOMAINS["menu"].vocab_size


def test_dropout_takes_the_same_channels_from_every_frame_of_a_clip() -> None:
    dropped = ClipDropout(0.5)(torch.ones(3, 20, 64))
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert not torch.equal(dropped[0], dropped[1])
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(ClipDropout(0.5).eval()(torch.ones(2, 4, 8)), torch.ones(2, 4, 8))


def test_losses_in_bfloat16_are_near_those_in_float32_and_teach(tokenizer_file: Path) -> None:
    torch.manual_seed(0)
    encoder = new_encoder().eval()
    whole = ctc_loss(encoder, BATCH)
    half = ctc_loss(encoder, BATCH, bf16=True)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole, rtol=0.02, atol=0.02)
    half.backward()
    assert all(weight.grad is not None for weight in encoder.parameters())
    vocabulary = Vocabulary.read(tokenizer_file)
    decoder = new_decoder(vocabulary.size)
    ids, targets = pad_rows([vocabulary.exchange(one) for one in EXCHANGES[:4]])
    embeddings = decoder.embed_tokens(ids)
    whole, half = (token_loss(decoder, embeddings, targets, None, bf16=on) for on in (False, True))
    torch.testing.assert_close(half, whole, rtol=0.02, atol=0.02)


def test_the_joint_loss_weighs_where_words_lie_as_it_is_told(tokenizer_file: Path) -> None:
    folder, vocabulary = tokenizer_file.parent, Vocabulary.read(tokenizer_file)
    torch.save({"encoder": new_encoder().state_dict()}, folder / "encoder.pt")
    torch.save({"decoder": new_decoder(vocabulary.size).state_dict()}, folder / "decoder.pt")
    model, vocabulary = build(folder)

    def total(weight: float, *, lora: bool = True) -> float:
        losses = joint_loss(model, vocabulary, BATCH, lora=lora, word_weight=weight, bf16=True)
        return float(losses["total"].detach())

    assert total(WORDS_FIRST) > total(0.0)
    assert total(WORDS_FIRST, lora=False) == total(0.0, lora=False)
