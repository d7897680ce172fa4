"""One layer as a graph: the stage around it is the whole stage."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from core.engine import graphs
from core.engine.aot_build import OneLayer, _examples
from core.engine.aot_load import Packaged
from core.engine.graphs import Arguments, Graph, graphs_of, variant
from core.engine.layer_graphs import LayerGraph, tensors_of
from core.model.granite_speech import GraniteSpeech
from core.model.quantize import quantise_decoder
from tiny_models import attach_adapter, random_model, write_adapter

LAYERED = ("encode-B1", "encode_blocks-B1", "prefill-B1", "encode", "encode_blocks", "prefill")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GraniteSpeech:
    """A model whose layers count as large."""
    monkeypatch.setattr(graphs, "LARGE_LAYER_BYTES", 1)
    model = random_model()
    write_adapter(tmp_path, model)
    attach_adapter(model, tmp_path)
    return model


def noise_for(arguments: Arguments) -> Arguments:
    """Fill what a warm-up left zero; numbers of frames, places and ids stay."""
    torch.manual_seed(0)
    return tuple(
        t if t is None or not t.is_floating_point() or t.dim() == 3 and t.shape[1:] == (1, 1)
        else torch.randn(t.shape, dtype=t.dtype).as_strided(t.shape, t.stride())
        if t.is_contiguous()
        else t
        for t in arguments
    )  # fmt: skip


def compiled_layer(graph: Graph, asked: Arguments) -> tuple[LayerGraph, list[OneLayer]]:
    """The module that is compiled, made by the stage's first call."""
    assert graph.layer is not None
    made: list[OneLayer] = []

    def call(layer: nn.Module, tensors: Arguments) -> Tensor:
        made.append(OneLayer(graph.layer, tuple(t is not None for t in tensors)))
        return graph.layer.run(layer, *tensors)

    graph.layer.stage(call)(*asked)
    return graph.layer, made


@torch.no_grad()
@pytest.mark.parametrize("name", LAYERED)
def test_a_stage_through_one_compiled_layer_gives_what_the_whole_graph_gives(
    model: GraniteSpeech, name: str
):
    graph, arguments = _examples(model, batches=True)[name]
    arguments = noise_for(arguments)
    whole = graph.run(*arguments)
    layer, (one, *_) = compiled_layer(graph, arguments)
    assert len(layer.layers) > 1
    calls: list[int] = []

    def loaded(tensors: list[Tensor]) -> list[Tensor]:
        calls.append(len(tensors))
        count = len(tensors) - len(tensors_of(layer.layers[0]))
        return [one(tuple(tensors[:count]), tuple(tensors[count:]))]

    run = Packaged({name: loaded}, model, lambda *_: pytest.fail("not in the package"))
    found = run(graph, arguments)
    assert len(calls) == len(layer.layers)
    assert len(found) == len(whole)
    for ours, theirs in zip(found, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_prefill_through_one_layer_writes_the_same_cache(model: GraniteSpeech):
    graph, arguments = _examples(model, batches=False)["prefill-B1"]
    arguments = noise_for(arguments)
    assert graph.layer is not None
    stage = graph.layer.stage(lambda layer, tensors: graph.layer.run(layer, *tensors))
    first, second = (
        tuple(None if t is None else t.clone() for t in arguments) for _ in range(2)
    )  # fmt: skip
    graph.run(*first)
    stage(*second)
    for ours, theirs in zip(second[4:], first[4:], strict=True):
        assert torch.equal(ours, theirs)
        assert ours.abs().sum() > 0


def test_layers_that_differ_are_compiled_as_a_whole(model: GraniteSpeech):
    assert graphs_of(model).prefill.layer is not None
    model.decoder.layers[0].self_attn.q_proj.lora_scaling = 7.0
    found = graphs_of(model)
    assert found.prefill.layer is None
    assert found.encode.layer is not None


def test_small_layers_and_steps_are_compiled_as_a_whole(
    model: GraniteSpeech, monkeypatch: pytest.MonkeyPatch
):
    assert graphs_of(model).decode.layer is graphs_of(model).verify.layer is None
    monkeypatch.setattr(graphs, "LARGE_LAYER_BYTES", 2**40)
    small = graphs_of(model)
    assert small.prefill.layer is small.encode.layer is small.encode_blocks.layer is None


def test_int8_weights_are_arguments_too(model: GraniteSpeech):
    quantise_decoder(model, "int8-weight-only")
    names = tensors_of(model.decoder.layers[0])
    assert any(t.dtype == torch.int8 for t in names.values())
    assert not any("num_batches" in name for name in tensors_of(model.encoder.layers[0]))
    assert variant(graphs_of(model).prefill, (torch.zeros(1, 3),)) == "prefill-B1"
