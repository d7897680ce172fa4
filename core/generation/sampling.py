"""Logits -> the next token: penalties, greedy, temperature and nucleus sampling.

In: logits of one step and the ids so far. Out: one id per row. The penalties and warps are
transformers' (``logits_process.py``), so that the same settings mean the same thing.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

import torch
from torch import Tensor

from core.errors import UserError, check_types

COLDEST, HOTTEST = 1e-6, 1e30  # temperatures beyond which scores leave the range of float32


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Settings of generation. temperature 0 is greedy; num_beams above 1 is beam search.

    ignore_eos generates exactly max_new_tokens (benchmarks). stop_loops ends a row that only
    repeats itself (not in beam search, which a loop's falling score ends by itself).
    """

    max_new_tokens: int = 200
    num_beams: int = 1
    length_penalty: float = 1.0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    ignore_eos: bool = False
    stop_loops: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        rules = [
            (self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "at least 1"),
            (1 <= self.num_beams <= 64, "num_beams", self.num_beams, "1 to 64"),
            (isfinite(self.length_penalty), "length_penalty", self.length_penalty, "a number"),
            (0 <= self.temperature < inf, "temperature", self.temperature, "0 (greedy) or more"),
            (0 < self.top_p <= 1, "top_p", self.top_p, "above 0, at most 1"),
            (
                0 < self.repetition_penalty < inf,
                "repetition_penalty",
                self.repetition_penalty,
                "above 0",
            ),
            (-(2**63) <= self.seed < 2**63, "seed", self.seed, "a number of 64 bits"),
            (
                self.no_repeat_ngram_size >= 0,
                "no_repeat_ngram_size",
                self.no_repeat_ngram_size,
                "0 or more",
            ),
        ]
        for holds, name, value, expected in rules:
            if not holds:
                raise UserError(f"{name} is {value}; expected {expected}")
        if self.num_beams > 1 and self.temperature > 0:
            raise UserError("beam search came with a temperature; use one or the other")


def penalise(logits: Tensor, so_far: Sequence[Sequence[int]], options: GenerationOptions) -> Tensor:
    """Apply the repetition penalty and the n-gram ban to logits [B, V]; prompt tokens count too."""
    if options.repetition_penalty == 1.0 and options.no_repeat_ngram_size == 0:
        return logits
    scores = logits.clone()
    vocabulary = scores.shape[-1]
    for row, ids in enumerate(so_far):
        if options.repetition_penalty != 1.0:
            # An audio token may have no row in the vocabulary.
            seen = [i for i in set(ids) if i < vocabulary]
            old = scores[row, seen]
            factor = options.repetition_penalty
            scores[row, seen] = torch.where(old < 0, old * factor, old / factor)
        if options.no_repeat_ngram_size > 0:
            banned = banned_tokens(ids, options.no_repeat_ngram_size)
            scores[row, [i for i in banned if i < vocabulary]] = -torch.inf
    return scores


def banned_tokens(ids: Sequence[int], size: int) -> list[int]:
    """List the tokens that would complete an n-gram of ``size`` already in ``ids``."""
    if len(ids) + 1 < size:
        return []
    tail = tuple(ids[len(ids) - size + 1 :])
    starts = range(len(ids) - size + 1)
    return [ids[i + size - 1] for i in starts if tuple(ids[i : i + size - 1]) == tail]


def choose(
    scores: Tensor, options: GenerationOptions, generators: Sequence[torch.Generator]
) -> Tensor:
    """Choose one id per row [B] from scores [B, V]; each row draws from its own generator.

    Below :data:`COLDEST` the likeliest token has all of the mass, and is taken.

    Returns:
        The ids.
    """
    if options.temperature < COLDEST:
        return scores.argmax(dim=-1)
    temperature = min(options.temperature, HOTTEST)
    probabilities = keep_nucleus(scores / temperature, options.top_p).softmax(dim=-1)
    drawn = [
        torch.multinomial(row, 1, generator=generator)
        for row, generator in zip(probabilities, generators, strict=True)
    ]
    return torch.cat(drawn)


def keep_nucleus(scores: Tensor, top_p: float) -> Tensor:
    """Set scores [B, V] outside the smallest set of mass ``top_p`` to -inf.

    Source: nucleus sampling, arXiv 1904.09751; the most likely token always stays.

    Returns:
        The scores [B, V].
    """
    if top_p >= 1:
        return scores
    ascending, order = scores.sort(descending=False)
    outside = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
    outside[..., -1] = False
    return scores.masked_fill(outside.scatter(1, order, outside), -torch.inf)
