"""The trainable parts of a loaded model, and the loss.

In: a loaded checkpoint (float32), a :class:`TrainablePlan`, batches. Out: parameters by name,
losses.

The checkpoint's own adapter, where it has one, is what makes it transcribe: the new adapter begins
as a copy of it, with ``rank`` more columns that begin at no effect. So the first step is taken from
the model as it is, and the result needs nothing but the base checkpoint.

Shapes: B clips, T frames at 50 Hz, F features, P prompt and answer length, V vocabulary, r rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from core.errors import UserError
from core.lab import Lab
from core.model.ctc import BLANK
from core.model.granite_speech import GraniteSpeech
from core.model.lora import AdaptableLinear, LoRAWeights, switch
from training.finetune.data import SpeechBatch
from training.stages.decoder_stage import IGNORE

PARTS = ("lora", "projector", "encoder", "embeddings")


@dataclass(frozen=True)
class TrainablePlan:
    """The trainable parameters.

    parts: of :data:`PARTS`. rank and alpha: of the columns added to the adapter. modules: names of
    the decoder's linear layers that get it. encoder_layers: how many of the encoder's last layers
    are trained, None for the whole encoder.
    """

    parts: tuple[str, ...]
    rank: int
    alpha: float
    modules: tuple[str, ...]
    encoder_layers: int | None

    def __post_init__(self) -> None:
        wrong = [part for part in self.parts if part not in PARTS]
        if wrong or not self.parts:
            came = repr(wrong[0]) if wrong else "nothing"
            raise UserError(f"--train has {came}; expected some of {', '.join(PARTS)}")
        if self.rank < 0 or ("lora" in self.parts and self.rank < 1):
            raise UserError(f"--rank is {self.rank}; expected at least 1")
        if not self.alpha > 0:
            raise UserError(f"--alpha is {self.alpha}; expected more than 0")
        if self.encoder_layers is not None and self.encoder_layers < 1:
            raise UserError(f"--encoder-layers is {self.encoder_layers}; expected at least 1")


def new_lora(model: GraniteSpeech, plan: TrainablePlan, seed: int) -> dict[str, LoRAWeights]:
    """Make the adapter that training begins with: the model's own, and new columns.

    Returns:
        Weights by layer.

    Raises:
        UserError: no layer of the decoder has one of the names.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, LoRAWeights] = {}
    hit: set[str] = set()
    for name, layer in model.named_modules():
        if not isinstance(layer, AdaptableLinear):
            continue
        last = name.rpartition(".")[2]
        chosen = "lora" in plan.parts and name.startswith("decoder.") and last in plan.modules
        if chosen:
            hit.add(last)
        if chosen or layer.has_adapter:
            found[name] = _grown(layer, plan if chosen else None, generator)
    missing = [name for name in plan.modules if name not in hit]
    if "lora" in plan.parts and missing:
        here = sorted(
            {
                name.rpartition(".")[2]
                for name, layer in model.decoder.named_modules()
                if isinstance(layer, AdaptableLinear)
            }
        )
        raise UserError(
            f"--modules has {missing[0]!r}, which the decoder lacks; it has {', '.join(here)}"
        )
    return found


def _grown(
    layer: AdaptableLinear, plan: TrainablePlan | None, generator: torch.Generator
) -> LoRAWeights:
    """Join the layer's own adapter (if any) and ``plan.rank`` new columns (if any)."""
    like = layer.weight
    old_a, old_b = like.new_zeros(0, layer.in_features), like.new_zeros(layer.out_features, 0)
    if layer.lora_a is not None and layer.lora_b is not None:
        old_a, old_b = layer.lora_a.detach().clone(), layer.lora_b.detach().clone()
    if plan is None:
        return LoRAWeights(old_a, old_b, layer.lora_scaling)
    a = torch.empty(plan.rank, layer.in_features)
    nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)  # as PEFT begins
    scaling = plan.alpha / plan.rank
    b = like.new_zeros(layer.out_features, plan.rank)
    old_b = old_b * (layer.lora_scaling / scaling)
    return LoRAWeights(torch.cat([old_a, a.to(like)]), torch.cat([old_b, b], dim=1), scaling)


