"""Exact self-speculative decoding: the encoder's CTC head drafts, the decoder verifies.

In: the text the CTC head reads in a clip, prompts, an engine. Out: a generator like
``core.generation.greedy.generate``, with the same tokens greedy decoding gives, in fewer passes.

One pass scores the last certain token and a whole draft after it. Draft tokens are kept while each
is the decoder's own best choice at its place; the first that is not is replaced by that choice, and
what the CTC head heard after this point is aligned to the corrected text and drafted again. Every
kept token is therefore the argmax that a single step would have taken: the method changes the
number of passes, never the text (up to ties within rounding, which a wider pass may break
otherwise; in float32 none is expected).

Source of the idea: self-speculative decoding with CTC drafts (arXiv 2603.11243), whose verification
is relaxed; this one is strict (Leviathan et al., arXiv 2211.17192, at temperature zero). The
relaxed way is in ``core.generation.speculative_relaxed``: it is quicker, and its text is not the
greedy text.

Shapes: B rows, N tokens of a pass, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from core import phases
from core.engine.stages import Engine
from core.errors import UserError
from core.generation.greedy import (
    CANCELLED,
    EOS,
    Hypothesis,
    PromptBatch,
    check_budget,
    rows_to_keep,
    run_prefill,
)
from core.generation.sampling import GenerationOptions
from core.generation.speculative_relaxed import Acceptance, accepted_prefix
from core.model.cache import KVCache
from core.model.config import DecoderConfig
from core.phases import PhaseClock
from core.text.tokenizer import Tokenizer
from core.text.transcript import DraftReport


class Draft:
    """The text the CTC head reads, and how far the decoder's own text has come in it.

    Keeps one row of the edit-distance table between the text written so far and every prefix of
    the draft; the rest to draft begins after the closest prefix.
    """

    def __init__(self, heard: str) -> None:
        self._heard = heard
        self._codes = np.array([ord(c) for c in heard], dtype=np.int64)
        self._distances = np.arange(len(heard) + 1, dtype=np.int64)

    def follow(self, written: str) -> None:
        """Align more of the decoder's text with the draft."""
        columns = np.arange(len(self._heard) + 1)
        for character in written:
            substituted = self._distances[:-1] + (self._codes != ord(character))
            best = np.minimum(self._distances[1:] + 1, substituted)
            row = np.concatenate(([self._distances[0] + 1], best))
            # Skipping heard characters costs one each: a running minimum along the row.
            self._distances = np.minimum.accumulate(row - columns) + columns

    def rest(self) -> str:
        """Return what the CTC head reads after that point; of equally close ones, the furthest."""
        reversed_best = int(np.argmin(self._distances[::-1]))
        return self._heard[len(self._heard) - reversed_best :]


@dataclass
class Speculation:
    """One row's progress. pending: drafted ids that follow the row's last certain token."""

    row: Hypothesis
    draft: Draft
    pending: list[int] = field(default_factory=list)
    written: str = ""
    drafted: int = 0
    accepted: int = 0
    passes: int = 0

    def report(self) -> DraftReport:
        """Return how many drafted tokens were accepted, in how many passes."""
        return DraftReport(drafted=self.drafted, accepted=self.accepted, passes=self.passes)


@torch.inference_mode()
def speculate(
    engine: Engine,
    config: DecoderConfig,
    prompts: PromptBatch,
    heard: Sequence[str],
    tokenizer: Tokenizer,
    options: GenerationOptions,
    *,
    clock: PhaseClock,
    cancelled: Callable[[], bool] = lambda: False,
    acceptance: Acceptance | None = None,
) -> Iterator[list[Speculation]]:
    """Yield every row after each pass, until all have stopped.

    Args:
        engine: the model's stages.
        config: the decoder's dimensions and end tokens.
        prompts: as for plain generation.
        heard: the CTC head's text of each row; wrong or empty text costs passes, nothing else.
        tokenizer: turns what was heard into draft tokens.
        options: greedy without penalties.
        clock: times ``prefill`` (which verifies the first draft), ``verify`` and ``draft``.
        cancelled: asked before every pass.
        acceptance: None for the greedy tokens; otherwise the first draft is kept as far as its
            tokens are likely enough, and a whole one ends the text.

    Yields:
        All rows so far.

    Raises:
        UserError: options that make the next token depend on more than the argmax, or a context
            too small for prompt and new tokens.
    """
    _check_greedy(options)
    work = [Speculation(Hypothesis([]), Draft(text)) for text in heard]
    with clock.mark(phases.DRAFT):
        for item in work:
            _draft(item, tokenizer, options.max_new_tokens - 1)
    with clock.mark(phases.PREFILL):
        check_budget(prompts.ids, options, config.max_position_embeddings)
        for item, ids in zip(work, prompts.ids, strict=True):
            item.row.prompt = list(ids)
        cache, logits = run_prefill(
            engine,
            config,
            prompts,
            options.max_new_tokens,
            drafts=[item.pending for item in work],
        )
        if acceptance is not None:
            _accept_likely(work, logits, options, config, acceptance)
        _accept(work, logits, options, config)
    yield work
    active, lora = work, prompts.lora
    while _going(work, cancelled):
        with clock.mark(phases.DRAFT):
            for item in active:
                if item.row.stop is None:
                    _realign(item, tokenizer, options)
        with clock.mark(phases.VERIFY):
            keep = _rows_to_verify(active, cache)
            if len(keep) < len(active):
                index = torch.tensor(keep, device=cache.rows.device)
                cache, lora = cache.keep_rows(index), None if lora is None else lora[index]
                active = [active[number] for number in keep]
            _accept(active, _verify(engine, active, cache, lora), options, config)
        yield work


