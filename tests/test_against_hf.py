"""The parity ladder: every stage against transformers, float32, on random tiny checkpoints.

Each checkpoint is written by transformers' ``save_pretrained`` and read by ``core.load``. The rungs
follow the data; the first that fails names the file at fault. Logits may differ by 1e-4 of their
scale (they differ by 1e-6 to 3e-5: sums in another order); tokens may not differ at all.

Run alone: ``python -m pytest tests/test_against_hf.py``.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GraniteSpeechFeatureExtractor

import core
import tiny_models
from core.beam import beam_search
from core.encoder import padded_length
from core.engine import eager_engine
from core.features import pad_features
from core.generate import Prompts, generate, run_prefill
from core.lab import Lab
from core.lora import switch
from core.phases import PhaseClock
from core.sampling import GenerationOptions
from reference import (
    Pair,
    Reference,
    adapters,
    hear,
    make_pair,
    make_reference,
    prompt_for,
    reference_tokens,
    relative_error,
)
from tiny_models import noise, raw_config, samples_of_frames

TOLERANCE = 1e-4
# The end token is each test's own choice, so no checkpoint states one.
ENDLESS = {"eos_token_id": None, "max_position_embeddings": 1024}

CASES: dict[str, dict[str, Any]] = {
    # Context, window and downsampling of the real checkpoints, tied head.
    "as released": raw_config(
        encoder={"num_layers": 4, "context_size": 200, "max_pos_emb": 512},
        decoder=ENDLESS,
    ),
    # Nothing here is a power of two or a default.
    "odd": raw_config(
        encoder={
            "num_layers": 3,
            "hidden_dim": 120,
            "num_heads": 5,
            "dim_head": 24,
            "context_size": 72,
            "max_pos_emb": 80,
            "conv_kernel_size": 7,
            "feedforward_mult": 3,
            "output_dim": 29,
        },
        projector={
            "hidden_size": 36,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "encoder_hidden_size": 120,
            "cross_attention_frequency": 2,
        },
        decoder={
            "hidden_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "logits_scaling": 5.0,
            **ENDLESS,
        },
        window_size=12,
        downsample_rate=3,
        tie_word_embeddings=False,
    ),
    # Heads wider than the width divided by their number, one shared key head, even kernel.
    "wide heads": raw_config(
        encoder={"dim_head": 12, "context_size": 100, "max_pos_emb": 100, "conv_kernel_size": 8},
        decoder={
            "num_key_value_heads": 1,
            "head_dim": 14,
            "rope_theta": 1e6,
            **ENDLESS,
        },
        window_size=10,
        downsample_rate=2,
    ),
    # Every head its own key head, untied, an audio id outside the table.
    "no sharing": raw_config(
        encoder={"num_layers": 1, "context_size": 72, "max_pos_emb": 512},
        decoder={"num_key_value_heads": 4, **ENDLESS},
        tie_word_embeddings=False,
        audio_token_index=tiny_models.VOCABULARY,
    ),
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "q and v": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "all linear layers of the decoder": {
        "r": 3,
        "lora_alpha": 7,
        "target_modules": "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split(),
    },
    # `query` and `dense` are the projector's, `to_q`, `up_conv` and `out` the encoder's.
    "encoder and projector": {
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["to_q", "up_conv", "out", "out_mid", "query", "dense", "linear"],
    },
    "rank-stabilised, with patterns": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "o_proj", "down_proj"],
        "use_rslora": True,
        "rank_pattern": {"layers.1.self_attn.q_proj": 2},
        "alpha_pattern": {
            "down_proj": 3,
            "model.language_model.layers.0.self_attn.o_proj": 5,
            "layers.*.q": 99,  # matches no whole name: PEFT ignores it
        },
    },
}
# Around windows of 15 and blocks of 200 frames; one frame; ten seconds.
FRAMES = (1, 7, 14, 15, 16, 29, 30, 31, 199, 200, 201, 399, 400, 401, 500)
FORTY_SECONDS = 2000


@pytest.fixture(scope="module")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Pair]]:
    """``pair_of(case, adapter)``: both implementations with the same weights, made once."""
    made: dict[tuple[str, str | None], Pair] = {}

    def get(case: str, adapter: str | None = None) -> Pair:
        if (case, adapter) not in made:
            made[case, adapter] = make_pair(
                tmp_path_factory.mktemp("pair"),
                CASES[case],
                adapter=None if adapter is None else ADAPTERS[adapter],
            )
        return made[case, adapter]

    yield get
    made.clear()


def native_features(pair: Pair, waveform: Tensor) -> tuple[Tensor, Tensor]:
    """Features [1, T, F] padded for the encoder, and the real length [1]."""
    clip = pair.lab.front_end(waveform)
    context = pair.lab.config.encoder.context_size
    padded = pad_features([clip], padded_length(clip.shape[0], context))
    return padded.values, torch.tensor(padded.lengths)


@contextmanager
def outputs_of(layers: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """What each layer returns while the block runs."""
    seen: list[Tensor] = []

    def keep(_layer: nn.Module, _inputs: object, output: Tensor) -> None:
        # Cloned: the reference adds the middle posteriors to a block's output in place.
        seen.append(output.clone())

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    yield seen
    for hook in hooks:
        hook.remove()


def clip_of(frames: int) -> Tensor:
    # A few samples more than the frames need, and never a whole one.
    return noise(samples_of_frames(frames, extra=(frames * 37 + 100) % 320) / 16_000, seed=frames)


def native_tokens(
    pair: Pair, waveform: Tensor, ids: list[int], options: GenerationOptions, *, end: int | None
) -> list[int]:
    """Tokens as ``Lab.generate_ids`` makes them, with another end token than the checkpoint's."""
    lab = pair.lab
    values, lengths = native_features(pair, waveform)
    with torch.inference_mode():
        audio = lab.model.embed_audio(values, lengths).embeddings
    config = replace(lab.config.decoder, eos_token_ids=() if end is None else (end,))
    search = beam_search if options.num_beams > 1 else generate
    prompts = Prompts([ids], audio, None)
    *_, rows = search(eager_engine(lab.model), config, prompts, options, clock=PhaseClock())
    return rows[0].ids


