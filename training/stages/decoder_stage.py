"""Stage 2: the text decoder learns to be a text model that knows digits, and that it cannot hear.

In: the grammar. Out: ``tokenizer.json`` and ``decoder.pt`` in the checkpoint folder, and
``decoder_log.jsonl`` (loss per step, share of exactly right answers now and then).

It repeats, tidies, writes, reverses and counts digits, all in the chat markup. Asked to transcribe,
with digits, random embeddings or nothing in the audio positions, it says that it cannot hear: that
is what a speech checkpoint of this family answers with its adapter off, and it makes the adapter's
work visible. Shapes: B texts, P tokens, E width.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.checkpoint.config_file import parse_config
from core.model.decoder import DecoderLayer, GraniteDecoder
from training.architecture import raw_config
from training.corpus.domains import DOMAINS
from training.corpus.text import CANNOT_HEAR, TRANSCRIBE, Exchange
from training.corpus.vocabulary import END_ID, Vocabulary, train_tokenizer
from training.saving import read_state, write_state
from training.stages.optimiser import Optimiser
from training.stages.progress import exact
from training.stages.schedule import cosine

LOG = logging.getLogger(__name__)
IGNORE = -100
NUM_CHECKS = 60  # exchanges answered now and then, to see how many are exactly right


@dataclass(frozen=True)
class DecoderOptions:
    """Length and learning rate of training."""

    steps: int
    texts_per_batch: int
    learning_rate: float
    warmup: int
    save_every_s: float
    seed: int
    restart_from: Path | None = None  # weights of an earlier round
    domain: str = "digits"
    bf16: bool = False


def new_decoder(vocab_size: int) -> GraniteDecoder:
    """Build the bundled checkpoint's decoder with fresh weights."""
    config = parse_config(raw_config(vocab_size), source="training.architecture")
    decoder = GraniteDecoder(config.decoder)
    # The family's multipliers shrink what a usual initialisation gives: attention scores by
    # 1 / d in place of 1 / sqrt(d), residual branches by 0.22, logits by 8. Undone here, or the
    # heads that copy words hardly begin to form.
    multiplier = config.decoder.residual_multiplier * (2 * len(decoder.layers)) ** 0.5
    nn.init.normal_(decoder.embed_tokens.weight, std=1.0 / config.decoder.embedding_multiplier)
    nn.init.constant_(decoder.norm.weight, config.decoder.logits_scaling)
    with torch.no_grad():
        for layer in decoder.layers:
            assert isinstance(layer, DecoderLayer)
            layer.self_attn.q_proj.weight.mul_(config.decoder.head_dim**0.25)
            layer.self_attn.k_proj.weight.mul_(config.decoder.head_dim**0.25)
            layer.self_attn.o_proj.weight.div_(multiplier)
            layer.mlp.down_proj.weight.div_(multiplier)
    return decoder


def pad_rows(
    pairs: Sequence[tuple[list[int], list[int]]], pad: int = END_ID
) -> tuple[Tensor, Tensor]:
    """Pad (prompt, answer) ids to ids [B, P] and next-token targets [B, P] of the answers."""
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs)
    ids = torch.full((len(pairs), longest), pad)
    targets = torch.full((len(pairs), longest), IGNORE)
    for row, (prompt, answer) in enumerate(pairs):
        whole = torch.tensor(prompt + answer)
        ids[row, : len(whole)] = whole
        targets[row, len(prompt) - 1 : len(whole) - 1] = torch.tensor(answer)
    return ids, targets


def token_loss(
    decoder: GraniteDecoder,
    embeddings: Tensor,
    targets: Tensor,
    lora: Tensor | None,
    *,
    bf16: bool = False,
) -> Tensor:
    """Compute the mean cross-entropy of the answers.

    Args:
        decoder: the model.
        embeddings: [B, P, E].
        targets: [B, P], IGNORE where nothing counts.
        lora: the adapter's switch, None for none.
        bf16: compute in bfloat16.

    Returns:
        A scalar.
    """
    positions = torch.arange(embeddings.shape[1]).expand(embeddings.shape[0], -1)
    counted = targets != IGNORE
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        hidden = decoder(embeddings, positions, None, lora)
        logits = decoder.logits(hidden[counted], lora)
    return F.cross_entropy(logits.float(), targets[counted])


def draw(
    vocabulary: Vocabulary, count: int, rng: random.Random, domain: str = "digits"
) -> list[tuple[list[int], list[int]]]:
    """Draw exchanges; a tenth ask to transcribe, with digits or audio positions before it.

    Args:
        vocabulary: of the checkpoint.
        count: how many.
        rng: draws them.
        domain: a name of DOMAINS.

    Returns:
        Ids of prompt and answer, an exchange each.
    """
    pairs = []
    for _ in range(count):
        one = DOMAINS[domain].exchange(rng)
        kind = rng.random()
        if kind < 0.07:
            pairs.append(vocabulary.speech(rng.randint(1, 140), CANNOT_HEAR))
            continue
        if kind < 0.10:
            one = Exchange(one.answer + TRANSCRIBE, CANNOT_HEAR)
        pairs.append(vocabulary.exchange(one))
    return pairs


