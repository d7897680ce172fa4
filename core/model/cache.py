"""The key/value cache: allocated once, written in place, passed as an argument.

In: keys and values of new positions. Out: the layer's whole buffers. The cache belongs to a
request, never to the model, so two callers cannot meet in it.

Rows of a batch have prompts of different lengths; each row writes at its own positions and a query
sees only slots at or before its own position, so the unwritten (or padding) slots after it are
never read and no further mask is needed.

In memory slots come before rows, whatever the batch: the first slots are then one block, and their
strides say nothing of how many slots there are. Compiled code can count on that for any view.

Shapes: L layers, B batch rows, S slots, T new positions, K key/value heads, d head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.model.config import DecoderConfig


@dataclass(frozen=True)
class KVCache:
    """Keys and values: L tensors [B, S, K, d] each; rows: [B, 1] = 0..B-1."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    rows: Tensor

    @property
    def num_slots(self) -> int:
        """Return how many positions the cache holds."""
        return self.keys[0].shape[1]

    @property
    def num_bytes(self) -> int:
        """Return the bytes allocated."""
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))

    def write(self, layer: int, positions: Tensor, key: Tensor, value: Tensor) -> None:
        """Store keys and values of new positions.

        Args:
            layer: its number.
            positions: [B, T] int64.
            key: [B, T, K, d].
            value: [B, T, K, d].
        """
        self.keys[layer].index_put_((self.rows, positions), key)
        self.values[layer].index_put_((self.rows, positions), value)

    def first_slots(self, num_slots: int) -> KVCache:
        """View the first ``num_slots`` slots: same memory, less of it to attend over."""
        if num_slots >= self.num_slots:
            return self
        return KVCache(
            tuple(t[:, :num_slots] for t in self.keys),
            tuple(t[:, :num_slots] for t in self.values),
            self.rows,
        )

    def keep_rows(self, rows: Tensor) -> KVCache:
        """Copy the rows [b], in that order and as often as named; the rest is freed."""
        return KVCache(
            tuple(_rows_of(t, rows) for t in self.keys),
            tuple(_rows_of(t, rows) for t in self.values),
            torch.arange(rows.shape[0], device=rows.device)[:, None],
        )

    def reorder(self, source_rows: Tensor) -> None:
        """Make row b a copy of row ``source_rows[b]`` (beam search)."""
        for buffer in (*self.keys, *self.values):
            buffer.copy_(_rows_of(buffer, source_rows))


def _rows_of(buffer: Tensor, rows: Tensor) -> Tensor:
    """Select rows [b] of ``buffer`` [B, S, K, d], slots still first in memory."""
    return buffer.transpose(0, 1).index_select(1, rows).transpose(0, 1)


def allocate_cache(
    config: DecoderConfig,
    *,
    batch: int,
    num_slots: int,
    dtype: torch.dtype,
    device: torch.device,
) -> KVCache:
    """Allocate an empty cache.

    Args:
        config: layers, key heads and their width.
        batch: rows.
        num_slots: positions of a row.
        dtype: of keys and values.
        device: where they live.

    Returns:
        The cache.
    """
    shape = (num_slots, batch, config.num_key_value_heads, config.head_dim)

    def buffers() -> tuple[Tensor, ...]:
        # Zeros, not empty: an unwritten slot is masked, but 0 * NaN would still be NaN.
        return tuple(
            torch.zeros(shape, dtype=dtype, device=device).transpose(0, 1)
            for _ in range(config.num_hidden_layers)
        )

    return KVCache(buffers(), buffers(), torch.arange(batch, device=device)[:, None])


def cache_of(buffers: tuple[Tensor, ...]) -> KVCache:
    """Join keys, then values, to a cache; compiled code makes the row numbers itself."""
    half = len(buffers) // 2
    rows = torch.arange(buffers[0].shape[0], device=buffers[0].device)[:, None]
    return KVCache(buffers[:half], buffers[half:], rows)
