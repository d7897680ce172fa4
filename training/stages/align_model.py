"""The whole model while it is aligned: what is frozen, what learns, and from which losses.

In: the weights of the first two stages; what the encoder's frozen layers make of a batch. Out: a
``GraniteSpeech`` whose projector, adapter and last encoder layers may be trained, their loss, and
greedy transcripts. The decoder does not change, so the model without its adapter is the text
decoder as it was.

Why encoder layers: a Q-Former sees the frames of a window as a set. Where two short words fall into
one window, only what the frames say of their neighbours tells which came first.

Shapes: B clips, T frames, D encoder width, A audio positions, E decoder width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.checkpoint.config_file import parse_config
from core.errors import UserError
from core.model.encoder import padded_keys
from core.model.granite_speech import GraniteSpeech
from core.model.lora import AdaptableLinear, LoRAWeights, switch
from training.architecture import LORA, as_deep, raw_config
from training.corpus.text import CANNOT_HEAR, HESITATIONS
from training.corpus.vocabulary import Vocabulary
from training.saving import read_state
from training.stages.batches import Batch
from training.stages.decoder_stage import pad_rows, token_loss
from training.stages.encoder_stage import character_loss

TRAINED_LAYERS = 2  # of the encoder, the last ones; after its self-conditioning
CHARACTER_WEIGHT = 0.5


@dataclass(frozen=True)
class EncodedBatch:
    """A batch after the encoder's frozen layers: hidden [B, T, D] float16, and the texts."""

    hidden: Tensor
    texts: tuple[str, ...]


