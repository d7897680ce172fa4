"""The parity ladder's upper half: whole texts against transformers' ``generate``, token for token.

Greedy, beams, penalties, adapters on, off and merged, text alone, and checkpoints of our own. The
stages below are compared in ``test_against_hf.py``.
Run alone: ``python -m pytest tests/test_against_hf_tokens.py``.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tiny_models
from core.generation.sampling import GenerationOptions
from core.lab import Lab
from core.model.lora import switch
from hf_cases import (
    ADAPTERS,
    CASES,
    FORTY_SECONDS,
    TOLERANCE,
    check_prefill,
    clip_of,
    native_tokens,
)
from oracle import transformers
from reference import (
    Pair,
    adapters,
    make_reference,
    prompt_for,
    reference_tokens,
    relative_error,
)

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("case", CASES)
def test_64_greedy_tokens(case: str, pair_of: Callable[..., Pair]):
    pair = pair_of(case)
    seen: set[int] = set()
    for frames in (9, 144, 201):
        waveform = clip_of(frames)
        ids = prompt_for(pair, waveform)
        rows = pair.lab.generate_ids(
            [ids], [waveform], lora=False, options=GenerationOptions(max_new_tokens=64)
        )
        expected = reference_tokens(pair, waveform, ids, max_new_tokens=64)
        assert rows[0].ids == expected
        assert len(expected) == 64
        seen.update(expected)
    assert len(seen) > 8  # tokens that repeat one answer would prove little


def test_64_greedy_tokens_after_forty_seconds(pair_of: Callable[..., Pair]):
    pair, waveform = pair_of("as released"), clip_of(FORTY_SECONDS)
    ids = prompt_for(pair, waveform)
    rows = pair.lab.generate_ids(
        [ids], [waveform], lora=False, options=GenerationOptions(max_new_tokens=64)
    )
    assert rows[0].ids == reference_tokens(pair, waveform, ids, max_new_tokens=64)


@pytest.mark.parametrize("case", ["as released", "odd"])
def test_greedy_ends_at_the_same_end_token(case: str, pair_of: Callable[..., Pair]):
    pair, waveform = pair_of(case), clip_of(66)
    ids = prompt_for(pair, waveform)
    free = reference_tokens(pair, waveform, ids, max_new_tokens=40)
    end = next(token for token in free[10:] if token not in free[:10])
    options = GenerationOptions(max_new_tokens=40)
    expected = reference_tokens(pair, waveform, ids, max_new_tokens=40, eos_token_id=end)
    assert native_tokens(pair, waveform, ids, options, end=end) == expected == free[: len(expected)]
    assert 10 <= len(expected) < 40


@pytest.mark.parametrize("case", ["as released", "odd"])
@pytest.mark.parametrize("length_penalty", [1.0, 0.3, 2.0])
@pytest.mark.parametrize("ends", [False, True], ids=["no end token", "end token"])
def test_beam_search_of_four(
    case: str, length_penalty: float, ends: bool, pair_of: Callable[..., Pair]
):
    pair, waveform = pair_of(case), clip_of(66)
    ids = prompt_for(pair, waveform)
    settings = {"num_beams": 4, "max_new_tokens": 32, "length_penalty": length_penalty}
    free = reference_tokens(pair, waveform, ids, **settings)
    # An end token that the search likes early, so that finished and running beams compete.
    candidates = [None] if not ends else [free[2], free[12], free[-1]]
    for end in candidates:
        expected = reference_tokens(pair, waveform, ids, **settings, eos_token_id=end)
        options = GenerationOptions(**settings)
        assert native_tokens(pair, waveform, ids, options, end=end) == expected


def test_repetition_penalty_and_ngram_ban_change_tokens_like_the_references(
    pair_of: Callable[..., Pair],
):
    pair, waveform = pair_of("as released"), clip_of(44)
    ids = prompt_for(pair, waveform)
    plain = reference_tokens(pair, waveform, ids, max_new_tokens=40)
    for settings in (
        {"repetition_penalty": 1.7},
        {"no_repeat_ngram_size": 2},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "num_beams": 3},
    ):
        expected = reference_tokens(pair, waveform, ids, max_new_tokens=40, **settings)
        options = GenerationOptions(max_new_tokens=40, **settings)
        assert native_tokens(pair, waveform, ids, options, end=None) == expected != plain


@pytest.mark.filterwarnings("ignore:The following alpha_pattern keys did not match")
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_lora_on_off_and_merged(adapter: str, pair_of: Callable[..., Pair]):
    pair = pair_of("as released", adapter)
    lab, waveform = pair.lab, clip_of(95)
    ids = prompt_for(pair, waveform)
    options = GenerationOptions(max_new_tokens=64)
    tokens = {}
    for on in (True, False):
        with adapters(pair.reference, on):
            check_prefill(pair, waveform, switch([on], like=torch.empty(0)))
            tokens[on] = reference_tokens(pair, waveform, ids, max_new_tokens=64)
        rows = lab.generate_ids([ids], [waveform], lora=on, options=options)
        assert rows[0].ids == tokens[on]
    assert tokens[True] != tokens[False]
    before = {name: tensor.clone() for name, tensor in lab.model.state_dict().items()}
    lab.merge_adapter()
    try:
        with adapters(pair.reference, True):
            check_prefill(pair, waveform)
        rows = lab.generate_ids([ids], [waveform], options=options)
        assert rows[0].ids == tokens[True]
    finally:
        lab.unmerge_adapter()
    assert all(torch.equal(tensor, before[name]) for name, tensor in lab.model.state_dict().items())


def test_beam_search_with_the_adapter_on(pair_of: Callable[..., Pair]):
    pair, waveform = pair_of("as released", "q and v"), clip_of(95)
    ids = prompt_for(pair, waveform)
    settings = {"num_beams": 4, "max_new_tokens": 24}
    for on in (True, False):
        with adapters(pair.reference, on):
            expected = reference_tokens(pair, waveform, ids, **settings)
        rows = pair.lab.generate_ids(
            [ids], [waveform], lora=on, options=GenerationOptions(**settings)
        )
        assert rows[0].ids == expected


def test_text_alone_is_answered_without_the_adapter(pair_of: Callable[..., Pair]):
    pair = pair_of("as released", "q and v")
    ids = [3, 4, 5, 6, 7, 8]
    out = pair.reference.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=32,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    rows = pair.lab.generate_ids([ids], options=GenerationOptions(max_new_tokens=32))
    assert rows[0].ids == out[0, len(ids) :].tolist()


def test_a_checkpoint_of_ours_loads_unchanged_in_transformers(speech_folder: Path, lab: Lab):
    # Weights, adapter and names as this project writes them; the bundled model is such a folder.
    reference = transformers.GraniteSpeechForConditionalGeneration.from_pretrained(
        speech_folder, dtype=torch.float32
    ).eval()
    pair = Pair(reference, transformers.GraniteSpeechFeatureExtractor(), lab, speech_folder)
    waveform = clip_of(55)
    ids = prompt_for(pair, waveform)
    options = GenerationOptions(max_new_tokens=32)
    found = {}
    for on in (True, False):
        with adapters(reference, on):
            expected = reference_tokens(
                pair, waveform, ids, max_new_tokens=32, eos_token_id=tiny_models.END_ID
            )
        found[on] = lab.generate_ids([ids], [waveform], lora=on, options=options)[0].ids
        assert found[on] == expected
    assert found[True] != found[False]


def test_transformers_does_not_divide_a_speech_models_logits():
    """A finding about the reference, and why the pairs divide its logits.

    Granite's logits are divided by ``text_config.logits_scaling``. transformers' GraniteForCausalLM
    does, and so did its speech model up to 4.x, which contained one; in 5.23 the speech model has a
    head of its own and leaves the division out. Greedy tokens are the same either way, but beam
    scores, sampling and confidences are not. Ours divides. Should a later release divide as well,
    this test says so with a warning, and ``reference.undivided_scaling`` measures 1.
    """
    speech = make_reference(CASES["as released"])
    scaling = speech.config.text_config.logits_scaling
    text = transformers.AutoModelForCausalLM.from_config(speech.config.text_config).eval()
    text.load_state_dict(
        {f"model.{k}": v for k, v in speech.model.language_model.state_dict().items()}
        | {"lm_head.weight": speech.lm_head.weight}
    )
    ids = torch.arange(1, 20)[None]
    with torch.inference_mode():
        granite, found = text(input_ids=ids).logits, speech(input_ids=ids).logits
    assert (
        relative_error(found, granite) < TOLERANCE
        or relative_error(found, granite * scaling) < TOLERANCE
    )
    if relative_error(found, granite) < TOLERANCE:
        warnings.warn("transformers divides a speech model's logits again", stacklevel=1)
