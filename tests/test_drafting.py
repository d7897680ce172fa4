"""Exact drafts: whatever was heard, the tokens are those of greedy decoding."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import exp, log
from typing import Any

import pytest
import torch
from torch import Tensor

from core.engine.stages import Engine
from core.generation.greedy import CANCELLED, EOS, Hypothesis, PromptBatch, generate
from core.generation.sampling import GenerationOptions
from core.generation.speculative import Draft, Speculation, speculate
from core.generation.speculative_relaxed import Acceptance
from core.lab import Lab
from core.model.ctc import least_sure, mean_logprob
from core.phases import DRAFT, PREFILL, VERIFY, PhaseClock
from core.text.tokenizer import Tokenizer
from core.transcription.generate_ids import no_audio

NEW_TOKENS = 40
PROMPTS = [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15], [16, 17]]


def greedy(lab: Lab, options: GenerationOptions) -> list[Hypothesis]:
    prompts = PromptBatch(PROMPTS, no_audio(lab.model, len(PROMPTS)), None)
    *_, rows = generate(
        lab.engine("eager"), lab.config.decoder, prompts, options, clock=PhaseClock()
    )
    return rows


def drafted(
    lab: Lab,
    heard: list[str],
    options: GenerationOptions,
    *,
    engine: Engine | None = None,
    ids: Sequence[list[int]] = PROMPTS,
) -> list[Speculation]:
    prompts = PromptBatch(ids, no_audio(lab.model, len(ids)), None)
    assert lab.tokenizer is not None
    *_, work = speculate(
        engine or lab.engine("eager"),
        lab.config.decoder,
        prompts,
        heard,
        lab.tokenizer,
        options,
        clock=PhaseClock(),
    )
    return work


def misheard(text: str, mistakes: int, seed: int) -> str:
    """The text with some characters replaced, dropped or added."""
    chance, characters = random.Random(seed), list(text)
    for _ in range(mistakes):
        place = chance.randrange(len(characters))
        kind = chance.choice("replace drop add".split())
        if kind == "drop":
            del characters[place]
        elif kind == "add":
            characters.insert(place, "x")
        else:
            characters[place] = "y"
    return "".join(characters)


def texts(lab: Lab, rows: list[Hypothesis]) -> list[str]:
    assert lab.tokenizer is not None
    return [lab.tokenizer.decode(row.ids) for row in rows]


@pytest.mark.parametrize("mistakes", [0, 1, 4, 12])
def test_misheard_drafts_give_the_greedy_tokens(lab: Lab, mistakes: int) -> None:
    options = GenerationOptions(max_new_tokens=NEW_TOKENS, ignore_eos=True)
    expected = greedy(lab, options)
    heard = [misheard(text, mistakes, seed=i) for i, text in enumerate(texts(lab, expected))]
    for item, row in zip(drafted(lab, heard, options), expected, strict=True):
        assert item.row.ids == row.ids
        assert item.row.logprobs == pytest.approx(row.logprobs, abs=1e-4)


def test_a_batch_verifies_the_rows_that_go_on_and_nothing_else(lab: Lab) -> None:
    options = GenerationOptions(max_new_tokens=NEW_TOKENS, ignore_eos=True)
    rows = texts(lab, greedy(lab, options))
    heard = [misheard(text, n, seed=n) for n, text in zip((1, 12, 4), rows, strict=True)]
    engine, sizes = lab.engine("eager"), []

    def decode(tokens: Tensor, *rest: Any) -> Tensor:
        sizes.append(tuple(tokens.shape))
        return engine.decode(tokens, *rest)

    work = drafted(lab, heard, options, engine=replace(engine, decode=decode))
    alone = [
        drafted(lab, [text], options, ids=[ids])[0]
        for text, ids in zip(heard, PROMPTS, strict=True)
    ]
    assert [item.row.ids for item in work] == [item.row.ids for item in alone]
    assert [item.report() for item in work] == [item.report() for item in alone]
    passes = [item.passes - 1 for item in work]  # without the prefill
    assert len(set(passes)) > 1  # rows stop at different passes
    assert [rows for rows, _ in sizes] == [
        sum(count > number for count in passes) for number in range(max(passes))
    ]


@pytest.mark.parametrize("heard", ["", "nothing of the sort, not a word of it"])
def test_useless_drafts_cost_passes_and_change_nothing(lab: Lab, heard: str) -> None:
    options = GenerationOptions(max_new_tokens=12, ignore_eos=True)
    work = drafted(lab, [heard] * len(PROMPTS), options)
    assert [item.row.ids for item in work] == [row.ids for row in greedy(lab, options)]
    assert all(item.passes <= 12 for item in work)


def test_one_pass_verifies_a_draft_whose_tokens_are_all_right(lab: Lab) -> None:
    options = GenerationOptions(max_new_tokens=NEW_TOKENS, ignore_eos=True)
    expected = greedy(lab, options)

    class Exact(Tokenizer):
        """Drafts exactly the tokens to come, which text cannot promise for a random model."""

        def __init__(self) -> None:
            self.rows = iter(expected)

        def encode_continuation(self, text: str) -> list[int]:
            return list(next(self.rows).ids)

    prompts = PromptBatch(PROMPTS, no_audio(lab.model, len(PROMPTS)), None)
    stages, config = lab.engine("eager"), lab.config.decoder
    heard = ["x"] * len(PROMPTS)
    *_, work = speculate(stages, config, prompts, heard, Exact(), options, clock=PhaseClock())
    assert [item.row.ids for item in work] == [row.ids for row in expected]
    assert [item.passes for item in work] == [1] * len(PROMPTS)
    assert [item.accepted for item in work] == [NEW_TOKENS - 1] * len(PROMPTS)


def test_an_end_token_stops_a_row_where_greedy_stops_it(lab: Lab) -> None:
    free = greedy(lab, GenerationOptions(max_new_tokens=NEW_TOKENS, ignore_eos=True))
    options = GenerationOptions(max_new_tokens=NEW_TOKENS)
    expected = greedy(lab, options)
    work = drafted(lab, texts(lab, free), options)
    assert [item.row.ids for item in work] == [row.ids for row in expected]
    assert [item.row.stop for item in work] == [row.stop for row in expected]


def test_the_token_limit_is_kept_however_long_the_draft(lab: Lab) -> None:
    options = GenerationOptions(max_new_tokens=3, ignore_eos=True)
    work = drafted(lab, ["a very long draft indeed " * 5] * len(PROMPTS), options)
    assert [len(item.row.ids) for item in work] == [3, 3, 3]


def test_cancelling_keeps_what_was_verified(lab: Lab) -> None:
    options = GenerationOptions(max_new_tokens=NEW_TOKENS, ignore_eos=True)
    assert lab.tokenizer is not None
    *_, work = speculate(
        lab.engine("eager"),
        lab.config.decoder,
        PromptBatch(PROMPTS[:1], no_audio(lab.model, 1), None),
        ["no"],
        lab.tokenizer,
        options,
        clock=PhaseClock(),
        cancelled=lambda: True,
    )
    assert work[0].row.stop == CANCELLED
    assert work[0].row.ids == greedy(lab, options)[0].ids[: len(work[0].row.ids)]


@pytest.mark.parametrize(
    "options",
    [
        GenerationOptions(temperature=0.5),
        GenerationOptions(num_beams=2),
        GenerationOptions(repetition_penalty=1.2),
        GenerationOptions(no_repeat_ngram_size=3),
    ],
)
def test_drafts_refuse_what_greedy_decoding_does_not_do(
    lab: Lab, options: GenerationOptions
) -> None:
    with pytest.raises(ValueError, match="plain greedy"):
        drafted(lab, ["a"] * len(PROMPTS), options)


@pytest.mark.parametrize(
    ("heard", "written", "rest"),
    [
        ("four one five", "", "four one five"),
        ("four one five", "four", " one five"),
        ("fwur one five", "four", " one five"),
        ("four one five", "four one five", ""),
        ("for one five", "four", " one five"),
        ("four onne five", "four one", " five"),
        ("", "anything", ""),
    ],
)
def test_the_rest_of_a_draft_begins_after_what_was_written(
    heard: str, written: str, rest: str
) -> None:
    draft = Draft(heard)
    draft.follow(written)
    assert draft.rest() == rest


def test_following_in_pieces_is_following_at_once() -> None:
    whole, pieces = Draft("seven three nine"), Draft("seven three nine")
    whole.follow("sevn thre")
    for character in "sevn thre":
        pieces.follow(character)
    assert whole.rest() == pieces.rest()


def test_speculative_transcription_reports_its_passes_and_phases(lab: Lab, noise) -> None:  # type: ignore[no-untyped-def]
    options = {"max_new_tokens": 12, "ignore_eos": True, "skip_silence": False}
    plain = lab.transcribe(noise(1.0), **options)
    quick = lab.transcribe(noise(1.0), decoding="speculative", **options)
    assert quick.token_ids == plain.token_ids
    assert quick.text == plain.text
    assert quick.draft is not None
    assert 1 <= quick.draft.passes <= 12
    assert plain.draft is None
    names = [phase.name for phase in quick.phases]
    assert DRAFT in names
    assert PREFILL in names
    assert (VERIFY in names) == (quick.draft.passes > 1)


def likely(lab: Lab, probability: float, heard: list[str]) -> list[Speculation]:
    prompts = PromptBatch(PROMPTS, no_audio(lab.model, len(PROMPTS)), None)
    assert lab.tokenizer is not None
    *_, work = speculate(
        lab.engine("eager"),
        lab.config.decoder,
        prompts,
        heard,
        lab.tokenizer,
        GenerationOptions(max_new_tokens=NEW_TOKENS),
        clock=PhaseClock(),
        acceptance=Acceptance(entropy=0.0, probability=probability),
    )
    return work


def test_a_draft_likely_enough_is_the_text_after_one_pass(lab: Lab) -> None:
    assert lab.tokenizer is not None
    heard = ["zero one", "can you", "speech"]
    work = likely(lab, 1e-34, heard)
    assert [lab.tokenizer.decode(item.row.ids) for item in work] == heard
    assert [(item.passes, item.row.stop) for item in work] == [(1, EOS)] * 3
    assert all(item.accepted == item.drafted for item in work)


def test_a_draft_that_must_be_certain_gives_the_greedy_text(lab: Lab) -> None:
    options = GenerationOptions(max_new_tokens=NEW_TOKENS)
    work = likely(lab, 1.1, ["zero one", "", "anything else"])
    assert [item.row.ids for item in work] == [row.ids for row in greedy(lab, options)]


def test_decoding_goes_on_from_the_likely_part_of_a_draft(lab: Lab) -> None:
    """The first drafted token is what the decoder wants; the others it does not."""
    (expected, *_) = greedy(lab, GenerationOptions(max_new_tokens=NEW_TOKENS))
    unlikely = next(token for token in range(40, 300) if token not in expected.ids)
    plain = lab.tokenizer
    assert plain is not None

    class Leading(Tokenizer):
        """Drafts the right token and wrong ones at first, and nothing later."""

        def __init__(self) -> None:
            self.drafts = iter([[expected.ids[0], unlikely, unlikely]])

        def encode_continuation(self, text: str) -> list[int]:
            return next(self.drafts, [])

        def decode(self, ids: Iterable[int]) -> str:
            return plain.decode(ids)

    prompts = PromptBatch(PROMPTS[:1], no_audio(lab.model, 1), None)
    *_, (item,) = speculate(
        lab.engine("eager"),
        lab.config.decoder,
        prompts,
        ["x"],
        Leading(),
        GenerationOptions(max_new_tokens=NEW_TOKENS),
        clock=PhaseClock(),
        acceptance=Acceptance(entropy=0.0, probability=0.9 * exp(expected.logprobs[0])),
    )
    assert (item.drafted, item.accepted) == (3, 1)
    assert item.row.ids == expected.ids
    assert item.row.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def test_a_clip_the_ctc_head_is_sure_of_never_meets_the_decoder(
    lab: Lab, noise, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("core.generation.speculative_relaxed.least_sure", lambda logits: 0.0)
    monkeypatch.setattr(
        "core.generation.speculative_relaxed.read_greedily", lambda logits: "zero  one "
    )
    monkeypatch.setattr(
        lab.autoregressive, "_engines", {"eager": replace(lab.engine("eager"), prefill=None)}
    )
    clips = [noise(1.0), noise(1.5, seed=1)]
    for found in lab.transcribe_batch(clips, decoding="fast-draft", skip_silence=False):
        assert found.text == "zero one"
        assert [word.text for word in found.words] == ["zero", "one"]
        assert found.draft is not None
        assert found.draft.passes == 0
        assert found.time_to_first_token_ms is not None
        assert found.warnings == ()


def test_only_the_clips_it_is_not_sure_of_meet_the_decoder(
    lab: Lab, noise, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    clips = [noise(1.0), noise(1.5, seed=1)]
    options = {"max_new_tokens": 6, "skip_silence": False}
    alone = lab.transcribe(clips[1], decoding="speculative", **options)
    sure = iter([0.0, 9.0])
    monkeypatch.setattr("core.generation.speculative_relaxed.least_sure", lambda logits: next(sure))
    monkeypatch.setattr(
        "core.transcription.decode.CHARACTER_ACCEPTANCE", Acceptance(entropy=0.7, probability=1.1)
    )
    first, second = lab.transcribe_batch(clips, decoding="fast-draft", **options)
    assert first.draft is not None
    assert first.draft.passes == 0
    assert second.token_ids == alone.token_ids
    assert second.draft is not None
    assert second.draft.passes >= 1


@pytest.mark.parametrize(
    ("probabilities", "entropy"), [([1.0, 0.0, 0.0], 0.0), ([0.5, 0.5, 0.0], 0.6931)]
)
def test_the_least_sure_frame_decides(probabilities: list[float], entropy: float) -> None:
    logits = torch.tensor([[1.0, 0.0, 0.0], probabilities]).clamp(min=1e-12).log()
    assert least_sure(logits) == pytest.approx(entropy, abs=1e-3)
    assert mean_logprob(torch.tensor([[0.1, 0.9], [0.9, 0.1]]).log()) == pytest.approx(log(0.9))
