"""The weights that a TurboCTC-shaped encoder starts with: those of the bundled model's encoder.

In: a ``ConformerEncoder`` that spells characters, 50 frames a second. Out: a state dict of
``GraniteSpeech5CTC``. The two kinds of block are the same but for the rate of the rows: where rows
are half as many, a convolution's tap and a table's distance stand for two. Left out are layers, the
hidden units of feed-forwards that do least, and what a word needs: its head starts anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from core.model.encoder import ConformerEncoder
from core.model.granite_speech5_ctc import GraniteSpeech5Config, GraniteSpeech5CTC

# Of the encoder's nine, by where they go: the middle, which reads the head, stays in the middle.
LAYERS = (0, 1, 3, 4, 6, 7, 8)
_NAMES = {
    "norm_feed_forward1": "ff1.pre_norm",
    "feed_forward1.linear1": "ff1.up_proj",
    "feed_forward1.linear2": "ff1.down_proj",
    "norm_self_att": "attn.pre_norm",
    "self_attn.q_proj": "attn.to_q",
    "self_attn.o_proj": "attn.to_out",
    "self_attn.rel_pos_emb": "attn.rel_pos_emb",
    "norm_conv": "conv.norm",
    "conv.pointwise_lin1": "conv.up_conv",
    "conv.depthwise_conv": "conv.depth_conv.conv",
    "conv.norm": "conv.batch_norm",
    "conv.pointwise_lin2": "conv.down_conv",
    "norm_feed_forward2": "ff2.pre_norm",
    "feed_forward2.linear1": "ff2.up_proj",
    "feed_forward2.linear2": "ff2.down_proj",
    "norm_out": "post_norm",
}


def start_from(
    trained: ConformerEncoder, config: GraniteSpeech5Config, layers: Sequence[int] = LAYERS
) -> GraniteSpeech5CTC:
    """Build a model whose layers are ``layers`` of a trained encoder."""
    model, encoder = GraniteSpeech5CTC(config), trained.state_dict()
    state = {name.removeprefix("encoder."): value for name, value in model.state_dict().items()}
    mels = state["input_linear.weight"].unflatten(1, (2, 2, -1))  # frame, mel or delta, bin
    mels.zero_()[:, :, 0] = encoder["input_linear.weight"].unflatten(1, (2, -1))
    state["input_linear.bias"].copy_(encoder["input_linear.bias"])
    halvings = 0
    for place, source in enumerate(layers):
        old = _block(encoder, f"layers.{source}.")
        table, size = old["self_attn.rel_pos_emb.weight"], config.max_pos_emb
        old["self_attn.rel_pos_emb.weight"] = fewer_distances(table, size, 2**halvings)
        kernel = old["conv.depthwise_conv.weight"]
        old["conv.depthwise_conv.weight"] = fewer_taps(kernel, 2**halvings)
        for part in ("feed_forward1", "feed_forward2"):
            narrow(old, part, config.feedforward_dim)
        for name, value in old.items():
            state[f"layers.{place}.{name}"].copy_(value)
        halvings += place in config.subsample_layers
    model.encoder.load_state_dict(state)
    return model


def _block(encoder: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    """Take a block's weights, by the names they get."""
    block = {}
    for name, old in _NAMES.items():
        inside = f"{start}{old}."
        for stored, value in encoder.items():
            if stored.startswith(inside):
                block[f"{name}.{stored.removeprefix(inside)}"] = value
    keys, values = encoder[f"{start}attn.to_kv.weight"].chunk(2)
    return block | {"self_attn.k_proj.weight": keys, "self_attn.v_proj.weight": values}


def fewer_distances(table: Tensor, largest: int, step: int) -> Tensor:
    """Take every ``step``-th distance up to ``largest`` of a table [2P+1, d]: [2*largest+1, d]."""
    middle = len(table) // 2
    wanted = torch.arange(-largest, largest + 1) * step
    return table[middle + wanted.clamp(-middle, middle)]


def fewer_taps(kernel: Tensor, step: int) -> Tensor:
    """Add up ``step`` taps each of a kernel [C, 1, K], about its middle; the ends are nought."""
    size = kernel.shape[-1]
    places = ((torch.arange(size) - size // 2) / step).round().long() + size // 2
    return torch.zeros_like(kernel).index_add_(-1, places, kernel)


def narrow(block: dict[str, Tensor], part: str, width: int) -> None:
    """Keep the ``width`` hidden units of a feed-forward with the largest weights, in order."""
    up, bias, down = (f"{part}.{n}" for n in ("linear1.weight", "linear1.bias", "linear2.weight"))
    size = block[up].norm(dim=1) * block[down].norm(dim=0)
    kept = size.topk(width).indices.sort().values
    block[up], block[bias], block[down] = block[up][kept], block[bias][kept], block[down][:, kept]
