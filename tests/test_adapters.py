"""Several adapters on one model: each request gets the one it names, as if loaded alone.

Run alone: ``python -m pytest tests/test_adapters.py``.
"""

import json
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch._dynamo.testing import CompileCounter

import core
import tiny_models
from core import __main__ as command_line
from core.checkpoint.key_map import to_stored
from core.checkpoint.safetensors_io import CheckpointError
from core.engine import compiling
from core.lab import Lab
from core.model.granite_speech import GraniteSpeech

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Noise = Callable[..., Tensor]


@pytest.fixture
def base(tmp_path: Path, tokenizer_file: Path) -> Path:
    """A checkpoint with an adapter of its own."""
    folder = tmp_path / "base"
    raw = tiny_models.raw_config()
    model = tiny_models.random_model(raw, seed=1)
    tiny_models.write_checkpoint(folder, raw, model)
    tiny_models.write_adapter(folder, model, seed=2)
    (folder / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    return folder


def write(folder: Path, seed: int, *, whole: bool = False, **how: object) -> Path:
    """A random adapter of the checkpoint above; ``whole``: with a projector of its own."""
    folder.mkdir()
    model = tiny_models.random_model(seed=1)
    tensors = tiny_models.write_adapter(folder, model, seed=seed, **how)
    if whole:
        other = tiny_models.random_model(seed=seed).projector.state_dict()
        prefix = "base_model.model.model."
        state = to_stored({f"projector.{key}": other[key] for key in other})
        save_file(tensors | {prefix + key: state[key] for key in state}, folder / WEIGHTS)
        raw = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(raw | {"modules_to_save": ["projector"]}))
    return folder


def alone(base: Path, adapter: Path, folder: Path) -> Lab:
    """The checkpoint with nothing but this adapter."""
    shutil.copytree(base, folder)
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(adapter / name, folder / name)
    return core.load(folder, device="cpu", dtype="float32")


def load(base: Path) -> Lab:
    return core.load(base, device="cpu", dtype="float32")


def ids(lab: Lab, clip: Tensor, **options: object) -> tuple[int, ...]:
    return lab.transcribe(clip, max_new_tokens=12, **options).token_ids


def test_each_request_gets_what_its_adapter_gives_alone(base: Path, tmp_path: Path, noise: Noise):
    adapters = {
        "one": write(tmp_path / "one", 5),
        "wide": write(tmp_path / "wide", 6, rank=7, modules=("q_proj", "k_proj", "o_proj")),
        "heard": write(tmp_path / "heard", 7, whole=True, lora_alpha=3),
    }
    lab, clip = load(base), noise(1.0)
    expected = {
        name: ids(alone(base, folder, tmp_path / f"{name}-alone"), clip)
        for name, folder in adapters.items()
    }
    expected[None] = ids(lab, clip)
    off = ids(lab, clip, lora=False)
    assert len({*expected.values(), off}) == 5
    for name, folder in adapters.items():
        lab.add_adapter(name, folder)
    assert list(lab.adapters) == ["default", *adapters]
    for name in ("one", None, "heard", "heard", "wide", "one", None, "wide", "heard"):
        assert ids(lab, clip, adapter=name) == expected[name]
        assert ids(lab, clip, lora=False) == off
    assert ids(lab, clip, adapter="default") == expected[None]


def test_clips_of_a_batch_get_the_adapter_too(base: Path, tmp_path: Path, noise: Noise):
    lab = load(base)
    lab.add_adapter("heard", write(tmp_path / "heard", 7, whole=True))
    clips = [noise(1.0), noise(0.6, seed=3)]
    together = lab.transcribe_batch(clips, adapter="heard", max_new_tokens=12)
    assert [t.token_ids for t in together] == [ids(lab, clip, adapter="heard") for clip in clips]


def test_a_model_without_an_adapter_of_its_own_takes_them_too(
    base: Path, tmp_path: Path, noise: Noise
):
    expected = ids(load(base), noise(1.0))
    folder = tmp_path / "own"
    folder.mkdir()
    for name in (CONFIG, WEIGHTS):
        (base / name).rename(folder / name)
    lab = load(base)
    assert not lab.adapters.names
    plain = ids(lab, noise(1.0), lora=False)
    lab.add_adapter("own", folder)
    assert ids(lab, noise(1.0), adapter="own") == expected
    assert ids(lab, noise(1.0), lora=False) == plain
    with pytest.raises(ValueError, match="LoRA was asked for"):
        ids(lab, noise(1.0))


