"""Stage 3: the projector and the LoRA adapter learn to hand speech to the frozen decoder.

In: the corpus, ``encoder.pt``, ``decoder.pt``, ``tokenizer.json``. Out: ``align.pt`` (projector and
adapter weights, optimiser, step), ``align_log.jsonl`` and ``frames/`` (the frozen encoder's outputs
for many augmented pools, computed once).

Encoder and decoder do not change, so the model without its adapter is the text decoder as it was.
A share of the batches is read with the adapter off: there the projector learns not to push the
text decoder off its answer that it cannot hear.

Shapes: B clips, T frames, A audio places, P prompt.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from core.config import parse_config
from core.lora import AdaptableLinear, LoRAWeights, switch
from core.model import GraniteSpeech
from training import mels
from training.architecture import LORA, raw_config
from training.batches import Composer
from training.corpus import TRAIN_SPLITS, read_manifest
from training.decoder_stage import pad_rows, token_loss
from training.mels import Spoken
from training.schedule import cosine
from training.scores import error_rate
from training.text import CANNOT_HEAR
from training.vocabulary import END_ID, Vocabulary

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AlignOptions:
    """How long and how fast to train, and on how many pools of cached encoder outputs."""

    steps: int
    pools: int
    batches_per_pool: int
    frames_per_batch: int
    strength: float
    learning_rate: float
    warmup: int
    deaf_share: float
    save_every_s: float
    seed: int


@dataclass(frozen=True)
class Heard:
    """The frozen encoder's output for a batch: frames [B, T, D] float16, and the texts."""

    frames: Tensor
    texts: tuple[str, ...]


def build(checkpoints: Path) -> tuple[GraniteSpeech, Vocabulary]:
    """The whole model: trained encoder and decoder, fresh projector, fresh adapter."""
    vocabulary = Vocabulary.read(checkpoints / "tokenizer.json")
    model = GraniteSpeech(parse_config(raw_config(vocabulary.size), source="training.architecture"))
    encoder = torch.load(checkpoints / "encoder.pt", weights_only=True)["encoder"]
    decoder = torch.load(checkpoints / "decoder.pt", weights_only=True)["decoder"]
    model.encoder.load_state_dict(encoder)
    model.decoder.load_state_dict(decoder)
    model.requires_grad_(False).eval()
    for _, layer in adapted(model):
        rank, scaling = LORA["r"], LORA["lora_alpha"] / LORA["r"]
        a = torch.empty(rank, layer.in_features)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        layer.attach(LoRAWeights(a, torch.zeros(layer.out_features, rank), scaling))
    for parameter in trainable(model).values():
        parameter.requires_grad_(True)
    return model, vocabulary


def adapted(model: GraniteSpeech) -> Iterator[tuple[str, AdaptableLinear]]:
    """(name, layer) of the decoder's layers that the adapter targets."""
    for name, module in model.decoder.named_modules():
        if name.rpartition(".")[2] in LORA["target_modules"]:
            assert isinstance(module, AdaptableLinear)
            yield f"decoder.{name}", module


def trainable(model: GraniteSpeech) -> dict[str, nn.Parameter]:
    """What this stage trains, by name: the projector and the two halves of every adapter."""
    named = dict(model.named_parameters())
    return {n: p for n, p in named.items() if n.startswith("projector.") or ".lora_" in n}


@torch.inference_mode()
def listen(
    model: GraniteSpeech, composer: Composer, pool: int, options: AlignOptions
) -> list[Heard]:
    """The frozen encoder's outputs for one pool of augmented batches."""
    batches = composer.pool(
        pool,
        options.strength,
        num_batches=options.batches_per_pool,
        frames=options.frames_per_batch,
    )
    return [
        Heard(model.encoder(batch.features, batch.lengths).frames.half(), batch.texts)
        for batch in batches
    ]


def cached(
    model: GraniteSpeech, composer: Composer, pool: int, folder: Path, options: AlignOptions
) -> list[Heard]:
    """``listen``, or what it gave the last time."""
    file = folder / f"{pool:04d}.pt"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        heard = listen(model, composer, pool, options)
        torch.save([(one.frames, list(one.texts)) for one in heard], file.with_suffix(".tmp"))
        file.with_suffix(".tmp").replace(file)
    stored = torch.load(file, weights_only=True)
    return [Heard(frames, tuple(texts)) for frames, texts in stored]


