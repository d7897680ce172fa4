"""Stage 4: everything but the decoder learns together, on audio that is new in every batch.

In: the corpus and what stages 1 to 3 left. Out: ``joint.pt`` (weights of encoder, projector and
adapter, optimiser, step) and ``joint_log.jsonl``. ``pack`` prefers it to ``align.pt``.

Stage 3 reads the same encoder outputs again and again, which makes a step cheap and in the end
teaches those clips by heart: its loss on them went to nothing, on other voices it did not. A step
here costs twice as much and meets every clip once. The decoder stays frozen, so the model without
its adapter is still the text decoder as it was.

``torchrun --nproc-per-node 2 -m training ... joint`` trains with two processes, a core each: as
many steps, twice the audio in each (:mod:`training.stages.distributed`).
"""

from __future__ import annotations

import json
import logging
import os
import random
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from core.model.granite_speech import GraniteSpeech
from core.model.lora import switch
from training.corpus.corpus import TRAIN_SPLITS, read_manifest
from training.corpus.text import CANNOT_HEAR
from training.corpus.vocabulary import Vocabulary
from training.saving import read_state, write_state
from training.stages import mels
from training.stages.align_model import build, load_trained, trainable, word_loss
from training.stages.batches import Batch, Composer
from training.stages.decoder_stage import pad_rows, token_loss
from training.stages.distributed import ProcessGroup, join_process_group
from training.stages.encoder_stage import character_loss, drop_by_clip
from training.stages.optimiser import Optimiser
from training.stages.progress import word_error
from training.stages.schedule import cosine

LOG = logging.getLogger(__name__)
CHARACTERS, MIDDLE_CHARACTERS = 0.5, 0.25  # weights beside the transcripts' loss
WORDS_FIRST, WORDS = 0.3, 0.02  # words first find their places; then these may carry more
NUM_DEV = 60
POOL = 32  # batches of a pool; one that makes more of its clips drops the rest
SLOW = (("projector.linear", 0.15), ("encoder.", 0.4))


@dataclass(frozen=True)
class JointOptions:
    """Length and learning rate of training. lora_off_share: of batches with the adapter off."""

    steps: int
    frames_per_batch: int
    learning_rate: float
    warmup: int
    lora_off_share: float
    save_every_s: float
    seed: int
    placing: int = 0  # steps in which words first find their places
    real_share: float = 0.4  # of the clips, recordings of people
    bf16: bool = False


def learned(model: GraniteSpeech) -> dict[str, nn.Parameter]:
    """Return what this stage trains, by name: the encoder, the projector, the adapters."""
    encoder = {f"encoder.{name}": value for name, value in model.encoder.named_parameters()}
    return encoder | trainable(model)


