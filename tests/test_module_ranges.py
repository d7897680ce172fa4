"""Modules in a trace: ranges of an eager run, in the flame graph and nowhere else.

Run alone: ``python -m pytest tests/test_module_ranges.py``.
"""

from __future__ import annotations

import gzip
import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from core.lab import Lab
from core.phases import PhaseClock
from measuring import RECORDING, workload
from profiling.measure.capture import TraceLimits, capture
from profiling.measure.module_ranges import module_ranges
from profiling.report.sections import flame_graphs
from profiling.trace.breakdown import operator_paths, operator_table, phase_table
from profiling.trace.events import Trace, read_trace
from profiling.trace.launches import launch_gaps
from profiling.trace.module_names import MODULE
from profiling.trace.speedscope import speedscope
from profiling.trace.tree_difference import tree_difference


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(64, 64)
        self.drop = nn.Dropout(0.0)  # a module that calls no operator

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.up(x)).relu()


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def record(target: Path, *, modules: bool) -> Trace:
    model, clock = Model().eval(), PhaseClock()
    ranges = module_ranges(model) if modules else nullcontext()
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU]) as session, ranges:
        for _ in range(2):
            with clock.mark("encoder"):
                model(torch.ones(4, 64))
    session.export_chrome_trace(str(target))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    return read_trace(target)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return record(tmp_path_factory.mktemp("named") / "t.json", modules=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return record(tmp_path_factory.mktemp("plain") / "t.json", modules=False)


def test_the_flame_graph_shows_modules_once_for_all_layers_and_operators_inside(
    named: Trace,
) -> None:
    tree = operator_paths(named.index.with_modules, least_share=0)
    labels = dict(zip(tree["id"], tree["label"], strict=True))
    parents = dict(zip(tree["label"], tree["parent_id"].map(labels), strict=True))
    assert parents[f"{MODULE}layers.*"] == "encoder"
    assert parents[f"{MODULE}layers.*.up"] == f"{MODULE}layers.*"
    assert parents["aten::linear"] == f"{MODULE}layers.*.up"
    calls = tree.set_index("label")["num_calls"]
    assert (calls[f"{MODULE}layers.*"], calls[f"{MODULE}layers.*.up"]) == (6, 6)
    wall = phase_table(named.index).set_index("phase")["wall_ms"]["encoder"]
    assert tree["own"].sum() == pytest.approx(wall, rel=0.01)
    drawn = flame_graphs(named)[0].figure().data[0]
    assert "layers.*.up" in drawn.labels


def test_every_other_table_is_as_without_them(named: Trace, plain: Trace) -> None:
    for trace in (named, plain):
        assert not operator_table(trace.index)["name"].str.startswith(MODULE).any()
    launches = [phase_table(trace.index)["num_launches"].tolist() for trace in (named, plain)]
    assert launches[0] == launches[1]
    gaps = [launch_gaps(trace.index)["num_gaps"].tolist() for trace in (named, plain)]
    assert gaps[0] == gaps[1]
    paths = tree_difference(plain.index, named.index)
    assert set(paths["only_in"]) == {""}
    assert plain.index.with_modules is plain.index


def test_speedscope_gets_them_too(named: Trace) -> None:
    names = [frame["name"] for frame in speedscope(named.index, "x")["shared"]["frames"]]
    assert f"{MODULE}layers.1.up" in names


def test_a_module_that_fails_leaves_neither_a_hook_nor_an_open_range(tmp_path: Path) -> None:
    class Bad(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ArithmeticError

    model = nn.Sequential(Bad())
    with profile(activities=[ProfilerActivity.CPU]) as session:
        with pytest.raises(ArithmeticError), module_ranges(model):
            model(torch.ones(1))
        torch.ones(2).relu()
    session.export_chrome_trace(str(tmp_path / "t.json"))
    assert not model[0]._forward_hooks
    found = read_trace(tmp_path / "t.json").index.with_modules
    relu = found.call_names.tolist().index("aten::relu")
    assert found.calls["depth"][relu] == 0


def test_a_recorded_profile_has_modules_where_they_are_asked_for(lab: Lab, tmp_path: Path) -> None:
    target = tmp_path / "trace.json.gz"
    limits = TraceLimits(num_steps=1, tax_blocks=1, modules=True)
    capture(lab, workload(lab), RECORDING, target, limits=limits)
    events = json.loads(gzip.decompress(target.read_bytes()))["traceEvents"]
    names = {event["name"] for event in events}
    assert {f"{MODULE}encoder.layers.0", f"{MODULE}decoder.layers.0.self_attn"} <= names
    assert not any(part._forward_hooks for part in lab.model.modules())