@pytest.mark.parametrize("frames", [*FRAMES, FORTY_SECONDS])
def test_features_are_the_references(frames: int, pair_of: Callable[..., Pair]):
    waveform = clip_of(frames)
    pair = pair_of("as released")
    found = pair.lab.front_end(waveform)
    assert found.shape[0] == frames
    assert relative_error(found[None], hear(pair, waveform)["input_features"]) < 1e-6


@pytest.mark.parametrize("extra", [0, 1, 159, 160, 161, 319])
def test_odd_mel_frames_and_audio_tokens_are_counted_like_the_references(
    extra: int, pair_of: Callable[..., Pair]
):
    pair = pair_of("as released")
    lab = pair.lab
    for frames in (1, 15, 16, 30):
        waveform = noise(samples_of_frames(frames, extra) / 16_000)
        if waveform.shape[0] < 257:
            continue
        expected = int(pair.extractor(waveform)["audio_embed_sizes"][0])
        assert lab.model.num_audio_tokens(lab.front_end(waveform).shape[0]) == expected
        assert lab.front_end.config.num_frames(waveform.shape[0]) == frames


@pytest.mark.parametrize("case", CASES)
def test_each_encoder_block_and_the_ctc_posteriors(case: str, pair_of: Callable[..., Pair]):
    pair = pair_of(case)
    lab, theirs = pair.lab, pair.reference.model.encoder
    context = lab.config.encoder.context_size
    for frames in sorted({1, 14, context - 1, context, context + 1, 3 * context - 5}):
        waveform = clip_of(frames)
        with torch.inference_mode(), outputs_of(theirs.layers) as expected:
            last = theirs(hear(pair, waveform)["input_features"]).last_hidden_state
        with torch.inference_mode(), outputs_of(lab.model.encoder.layers) as found:
            ours = lab.model.encoder(*native_features(pair, waveform))
        assert len(found) == len(expected) == lab.config.encoder.num_layers
        for number, (mine, block) in enumerate(zip(found, expected, strict=True)):
            error = relative_error(mine[:, :frames], block)
            assert error < TOLERANCE, f"block {number}, {frames} frames"
        posteriors = theirs.out(last).softmax(-1)
        assert relative_error(ours.frames[:, :frames], last) < TOLERANCE
        assert relative_error(ours.ctc_logits[:, :frames].softmax(-1), posteriors) < TOLERANCE
        middle = lab.config.encoder.num_layers // 2
        if middle:
            with torch.inference_mode():
                posteriors = theirs.out(expected[middle - 1]).softmax(-1)
            assert (
                relative_error(ours.mid_ctc_logits[:, :frames].softmax(-1), posteriors) < TOLERANCE
            )


