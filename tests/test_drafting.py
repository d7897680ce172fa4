"""Exact drafts: whatever was heard, the tokens are those of greedy decoding."""

import random

import pytest

from core.continuation import no_audio
from core.drafting import Draft, Speculation, speculate
from core.generate import CANCELLED, Prompts, Row, generate
from core.lab import Lab
from core.phases import DRAFT, PREFILL, VERIFY, PhaseClock
from core.sampling import GenerationOptions
from core.tokenizer import Tokenizer

NEW_TOKENS = 40
PROMPTS = [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15], [16, 17]]


def greedy(lab: Lab, options: GenerationOptions) -> list[Row]:
    prompts = Prompts(PROMPTS, no_audio(lab.model, len(PROMPTS)), None)
    *_, rows = generate(
        lab.engine("eager"), lab.config.decoder, prompts, options, clock=PhaseClock()
    )
    return rows


def drafted(lab: Lab, heard: list[str], options: GenerationOptions) -> list[Speculation]:
    prompts = Prompts(PROMPTS, no_audio(lab.model, len(PROMPTS)), None)
    assert lab.tokenizer is not None
    *_, work = speculate(
        lab.engine("eager"),
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


def texts(lab: Lab, rows: list[Row]) -> list[str]:
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

    prompts = Prompts(PROMPTS, no_audio(lab.model, len(PROMPTS)), None)
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
        Prompts(PROMPTS[:1], no_audio(lab.model, 1), None),
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
