"""Greedy answers of a model that is being trained: how right it is by now.

In: a model, clips or exchanges of a domain. Out: word error rates, or the share of right answers.
There is no cache: the answers are short, and the code is what is trained.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from core.model.decoder import GraniteDecoder
from core.model.encoder import padded_length
from core.model.granite_speech import GraniteSpeech
from core.model.lora import switch
from core.text.word_errors import error_rate
from training.corpus.domains import DOMAINS
from training.corpus.vocabulary import END_ID, Vocabulary
from training.stages import mels
from training.stages.mels import MelClip


@torch.inference_mode()
def answer(decoder: GraniteDecoder, prompt: list[int], limit: int = 60) -> list[int]:
    """Answer a text prompt greedily without a cache, for checks of short answers."""
    ids = list(prompt)
    while len(ids) < len(prompt) + limit:
        positions = torch.arange(len(ids))[None]
        hidden = decoder(decoder.embed_tokens(torch.tensor([ids])), positions)
        ids.append(int(decoder.logits(hidden[:, -1:]).argmax()))
        if ids[-1] == END_ID:
            break
    return ids[len(prompt) :]


def exact(
    decoder: GraniteDecoder, vocabulary: Vocabulary, count: int, seed: int, domain: str = "digits"
) -> float:
    """Compute the share of fresh exchanges answered exactly right.

    Args:
        decoder: the model.
        vocabulary: of the checkpoint.
        count: exchanges.
        seed: draws them.
        domain: a name of DOMAINS.

    Returns:
        0 to 1.
    """
    rng = random.Random(seed)
    pairs = [vocabulary.exchange(DOMAINS[domain].exchange(rng)) for _ in range(count)]
    return sum(answer(decoder, prompt) == wanted for prompt, wanted in pairs) / count


@torch.inference_mode()
def transcribe(
    model: GraniteSpeech, vocabulary: Vocabulary, features: Tensor, *, lora: bool, limit: int = 48
) -> str:
    """Transcribe one clip greedily without a cache, to check progress.

    Args:
        model: encoder to decoder.
        vocabulary: of the checkpoint.
        features: [T, 160].
        lora: whether the adapter is on.
        limit: new tokens, at most.

    Returns:
        The text.
    """
    length = features.shape[0]
    total = padded_length(length, model.config.encoder.context_size)
    padded = nn.functional.pad(features, (0, 0, 0, total - length))[None]
    on = switch([lora], like=features)
    audio = model.embed_audio(padded, torch.tensor([length]), on).embeddings
    prompt, _ = vocabulary.speech(model.num_audio_tokens(length), "")
    embeddings = model.splice(torch.tensor([prompt]), audio)
    ids: list[int] = []
    while len(ids) < limit:
        positions = torch.arange(embeddings.shape[1])[None]
        hidden = model.decoder(embeddings, positions, None, on)
        ids.append(int(model.decoder.logits(hidden[:, -1:], on).argmax()))
        if ids[-1] == END_ID:
            break
        following = model.decoder.embed_tokens(torch.tensor([[ids[-1]]]))
        embeddings = torch.cat([embeddings, following], dim=1)
    return vocabulary.tokenizer.decode(ids, skip_special_tokens=True)


def word_error(
    model: GraniteSpeech, vocabulary: Vocabulary, dev: list[MelClip], *, lora: bool
) -> float:
    """Compute the word error rate in percent over clips as recorded.

    Args:
        model: encoder to decoder.
        vocabulary: of the checkpoint.
        dev: the clips.
        lora: whether the adapter is on.

    Returns:
        The rate.
    """
    model.eval()
    pairs = [
        (one.text, transcribe(model, vocabulary, mels.features(one.power()), lora=lora))
        for one in dev
    ]
    return error_rate(pairs).percent