def test_an_unknown_adapter_is_refused_with_those_there_are(
    base: Path, tmp_path: Path, noise: Noise
):
    lab = load(base)
    lab.add_adapter("words", write(tmp_path / "words", 5))
    with pytest.raises(ValueError, match="no adapter 'wrods'; this model has default, words"):
        lab.transcribe(noise(1.0), adapter="wrods")
    with pytest.raises(ValueError, match="LoRA off"):
        lab.transcribe(noise(1.0), adapter="words", lora=False)
    with pytest.raises(ValueError, match="is here already"):
        lab.add_adapter("words", tmp_path / "words")
    with pytest.raises(CheckpointError, match=r"has no adapter_config\.json"):
        lab.add_adapter("none", tmp_path)


def test_a_removed_adapter_leaves_no_trace(base: Path, tmp_path: Path, noise: Noise):
    lab, clip = load(base), noise(1.0)
    before = {lora: ids(lab, clip, lora=lora) for lora in (True, False)}
    folder = write(tmp_path / "heard", 7, whole=True, rank=7, modules=("k_proj", "o_proj"))
    lab.add_adapter("heard", folder)
    heard = ids(lab, clip, adapter="heard")
    lab.remove_adapter("heard")
    assert {lora: ids(lab, clip, lora=lora) for lora in (True, False)} == before
    with pytest.raises(ValueError, match="no adapter 'heard'; this model has default"):
        lab.transcribe(clip, adapter="heard")
    lab.add_adapter("heard", folder)
    assert ids(lab, clip, adapter="heard") == heard
    open_request = lab.stream(clip)
    next(open_request)
    with pytest.raises(ValueError, match="while a request runs"):
        lab.remove_adapter("heard")
    open_request.close()


def test_the_only_adapter_of_a_model_can_be_removed(base: Path, tmp_path: Path, noise: Noise):
    for name in (CONFIG, WEIGHTS):
        (base / name).unlink()
    lab = load(base)
    plain = ids(lab, noise(1.0), lora=False)
    lab.add_adapter("heard", write(tmp_path / "heard", 7, whole=True))
    assert ids(lab, noise(1.0), adapter="heard") != plain
    lab.remove_adapter("heard")
    assert ids(lab, noise(1.0), lora=False) == plain


def test_a_refused_adapter_leaves_the_model_as_it_was(base: Path, tmp_path: Path, noise: Noise):
    lab = load(base)
    before = ids(lab, noise(1.0))
    folder = write(tmp_path / "heard", 7, whole=True)
    tensors = load_file(folder / WEIGHTS)
    key = next(key for key in tensors if key.endswith("projector.linear.weight"))
    save_file(tensors | {key: torch.zeros(3, 3)}, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"projector.linear.weight' has shape \(3, 3\)"):
        lab.add_adapter("heard", folder)
    assert lab.adapters.names == ("default",)
    assert ids(lab, noise(1.0)) == before


def test_merged_weights_keep_their_adapter(base: Path, tmp_path: Path, noise: Noise):
    lab = load(base)
    lab.add_adapter("words", write(tmp_path / "words", 5))
    on = ids(lab, noise(1.0))
    lab.merge_adapter()
    assert ids(lab, noise(1.0)) == on
    with pytest.raises(ValueError, match="unmerge"):
        lab.transcribe(noise(1.0), adapter="words")
    lab.unmerge_adapter()
    words = ids(lab, noise(1.0), adapter="words")
    assert words != on
    lab.merge_adapter("words")
    assert ids(lab, noise(1.0), adapter="words") == words
    with pytest.raises(ValueError, match="unmerge"):
        lab.transcribe(noise(1.0))


def test_an_adapter_fits_int8_weights(base: Path, tmp_path: Path, noise: Noise):
    lab = core.load(base, device="cpu", dtype="float32", quantize="int8-weight-only")
    before = ids(lab, noise(1.0))
    lab.add_adapter("words", write(tmp_path / "words", 5, modules=("q_proj", "k_proj")))
    assert ids(lab, noise(1.0), adapter="words") != before
    assert ids(lab, noise(1.0)) == before


def test_one_thread_cannot_have_two_adapters_at_once(base: Path, tmp_path: Path, noise: Noise):
    lab = load(base)
    lab.add_adapter("words", write(tmp_path / "words", 5))
    open_request = lab.stream(noise(1.0))
    next(open_request)
    with pytest.raises(ValueError, match="still open"):
        lab.transcribe(noise(1.0), adapter="words")
    open_request.close()
    lab.transcribe(noise(1.0), adapter="words")


