"""int8 decoders: close to the float ones, with LoRA, tied heads, and whole graphs."""

from pathlib import Path

import pytest
import torch

import core
from core.engine.stages import decode_stage
from core.generation.sampling import GenerationOptions
from core.lab import Lab
from core.model.cache import allocate_cache
from core.model.decoder import GraniteDecoder
from core.model.int8_products import quantise_rows
from core.model.lora import AdaptableLinear, LoRAWeights, switch
from core.model.quantize import MODES, Int8Linear, quantise_decoder

DEVICE, FLOAT = torch.device("cpu"), torch.float32


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()


def hidden_logits(decoder: GraniteDecoder, seed: int, lora: torch.Tensor | None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(2, 12, decoder.config.hidden_size, generator=generator) * 0.1
    positions = torch.arange(12).expand(2, -1)
    return decoder.logits(decoder(embeddings, positions, None, lora), lora)


def test_a_row_keeps_its_largest_value_and_is_off_by_half_a_step_at_most() -> None:
    values = torch.randn(5, 64)
    integers, step = quantise_rows(values)
    assert integers.dtype == torch.int8
    assert int(integers.abs().max()) == 127
    assert float((integers * step - values).abs().max()) <= float(step.max()) / 2 + 1e-7


def test_a_row_of_zeros_stays_zero() -> None:
    integers, step = quantise_rows(torch.zeros(1, 8))
    assert not integers.any()
    assert torch.isfinite(step).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rows", [1, 2, 17])
def test_a_layer_gives_nearly_the_float_result(mode: str, rows: int) -> None:
    layer = AdaptableLinear(96, 80)
    x = torch.randn(rows, 3, 96)
    quick = Int8Linear(layer, round_activations=mode == "int8")
    assert quick(x).shape == (rows, 3, 80)
    assert cosine(quick(x), layer(x)) > 0.9995


@pytest.mark.parametrize("mode", MODES)
def test_lora_is_switched_on_int8_layers_as_on_float_ones(mode: str) -> None:
    layer = AdaptableLinear(32, 48, bias=False)
    layer.attach(LoRAWeights(torch.randn(4, 32), torch.randn(48, 4), 0.5))
    x = torch.randn(1, 5, 32)
    on, off = switch([True], like=x), switch([False], like=x)
    quick = Int8Linear(layer, round_activations=mode == "int8")
    assert torch.allclose(quick(x, on) - quick(x, off), layer(x, on) - layer(x, off), atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_the_logits_stay_close(speech_folder: Path, lab: Lab, mode: str) -> None:
    quick = core.load(speech_folder, device="cpu", dtype="float32", quantize=mode)
    assert quick.quantize == mode
    for lora in (True, False):
        state = switch([lora] * 2, like=torch.zeros(0))
        with torch.inference_mode():
            got = hidden_logits(quick.model.decoder, 3, state)
            expected = hidden_logits(lab.model.decoder, 3, state)
        # Random weights have none of the slack of trained ones; 0.999 is asked of those.
        assert cosine(got, expected) > 0.995


def test_every_linear_layer_of_the_decoder_and_none_else_is_int8(speech_folder: Path) -> None:
    lab = core.load(speech_folder, device="cpu", quantize="int8")
    kinds = {
        name: isinstance(module, Int8Linear)
        for name, module in lab.model.named_modules()
        if isinstance(module, AdaptableLinear)
    }
    assert all(int8 == name.startswith("decoder.") for name, int8 in kinds.items())
    assert kinds["decoder.lm_head"]


def test_int8_generates_and_drafts_and_transcribes(speech_folder: Path, noise) -> None:  # type: ignore[no-untyped-def]
    lab = core.load(speech_folder, device="cpu", quantize="int8")
    (row,) = lab.generate_ids(
        [[5, 6, 7]], options=GenerationOptions(max_new_tokens=8, ignore_eos=True)
    )
    assert len(row.ids) == 8
    options = {"max_new_tokens": 8, "ignore_eos": True, "skip_silence": False}
    plain = lab.transcribe(noise(1.0), **options)
    assert lab.transcribe(noise(1.0), decoding="speculative", **options).new_tokens == 8
    assert plain.new_tokens == 8


def test_an_int8_step_is_one_graph(speech_folder: Path) -> None:
    lab = core.load(speech_folder, device="cpu", quantize="int8")
    graphs = []

    def count(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    step = torch.compile(decode_stage(lab.model), fullgraph=True, dynamic=False, backend=count)
    config = lab.config.decoder
    cache = allocate_cache(config, batch=1, num_slots=16, dtype=FLOAT, device=DEVICE)
    with torch.inference_mode():
        for place in range(3):
            ids, positions = torch.tensor([[5]]), torch.tensor([[place]])
            step(ids, positions, cache, switch([True], like=torch.zeros(0)))
    assert len(graphs) == 1


def test_merging_and_quantising_exclude_each_other(speech_folder: Path) -> None:
    lab = core.load(speech_folder, device="cpu")
    lab.merge_adapter()
    with pytest.raises(ValueError, match="unmerge"):
        quantise_decoder(lab.model, "int8")
    lab = core.load(speech_folder, device="cpu", quantize="int8")
    with pytest.raises(ValueError, match="cannot be merged"):
        lab.merge_adapter()


def test_an_unknown_mode_is_an_error(speech_folder: Path) -> None:
    with pytest.raises(ValueError, match="int8-weight-only"):
        core.load(speech_folder, device="cpu", quantize="int4")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rows", [1, 3, 20, 100])
def test_a_compiled_layer_is_traced_to_the_same_numbers(mode: str, rows: int) -> None:
    """What is compiled takes other operators than eager; here they run uncompiled."""
    layer = AdaptableLinear(96, 80)
    x = torch.randn(rows, 96)
    quick = Int8Linear(layer, round_activations=mode == "int8")
    traced = torch.compile(quick, fullgraph=True, backend="eager", dynamic=False)
    with torch.inference_mode():
        assert cosine(traced(x), quick(x)) > 0.9999
        assert cosine(traced(x), layer(x)) > 0.9995


def test_few_rows_of_weight_only_int8_are_not_widened_in_memory() -> None:
    layer = Int8Linear(AdaptableLinear(512, 2048, bias=False), round_activations=False)
    weight_bytes = 512 * 2048 * 4
    with (
        torch.inference_mode(),
        torch.profiler.profile(profile_memory=True, acc_events=True) as profile,
    ):
        layer(torch.randn(1, 512))
    assert max(event.cpu_memory_usage for event in profile.events()) < weight_bytes / 4


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_compiled_int8_gives_the_tokens_of_eager_int8(speech_folder: Path, mode: str) -> None:
    lab = core.load(speech_folder, device="cpu", quantize=mode)
    options = {"max_new_tokens": 16, "ignore_eos": True, "skip_silence": False}
    clip = torch.randn(16_000, generator=torch.Generator().manual_seed(3)) * 0.1
    eager = lab.transcribe(clip, **options)
    compiled = lab.transcribe(clip, engine="compile", **options)
    # Products are rounded in another order; random weights have no slack against that.
    same = sum(a == b for a, b in zip(eager.token_ids, compiled.token_ids, strict=True))
    assert same >= 12
    a, b = (
        lab.logits_along(clip, list(eager.token_ids), engine=name) for name in ("eager", "compile")
    )
    assert float(torch.nn.functional.cosine_similarity(a, b, dim=-1).min()) > 0.995
