"""The BPE CTC head that some checkpoints ship: it reads whole tokens of the decoder's vocabulary.

In: encoder frames and the character posteriors of the encoder's middle layer. Out: token ids, as a
draft for the decoder, and how sure each was. Frames are pooled four at a time first, each weighted
by how likely it is no blank.

File: ``out_llm.safetensors`` with ``weight`` [V + 1, D] and ``bias`` [V + 1]; label 0 is blank,
label i is token i - 1. Source: self-speculative decoding with CTC drafts (arXiv 2603.11243).

Shapes: T frames, W windows, D encoder width, V vocabulary.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.checkpoint.safetensors_io import CheckpointError, open_safetensors
from core.model.config import ModelConfig
from core.model.ctc import BLANK

WINDOW = 4
_NEVER_ZERO = 1e-8


class BpeHead(nn.Module):
    """A linear layer over pooled frames; row 0 is blank."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, frames: Tensor, mid_logits: Tensor) -> Tensor:
        """One clip's frames [T, D] and middle character logits [T, C] -> logits [W, V + 1]."""
        return F.linear(
            pool(frames, 1 - mid_logits.softmax(dim=-1)[:, BLANK]), self.weight, self.bias
        )


def pool(frames: Tensor, importance: Tensor) -> Tensor:
    """Means [W, D] of every four frames of [T, D], weighted by ``importance`` [T]."""
    short = -frames.shape[0] % WINDOW
    windows = F.pad(frames, (0, 0, 0, short)).unflatten(0, (-1, WINDOW))  # [W, 4, D]
    weights = F.pad(importance, (0, short)).unflatten(0, (-1, WINDOW))  # [W, 4]
    weights = weights / (weights.sum(dim=-1, keepdim=True) + _NEVER_ZERO)
    return torch.einsum("wfd,wf->wd", windows, weights)


def read_tokens(logits: Tensor) -> list[int]:
    """The best label of each window [W, V + 1], repeats merged, blanks dropped, as token ids."""
    labels = logits.argmax(dim=-1).tolist()
    return [label - 1 for label, _ in groupby(labels) if label != BLANK]


def load_bpe_head(
    file: Path, config: ModelConfig, *, dtype: torch.dtype, device: torch.device
) -> BpeHead:
    """The BPE CTC head of ``out_llm.safetensors``.

    Raises:
        CheckpointError: not a head for this model.
    """
    with open_safetensors(file) as handle:
        stored = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    shape = (config.encoder.hidden_dim,)
    weight, bias = stored.get("weight"), stored.get("bias")
    if set(stored) != {"weight", "bias"} or weight is None or bias is None:
        raise CheckpointError(f"{file.name} holds {sorted(stored)}; expected weight and bias")
    if weight.shape[1:] != shape or bias.shape != weight.shape[:1]:
        raise CheckpointError(
            f"{file.name}: weight {tuple(weight.shape)} and bias {tuple(bias.shape)}; expected "
            f"[labels, {shape[0]}] and [labels]"
        )
    return BpeHead(weight.to(device, dtype), bias.to(device, dtype))
