"""The sibling: an encoder with a CTC head of words, begun with the bundled model's encoder.

In: the corpus and a trained checkpoint of ``granite_speech``. Out: ``ctc.pt`` (weights, optimiser,
step) and ``ctc_log.jsonl`` in the checkpoint folder. ``torchrun --nproc-per-node 2 -m training ...
ctc`` trains with two processes, a core each (:mod:`training.stages.distributed`).

The loss is CTC of the words on the last layer plus half of CTC on the middle one, which reads the
same head. At first only what is new learns, so that its large gradients spoil nothing.
"""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

import core
from core.checkpoint.config_granite_speech5_ctc import parse_granite_speech5_ctc
from core.generation.ctc_greedy import best_labels, emitted_tokens
from core.model.ctc import BLANK
from core.model.granite_speech5_ctc import GraniteSpeech5CTC
from core.text.word_errors import error_rate
from training.architecture import raw_ctc_config
from training.corpus.corpus import TRAIN_SPLITS, read_manifest
from training.corpus.menu_grammar import vocabulary
from training.corpus.vocabulary import word_tokenizer
from training.saving import read_state, write_state
from training.stages import mels
from training.stages.batches import Batch, Composer
from training.stages.ctc_start import start_from
from training.stages.distributed import ProcessGroup, join_process_group
from training.stages.mels import MelClip
from training.stages.optimiser import Optimiser
from training.stages.schedule import augmentation_strength, cosine

LOG = logging.getLogger(__name__)
MIDDLE = 0.5  # weight of the middle layer's loss
NEW = ("encoder.out.", "encoder.out_mid.")
POOL = 32  # batches of a pool; one that makes more of its clips drops the rest
NUM_DEV = 200


@dataclass(frozen=True)
class CTCOptions:
    """Length and learning rate of training. start: the checkpoint whose encoder it begins with."""

    start: str
    steps: int
    frames_per_batch: int
    learning_rate: float
    warmup: int
    new_first: int  # steps in which only the head learns
    save_every_s: float
    seed: int
    real_share: float
    bf16: bool = False


def menu_tokenizer() -> Tokenizer:
    """Make the tokenizer of the words of voice-menu English."""
    return word_tokenizer(sorted(vocabulary()))


def build(start: str, vocab_size: int) -> GraniteSpeech5CTC:
    """Build the model that training begins with."""
    config = parse_granite_speech5_ctc(raw_ctc_config(vocab_size), "training.architecture")
    return start_from(core.load(start, device="cpu", dtype="float32").model.encoder, config)


