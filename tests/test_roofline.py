"""Counting against built models, torch's own counter, and the arithmetic of a published baseline.

Run alone: ``python -m pytest tests/test_roofline.py``.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import core
import tiny_models
from core.checkpoint.catalog import CATALOG
from core.checkpoint.config_file import parse_config
from core.checkpoint.config_granite_speech5_ctc import parse_granite_speech5_ctc
from core.engine.stages import eager_engine
from core.lab import Lab
from core.model.cache import allocate_cache
from core.phases import DECODE, DRAFT, ENCODER, PREFILL, PROJECTOR
from granite_speech5 import ONE_HALVING, PUBLISHED_CONFIG, TWO_HALVINGS, random_ctc_model
from granite_speech_nar import random_nar_model
from profiling.measure.dispatch_overhead import dispatch_overhead_ms, shadow_config
from profiling.roofline import counts
from profiling.roofline.counts import Shape, count
from profiling.roofline.ctc_counts import count_ctc, ctc_parameters
from profiling.roofline.editor_counts import (
    EDIT,
    count_editor,
    draft_parameters,
    window_projector_parameters,
)
from profiling.roofline.machine_peaks import (
    GPUS,
    Ceiling,
    Ceilings,
)
from profiling.roofline.roofline import (
    CHOOSING,
    LEFT_AFTER_COMPILING,
    expected_end_to_end_gain,
    roofline,
)
from profiling.runs.run_json import tokens_made

TINY = Shape(num_frames=40, num_prompt_tokens=32, num_new_tokens=9)

# Granite Speech 3.3 8B as its config.json has it.
BIG = parse_config(
    tiny_models.raw_config(
        encoder={
            "input_dim": 160,
            "num_layers": 16,
            "hidden_dim": 1024,
            "num_heads": 8,
            "dim_head": 128,
            "feedforward_mult": 4,
            "output_dim": 256,
            "context_size": 200,
            "max_pos_emb": 512,
            "conv_kernel_size": 15,
            "conv_expansion_factor": 2,
        },
        projector={
            "hidden_size": 1024,
            "num_hidden_layers": 2,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
            "encoder_hidden_size": 1024,
        },
        decoder={
            "vocab_size": 49160,
            "hidden_size": 4096,
            "intermediate_size": 12800,
            "num_hidden_layers": 40,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
        audio_token_index=49159,
    ),
    source="test",
)


def parameters(part: nn.Module) -> int:
    return sum(p.numel() for p in part.parameters())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_counted_parameters_are_those_of_built_models(tied: bool, biased: bool):
    raw = tiny_models.raw_config(
        decoder={"attention_bias": biased, "mlp_bias": biased},
        projector={"cross_attention_frequency": 2, "num_hidden_layers": 3},
        tie_word_embeddings=tied,
    )
    model = tiny_models.random_model(raw)
    config = model.config
    assert counts.encoder_parameters(config.encoder) == parameters(model.encoder)
    assert counts.projector_parameters(config.projector) == parameters(model.projector)
    assert counts.decoder_parameters(config.decoder) == parameters(model.decoder)


def onednn_flops(
    x_shape: tuple[int, ...], weight_shape: tuple[int, ...], *more: object, **named: object
) -> int:
    """Operations of oneDNN's product, which torch's counter does not know."""
    return 2 * math.prod(x_shape) * weight_shape[0]


ONEDNN = {torch.ops.mkldnn._linear_pointwise: onednn_flops}


def counted_by_torch(raw: dict[str, Any], shape: Shape) -> dict[str, float]:
    model = tiny_models.random_model(raw)
    config = model.config
    engine = eager_engine(model)
    length = torch.tensor([shape.num_frames])
    ids = torch.zeros(1, shape.num_prompt_tokens, dtype=torch.long)
    last = torch.tensor([[shape.num_prompt_tokens - 1]])
    cache = allocate_cache(
        config.decoder, batch=1, num_slots=64, dtype=torch.float32, device=torch.device("cpu")
    )
    frames = torch.randn(1, shape.num_frames, config.encoder.output_size)
    audio = torch.randn(1, shape.num_frames, config.decoder.hidden_size)
    calls = {
        ENCODER: lambda: engine.encode(torch.randn(1, shape.num_frames, 160), length, None),
        PROJECTOR: lambda: engine.project(frames, None),
        PREFILL: lambda: engine.prefill(
            ids, audio, last, cache.first_slots(shape.num_prompt_tokens), None
        ),
        DECODE: lambda: engine.decode(
            ids[:, :1], last + 1, cache.first_slots(shape.num_prompt_tokens + 1), None
        ),
    }
    found = {}
    # The mode cannot see fused attention on a CPU, so attention is taken apart for it.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        for name, call in calls.items():
            with FlopCounterMode(display=False, custom_mapping=ONEDNN) as counter:
                call()
            found[name] = counter.get_total_flops()
    return found


@pytest.mark.parametrize(
    "raw",
    [tiny_models.raw_config(), tiny_models.raw_plus_config([1, 2])],
    ids=["granite_speech", "plus"],
)
def test_counted_operations_are_about_those_that_torch_counts(raw: dict[str, Any]):
    config = parse_config(raw, source="test")
    needed = count(config, replace(TINY, num_new_tokens=2), element_bytes=4)
    done = counted_by_torch(raw, TINY)
    # The model does no less than is needed, and only masks and relative rows do more.
    assert 0.8 < needed[ENCODER].flops / done[ENCODER] <= 1.0
    assert needed[PROJECTOR].flops == pytest.approx(done[PROJECTOR], rel=0.01)
    assert 0.8 < needed[PREFILL].flops / done[PREFILL] <= 1.0
    assert needed[DECODE].flops == pytest.approx(done[DECODE], rel=0.01)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("shape", [ONE_HALVING, TWO_HALVINGS])
def test_parameters_of_turboctc_are_those_of_built_models(biased: bool, shape: dict[str, Any]):
    model = random_ctc_model(**shape, attention_bias=biased, conv_kernel_size=9)
    assert ctc_parameters(model.config) == parameters(model)
    published = parse_granite_speech5_ctc(PUBLISHED_CONFIG, "published")
    assert ctc_parameters(published) == CATALOG["granite-speech-5.0-470m-turboctc"].parameters


@pytest.mark.parametrize("rows", [26, 52, 104, 130])
@pytest.mark.parametrize("shape", [ONE_HALVING, TWO_HALVINGS])
def test_operations_of_turboctc_are_about_those_that_torch_counts(rows: int, shape: dict[str, Any]):
    model = random_ctc_model(**shape)
    counter = FlopCounterMode(display=False, custom_mapping=ONEDNN)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        model(torch.randn(1, rows, 24), torch.tensor([rows]))
    needed = count_ctc(model.config, rows, element_bytes=4)[ENCODER]
    assert 0.75 < needed.flops / counter.get_total_flops() <= 1.0
    assert needed.num_bytes == 4 * parameters(model)


def test_parameters_of_the_editor_are_those_of_built_models():
    model = random_nar_model()
    config = model.config
    parts = (model.bpe_head, model.projector, model.encoder, model.decoder)
    assert [parameters(part) for part in parts] == [
        draft_parameters(config),
        window_projector_parameters(config.projector),
        counts.encoder_parameters(config.encoder),
        counts.decoder_parameters(config.decoder),
    ]


@pytest.mark.parametrize(("frames", "tokens"), [(40, 3), (60, 9)])
def test_operations_of_the_editor_are_about_those_that_torch_counts(frames: int, tokens: int):
    model = random_nar_model().eval()
    config = model.config
    audio = frames // config.frames_per_audio_row
    slots = torch.zeros(1, config.num_slots(tokens), dtype=torch.long)
    window = config.projector.window_size
    windows = -(-frames // window)
    states = config.projector.num_states * config.projector.encoder_size
    pooled = -(-frames // config.draft_head.pooling_window)
    runs = {
        DRAFT: lambda: model.bpe_head(torch.randn(pooled, config.encoder.hidden_dim)),
        PROJECTOR: lambda: model.project(
            torch.randn(windows, window, states), torch.ones(windows, window, 1)
        ),
        EDIT: lambda: model.edit(
            torch.randn(1, audio, config.decoder.hidden_size),
            slots,
            torch.tensor([audio]),
            torch.tensor([slots.shape[1]]),
        ),
    }
    needed = count_editor(config, frames, tokens, rounds=1, element_bytes=4)
    assert list(needed) == [ENCODER, DRAFT, PROJECTOR, EDIT]
    for name, run in runs.items():
        counter = FlopCounterMode(display=False, custom_mapping=ONEDNN)
        with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
            run()
        assert needed[name].flops == pytest.approx(counter.get_total_flops(), rel=0.02), name
    twice = count_editor(config, frames, tokens, rounds=2, element_bytes=4)[EDIT]
    assert (twice.calls, twice.flops) == (2, 2 * needed[EDIT].flops)


def test_a_token_of_granite_8b_reads_8_17_billion_weights():
    # https://github.com/ibm-granite: 40 layers, 4096 wide, 12800 inside, 49160 tokens, tied.
    per_token = count(BIG, replace(TINY, num_new_tokens=2), element_bytes=1)[DECODE].weight_bytes
    assert per_token == pytest.approx(8.17e9, rel=0.001)
    assert 2 * per_token == pytest.approx(16.34e9, rel=0.001)
    assert 1000 * 2 * per_token / 4.8e12 == pytest.approx(3.40, abs=0.005)
    assert counts.encoder_parameters(BIG.encoder) * 2 == pytest.approx(0.87e9, rel=0.03)
    assert counts.cache_bytes_per_token(BIG.decoder, 2) == 163_840


@pytest.mark.parametrize(
    ("seconds", "new_tokens", "encoder_ms", "prefill_ms", "decode_ms", "total_ms"),
    [
        (3, 23, 0.18, 3.4, 74.9, 78.5),
        (10, 25, 0.44, 3.4, 81.7, 85.6),
        (30, 128, 1.32, 5.1, 432.4, 438.7),
    ],
)
def test_floors_of_the_published_h200_baseline(
    seconds: int,
    new_tokens: int,
    encoder_ms: float,
    prefill_ms: float,
    decode_ms: float,
    total_ms: float,
):
    shape = Shape(50 * seconds, {3: 37, 10: 109, 30: 307}[seconds], new_tokens)
    rows = roofline(count(BIG, shape, element_bytes=2), GPUS["H200"], "bfloat16")
    floor = {row.name: row.floor_ms for row in rows}
    assert floor[ENCODER] == pytest.approx(encoder_ms, rel=0.05)
    assert floor[PREFILL] == pytest.approx(prefill_ms, rel=0.05)
    assert floor[DECODE] == pytest.approx(decode_ms, rel=0.01)
    assert sum(floor.values()) == pytest.approx(total_ms, rel=0.01)


def test_decoding_is_bound_by_memory_and_a_long_prefill_by_arithmetic():
    shape = Shape(num_frames=1500, num_prompt_tokens=1000, num_new_tokens=10)
    rows = roofline(count(BIG, shape, element_bytes=2), GPUS["H100 SXM"], "bfloat16")
    bound = {row.name: row.bound for row in rows}
    assert (bound[PREFILL], bound[DECODE]) == ("compute", "memory")


def test_an_adapter_adds_its_bytes_to_every_token():
    plain = count(BIG, TINY, element_bytes=2)[DECODE]
    adapted = count(BIG, TINY, element_bytes=2, adapter_parameters=34_000_000)[DECODE]
    assert adapted.weight_bytes - plain.weight_bytes == 8 * 68_000_000


def test_the_step_that_finds_the_end_of_the_text_is_a_token_that_was_made():
    steps = [{"index": n, "ms": 1.0} for n in range(1, 7)]
    assert tokens_made({"metrics": {"new_tokens": 6}, "tokens": steps}) == 7
    assert tokens_made({"metrics": {"new_tokens": 7}, "tokens": steps}) == 7  # cut at the limit
    assert tokens_made({"metrics": {"new_tokens": 6}, "tokens": []}) == 6  # drafts: no single steps


def test_one_new_token_needs_no_decode_step():
    costs = count(BIG, Shape(150, 37, 1), element_bytes=2)
    assert costs[DECODE].flops == costs[DECODE].num_bytes == 0
    rows = roofline(costs, GPUS["L4"], "bfloat16")
    assert DECODE not in [row.name for row in rows]


MACHINE = Ceilings("stub", False, 10e9, 32 * 2**20, (Ceiling("float32", 100e9, 12e9, 80e9),))


def test_small_weights_are_read_from_the_cache():
    assert MACHINE.bytes_per_s("float32", 1e6) == 80e9
    assert MACHINE.bytes_per_s("float32", 1e9) == 12e9
    with pytest.raises(ValueError, match="no ceiling for 'int8'"):
        MACHINE.of("int8")
    assert replace(MACHINE, read_bytes_per_s=20e9).bytes_per_s("float32", 1e9) == 20e9


def test_the_gain_of_compiling_is_predicted_from_the_dispatch_time():
    config = parse_config(tiny_models.raw_config(), source="test")
    costs = count(config, TINY, element_bytes=4)
    rows = roofline(
        costs, MACHINE, "float32", measured_ms={DECODE: 16.0}, overhead_ms={DECODE: 1.5}
    )
    row = next(row for row in rows if row.name == DECODE)
    assert row.overhead_ms == 12.0
    assert row.bound == "overhead"
    assert row.floor_ms < row.expected_ms < 16.0
    assert row.expected_gain == pytest.approx(16.0 / row.expected_ms)
    assert row.share == pytest.approx(row.floor_ms / 16.0)
    gain = expected_end_to_end_gain(rows, 20.0)
    assert gain == pytest.approx(20.0 / (20.0 - (16.0 - row.expected_ms)))


def test_a_compiled_step_is_foretold_from_its_bytes_where_products_of_one_row_become_loops():
    config = parse_config(tiny_models.raw_config(), source="test")
    costs = count(config, TINY, element_bytes=4)
    rows = {}
    for loops in (False, True):
        found = roofline(
            costs,
            MACHINE,
            "float32",
            measured_ms={DECODE: 40.0, PREFILL: 40.0},
            overhead_ms={DECODE: 1.0, PREFILL: 10.0, CHOOSING: 0.5},
            row_loops=loops,
        )
        rows[loops] = {row.name: row for row in found}
    decode, left = rows[True][DECODE], LEFT_AFTER_COMPILING[DECODE]
    assert decode.overhead_ms == 12.0
    assert decode.expected_ms == pytest.approx(8 * (0.5 + left) + decode.floor_ms)
    # Without such loops the arithmetic stays what it was.
    assert rows[False][DECODE].expected_ms == pytest.approx(40.0 - 8 * (1 - left))
    kept = 40.0 - 10.0 * (1 - LEFT_AFTER_COMPILING[PREFILL])
    assert [row[PREFILL].expected_ms for row in rows.values()] == [pytest.approx(kept)] * 2


def test_a_phase_far_above_its_floor_is_bound_by_neither_memory_nor_arithmetic():
    config = parse_config(tiny_models.raw_config(), source="test")
    costs = count(config, TINY, element_bytes=4)
    floors = {row.name: row for row in roofline(costs, MACHINE, "float32")}
    far = roofline(costs, MACHINE, "float32", measured_ms={DECODE: 50 * floors[DECODE].floor_ms})
    near = roofline(costs, MACHINE, "float32", measured_ms={DECODE: 2 * floors[DECODE].floor_ms})
    assert next(row for row in far if row.name == DECODE).bound == "overhead"
    assert next(row for row in near if row.name == DECODE).bound == floors[DECODE].bound


def test_no_gain_is_predicted_where_arithmetic_takes_all_the_time():
    config = parse_config(tiny_models.raw_config(), source="test")
    floor = roofline(count(config, TINY, element_bytes=4), MACHINE, "float32")
    row = next(row for row in floor if row.name == DECODE)
    again = roofline(
        count(config, TINY, element_bytes=4),
        MACHINE,
        "float32",
        measured_ms={DECODE: row.floor_ms},
        overhead_ms={DECODE: 1e-9},
    )
    assert next(r for r in again if r.name == DECODE).expected_gain == pytest.approx(1.0)
    # Ceilings measured on a busier machine than the run: nothing is foretold to slow down.
    beyond = roofline(
        count(config, TINY, element_bytes=4),
        MACHINE,
        "float32",
        measured_ms={DECODE: 0.5 * row.floor_ms},
        overhead_ms={DECODE: 1e-9},
        row_loops=True,
    )
    assert next(r for r in beyond if r.name == DECODE).expected_gain == pytest.approx(1.0)


def test_the_shadow_keeps_layers_and_loses_width(lab: Lab):
    shadow = shadow_config(lab.config)
    assert shadow.decoder.num_hidden_layers == lab.config.decoder.num_hidden_layers
    assert counts.decoder_parameters(shadow_config(BIG).decoder) < 1_000_000
    found = dispatch_overhead_ms(lab, seconds=0.0)
    assert set(found) == {ENCODER, PROJECTOR, PREFILL, DECODE, CHOOSING}
    assert all(0 <= ms < 1000 for ms in found.values())
    assert found[DECODE] > 0


def test_the_shadow_of_a_plus_model_has_its_wide_frames(tmp_path: Path):
    raw = tiny_models.raw_plus_config([1, 2])
    tiny_models.write_checkpoint(tmp_path, raw, tiny_models.random_model(raw))
    found = dispatch_overhead_ms(core.load(tmp_path, device="cpu"), seconds=0.0)
    assert found[PROJECTOR] > 0