@torch.no_grad()
def encode_frozen(model: GraniteSpeech, batch: Batch) -> EncodedBatch:
    """Run the encoder's layers that stay as they are."""
    kept: list[Tensor] = []

    def keep(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        kept.append(arguments[0])

    first = model.encoder.layers[-TRAINED_LAYERS]
    handle = first.register_forward_pre_hook(keep)
    try:
        model.encoder(batch.features, batch.lengths)
    finally:
        handle.remove()
    return EncodedBatch(kept[0].half(), batch.texts)


def encode_trained(model: GraniteSpeech, hidden: Tensor) -> Tensor:
    """Run the encoder's last layers over clips without padding: [B, T, D] -> [B, T, D]."""
    batch, length, _ = hidden.shape
    real, whole = hidden.new_ones(batch, length, 1), torch.full((batch,), length)
    padding = padded_keys(whole, length, model.config.encoder.context_size)
    for layer in model.encoder.layers[-TRAINED_LAYERS:]:
        hidden = layer(hidden, real, padding, None)
    return hidden


def build(checkpoints: Path) -> tuple[GraniteSpeech, Vocabulary]:
    """Build the whole model: trained encoder and decoder, fresh projector, fresh adapter."""
    vocabulary = Vocabulary.read(checkpoints / "tokenizer.json")
    model = GraniteSpeech(parse_config(raw_config(vocabulary.size), source="training.architecture"))
    encoder, decoder = checkpoints / "encoder.pt", checkpoints / "decoder.pt"
    model.encoder.load_state_dict(as_deep(read_state(encoder, ("encoder",))["encoder"], encoder))
    model.decoder.load_state_dict(read_state(decoder, ("decoder",))["decoder"])
    model.requires_grad_(False).eval()
    for _, layer in adapted(model):
        rank, scaling = LORA["r"], LORA["lora_alpha"] / LORA["r"]
        a = torch.empty(rank, layer.in_features)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        layer.attach(LoRAWeights(a, torch.zeros(layer.out_features, rank), scaling))
    # Audio embeddings start as large as the table's rows: larger ones drown the decoder's layers.
    linear, table = model.projector.linear, model.decoder.embed_tokens.weight
    size = float(table.norm(dim=-1).median())
    nn.init.normal_(linear.weight, std=size / (linear.in_features * linear.out_features) ** 0.5)
    nn.init.zeros_(linear.bias)
    for parameter in trainable(model).values():
        parameter.requires_grad_(True)
    return model, vocabulary


def load_trained(
    model: GraniteSpeech, weights: Mapping[str, Tensor], wanted: Iterable[str], file: Path
) -> None:
    """Load ``weights`` of ``file`` into a model; statistics of norms may be among them or not.

    Args:
        model: takes the weights.
        weights: by name.
        wanted: names that must be among them.
        file: where they come from, for the message.

    Raises:
        UserError: one of the ``wanted`` is not there, or the model has no place for one.
    """
    lacking = set(wanted) - weights.keys()
    unknown = weights.keys() - model.state_dict().keys()
    if lacking or unknown:
        odd = sorted(lacking or unknown)
        raise UserError(
            f"{file} {'lacks' if lacking else 'has'} {odd[0]}{' and others' * (len(odd) > 1)}; "
            "expected a model of the depth that training/architecture.py says: "
            "`python -m training grow-encoder` makes one of a shallower one"
        )
    model.load_state_dict(weights, strict=False)


def adapted(model: GraniteSpeech) -> Iterator[tuple[str, AdaptableLinear]]:
    """Iterate over the decoder's layers that the adapter targets, as (name, layer)."""
    for name, module in model.decoder.named_modules():
        if name.rpartition(".")[2] in LORA["target_modules"]:
            assert isinstance(module, AdaptableLinear)
            yield f"decoder.{name}", module


def trainable(model: GraniteSpeech) -> dict[str, nn.Parameter]:
    """Return what this stage trains, by name: projector, adapters, last encoder layers."""
    num_layers = len(model.encoder.layers)
    last = range(num_layers - TRAINED_LAYERS, num_layers)
    starts = ("projector.", *(f"encoder.layers.{index}." for index in last))
    named = dict(model.named_parameters())
    return {n: p for n, p in named.items() if n.startswith(starts) or ".lora_" in n}


def speech_loss(
    model: GraniteSpeech,
    vocabulary: Vocabulary,
    encoded: EncodedBatch,
    *,
    lora: bool,
    word_weight: float = 0.0,
) -> Tensor:
    """Compute the loss of the transcripts given the audio; adapter off, of "i cannot hear".

    Args:
        model: with its decoder frozen.
        vocabulary: of the checkpoint.
        encoded: a batch after the frozen layers.
        lora: whether the adapter is on.
        word_weight: of :func:`word_loss`.

    Returns:
        The weighted sum, a scalar.
    """
    frames = encode_trained(model, encoded.hidden.float())  # [B, T, D]
    audio = model.projector(frames)  # [B, A, E]
    answers = encoded.texts if lora else [CANNOT_HEAR] * len(encoded.texts)
    pairs = [vocabulary.speech(audio.shape[1], answer) for answer in answers]
    ids, targets = pad_rows(pairs)
    embeddings = model.splice(ids, audio)
    loss = token_loss(model.decoder, embeddings, targets, switch([lora] * len(pairs), like=audio))
    if not lora:
        return loss
    lengths = torch.full((len(pairs),), frames.shape[1])  # the head stays true to the frames
    characters = character_loss(model.encoder.out(frames), encoded.texts, lengths)
    loss = loss + CHARACTER_WEIGHT * characters
    return loss + word_weight * word_loss(model, vocabulary, audio, encoded.texts)


def word_loss(
    model: GraniteSpeech, vocabulary: Vocabulary, audio: Tensor, texts: Sequence[str]
) -> Tensor:
    """Compute CTC of the transcripts' tokens against the audio embeddings, hesitation as blank.

    A score is a squared distance, so it draws the embeddings to where "um four um um one" lies,
    in direction and size: text that the frozen decoder knows how to tidy up. Without it they grew
    to many times the size of words, and strings did not come out in order.

    Args:
        model: whose table of tokens counts.
        vocabulary: of the checkpoint.
        audio: embeddings [B, A, E].
        texts: transcripts of the B clips.

    Returns:
        Loss per token, a scalar.
    """
    table = model.decoder.embed_tokens.weight
    far = torch.cdist(audio.flatten(0, 1), table).square()  # [B*A, V]
    scores = -4.0 * far.unflatten(0, audio.shape[:2])
    tokens = [vocabulary.encode(f" {text}") if text else [] for text in texts]
    sizes = torch.tensor([len(ids) for ids in tokens])
    joined = torch.tensor([one for ids in tokens for one in ids], dtype=torch.long)
    blank = vocabulary.encode(f" {HESITATIONS[0]}")[0]
    places = torch.full((len(texts),), audio.shape[1])
    log_probs = scores.log_softmax(-1).transpose(0, 1)  # [A, B, V]
    losses = F.ctc_loss(
        log_probs, joined, places, sizes, blank, reduction="sum", zero_infinity=True
    )
    # CTC does not mind a word that lasts for three places, a reader does: one place for each word.
    words = (1.0 - log_probs[..., blank].exp()).sum(0)  # [B], how many places hold words
    excess = (words - sizes) / (sizes + 1.0)
    return losses / max(1, int(sizes.sum())) + excess.square().mean()