def batch_at(
    vocabulary: Vocabulary, step: int, count: int, seed: int, domain: str = "digits"
) -> list[tuple[list[int], list[int]]]:
    """Draw the exchanges of a step: one of four batches drawn together and sorted by length.

    Texts of like length share a batch, so that little of it is padding.

    Args:
        vocabulary: of the checkpoint.
        step: its number.
        count: exchanges.
        seed: of the run.
        domain: a name of DOMAINS.

    Returns:
        Ids of prompt and answer, an exchange each.
    """
    rng = random.Random(f"{seed}/{step // 4}")
    pairs = draw(vocabulary, 4 * count, rng, domain)
    pairs.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
    place = rng.sample(range(4), 4)[step % 4]
    return pairs[place * count : (place + 1) * count]


def embed(decoder: GraniteDecoder, ids: Tensor, audio_id: int, rng: torch.Generator) -> Tensor:
    """Embed ids; audio positions hold noise, or blends of other tokens and noise.

    Args:
        decoder: whose table is read.
        ids: [B, P].
        audio_id: the token of audio positions.
        rng: draws the noise.

    Returns:
        Embeddings [B, P, E].
    """
    table = decoder.embed_tokens.weight
    embeddings = decoder.embed_tokens(ids)
    is_audio = ids == audio_id
    count = int(is_audio.sum())
    if count == 0:
        return embeddings
    scale = 10.0 ** (-2.0 + 2.0 * torch.rand((ids.shape[0], 1), generator=rng))
    scale = scale.expand_as(ids)[is_audio][:, None]  # [count, 1], one for each clip
    noise = scale * torch.randn((count, table.shape[1]), generator=rng)
    picked = table[torch.randint(0, table.shape[0], (count,), generator=rng)].detach()
    share = torch.rand((ids.shape[0], 1), generator=rng).round().expand_as(ids)[is_audio][:, None]
    embeddings = embeddings.clone()
    embeddings[is_audio] = noise + share * picked
    return embeddings


def run(checkpoints: Path, options: DecoderOptions) -> Path:
    """Train from where ``checkpoints/decoder.pt`` stands to ``options.steps``; returns its path."""
    checkpoints.mkdir(parents=True, exist_ok=True)
    tokenizer_file = checkpoints / "tokenizer.json"
    if not tokenizer_file.exists():
        train_tokenizer(options.seed, domain=options.domain).save(str(tokenizer_file))
    vocabulary = Vocabulary.read(tokenizer_file)
    torch.manual_seed(options.seed)
    decoder = new_decoder(vocabulary.size)
    optimiser = Optimiser(decoder.named_parameters())
    file, step = checkpoints / "decoder.pt", 0
    if file.exists():
        saved = read_state(file, ("decoder", "optimiser", "step"))
        decoder.load_state_dict(saved["decoder"])
        optimiser.load_state_dict(saved["optimiser"])
        step = saved["step"]
        LOG.info("decoder: going on from step %d", step)
    elif options.restart_from is not None:
        decoder.load_state_dict(read_state(options.restart_from, ("decoder",))["decoder"])
        LOG.info("decoder: a new round from the weights of %s", options.restart_from)
    saved_at = time.monotonic()
    with (checkpoints / "decoder_log.jsonl").open("a") as log:
        while step < options.steps:
            noise = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
            rate = cosine(step, options.steps, options.warmup, options.learning_rate)
            size, domain = options.texts_per_batch, options.domain
            ids, targets = pad_rows(batch_at(vocabulary, step, size, options.seed, domain))
            embeddings = embed(decoder, ids, vocabulary.audio_id, noise)
            loss = token_loss(decoder, embeddings, targets, None, bf16=options.bf16)
            optimiser.step(loss, rate)
            step += 1
            line = {"step": step, "loss": round(loss.item(), 4), "lr": round(rate, 7)}
            last = step >= options.steps
            if step % 250 == 0 or last:
                line["exact"] = round(exact(decoder, vocabulary, NUM_CHECKS, -1, domain), 3)
                LOG.info("decoder: %s", line)
            log.write(json.dumps(line) + "\n")
            log.flush()
            if last or time.monotonic() - saved_at > options.save_every_s:
                state = {"decoder": decoder.state_dict(), "optimiser": optimiser.state_dict()}
                write_state(file, state | {"step": step})
                saved_at = time.monotonic()
    return file
