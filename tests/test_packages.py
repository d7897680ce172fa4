"""Packages compiled ahead of time: used where they fit, refused with a reason where they do not.

The slow test builds one and runs it.
Run alone: ``python -m pytest tests/test_packages.py -m ""``.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.__main__ import main
from core.engine import aot_build
from core.engine.aot_build import build_package
from core.engine.aot_load import (
    ENVIRONMENT,
    MANIFEST,
    Manifest,
    Packaged,
    Refused,
    load_package,
    package_name,
    packages_folder,
    ready_engine,
)
from core.engine.compiler_cache import cache_folder, use_processors_folder
from core.engine.compiling import CompileLedger
from core.engine.fingerprint import (
    ROOT,
    code_of_graphs,
    difference,
    fingerprint,
    reached,
    structure_of,
)
from core.engine.graphs import Graph
from core.errors import UserError
from core.lab import Lab
from core.loading import load
from core.model.granite_speech import GraniteSpeech
from core.model.quantize import quantise_decoder
from granite_speech5 import random_ctc_model, write_ctc_folder
from tiny_models import attach_adapter, random_model, write_adapter

GRAPHS = "core.engine.graphs"


@pytest.fixture(autouse=True)
def _built_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aot_build, "most_builders", lambda *_: 1)


def adapted_model(folder: Path, seed: int = 0) -> GraniteSpeech:
    model = random_model(seed=seed)
    write_adapter(folder, model)
    attach_adapter(model, folder)
    return model


def write_package(folder: Path, model: GraniteSpeech, **changes: str) -> Path:
    """A package of no graphs, made for ``model`` but for ``changes``."""
    here = fingerprint(model)
    target = folder / package_name("toy", here.structure)
    target.mkdir(parents=True)
    Manifest(replace(here, **changes), {}).write(target)
    return target


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"written to {tmp_path}/file .*set {ENVIRONMENT} to"):
        build_package(random_model(), name="x", into=tmp_path / "file")


def test_the_structure_is_shapes_and_constants_but_not_weights(tmp_path: Path):
    first, second = adapted_model(tmp_path, seed=0), adapted_model(tmp_path, seed=1)
    assert structure_of(first) == structure_of(second)
    plain = random_model()
    assert structure_of(plain) != structure_of(first)
    rounded = adapted_model(tmp_path)
    quantise_decoder(rounded, "int8")
    weights_only = adapted_model(tmp_path)
    quantise_decoder(weights_only, "int8-weight-only")
    assert len({structure_of(m) for m in (first, rounded, weights_only, plain.bfloat16())}) == 4
    next(second.decoder.layers[0].self_attn.q_proj.modules()).lora_scaling = 7.0
    assert structure_of(first) != structure_of(second)


def test_merging_lora_does_not_change_the_structure(tmp_path: Path):
    model = adapted_model(tmp_path)
    before = structure_of(model)
    model.decoder.layers[0].self_attn.q_proj.merge()
    assert structure_of(model) == before


def test_a_difference_is_said_in_words():
    here = fingerprint(random_model())
    assert difference(here, here) is None
    assert difference(replace(here, torch="2.0.0"), here) == (
        f"it was made for torch 2.0.0, here is torch {torch.__version__}"
    )
    assert "processor AVX (1)" in str(difference(replace(here, processor="AVX (1)"), here))
    assert difference(replace(here, code="x"), here) == (
        "it was made for another version of this project's model"
    )


@pytest.mark.parametrize("field", ["torch", "processor", "code", "device"])
def test_a_stale_package_is_refused_and_stages_compile_as_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
):
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    model, ledger = random_model(), CompileLedger()
    folder = write_package(tmp_path, model, **{field: "another"})
    engine = ready_engine(model, ledger, name="toy")
    assert engine.name == "compile"
    assert ledger.packaged == ()
    assert ledger.refused is not None
    assert ledger.refused.startswith(f"the package in {folder} is not used: it was made for ")


def test_a_package_beside_the_model_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "nothing"))
    model, ledger = random_model(), CompileLedger()
    write_package(tmp_path / "checkpoint" / "packages", model, torch="2.0.0")
    ready_engine(model, ledger, name="toy", beside=tmp_path / "checkpoint")
    assert ledger.refused is not None
    other = CompileLedger()
    ready_engine(model, other, name="toy", beside=tmp_path / "elsewhere")
    assert other.refused is None


def test_packages_can_be_turned_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(ENVIRONMENT, "off")
    model, ledger = random_model(), CompileLedger()
    write_package(tmp_path / "checkpoint" / "packages", model, torch="2.0.0")
    ready_engine(model, ledger, name="toy", beside=tmp_path / "checkpoint")
    assert ledger.refused is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"graphs": {}}', '{"fingerprint": {"x": 1}}'])
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: str):
    model = random_model()
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(Refused, match="package.json cannot be read"):
        load_package(tmp_path, model, fingerprint(model))


@pytest.mark.parametrize("content", [None, b"", b"PK not a zip"])
def test_a_damaged_graph_is_refused(tmp_path: Path, content: bytes | None):
    model = random_model()
    Manifest(fingerprint(model), {"decode-B1": 1.0}).write(tmp_path)
    if content is not None:
        (tmp_path / "decode-B1.pt2").write_bytes(content)
    with pytest.raises(Refused, match=r"^decode-B1.pt2 cannot be loaded \(.+\)$"):
        load_package(tmp_path, model, fingerprint(model))


def test_a_loader_with_other_parameters_is_a_package_that_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch's loader is private: another release may take other arguments.
    monkeypatch.setattr(torch._C._aoti, "AOTIModelPackageLoader", lambda file, model_name: None)
    model = random_model()
    Manifest(fingerprint(model), {"decode-B1": 1.0}).write(tmp_path)
    with pytest.raises(Refused, match=r"^decode-B1.pt2 cannot be loaded \(.*takes 2 positional"):
        load_package(tmp_path, model, fingerprint(model))


def test_what_a_package_lacks_is_compiled(tmp_path: Path):
    model, asked = adapted_model(tmp_path), []

    def otherwise(graph: Graph, arguments: tuple[Tensor | None, ...]) -> Any:
        asked.append(graph.name)
        return arguments

    graph = Graph("decode", lambda *tensors: tensors, ({0: "B"}, {0: "B"}))
    run = Packaged({"decode-B1": lambda tensors: tensors}, model, otherwise)
    run(graph, (torch.ones(1, 1), torch.ones(1, 1, 1)))
    assert asked == []
    run(graph, (torch.ones(2, 1), torch.ones(2, 1, 1)))
    assert asked == ["decode"]


def test_while_lora_is_merged_a_package_adds_nothing_to_the_weights(tmp_path: Path):
    model = adapted_model(tmp_path)
    graph = Graph("decode", lambda *tensors: tensors, ({0: "B"}, {0: "B"}))
    run = Packaged({"decode-B1": lambda tensors: tensors}, model, lambda graph, arguments: None)
    arguments = (torch.ones(1, 1), torch.ones(1, 1, 1))
    assert run(graph, arguments)[1].item() == 1
    for layer in model.decoder.layers:
        layer.self_attn.q_proj.merge()
    assert run(graph, arguments)[1].item() == 0
    assert run(graph, arguments)[0].item() == 1


def test_a_build_that_fails_leaves_the_old_package_and_no_half_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = random_model()
    old = write_package(tmp_path, model, torch="2.0.0")

    def fail(*_: Any) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(aot_build, "_compile", fail)
    with pytest.raises(RuntimeError, match="no compiler"):
        build_package(model, name="toy", into=tmp_path)
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == [old.name]
    assert json.loads((old / MANIFEST).read_text())["fingerprint"]["torch"] == "2.0.0"


def test_a_library_that_another_builder_is_writing_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    use_processors_folder()
    half = cache_folder() / "half.so"
    half.write_bytes(b"\x7fELF")
    os.utime(half, (0, 0))
    there: list[bool] = []

    def compile_one(*_: Any) -> None:
        there.append(half.exists())
        half.write_bytes(b"\x7fELF")  # on a busy machine its last bytes may come much later
        os.utime(half, (0, 0))

    monkeypatch.setattr(aot_build, "_compile", compile_one)
    monkeypatch.setattr(aot_build, "_seconds_to_ready", lambda *_: 0.25)
    build_package(random_model(), name="toy", into=tmp_path)
    assert there == [False] + [True] * 5


def test_merged_weights_are_not_packaged(tmp_path: Path):
    model = adapted_model(tmp_path)
    model.decoder.layers[0].self_attn.q_proj.merge()
    with pytest.raises(ValueError, match="unmerge it before packaging"):
        build_package(model, name="toy", into=tmp_path / "packages")


def test_the_folder_is_named_after_the_model_and_kept_where_one_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    assert package_name("ibm-granite/granite-4.0-1b-speech", "ab" * 32) == (
        "granite-4.0-1b-speech-abababababab"
    )
    assert package_name("/home/me/my model", "cd" * 32) == "my-model-cdcdcdcdcdcd"
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    assert packages_folder() == tmp_path
    monkeypatch.delenv(ENVIRONMENT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert packages_folder() == tmp_path / "granite-speech-lab" / "packages"


def test_the_command_says_where_the_package_is(
    speech_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    met = []

    def note(model: GraniteSpeech, graph: Graph, arguments: tuple[Tensor | None, ...], file: Path):
        met.append((file.stem, arguments[0].is_inference()))

    monkeypatch.setattr(aot_build, "_compile", note)
    monkeypatch.setattr(aot_build, "_seconds_to_ready", lambda *_: 0.25)
    options = ["--device", "cpu", "--dtype", "float32", "--output-dir", str(tmp_path)]
    assert main(["package", str(speech_folder), *options]) == 0
    said = capsys.readouterr()
    folder = Path(said.out.strip())
    assert folder.parent == tmp_path
    assert "ready in 0.25 s" in said.err
    graphs = ["decode-B1", "encode-B1", "encode_blocks-B1", "prefill-B1", "project", "verify-B1"]
    assert sorted(json.loads((folder / MANIFEST).read_text())["graphs"]) == graphs
    assert sorted(met) == [(name, False) for name in graphs]  # exporting refuses inference tensors


@pytest.mark.long
def test_a_package_gives_the_eager_tokens_compiles_nothing_and_reads_the_live_weights(
    speech_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    noise: Callable[..., Tensor],
):
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    monkeypatch.setattr(aot_build, "most_builders", lambda *_: 2)
    lab: Lab = load(speech_folder, device="cpu", dtype="float32")
    folder = build_package(lab.model, name=lab.model_info.name)
    options = {"max_new_tokens": 16, "ignore_eos": True}
    for number, seconds in enumerate((0.2, 0.9, 2.3)):
        clip = noise(seconds, seed=number)
        for lora in (True, False):
            for decoding in ("greedy", "speculative"):
                eager = lab.transcribe(clip, lora=lora, **options)
                found = lab.transcribe(
                    clip, engine="compile", lora=lora, decoding=decoding, **options
                )
                assert found.token_ids == eager.token_ids
    lab.merge_adapter()
    merged = lab.transcribe(noise(0.9), engine="compile", **options)
    assert merged.token_ids == lab.transcribe(noise(0.9), **options).token_ids
    lab.unmerge_adapter()
    assert lab.compile_ledger.graphs == {}
    assert len(lab.compile_ledger.packaged) == 6
    assert (
        asdict(fingerprint(lab.model)) == json.loads((folder / MANIFEST).read_text())["fingerprint"]
    )
    assert not list(folder.glob("*.safetensors"))


def test_a_package_of_turboctc_has_a_graph_for_one_clip_and_one_for_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aot_build, "_compile", lambda *_: None)
    monkeypatch.setattr(aot_build, "_seconds_to_ready", lambda *_: 0.25)
    model = random_ctc_model()
    folder = build_package(model, name="turbo", into=tmp_path, batches=True)
    made = json.loads((folder / MANIFEST).read_text())
    assert sorted(made["graphs"]) == ["encode", "encode-B1"]
    assert fingerprint(model).structure != fingerprint(random_ctc_model(context_size=12)).structure
    stage = reached(["core.engine.ctc_stage"])
    assert {"core.model.granite_speech5_ctc", "core.model.shaw_attention"} <= stage.keys()
    others = frozenset({"core.model.linear", *(type(m).__module__ for m in model.modules())})
    assert made["fingerprint"]["code"] == code_of_graphs(others | {"core.engine.ctc_stage"})
    with pytest.raises(UserError, match="of the kind Linear are not compiled ahead of time"):
        build_package(torch.nn.Linear(1, 1), name="none", into=tmp_path)


@pytest.mark.slow
def test_a_package_of_turboctc_gives_the_eager_tokens_and_compiles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: Callable[..., Tensor]
) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "packages"))
    lab = load(write_ctc_folder(tmp_path / "turbo"), device="cpu", dtype="float32")
    folder = build_package(lab.model, name=lab.model_info.name, batches=True)
    clips = [noise(seconds, seed=seed) for seed, seconds in enumerate((0.1, 0.4, 1.3, 2.7))]
    for clip in clips:
        found = lab.transcribe(clip, engine="compile")
        assert found.token_ids == lab.transcribe(clip).token_ids
    together = lab.transcribe_batch(clips, engine="compile")
    assert [t.token_ids for t in together] == [lab.transcribe(c).token_ids for c in clips]
    assert lab.compile_ledger.graphs == {}
    assert lab.compile_ledger.packaged == ("encode", "encode-B1")
    assert not list(folder.glob("*.safetensors"))


def test_the_code_of_the_graphs_is_every_module_that_they_reach() -> None:
    found = reached([GRAPHS])
    assert {"core.model.linear", "core.model.decoder", "core.model.lora"} <= found.keys()
    others = {name for name in found if not name.startswith(("core.model.", "core.engine."))}
    assert others == {"core.errors"}


@pytest.mark.parametrize("name", sorted(reached([GRAPHS, "core.model.quantize"])))
def test_an_edit_of_any_module_in_the_graphs_makes_packages_stale(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = frozenset({GRAPHS, "core.model.quantize"})
    shutil.copytree(ROOT / "core", tmp_path / "core", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr("core.engine.fingerprint.ROOT", tmp_path)
    before = code_of_graphs.__wrapped__(roots)
    edited = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
    edited.write_text(edited.read_text() + "\n# edited\n")
    assert code_of_graphs.__wrapped__(roots) != before
    untouched = tmp_path / "core" / "text" / "tokenizer.py"
    edited.write_text(edited.read_text().removesuffix("\n# edited\n"))
    untouched.write_text(untouched.read_text() + "\n# edited\n")
    assert code_of_graphs.__wrapped__(roots) == before
