"""Beam search with a length penalty, equal to transformers' (``generation/utils.py``, 5.23).

In: prompts, an engine, options with ``num_beams`` above one. Out: a generator that yields, for each
clip, the best hypothesis so far (which may still change) and at last the best one.

The rules that matter for equality: candidates are the best ``(1 + end tokens) * beams``
continuations; a finished hypothesis counts only if it is among the best ``beams`` of them; its
score is the sum of log-probabilities over length ** length_penalty; the search ends when no running
beam, scored at its current length, can beat the worst kept one.

Shapes: B clips, K beams, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from core import phases
from core.engine.stages import Engine
from core.generation.greedy import (
    CANCELLED,
    EOS,
    LENGTH,
    Hypothesis,
    PromptBatch,
    check_budget,
    run_prefill,
)
from core.generation.sampling import GenerationOptions, penalise
from core.model.cache import KVCache
from core.model.config import DecoderConfig
from core.phases import PhaseClock

_NEVER = -1.0e9


@dataclass(frozen=True)
class Beam:
    """A continuation. total: summed log-probability; score: what finished ones are ranked by."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    total: float
    score: float = _NEVER
    ended: bool = False


@dataclass
class Search:
    """One clip's search: running beams, the best finished ones, and whether more can help."""

    prompt: list[int]
    running: list[Beam]
    finished: list[Beam]
    improvable: bool = True
    stopped: bool = False

    def best(self, stop: str | None) -> Hypothesis:
        """Return the leading hypothesis."""
        lead = self.finished[0] if self.finished else self.running[0]
        reason = EOS if stop is not None and lead.ended else stop
        return Hypothesis(list(self.prompt), list(lead.ids), list(lead.logprobs), reason)


@torch.inference_mode()
def beam_search(
    engine: Engine,
    config: DecoderConfig,
    prompts: PromptBatch,
    options: GenerationOptions,
    *,
    clock: PhaseClock,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[list[Hypothesis]]:
    """Yield each clip's leading hypothesis after every step; the last yield is the result.

    Args:
        engine: the model's stages.
        config: the decoder's dimensions and end tokens.
        prompts: what to continue, with audio.
        options: ``num_beams`` above one.
        clock: times ``prefill`` and ``decode``.
        cancelled: asked after every step.

    Yields:
        One hypothesis a clip.

    Raises:
        ValueError: the context is too small for prompt and new tokens.
    """
    beams = options.num_beams
    with clock.mark(phases.PREFILL):
        check_budget(prompts.ids, options, config.max_position_embeddings)
        cache, logits = run_prefill(engine, config, prompts, options.max_new_tokens)
        cache, logits = _widen(cache, beams), logits[:, 0].repeat_interleave(beams, dim=0)
    first = [Beam((), (), 0.0), *[Beam((), (), _NEVER)] * (beams - 1)]
    searches = [Search(list(ids), list(first), []) for ids in prompts.ids]
    lora = None if prompts.lora is None else prompts.lora.repeat_interleave(beams, dim=0)
    while True:
        with clock.mark(phases.DECODE):
            sources = _step(searches, logits, options, config)
        done = all(search.stopped for search in searches)
        stop = CANCELLED if not done and cancelled() else (LENGTH if done else None)
        yield [search.best(stop) for search in searches]
        if stop is not None:
            return
        with clock.mark(phases.DECODE):
            cache.reorder(torch.tensor(sources, device=logits.device))
            logits = _decode(engine, searches, cache, lora)


def _decode(engine: Engine, searches: list[Search], cache: KVCache, lora: Tensor | None) -> Tensor:
    """Compute logits [B*K, V] after each running beam's last token."""
    device = cache.rows.device
    tokens = [beam.ids[-1] for search in searches for beam in search.running]
    lengths = [len(s.prompt) + len(beam.ids) for s in searches for beam in s.running]
    positions = torch.tensor(lengths, device=device) - 1
    view = cache.first_slots(engine.slots_in_use(max(lengths) - 1, cache.num_slots))
    ids = torch.tensor(tokens, device=device)[:, None]
    return engine.decode(ids, positions[:, None], view, lora)[:, 0]


def _widen(cache: KVCache, beams: int) -> KVCache:
    """Repeat every row ``beams`` times."""
    return cache.keep_rows(cache.rows[:, 0].repeat_interleave(beams))


def _step(
    searches: list[Search], logits: Tensor, options: GenerationOptions, config: DecoderConfig
) -> list[int]:
    """Extend every search by one token; returns the cache row each new running beam continues."""
    beams = options.num_beams
    so_far = [s.prompt + list(beam.ids) for s in searches for beam in s.running]
    raw = logits.log_softmax(dim=-1)
    scores = penalise(raw, so_far, options).unflatten(0, (-1, beams))  # [B, K, V]
    totals = [[beam.total for beam in search.running] for search in searches]
    totals = scores + torch.tensor(totals, device=scores.device)[..., None]
    num_eos = 0 if options.ignore_eos else len(config.eos_token_ids)
    best = totals.flatten(1).topk(max(2, 1 + num_eos) * beams)
    vocabulary = scores.shape[-1]
    picked = raw.unflatten(0, (-1, beams)).flatten(1).gather(1, best.indices)
    values, indices, logprobs = best.values.tolist(), best.indices.tolist(), picked.tolist()
    sources = []
    for number, search in enumerate(searches):
        candidates = []
        for total, index, logprob in zip(
            values[number], indices[number], logprobs[number], strict=True
        ):
            beam, token = search.running[index // vocabulary], index % vocabulary
            ended = token in config.eos_token_ids and not options.ignore_eos
            # The end token itself is not part of the text.
            ids = beam.ids if ended else (*beam.ids, token)
            scores_so_far = beam.logprobs if ended else (*beam.logprobs, logprob)
            grown = Beam(ids, scores_so_far, total, ended=ended)
            candidates.append((grown, index // vocabulary))
        chosen = _update(search, candidates, options)
        sources += [number * beams + source for source in chosen]
    return sources


def _update(
    search: Search, candidates: list[tuple[Beam, int]], options: GenerationOptions
) -> list[int]:
    """Sort candidates into running and finished; returns the beams the running ones continue."""
    beams = options.num_beams
    if search.stopped:
        return list(range(beams))
    # Every candidate has this many tokens, an end token included.
    length = len(search.running[0].ids) + 1
    full = length >= options.max_new_tokens
    over = [full or hypothesis.ended for hypothesis, _ in candidates]
    if search.improvable:
        done = [
            Beam(h.ids, h.logprobs, h.total, h.total / length**options.length_penalty, h.ended)
            for (h, _), ends in list(zip(candidates, over, strict=True))[:beams]
            if ends
        ]
        search.finished = sorted(search.finished + done, key=lambda h: h.score, reverse=True)[
            :beams
        ]
    if all(over):
        search.stopped = True
        return list(range(beams))
    # Each beam ends by at most one candidate per end token, so at least ``beams`` go on.
    going = [c for c, ends in zip(candidates, over, strict=True) if not ends][:beams]
    search.running = [hypothesis for hypothesis, _ in going]
    best_possible = search.running[0].total / length**options.length_penalty
    worst = search.finished[-1].score if len(search.finished) == beams else _NEVER
    search.improvable = search.improvable and best_possible > worst
    search.stopped = not search.improvable
    return [source for _, source in going]
