"""Stage 1: the conformer encoder learns to spell what it hears (character CTC).

In: the corpus. Out: ``encoder.pt`` in the checkpoint folder (weights, optimiser, step) and
``encoder_log.jsonl`` (loss per step, word error rate of greedy CTC on "dev" now and then).

The loss is CTC on the last layer plus half of CTC on the middle layer, whose posteriors the later
layers read (arXiv 2104.02724). A label is a character's code point; 0 is blank. Augmentation
starts gently and hardens over the first half: harder from the start did not learn.

A step in bfloat16 takes about three fifths of one in float32 where the processor multiplies
bfloat16 itself. Dropout draws one mask for all frames of a clip: a mask for every frame took a
fifth of a step.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.checkpoint.config_file import parse_config
from core.model.ctc import BLANK, read_greedily
from core.model.encoder import ConformerBlock, ConformerEncoder, padded_length
from core.text.word_errors import error_rate
from training.architecture import as_deep, raw_config
from training.corpus.corpus import TRAIN_SPLITS, read_manifest
from training.saving import read_state, write_state
from training.stages import mels
from training.stages.batches import Batch, Composer
from training.stages.mels import MelClip
from training.stages.optimiser import Optimiser
from training.stages.schedule import augmentation_strength, cosine

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncoderOptions:
    """Length and learning rate of training."""

    steps: int
    frames_per_batch: int
    learning_rate: float
    warmup: int
    save_every_s: float
    seed: int
    restart_from: Path | None = None  # weights of an earlier round: a new schedule, half hard at 0
    real_share: float = 0.4  # of the clips, recordings of people
    joined: bool = False  # several lines of a voice in one clip
    bf16: bool = False


class ClipDropout(nn.Dropout):
    """Drops the same channels in all frames of a clip: [B, T, D] -> [B, T, D]."""

    def forward(self, input: Tensor) -> Tensor:
        """Set channels to nought in training; return clips as they are otherwise."""
        if not self.training or self.p == 0.0:
            return input
        kept = input.new_ones(input.shape[0], *[1] * (input.ndim - 2), input.shape[-1])
        return input * F.dropout(kept, self.p)


def new_encoder() -> ConformerEncoder:
    """Build the bundled checkpoint's encoder with fresh weights."""
    config = parse_config(raw_config(vocab_size=512), source="training.architecture")
    encoder = ConformerEncoder(config.encoder)
    for layer in encoder.layers:
        assert isinstance(layer, ConformerBlock)
        nn.init.normal_(layer.attn.rel_pos_emb.weight, std=0.02)
    drop_by_clip(encoder)
    return encoder


def drop_by_clip(model: nn.Module) -> None:
    """Replace every dropout of a module by one that draws a mask for each clip."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, ClipDropout(child.p))


def labels(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Convert characters to code points: all labels in turn [L], and each text's count."""
    joined = torch.tensor([ord(char) for said in texts for char in said], dtype=torch.long)
    return joined, torch.tensor([len(said) for said in texts])


def ctc_loss(encoder: ConformerEncoder, batch: Batch, *, bf16: bool = False) -> Tensor:
    """Compute a batch's loss per character: last layer plus half of the middle layer."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = encoder(batch.features, batch.lengths)
    last, middle = (
        character_loss(logits.float(), batch.texts, batch.lengths)
        for logits in (output.ctc_logits, output.mid_ctc_logits)
    )
    return last + 0.5 * middle


def character_loss(logits: Tensor, texts: Sequence[str], lengths: Tensor) -> Tensor:
    """Compute CTC of the texts, per character: logits [B, T, V], lengths [B]."""
    targets, sizes = labels(texts)
    log_probs = logits.log_softmax(-1).transpose(0, 1)  # [T, B, V]
    losses = F.ctc_loss(
        log_probs, targets, lengths, sizes, BLANK, reduction="sum", zero_infinity=True
    )
    return losses / max(1, int(sizes.sum()))


@torch.inference_mode()
def transcribe(encoder: ConformerEncoder, clips: Sequence[MelClip]) -> list[tuple[str, str]]:
    """Transcribe clips by greedy CTC, one at a time: (reference, text) of each."""
    encoder.eval()
    pairs = []
    for one in clips:
        frames = mels.features(one.power())
        length = frames.shape[0]
        padded = F.pad(frames, (0, 0, 0, padded_length(length, 200) - length))
        logits = encoder(padded[None], torch.tensor([length])).ctc_logits[0, :length]
        pairs.append((one.text, read_greedily(logits)))
    encoder.train()
    return pairs


def run(corpus: Path, checkpoints: Path, options: EncoderOptions) -> Path:
    """Train from where ``checkpoints/encoder.pt`` stands to ``options.steps``; returns its path."""
    checkpoints.mkdir(parents=True, exist_ok=True)
    cache = corpus / "mels.pt"
    train = mels.load(corpus, read_manifest(corpus, TRAIN_SPLITS), cache)
    dev = mels.load(corpus, read_manifest(corpus, ["dev"]), cache)[:80]
    share, joined = options.real_share, options.joined
    composer = Composer(train, real_share=share, seed=options.seed, joined=joined)
    torch.manual_seed(options.seed)
    encoder = new_encoder()
    optimiser = Optimiser(encoder.named_parameters())
    file, step, pool = checkpoints / "encoder.pt", 0, 0
    if file.exists():
        saved = read_state(file, ("encoder", "optimiser", "step", "pool"))
        encoder.load_state_dict(as_deep(saved["encoder"], file))
        optimiser.load_state_dict(saved["optimiser"])
        step, pool = saved["step"], saved["pool"]
        LOG.info("encoder: going on from step %d", step)
    elif options.restart_from is not None:
        earlier = read_state(options.restart_from, ("encoder",))["encoder"]
        encoder.load_state_dict(as_deep(earlier, options.restart_from))
        LOG.info("encoder: a new round from the weights of %s", options.restart_from)
    saved_at = time.monotonic()
    with (checkpoints / "encoder_log.jsonl").open("a") as log:
        while step < options.steps:
            least = 0.5 if options.restart_from is not None else 0.0
            strength = max(least, augmentation_strength(step, options.steps))
            for batch in composer.pool(
                pool, strength, num_batches=32, frames=options.frames_per_batch
            ):
                began = time.monotonic()
                rate = cosine(step, options.steps, options.warmup, options.learning_rate)
                loss = ctc_loss(encoder, batch, bf16=options.bf16)
                optimiser.step(loss, rate)
                step += 1
                line = {"step": step, "loss": round(loss.item(), 4), "lr": round(rate, 7)}
                line |= {"clips": len(batch.texts), "s": round(time.monotonic() - began, 3)}
                if dev and (step % 200 == 0 or step == options.steps):
                    line["dev_wer"] = round(error_rate(transcribe(encoder, dev)).percent, 2)
                    LOG.info("encoder: %s", line)
                log.write(json.dumps(line) + "\n")
                log.flush()
                if step >= options.steps:
                    break
            pool += 1
            if step >= options.steps or time.monotonic() - saved_at > options.save_every_s:
                state = {"encoder": encoder.state_dict(), "optimiser": optimiser.state_dict()}
                write_state(file, state | {"step": step, "pool": pool})
                saved_at = time.monotonic()
    return file
