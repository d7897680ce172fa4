"""Attention inside blocks with Shaw's relative positions (arXiv 1803.02155).

In: queries, keys and values by blocks, a table of relative rows and the padding. Out: what each row
attends to; no row sees another block.

Shapes: B batch, T frames in whole blocks of C, N = B * T / C blocks, H heads, d head width, P
largest distance in the table.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from core.model.linear import linear


def split_blocks(x: Tensor, block: int, num_heads: int) -> Tensor:
    """Split x [B, T, H*d], T whole blocks, into heads of blocks [N, H, C, d]."""
    return x.reshape(-1, block, num_heads, x.shape[-1] // num_heads).transpose(1, 2)


def shaw_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, key_is_padding: Tensor, *, few_sizes: bool
) -> Tensor:
    """Attend inside each block, with a score for each distance.

    The position term q_i . r_(i-j) is one matrix product against the 2C-1 relative rows, then a
    shift; nothing of size C x C x d is ever gathered.

    Args:
        q: [N, H, C, d]; k and v likewise.
        k: keys.
        v: values.
        table: [2P+1, d], row P + i - j for query i and key j.
        key_is_padding: [N, 1, 1, C].
        few_sizes: N comes in few values (see ``core.model.linear``).

    Returns:
        [N, H, C, d].
    """
    block, width = q.shape[-2:]
    scale = width**-0.5
    # One product for all blocks and heads; as a batched one it took up to five times as long.
    queries, columns = q.reshape(-1, width), relative_rows(table, block)
    by_column = linear(queries, columns, few_sizes=few_sizes)  # [N*H*C, 2C-1]
    bias = shift_relative(by_column.view(*q.shape[:3], -1)) * scale  # [N, H, C, C]
    bias = bias.masked_fill(key_is_padding, torch.finfo(bias.dtype).min)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


def relative_rows(table: Tensor, block: int) -> Tensor:
    """Select distances C-1 down to -(C-1), [2C-1, d], of ``table`` [2P+1, d], C at most P."""
    middle = table.shape[0] // 2
    return table[middle - block + 1 : middle + block].flip(0)


def shift_relative(scores: Tensor) -> Tensor:
    """Shift scores by relative column [..., C, 2C-1] to scores by key.

    out[i, j] = scores[i, j - i + C - 1]: in memory each row begins one column before the one above
    it, which a stride says without moving anything.

    Source: the relative shift of Transformer-XL (arXiv 1901.02860, appendix B).

    Returns:
        [..., C, C], a view.
    """
    block, columns = scores.shape[-2:]
    scores = scores.contiguous()
    first = scores[..., block - 1 :]  # where the view begins
    return first.as_strided((*scores.shape[:-1], block), (*scores.stride()[:-2], columns - 1, 1))