def test_threads_with_different_adapters_do_not_mix(base: Path, tmp_path: Path, noise: Noise):
    lab, clip = load(base), noise(0.5)
    lab.add_adapter("heard", write(tmp_path / "heard", 7, whole=True))
    expected = {name: ids(lab, clip, adapter=name) for name in (None, "heard")}
    found: list[bool] = []

    def ask(name: str | None) -> None:
        for _ in range(6):
            found.append(ids(lab, clip, adapter=name) == expected[name])

    threads = [threading.Thread(target=ask, args=[name]) for name in (None, "heard", None)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found == [True] * 18


def test_choosing_another_adapter_compiles_nothing_new(
    base: Path, tmp_path: Path, noise: Noise, monkeypatch: pytest.MonkeyPatch
):
    counter = CompileCounter()
    monkeypatch.setattr(compiling.torch, "compile", partial(torch.compile, backend=counter))
    torch.compiler.reset()
    lab = load(base)
    lab.add_adapter("words", write(tmp_path / "words", 5, lora_alpha=3))
    lab.add_adapter("heard", write(tmp_path / "heard", 7, rank=2, whole=True))
    eager = {name: ids(lab, noise(1.0), adapter=name) for name in (None, "words", "heard")}
    graphs = []
    for name in (None, "words", "heard", None):
        assert ids(lab, noise(1.0), adapter=name, engine="compile") == eager[name]
        graphs.append(counter.frame_count)
    assert graphs[0] == graphs[-1] > 0
    torch.compiler.reset()


def test_the_command_line_takes_an_adapter_folder(
    base: Path, tmp_path: Path, noise: Noise, capsys: pytest.CaptureFixture[str]
):
    soundfile.write(tmp_path / "clip.wav", noise(1.0).numpy(), 16_000, subtype="FLOAT")
    words = write(tmp_path / "words", 5)
    common = ["transcribe", str(tmp_path / "clip.wav"), "--model", str(base), "--format", "json"]
    common += ["--device", "cpu", "--max-new-tokens", "12"]
    assert command_line.main([*common, "--adapter", str(words)]) == 0
    found = json.loads(capsys.readouterr().out)
    lab = alone(base, words, tmp_path / "alone")
    assert tuple(found["token_ids"]) == ids(lab, noise(1.0))
    assert command_line.main([*common, "--adapter", str(tmp_path)]) == 2
    assert "has no adapter_config.json" in capsys.readouterr().err


def test_whole_tensors_reach_the_model_in_its_own_layout(base: Path, tmp_path: Path):
    lab = load(base)
    folder = tmp_path / "encoder"
    folder.mkdir()
    other: GraniteSpeech = tiny_models.random_model(seed=9)
    layer = {k: v for k, v in other.state_dict().items() if k.startswith("encoder.layers.1.")}
    prefix = "base_model.model.model."
    stored = {prefix + key: value for key, value in to_stored(layer).items()}
    assert stored[f"{prefix}encoder.layers.1.conv.up_conv.weight"].ndim == 3
    tensors = tiny_models.write_adapter(folder, other, modules_to_save=["encoder.layers.1"])
    save_file(tensors | stored, folder / WEIGHTS)
    lab.add_adapter("encoder", folder)
    with lab.adapters.using("encoder"):
        state = lab.model.state_dict()
        assert all(torch.equal(state[key], value) for key, value in layer.items())
    with lab.adapters.using(None):
        assert not torch.equal(
            state["encoder.layers.1.ff1.up_proj.weight"],
            layer["encoder.layers.1.ff1.up_proj.weight"],
        )


def test_a_table_of_tokens_reaches_the_head_that_is_tied_to_it(base: Path, tmp_path: Path):
    folder = tmp_path / "table"
    folder.mkdir()
    other = tiny_models.random_model(seed=9)
    prefix, table = "base_model.model.", other.decoder.embed_tokens.weight
    names = ["model.language_model.embed_tokens", "lm_head"]
    tensors = tiny_models.write_adapter(folder, other, modules_to_save=names)
    whole = {f"{prefix}{name}.weight": table.clone() for name in names}
    save_file(tensors | whole, folder / WEIGHTS)
    lab = load(base)
    lab.add_adapter("table", folder)
    with lab.adapters.using("table"):
        assert torch.equal(lab.model.decoder.embed_tokens.weight, table)
    with lab.adapters.using(None):
        assert not torch.equal(lab.model.decoder.embed_tokens.weight, table)
    small = core.load(base, device="cpu", dtype="float32", quantize="int8-weight-only")
    with pytest.raises(CheckpointError, match="load the model without quantisation"):
        small.add_adapter("table", folder)
    save_file(tensors | whole | {f"{prefix}lm_head.weight": -table}, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match="table of tokens and its head differ"):
        load(base).add_adapter("table", folder)