@pytest.mark.parametrize("case", CASES)
def test_projector_turns_the_same_frames_into_the_same_embeddings(
    case: str, pair_of: Callable[..., Pair]
):
    pair = pair_of(case)
    part = pair.lab.config.projector
    for frames in (1, part.window_size - 1, part.window_size, part.window_size + 1, 47):
        encoded = torch.randn(2, frames, part.encoder_hidden_size)
        with torch.inference_mode():
            expected = pair.reference.model.projector(encoded)
            assert relative_error(pair.lab.model.projector(encoded), expected) < TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_spliced_embeddings(case: str, pair_of: Callable[..., Pair]):
    pair = pair_of(case)
    waveform = clip_of(100)
    ids = torch.tensor([prompt_for(pair, waveform)])
    values, lengths = native_features(pair, waveform)
    heard = hear(pair, waveform)
    with torch.inference_mode():
        audio = pair.reference.get_audio_features(heard["input_features"]).pooler_output
        expected = pair.reference.model.get_merged_audio_embeddings(
            ids, audio, heard["input_features_mask"]
        )
        ours = pair.lab.model.splice(ids, pair.lab.model.embed_audio(values, lengths).embeddings)
    assert relative_error(ours, expected) < TOLERANCE


@pytest.mark.parametrize("frames", [*FRAMES, FORTY_SECONDS])
def test_prefill_logits_at_every_clip_length(frames: int, pair_of: Callable[..., Pair]):
    check_prefill(pair_of("as released"), clip_of(frames))


@pytest.mark.parametrize("case", CASES)
def test_prefill_logits_of_every_shape_of_model(case: str, pair_of: Callable[..., Pair]):
    for frames in (5, 71, 72, 73, 100, 145):
        check_prefill(pair_of(case), clip_of(frames))


def check_prefill(pair: Pair, waveform: Tensor, lora: Tensor | None = None) -> None:
    """All positions' logits, from the waveform on."""
    ids = torch.tensor([prompt_for(pair, waveform)])
    with torch.inference_mode():
        expected = pair.reference(input_ids=ids, **hear(pair, waveform)).logits
        found = pair.lab.model(*native_features(pair, waveform), ids, lora)
    assert relative_error(found, expected) < TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_logits_of_64_decode_steps_over_the_cache(case: str, pair_of: Callable[..., Pair]):
    # The same random tokens go into both, so that one early difference cannot hide the later ones.
    pair = pair_of(case)
    lab, waveform = pair.lab, clip_of(83)
    ids = prompt_for(pair, waveform)
    steps = torch.randint(tiny_models.END_ID, (64,)).tolist()
    engine = eager_engine(lab.model)
    with torch.inference_mode():
        audio = lab.model.embed_audio(*native_features(pair, waveform)).embeddings
        cache, found = run_prefill(engine, lab.config.decoder, Prompts([ids], audio, None), 64)
        out = pair.reference(input_ids=torch.tensor([ids]), **hear(pair, waveform), use_cache=True)
        for number, token in enumerate(steps):
            assert relative_error(found[:, -1], out.logits[:, -1]) < TOLERANCE, f"step {number}"
            position = len(ids) + number
            view = cache.first_slots(engine.slots_in_use(position, cache.num_slots))
            found = engine.decode(torch.tensor([[token]]), torch.tensor([[position]]), view, None)
            out = pair.reference(
                input_ids=torch.tensor([[token]]), past_key_values=out.past_key_values
            )
        assert relative_error(found[:, -1], out.logits[:, -1]) < TOLERANCE


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
    reference = Reference.from_pretrained(speech_folder, dtype=torch.float32).eval()
    pair = Pair(reference, GraniteSpeechFeatureExtractor(), lab, speech_folder)
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


@pytest.mark.parametrize("num_mels", [80, 24])
def test_the_front_end_is_the_one_the_checkpoint_states(num_mels: int, tmp_path: Path):
    raw = raw_config(encoder={"input_dim": 2 * num_mels})
    shape = {"sample_rate": 16_000, "n_fft": 512, "win_length": 320, "hop_length": 160}
    extractor = GraniteSpeechFeatureExtractor(melspec_kwargs={**shape, "n_mels": num_mels})
    make_reference(raw).save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    front_end = core.load(tmp_path, device="cpu", dtype="float32").front_end
    waveform = clip_of(40)
    expected = extractor(waveform)["input_features"]
    assert relative_error(front_end(waveform)[None], expected) < 1e-6


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
    text = AutoModelForCausalLM.from_config(speech.config.text_config).eval()
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