def _check_greedy(options: GenerationOptions) -> None:
    plain = options.temperature == 0 and options.num_beams == 1
    if not plain or options.repetition_penalty != 1.0 or options.no_repeat_ngram_size:
        raise UserError(
            "drafts can be verified for plain greedy decoding only; expected no temperature, "
            "beams, repetition penalty or n-gram ban"
        )


def _draft(item: Speculation, tokenizer: Tokenizer, limit: int) -> None:
    item.pending = tokenizer.encode_continuation(item.draft.rest())[: max(0, limit)]
    item.drafted += len(item.pending)


def _realign(item: Speculation, tokenizer: Tokenizer, options: GenerationOptions) -> None:
    """Bring the draft up to the decoder's own text and draft the rest again."""
    text = tokenizer.decode(item.row.ids)
    if text.startswith(item.written):
        item.draft.follow(text[len(item.written) :])
        item.written = text
    _draft(item, tokenizer, options.max_new_tokens - len(item.row.ids) - 1)


def _rows_to_verify(work: list[Speculation], cache: KVCache) -> list[int]:
    """Choose the rows of a batch that go on.

    A pass is as wide as its longest draft, so a row that has stopped costs as much as any: on a CPU
    it leaves at once. A GPU has room for it, and recorded steps that a smaller batch would miss.

    Returns:
        Their numbers.
    """
    if cache.rows.device.type != "cpu":
        return rows_to_keep([item.row for item in work])
    return [number for number, item in enumerate(work) if item.row.stop is None]


def _verify(engine: Engine, work: list[Speculation], cache: KVCache, lora: Tensor | None) -> Tensor:
    """Compute logits [B, N, V] after each row's last certain token and after each drafted one."""
    device = cache.rows.device
    width = max(1 + len(item.pending) for item in work)
    if len(work) == 1 or device.type != "cpu":  # several rows fill the kernels' tiles by themselves
        width = engine.verify_bucket(width)
    ids, positions = [], []
    for item in work:
        row = item.row
        tokens = [(row.ids or row.prompt)[-1], *item.pending]
        # Padding repeats the last token at slots that the next passes overwrite before any read.
        ids.append(tokens + [tokens[-1]] * (width - len(tokens)))
        first = row.length - 1
        positions.append([min(first + step, cache.num_slots - 1) for step in range(width)])
    reach = max(max(row) for row in positions)
    view = cache.first_slots(engine.slots_in_use(reach, cache.num_slots))
    return engine.decode(
        torch.tensor(ids, device=device), torch.tensor(positions, device=device), view, lora
    )


def _accept(
    work: list[Speculation], logits: Tensor, options: GenerationOptions, config: DecoderConfig
) -> None:
    """Keep what the decoder would have chosen itself, and its correction or next token."""
    best = logits.max(dim=-1)
    logprobs = (best.values - logits.logsumexp(dim=-1)).tolist()
    chosen = best.indices.tolist()  # the pass's host sync
    for item, tokens, scores in zip(work, chosen, logprobs, strict=True):
        if item.row.stop is not None:
            continue
        item.passes += 1
        for place, (token, score) in enumerate(zip(tokens, scores, strict=True)):
            agreed = place < len(item.pending) and item.pending[place] == token
            item.accepted += agreed
            item.row.take(token, score, options, config)
            if item.row.stop is not None or not agreed:
                break


def _accept_likely(
    work: list[Speculation],
    logits: Tensor,
    options: GenerationOptions,
    config: DecoderConfig,
    acceptance: Acceptance,
) -> None:
    """Keep each draft up to its first unlikely token; a whole one is the text, without its end.

    What is left to :func:`_accept` is the place of that first token, as an empty draft: ``logits``
    are moved up to it.
    """
    for number, item in enumerate(work):
        scores = accepted_prefix(logits[number], item.pending, acceptance)
        for token, score in zip(item.pending, scores, strict=False):
            if item.row.stop is None:
                item.row.take(token, score, options, config)
        item.accepted += len(scores)
        whole = len(scores) == len(item.pending) > 0
        if whole and item.row.stop is None and not options.ignore_eos:
            item.row.stop = EOS
        if item.row.stop is not None:
            item.passes += 1
        logits[number] = logits[number].roll(-len(scores), dims=0)
        item.pending = []


def _going(work: list[Speculation], cancelled: Callable[[], bool]) -> bool:
    going = [item.row for item in work if item.row.stop is None]
    if going and cancelled():
        for row in going:
            row.stop = CANCELLED
        return False
    return bool(going)