def ctc_losses(
    model: GraniteSpeech5CTC, tokenizer: Tokenizer, batch: Batch, *, bf16: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute CTC per word of the last and of the middle layer.

    Args:
        model: whose head both layers read.
        tokenizer: of the words.
        batch: clips without padding.
        bf16: compute in bfloat16.

    Returns:
        Both losses.
    """
    heads: list[Tensor] = []
    handle = model.encoder.out.register_forward_hook(lambda _, __, logits: heads.append(logits))
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            lengths = model(batch.features, batch.lengths).lengths
    finally:
        handle.remove()
    middle, last = (_word_loss(logits.float(), tokenizer, batch.texts, lengths) for logits in heads)
    return last, middle


def _word_loss(
    logits: Tensor, tokenizer: Tokenizer, texts: Sequence[str], lengths: Tensor
) -> Tensor:
    ids = [one.ids for one in tokenizer.encode_batch(list(texts))]
    sizes = torch.tensor([len(one) for one in ids])
    targets = torch.tensor([label for one in ids for label in one], dtype=torch.long)
    lengths = lengths * logits.shape[1] // int(lengths.max())  # the middle may have more rows
    log_probs = logits.log_softmax(-1).transpose(0, 1)  # [T, B, V]
    losses = F.ctc_loss(
        log_probs, targets, lengths, sizes, BLANK, reduction="sum", zero_infinity=True
    )
    return losses / max(1, int(sizes.sum()))


@torch.inference_mode()
def transcribe(
    model: GraniteSpeech5CTC, tokenizer: Tokenizer, clips: Sequence[MelClip]
) -> list[tuple[str, str]]:
    """Transcribe clips by greedy CTC, one at a time: (reference, text) of each."""
    model.eval()
    pairs = []
    for one in clips:
        features = mels.delta_features(one.power())
        missing = max(0, model.config.min_rows - len(features))
        padded = F.pad(features, (0, 0, 0, missing))[None]
        out = model(padded, torch.tensor([len(features)]))
        (tokens,) = emitted_tokens(best_labels(out.logits), out.lengths.tolist())
        pairs.append((one.text, tokenizer.decode([token.token_id for token in tokens])))
    model.train()
    return pairs


def run(corpus: Path, checkpoints: Path, options: CTCOptions) -> Path:
    """Train from where ``ctc.pt`` stands, or from the start; returns its path."""
    with join_process_group() as processes:
        return _run(corpus, checkpoints, options, processes)


def _run(corpus: Path, checkpoints: Path, options: CTCOptions, processes: ProcessGroup) -> Path:
    composer, dev = _material(corpus, options, processes)
    torch.manual_seed(options.seed)
    tokenizer = menu_tokenizer()
    model = build(options.start, tokenizer.get_vocab_size())
    optimiser = Optimiser(model.named_parameters(), slow=())
    checkpoints.mkdir(parents=True, exist_ok=True)
    file, step, pool = checkpoints / "ctc.pt", 0, 0
    if file.exists():
        saved = read_state(file, ("weights", "optimiser", "step", "pool"))
        model.load_state_dict(saved["weights"])
        optimiser.load_state_dict(saved["optimiser"])
        step, pool = saved["step"], saved["pool"]
        LOG.info("ctc: going on from step %d", step)
    model.train()
    saved_at = time.monotonic()
    log_file = checkpoints / "ctc_log.jsonl" if processes.is_leader else os.devnull
    with open(log_file, "a") as log:
        while step < options.steps:
            hardest = augmentation_strength(step, options.steps // 2)
            strength = random.Random(f"{options.seed}/{pool}").uniform(0.6, 1.0) * hardest
            for name, value in model.named_parameters():
                value.requires_grad_(step >= options.new_first or name.startswith(NEW))
            frames = options.frames_per_batch
            batches = composer.pool(
                processes.pool_for(pool), strength, num_batches=POOL, frames=frames
            )
            for batch in islice(batches, POOL):
                began = time.monotonic()
                rate = cosine(step, options.steps, options.warmup, options.learning_rate)
                last, middle = ctc_losses(model, tokenizer, batch, bf16=options.bf16)
                optimiser.step(last + MIDDLE * middle, rate, processes)
                step += 1
                line = {"step": step, "lr": round(rate, 7), "loss": round(last.item(), 4)}
                line |= {"middle": round(middle.item(), 4)}
                line |= {"s": round(time.monotonic() - began, 3)}
                if processes.is_leader and dev and (step % 200 == 0 or step == options.steps):
                    pairs = transcribe(model, tokenizer, dev)
                    line["dev_wer"] = round(error_rate(pairs).percent, 2)
                    LOG.info("ctc: %s", line)
                log.write(json.dumps(line) + "\n")
                log.flush()
                if step >= options.steps:
                    break
            pool += 1
            late = time.monotonic() - saved_at > options.save_every_s
            if processes.is_leader and (step >= options.steps or late):
                state = {"weights": model.state_dict(), "optimiser": optimiser.state_dict()}
                write_state(file, state | {"step": step, "pool": pool})
                saved_at = time.monotonic()
    return file


def _material(
    corpus: Path, options: CTCOptions, processes: ProcessGroup
) -> tuple[Composer, list[MelClip]]:
    """Prepare what draws batches, and the clips that progress is measured by."""
    cache = corpus / "mels.pt"
    with processes.leader_first():
        train = mels.load(corpus, read_manifest(corpus, TRAIN_SPLITS), cache)
        dev = mels.load(corpus, read_manifest(corpus, ["dev"]), cache)
    composer = Composer(
        train,
        real_share=options.real_share,
        seed=options.seed + 3000,
        joined=True,
        to_features=mels.delta_features,
    )
    return composer, dev[:: max(1, len(dev) // NUM_DEV)]