def joint_loss(
    model: GraniteSpeech,
    vocabulary: Vocabulary,
    batch: Batch,
    *,
    lora: bool,
    word_weight: float = WORDS,
    bf16: bool = False,
) -> dict[str, Tensor]:
    """Compute the losses of a batch; adapter off, of the answer "i cannot hear".

    Args:
        model: encoder to decoder, the decoder frozen.
        vocabulary: of the checkpoint.
        batch: clips without padding.
        lora: whether the adapter is on.
        word_weight: of the CTC loss of words.
        bf16: compute in bfloat16.

    Returns:
        Losses by name; "total" is what is minimised.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = model.encoder(batch.features, batch.lengths)
        audio = model.projector(output.frames).float()  # [B, A, E]
    answers = batch.texts if lora else [CANNOT_HEAR] * len(batch.texts)
    ids, targets = pad_rows([vocabulary.speech(audio.shape[1], answer) for answer in answers])
    embeddings = model.splice(ids, audio)
    on = switch([lora] * len(answers), like=audio)
    text = token_loss(model.decoder, embeddings, targets, on, bf16=bf16)
    characters, middle = (
        character_loss(logits.float(), batch.texts, batch.lengths)
        for logits in (output.ctc_logits, output.mid_ctc_logits)
    )
    total = text + CHARACTERS * characters + MIDDLE_CHARACTERS * middle
    if lora:
        total = total + word_weight * word_loss(model, vocabulary, audio, batch.texts)
    return {"total": total, "text": text, "characters": characters}


def run(corpus: Path, checkpoints: Path, options: JointOptions) -> Path:
    """Train from where ``joint.pt`` (or else ``align.pt``) stands; returns ``joint.pt``."""
    with join_process_group() as processes:
        return _run(corpus, checkpoints, options, processes)


def _run(corpus: Path, checkpoints: Path, options: JointOptions, processes: ProcessGroup) -> Path:
    composer, dev = _material(corpus, options, processes)
    torch.manual_seed(options.seed)
    model, vocabulary = build(checkpoints)
    aligned = checkpoints / "align.pt"
    load_trained(model, read_state(aligned, ("weights",))["weights"], trainable(model), aligned)
    learning = learned(model)
    for parameter in learning.values():
        parameter.requires_grad_(True)
    drop_by_clip(model.encoder)
    optimiser = Optimiser(learning.items(), SLOW)
    file = checkpoints / "joint.pt"
    step, pool = _resume(file, model, optimiser)
    processes.broadcast_values([value.data for value in learning.values()])
    torch.manual_seed(options.seed + processes.rank)  # dropout of its own
    saved_at = time.monotonic()
    log_file = checkpoints / "joint_log.jsonl" if processes.is_leader else os.devnull
    with open(log_file, "a") as log:
        while step < options.steps:
            # What all processes do alike follows from the pool's number.
            rng = random.Random(f"{options.seed}/{pool}")
            strength, frames = rng.uniform(0.6, 1.0), options.frames_per_batch
            _train_mode(model)
            batches = composer.pool(
                processes.pool_for(pool), strength, num_batches=POOL, frames=frames
            )
            for batch in islice(batches, POOL):
                rate = cosine(step, options.steps, options.warmup, options.learning_rate)
                lora = rng.random() >= options.lora_off_share
                words = WORDS_FIRST if step < options.placing else WORDS
                losses = joint_loss(
                    model, vocabulary, batch, lora=lora, word_weight=words, bf16=options.bf16
                )
                optimiser.step(losses["total"], rate, processes)
                step += 1
                line = {"step": step, "lr": round(rate, 7), "lora": lora}
                line |= {name: round(loss.item(), 4) for name, loss in losses.items()}
                if processes.is_leader and dev and (step % 300 == 0 or step == options.steps):
                    line["dev_wer"] = round(word_error(model, vocabulary, dev, lora=True), 2)
                    LOG.info("joint: %s", line)
                    _train_mode(model)
                log.write(json.dumps(line) + "\n")
                log.flush()
                if step >= options.steps:
                    break
            pool += 1
            late = time.monotonic() - saved_at > options.save_every_s
            if processes.is_leader and (step >= options.steps or late):
                state = {"weights": _weights(model, learning), "optimiser": optimiser.state_dict()}
                write_state(file, state | {"step": step, "pool": pool})
                saved_at = time.monotonic()
    return file


def _material(
    corpus: Path, options: JointOptions, processes: ProcessGroup
) -> tuple[Composer, list[mels.MelClip]]:
    """Prepare what draws batches, and the clips that progress is measured by."""
    cache = corpus / "mels.pt"
    with processes.leader_first():
        train = mels.load(corpus, read_manifest(corpus, TRAIN_SPLITS), cache)
        dev = mels.load(corpus, read_manifest(corpus, ["dev"]), cache)[:NUM_DEV]
    share, seed = options.real_share, options.seed + 2000
    return Composer(train, real_share=share, seed=seed, joined=True), dev


def _resume(file: Path, model: GraniteSpeech, optimiser: Optimiser) -> tuple[int, int]:
    """Take over what ``file`` holds, if it is there; returns the next step and pool."""
    if not file.exists():
        return 0, 0
    saved = read_state(file, ("weights", "optimiser", "step", "pool"))
    load_trained(model, saved["weights"], learned(model), file)
    optimiser.load_state_dict(saved["optimiser"])
    LOG.info("joint: going on from step %d", saved["step"])
    return saved["step"], saved["pool"]


def _train_mode(model: GraniteSpeech) -> None:
    model.encoder.train()
    model.projector.train()


def _weights(model: GraniteSpeech, learning: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return what was trained, and the statistics of the encoder's batch norms."""
    gathered = {f"encoder.{name}": value for name, value in model.encoder.named_buffers()}
    return {name: value.detach() for name, value in learning.items()} | gathered