def speech_loss(
    model: GraniteSpeech, vocabulary: Vocabulary, heard: Heard, *, lora: bool
) -> Tensor:
    """Cross-entropy of the transcripts given the audio; adapter off, of "i cannot hear"."""
    audio = model.projector(heard.frames.float())  # [B, A, E]
    answers = heard.texts if lora else [CANNOT_HEAR] * len(heard.texts)
    pairs = [vocabulary.speech(audio.shape[1], answer) for answer in answers]
    ids, targets = pad_rows(pairs)
    embeddings = model.splice(ids, audio)
    return token_loss(model.decoder, embeddings, targets, switch([lora] * len(pairs), like=audio))


@torch.inference_mode()
def transcribe(
    model: GraniteSpeech, vocabulary: Vocabulary, features: Tensor, *, lora: bool, limit: int = 48
) -> str:
    """Greedy transcript of one clip's features [T, 160], without a cache: for checks."""
    length = features.shape[0]
    block = model.config.encoder.context_size
    total = length if length <= block else -(-length // block) * block
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
    model: GraniteSpeech, vocabulary: Vocabulary, dev: list[Spoken], *, lora: bool
) -> float:
    """Word error rate in percent over clips as recorded."""
    model.eval()
    pairs = [
        (one.text, transcribe(model, vocabulary, mels.features(one.power()), lora=lora))
        for one in dev
    ]
    return error_rate(pairs).percent


def run(corpus: Path, checkpoints: Path, options: AlignOptions) -> Path:
    """Train from where ``checkpoints/align.pt`` stands to ``options.steps``; returns its path."""
    cache = corpus / "mels.pt"
    train = mels.load(corpus, read_manifest(corpus, TRAIN_SPLITS), cache)
    dev = mels.load(corpus, read_manifest(corpus, ["dev"]), cache)[:40]
    composer = Composer(train, real_share=0.5, seed=options.seed + 1000)
    torch.manual_seed(options.seed)
    model, vocabulary = build(checkpoints)
    learning = trainable(model)
    optimiser = torch.optim.AdamW(learning.values(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.01)
    file, step, epoch = checkpoints / "align.pt", 0, 0
    if file.exists():
        saved = torch.load(file, weights_only=True)
        model.load_state_dict(saved["weights"], strict=False)
        optimiser.load_state_dict(saved["optimiser"])
        step, epoch = saved["step"], saved["epoch"]
        LOG.info("align: going on from step %d", step)
    saved_at = time.monotonic()
    with (checkpoints / "align_log.jsonl").open("a") as log:
        while step < options.steps:
            rng = random.Random(f"{options.seed}/{epoch}")
            heard = cached(model, composer, epoch % options.pools, checkpoints / "frames", options)
            rng.shuffle(heard)
            model.projector.train()
            for batch in heard:
                rate = cosine(step, options.steps, options.warmup, options.learning_rate)
                hears = rng.random() >= options.deaf_share
                loss = _update(model, vocabulary, optimiser, batch, rate, lora=hears)
                step += 1
                line = {"step": step, "loss": round(loss, 4), "lr": round(rate, 7), "lora": hears}
                if step % 300 == 0 or step == options.steps:
                    line["dev_wer"] = round(word_error(model, vocabulary, dev, lora=True), 2)
                    LOG.info("align: %s", line)
                    model.projector.train()
                log.write(json.dumps(line) + "\n")
                log.flush()
                if step >= options.steps:
                    break
            epoch += 1
            if step >= options.steps or time.monotonic() - saved_at > options.save_every_s:
                weights = {name: value.detach() for name, value in learning.items()}
                state = {"weights": weights, "optimiser": optimiser.state_dict()}
                torch.save(state | {"step": step, "epoch": epoch}, file.with_suffix(".tmp"))
                file.with_suffix(".tmp").replace(file)
                saved_at = time.monotonic()
    return file


def _update(
    model: GraniteSpeech,
    vocabulary: Vocabulary,
    optimiser: torch.optim.Optimizer,
    batch: Heard,
    rate: float,
    *,
    lora: bool,
) -> float:
    """One step of gradient descent; returns the loss."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    loss = speech_loss(model, vocabulary, batch, lora=lora)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(trainable(model).values(), 1.0)
    optimiser.step()
    return loss.item()
