"""Prompts -> token ids: prefill, then one step at a time, greedy or sampled, for a batch of clips.

In: prompt ids per row, audio embeddings, an engine. Out: a generator that yields the rows after
every step. It knows nothing of text or files; ``core.generation.beam`` is the other way to
generate.

Rows have prompts of different lengths, padded on the right. Each row keeps its own position, so its
tokens are those it would get alone (see ``core.model.cache``).

Shapes: B rows, P prompt length, A audio embeddings, E width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from core import phases
from core.engine.stages import Engine
from core.errors import UserError
from core.generation.repetition import length_before_loop
from core.generation.sampling import GenerationOptions, choose, penalise
from core.model.cache import KVCache
from core.model.config import DecoderConfig
from core.phases import PhaseClock

EOS, LENGTH, CANCELLED, LOOP = "eos", "length", "cancelled", "loop"


@dataclass
class Hypothesis:
    """One clip's generation so far. stop: why it ended, or None while it goes on."""

    prompt: list[int]
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stop: str | None = None

    @property
    def length(self) -> int:
        """Return the number of prompt and generated tokens together."""
        return len(self.prompt) + len(self.ids)

    def take(
        self, token: int, logprob: float, options: GenerationOptions, config: DecoderConfig
    ) -> None:
        """Add the next token, and stop where the row ends with it.

        Args:
            token: its id.
            logprob: its log-probability.
            options: limits and what ends a row.
            config: the end tokens.
        """
        if token in config.eos_token_ids and not options.ignore_eos:
            self.stop = EOS
            return
        self.ids.append(token)
        self.logprobs.append(logprob)
        if len(self.ids) == options.max_new_tokens:
            self.stop = LENGTH
        keep = length_before_loop(self.ids) if options.stop_loops else None
        if keep is not None:
            del self.ids[keep:], self.logprobs[keep:]
            self.stop = LOOP


class PromptBatch:
    """Prompts to continue. audio: [B, A, E], or [B, 1, E] zeros for text; lora: [B, 1, 1] or None.

    Token ids may come as a function that writes them: it is called once, inside the prefill phase,
    whose time that is.
    """

    def __init__(
        self,
        ids: Sequence[list[int]] | Callable[[], Sequence[list[int]]],
        audio: Tensor,
        lora: Tensor | None,
    ) -> None:
        self._ids, self.audio, self.lora = ids, audio, lora

    @cached_property
    def ids(self) -> Sequence[list[int]]:
        """Return the token ids of each row."""
        return self._ids() if callable(self._ids) else self._ids


def check_budget(prompts: Sequence[list[int]], options: GenerationOptions, limit: int) -> None:
    """Refuse what cannot fit the model's context.

    Raises:
        UserError: prompt and new tokens together exceed ``limit`` positions.
    """
    longest = max(len(ids) for ids in prompts)
    if longest + options.max_new_tokens > limit:
        raise UserError(
            f"a prompt of {longest} tokens and {options.max_new_tokens} new tokens exceed the "
            f"model's context of {limit}; use a shorter recording or fewer new tokens"
        )