def full_modules(model: GraniteSpeech, plan: TrainablePlan) -> list[str]:
    """List the modules that are trained whole, beside the adapter."""
    names = ["projector"] if "projector" in plan.parts else []
    if "embeddings" in plan.parts:
        names.append("decoder.embed_tokens")
        names += [] if model.decoder.lm_head is None else ["decoder.lm_head"]
    if "encoder" in plan.parts:
        total = len(model.encoder.layers)
        count = total if plan.encoder_layers is None else min(plan.encoder_layers, total)
        if plan.encoder_layers is None:
            return [*names, "encoder"]
        names += [f"encoder.layers.{index}" for index in range(total - count, total)]
        names.append("encoder.out")  # reads the characters off those layers
    return names


def trainable(model: GraniteSpeech, plan: TrainablePlan) -> dict[str, nn.Parameter]:
    """Select the parameters that are trained, by name; everything else is frozen here."""
    model.requires_grad_(False).eval()
    chosen: dict[str, nn.Parameter] = {}
    for name in full_modules(model, plan):
        module = model.get_submodule(name)
        chosen |= {f"{name}.{key}": value for key, value in module.named_parameters()}
    if "lora" in plan.parts:
        chosen |= {n: p for n, p in model.named_parameters() if n.endswith((".lora_a", ".lora_b"))}
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    return chosen


def hold_rows(learning: Mapping[str, nn.Parameter], ids: Collection[int]) -> None:
    """Keep the table's (and the head's) rows of these tokens as they are, whatever else learns.

    Words the model writes already are where the rest of the decoder expects them.
    """
    for name in ("decoder.embed_tokens.weight", "decoder.lm_head.weight"):
        if name in learning and ids:
            rows = torch.tensor(sorted(ids), device=learning[name].device)
            learning[name].register_hook(lambda grad, rows=rows: grad.index_fill(0, rows, 0.0))


def training_mode(model: GraniteSpeech, plan: TrainablePlan) -> None:
    """Turn dropout on in what is trained; batch statistics stay the checkpoint's.

    A few clips of one user are no sample of speech, and padding would count among them.
    """
    model.eval()
    for name in full_modules(model, plan):
        model.get_submodule(name).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()


@dataclass(frozen=True)
class Losses:
    """Sums over a batch: words over the answers' tokens, characters over the texts' characters."""

    words: Tensor
    characters: Tensor


def losses(lab: Lab, batch: SpeechBatch, *, characters: bool, save_memory: bool = False) -> Losses:
    """Compute cross-entropy of the answers given the sound, and CTC of their characters.

    Args:
        lab: the loaded model with the adapter that is trained.
        batch: clips, prompts and answers.
        characters: whether the CTC loss is wanted; the encoder's head then stays true.
        save_memory: compute the layers' activations again in the backward pass.

    Returns:
        Both, summed over the batch.
    """
    model, count = lab.model, batch.ids.shape[0]
    run = _recomputed if save_memory else _as_it_is
    on = switch([True] * count, like=batch.features)
    encoded = model.encoder(batch.features, batch.lengths, on, run)
    audio = model.projector(encoded.frames, on)
    embeddings = model.splice(batch.ids, audio)
    positions = torch.arange(batch.ids.shape[1], device=batch.ids.device).expand(count, -1)
    hidden = model.decoder(embeddings, positions, None, on, run)
    counted = batch.targets != IGNORE
    scores = model.decoder.logits(hidden[counted], None if _head_is_plain(model) else on[:1, 0])
    words = F.cross_entropy(scores, batch.targets[counted], reduction="sum")
    ctc = words.new_zeros(())
    if characters:
        log_probs = encoded.ctc_logits.float().log_softmax(-1).transpose(0, 1)  # [T, B, V]
        ctc = F.ctc_loss(
            log_probs,
            batch.labels,
            batch.lengths,
            batch.label_counts,
            BLANK,
            reduction="sum",
            zero_infinity=True,
        )
    return Losses(words, ctc)


def _head_is_plain(model: GraniteSpeech) -> bool:
    head = model.decoder.lm_head
    return head is None or not head.has_adapter


def _as_it_is(layer: Callable[..., Tensor], *arguments: Any) -> Tensor:
    return layer(*arguments)


def _recomputed(layer: Callable[..., Tensor], *arguments: Any) -> Tensor:
    return checkpoint(layer, *arguments, use_reentrant=False)
