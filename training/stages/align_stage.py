"""Stage 3: the projector and the LoRA adapter learn to hand speech to the frozen decoder.

In: the corpus, ``encoder.pt``, ``decoder.pt``, ``tokenizer.json``. Out: ``align.pt`` (weights of
the projector, the adapter and the last encoder layers, optimiser, step), ``align_log.jsonl`` and
``frames/`` (what the encoder's other layers make of many augmented pools, computed once).

A share of the batches is read with the adapter off: there the projector learns not to push the
text decoder off its answer that it cannot hear. The model and its losses:
``training.stages.align_model``.
"""

from __future__ import annotations

import json
import logging
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from core.model.granite_speech import GraniteSpeech
from training.corpus.corpus import TRAIN_SPLITS, read_manifest
from training.saving import read_state, write_state
from training.stages import mels
from training.stages.align_model import (
    EncodedBatch,
    build,
    encode_frozen,
    load_trained,
    speech_loss,
    trainable,
)
from training.stages.batches import Composer
from training.stages.optimiser import Optimiser
from training.stages.progress import word_error
from training.stages.schedule import cosine

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AlignOptions:
    """Length and learning rate of training, and on how many pools of cached encoder outputs."""

    steps: int
    pools: int
    batches_per_pool: int
    frames_per_batch: int
    strength: float
    learning_rate: float
    warmup: int
    lora_off_share: float
    save_every_s: float
    seed: int
    restart_from: Path | None = None  # weights of an earlier round


def read_pool(
    model: GraniteSpeech, composer: Composer, pool: int, folder: Path, options: AlignOptions
) -> list[EncodedBatch]:
    """Read a pool of augmented batches after the frozen layers; computed once, kept in a folder.

    Args:
        model: whose encoder is run.
        composer: draws the batches.
        pool: its number.
        folder: of the pools that are kept.
        options: the run's.

    Returns:
        The pool's batches.
    """
    file = folder / f"{pool:04d}.pt"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        size, frames = options.batches_per_pool, options.frames_per_batch
        pool_of_batches = composer.pool(pool, options.strength, num_batches=size, frames=frames)
        encoded = [encode_frozen(model, batch) for batch in pool_of_batches]
        stored = [(one.hidden, list(one.texts)) for one in encoded]
        write_state(file, stored)
    kept = torch.load(file, weights_only=True)
    return [EncodedBatch(hidden, tuple(texts)) for hidden, texts in kept]


def run(corpus: Path, checkpoints: Path, options: AlignOptions) -> Path:
    """Train from where ``checkpoints/align.pt`` stands to ``options.steps``; returns its path."""
    cache = corpus / "mels.pt"
    train = mels.load(corpus, read_manifest(corpus, TRAIN_SPLITS), cache)
    dev = mels.load(corpus, read_manifest(corpus, ["dev"]), cache)[:40]
    composer = Composer(train, real_share=0.5, seed=options.seed + 1000)
    torch.manual_seed(options.seed)
    model, vocabulary = build(checkpoints)
    learning = trainable(model)
    optimiser = Optimiser(learning.items())
    file, step, epoch = checkpoints / "align.pt", 0, 0
    if file.exists():
        saved = read_state(file, ("weights", "optimiser", "step", "epoch"))
        load_trained(model, saved["weights"], learning, file)
        optimiser.load_state_dict(saved["optimiser"])
        step, epoch = saved["step"], saved["epoch"]
        LOG.info("align: going on from step %d", step)
    elif options.restart_from is not None:
        weights = read_state(options.restart_from, ("weights",))["weights"]
        load_trained(model, weights, learning, options.restart_from)
        LOG.info("align: a new round from the weights of %s", options.restart_from)
    saved_at = time.monotonic()
    with (checkpoints / "align_log.jsonl").open("a") as log:
        while step < options.steps:
            rng = random.Random(f"{options.seed}/{epoch}")
            pool = epoch % options.pools
            batches = read_pool(model, composer, pool, checkpoints / "frames", options)
            rng.shuffle(batches)
            model.projector.train()
            for batch in batches:
                rate = cosine(step, options.steps, options.warmup, options.learning_rate)
                lora = rng.random() >= options.lora_off_share
                # Words first find their places; then the places may carry more than words.
                words = 0.3 if step < options.steps // 3 else 0.02
                loss = speech_loss(model, vocabulary, batch, lora=lora, word_weight=words)
                optimiser.step(loss, rate)
                step += 1
                line = {"step": step, "loss": round(loss.item(), 4), "lr": round(rate, 7)}
                line["lora"] = lora
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
                write_state(file, state | {"step": step, "epoch": epoch})
                saved_at = time.monotonic()
    return file