@torch.inference_mode()
def generate(
    engine: Engine,
    config: DecoderConfig,
    prompts: PromptBatch,
    options: GenerationOptions,
    *,
    clock: PhaseClock,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[list[Hypothesis]]:
    """Yield the rows after the prefill's token and after each step, until all have stopped.

    Args:
        engine: the model's stages.
        config: the decoder's dimensions and end tokens.
        prompts: what to continue, with audio.
        options: how to choose tokens.
        clock: times ``prefill`` and ``decode``.
        cancelled: asked after every step.

    Yields:
        All rows so far.

    Raises:
        UserError: the context is too small for prompt and new tokens.
    """
    with clock.mark(phases.PREFILL):
        check_budget(prompts.ids, options, config.max_position_embeddings)
        rows = [Hypothesis(prompt=list(ids)) for ids in prompts.ids]
        # One generator per row: what is drawn for a clip does not depend on its neighbours.
        device = prompts.audio.device
        generators = [torch.Generator(device=device).manual_seed(options.seed) for _ in rows]
        cache, logits = run_prefill(engine, config, prompts, options.max_new_tokens)
        next_ids = _advance(rows, logits[:, 0], options, config, generators)
    yield rows
    active, lora = rows, prompts.lora
    while _mark_stopped(rows, cancelled):
        with clock.mark(phases.DECODE):
            keep = rows_to_keep(active)
            if len(keep) < len(active):
                index = torch.tensor(keep, device=next_ids.device)
                cache, next_ids = cache.keep_rows(index), next_ids[index]
                lora = None if lora is None else lora[index]
                active = [active[number] for number in keep]
                generators = [generators[number] for number in keep]
            positions = torch.tensor([row.length - 1 for row in active], device=next_ids.device)
            reach = max(row.length for row in active) - 1
            view = cache.first_slots(engine.slots_in_use(reach, cache.num_slots))
            logits = engine.decode(next_ids[:, None], positions[:, None], view, lora)
            next_ids = _advance(active, logits[:, 0], options, config, generators)
        yield rows


def rows_to_keep(rows: Sequence[Hypothesis]) -> list[int]:
    """Choose the rows of a batch that go on: all, until half have stopped; then half at a time.

    Halving keeps batch sizes to a few values, so that compiled stages meet few shapes.

    Returns:
        Their numbers.
    """
    going = [number for number, row in enumerate(rows) if row.stop is None]
    size = len(rows)
    while size >= 2 * max(1, len(going)):
        size //= 2
    stopped = [number for number, row in enumerate(rows) if row.stop is not None]
    return sorted(going + stopped[: size - len(going)])


def run_prefill(
    engine: Engine,
    config: DecoderConfig,
    prompts: PromptBatch,
    max_new_tokens: int,
    *,
    drafts: Sequence[list[int]] | None = None,
) -> tuple[KVCache, Tensor]:
    """Allocate the cache and run the prompts, each followed by its draft if there are drafts.

    Args:
        engine: the model's stages.
        config: the decoder's dimensions.
        prompts: what to continue, with audio.
        max_new_tokens: slots to reserve behind the longest prompt.
        drafts: token ids that follow each prompt, or None.

    Returns:
        The filled cache, and logits [B, Q, V] after the prompt's last token and after each token
        of the longest draft (Q is one more than its length; rows with shorter drafts repeat).
    """
    batch, device = len(prompts.ids), prompts.audio.device
    tails = drafts or [[]] * batch
    rows = [[*ids, *tail] for ids, tail in zip(prompts.ids, tails, strict=True)]
    length, num_slots = padded_sizes(engine, config, max(len(row) for row in rows), max_new_tokens)
    cache = engine.new_cache(
        config, batch=batch, num_slots=num_slots, dtype=prompts.audio.dtype, device=device
    )
    # Padding on the right: those slots are overwritten by new tokens before anything reads them.
    padded = [[*row, *[config.pad_token_id] * (length - len(row))] for row in rows]
    steps = max(len(tail) for tail in tails) + 1
    scored = [
        [min(len(ids) - 1 + step, len(row) - 1) for step in range(steps)]
        for ids, row in zip(prompts.ids, rows, strict=True)
    ]
    view = cache.first_slots(engine.slots_in_use(length - 1, num_slots))
    ids, places = torch.tensor(padded, device=device), torch.tensor(scored, device=device)
    return cache, engine.prefill(ids, prompts.audio, places, view, prompts.lora)


def padded_sizes(
    engine: Engine, config: DecoderConfig, longest: int, max_new_tokens: int
) -> tuple[int, int]:
    """Return the length that prompts are padded to, and the slots of their cache.

    Args:
        engine: pads to its own sizes.
        config: limits both.
        longest: tokens of the longest prompt, its draft included.
        max_new_tokens: slots to reserve behind it.
    """
    limit = config.max_position_embeddings
    length = min(engine.prompt_bucket(longest), limit)
    return length, max(length, min(engine.cache_bucket(longest + max_new_tokens), limit))


def _advance(
    rows: list[Hypothesis],
    logits: Tensor,
    options: GenerationOptions,
    config: DecoderConfig,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Choose each row's next token, record it, and return the ids [B]."""
    scores = penalise(logits, [row.prompt + row.ids for row in rows], options)
    next_ids = choose(scores, options, generators)  # [B]
    logprobs = logits.log_softmax(-1).gather(1, next_ids[:, None])[:, 0]
    chosen = torch.stack(
        (next_ids.double(), logprobs.double())
    ).tolist()  # the step's one host sync
    for row, token, logprob in zip(rows, *chosen, strict=True):
        if row.stop is not None:
            continue
        row.take(int(token), logprob, options, config)
    return next_ids


def _mark_stopped(rows: list[Hypothesis], cancelled: Callable[[], bool]) -> bool:
    """Check that any row goes on; a cancelled request stops them all."""
    going = [row for row in rows if row.stop is None]
    if going and cancelled():
        for row in going:
            row.stop = CANCELLED
        return False
    return bool(going)
