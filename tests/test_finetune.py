"""Fine-tuning a random tiny model for a few steps: what is learnt, kept, refused and gone on with.

Run alone: ``python -m pytest tests/test_finetune.py -m ""``.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import core
import reference
import tiny_models
from core.lab import Lab
from core.saving import SaveError
from oracle import peft, transformers
from training.__main__ import main
from training.corpus.manifest import read_manifest
from training.finetune import finetune as running
from training.finetune.data import Batcher, Recordings
from training.finetune.finetune import finetune, prepare
from training.finetune.material import answer_lead
from training.finetune.options import FinetuneOptions
from training.finetune.row_schedule import Draw, Size
from training.finetune.trainable import TrainablePlan, losses, trainable
from training.stages.decoder_stage import IGNORE

ALL = TrainablePlan(("lora", "projector", "encoder", "embeddings"), 4, 4.0, ("q_proj", "k_proj"), 1)
Noise = Callable[..., Tensor]


@pytest.fixture
def data(tmp_path: Path, noise: Noise) -> Path:
    """Eight short clips that read "##" or "!!", which the random model's CTC head can spell."""
    lines = []
    for index in range(8):
        name = f"{index}.wav"
        samples = noise(0.3 + 0.05 * index, seed=index % 2)
        soundfile.write(tmp_path / name, samples.numpy(), 16_000, subtype="FLOAT")
        row = {"audio": name, "text": "#!"[index % 2] * 2, "language": "en", "speaker": "me"}
        split = {"split": "dev"} if index >= 6 else {}
        lines.append(json.dumps({**row, **split, "licence": "CC0-1.0"}))
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def options(folder: Path, data: Path, out: Path, **changes: Any) -> FinetuneOptions:
    plain: dict[str, Any] = {"plan": ALL, "size": Size(3, 30.0), "steps": 4, "check_every": 2}
    plain |= {"learning_rate": 3e-3, "strength": 0.3, "patience": 0, "device": "cpu"}
    return FinetuneOptions(model=str(folder), data=data, out=out, **{**plain, **changes})


def run(folder: Path, data: Path, out: Path, **changes: Any) -> dict[str, Tensor]:
    """Train quietly; the adapter's tensors."""
    finetune(options(folder, data, out, **changes), lambda line: None)
    return load_file(out / "adapter_model.safetensors")


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_the_loss_falls_and_only_what_was_named_is_trained(
    speech_folder: Path, data: Path, tmp_path: Path
):
    work = prepare(options(speech_folder, data, tmp_path / "out", steps=30), lambda line: None)
    before = {name: value.clone() for name, value in work.lab.model.state_dict().items()}
    found = [work.step() for _ in range(30)]
    for name, most in (("loss", 0.99), ("characters", 0.8)):  # its decoder is frozen and random
        first, last = (sum(one[name] for one in part) for part in (found[:6], found[-6:]))
        assert last < most * first
    after = work.lab.model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed <= set(work.learning)
    parts = {name.partition(".")[0] for name in changed}
    assert parts == {"decoder", "projector", "encoder"}
    decoder = {name for name in changed if name.startswith("decoder.") and ".lora_" not in name}
    assert decoder == {"decoder.embed_tokens.weight"}
    kept = [name for name in changed if name.startswith("encoder.layers.0")]
    assert not kept, "only the last encoder layer was to be trained"
    assert not any("running_" in name for name in changed)


def test_the_first_step_begins_at_the_model_as_it_is(
    speech_folder: Path, data: Path, tmp_path: Path, noise: Noise
):
    expected = core.load(speech_folder, device="cpu", dtype="float32")
    work = prepare(options(speech_folder, data, tmp_path / "out"), lambda line: None)
    own = expected.logits_along(noise(1.0), [5, 6])
    tuned = work.lab.logits_along(noise(1.0), [5, 6], adapter=running.NAME)
    torch.testing.assert_close(tuned, own, atol=1e-5, rtol=1e-5)


def test_the_adapter_loads_in_core_and_hears_as_the_trained_model_did(
    speech_folder: Path, data: Path, tmp_path: Path, noise: Noise
):
    work = prepare(options(speech_folder, data, tmp_path / "out", steps=3), lambda line: None)
    for _ in range(3):
        work.step()
    work.lab.model.eval()
    work.write()
    trained = work.lab.logits_along(noise(1.0), [5, 6], adapter=running.NAME)
    lab = core.load(speech_folder, device="cpu", dtype="float32")
    own = lab.logits_along(noise(1.0), [5, 6])
    lab.add_adapter("mine", tmp_path / "out")
    torch.testing.assert_close(lab.logits_along(noise(1.0), [5, 6], adapter="mine"), trained)
    assert torch.equal(lab.logits_along(noise(1.0), [5, 6]), own)
    assert not torch.allclose(own, trained)


def test_padding_and_company_do_not_change_a_clips_loss(speech_folder: Path, data: Path):
    lab = core.load(speech_folder, device="cpu", dtype="float32")
    batcher = Batcher(lab, Recordings(lab), strength=0.0, lead="")
    rows = read_manifest(data)
    draws = [Draw(row, str(index)) for index, row in enumerate(rows)]
    together = losses(lab, batcher.batch(draws), characters=True)
    alone = [losses(lab, batcher.batch([draw]), characters=True) for draw in draws]
    torch.testing.assert_close(together.words, sum(one.words for one in alone))
    torch.testing.assert_close(together.characters, sum(one.characters for one in alone))


def test_only_the_answer_counts(speech_folder: Path, data: Path):
    lab = core.load(speech_folder, device="cpu", dtype="float32")
    row = read_manifest(data)[0]
    batcher = Batcher(lab, Recordings(lab), strength=0.0, lead=" ")
    batch = batcher.batch([Draw(row, "")])
    counted = batch.targets[0] != IGNORE
    answer = batch.targets[0][counted].tolist()
    assert answer[-1] == lab.config.decoder.eos_token_ids[0]
    assert lab.tokenizer.decode(answer) == " ##"
    prompt = batch.ids[0][: int(counted.nonzero()[0]) + 1].tolist()
    assert prompt == lab.prompt_ids(int(batch.lengths[0]))


def test_accumulating_batches_is_one_larger_batch(speech_folder: Path, data: Path, tmp_path: Path):
    plan = TrainablePlan(("lora",), 4, 4.0, ("q_proj",), None)  # no dropout in it
    how = {"plan": plan, "strength": 0.0, "steps": 1}
    works = [
        prepare(options(speech_folder, data, tmp_path / name, **how, **size), lambda line: None)
        for name, size in (
            ("one", {"size": Size(6, 30.0)}),
            ("three", {"size": Size(2, 30.0), "accumulate": 3}),
        )
    ]
    for work in works:
        work.optimiser.step = lambda rate: None  # keep the gradients
        work.step()
    whole, parts = (
        {n: p.grad for n, p in work.learning.items() if p.grad is not None} for work in works
    )
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-5, rtol=1e-4)


def test_saving_memory_gives_the_same_gradients(speech_folder: Path, data: Path):
    found = []
    for save_memory in (False, True):
        lab = core.load(speech_folder, device="cpu", dtype="float32")
        learning = trainable(lab.model, ALL)
        batcher = Batcher(lab, Recordings(lab), strength=0.0, lead="")
        batch = batcher.batch([Draw(row, "") for row in read_manifest(data)[:3]])
        losses(lab, batch, characters=False, save_memory=save_memory).words.backward()
        found.append({name: p.grad for name, p in learning.items() if p.grad is not None})
    assert found[0].keys() == found[1].keys() != set()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


def test_a_stopped_run_goes_on_exactly(speech_folder: Path, data: Path, tmp_path: Path):
    whole = run(speech_folder, data, tmp_path / "whole", steps=4)
    out = tmp_path / "stopped"

    def stop(line: str) -> None:
        if line.startswith("step 4:"):  # after the look at step 4, whose state is saved next
            work_is_over.append(line)
            raise KeyboardInterrupt

    work_is_over: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        finetune(options(speech_folder, data, out, steps=4), stop)
    assert work_is_over
    with pytest.raises(ValueError, match="holds a run already; give --resume"):
        run(speech_folder, data, out, steps=4)
    other = TrainablePlan(ALL.parts, 8, 4.0, ALL.modules, 1)
    with pytest.raises(ValueError, match="was started with --rank 4, now it is 8"):
        run(speech_folder, data, out, steps=4, plan=other, resume=True)
    lines: list[str] = []
    finetune(options(speech_folder, data, out, steps=4, resume=True), lines.append)
    assert "going on from step 2" in lines
    assert same(load_file(out / "adapter_model.safetensors"), whole)


def test_a_full_disk_leaves_whole_files_and_the_run_goes_on(
    speech_folder: Path, data: Path, tmp_path: Path
):
    out = tmp_path / "out"
    whole = run(speech_folder, data, tmp_path / "whole", steps=4)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill(line: str) -> None:
        if line.startswith("step 4/"):  # the first look is over, its files are written
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))

    try:
        with pytest.raises(SaveError, match="could not be written .*; what was saved before is"):
            finetune(options(speech_folder, data, out), fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not list(out.rglob("*.new"))
    assert core.load(speech_folder, device="cpu").adapters.names  # and the adapter is whole:
    load_file(out / "adapter_model.safetensors")
    assert same(run(speech_folder, data, out, resume=True), whole)


@pytest.mark.slow
def test_a_killed_process_leaves_whole_files_and_the_run_goes_on(
    speech_folder: Path, data: Path, tmp_path: Path
):
    arguments = ["finetune", "--model", str(speech_folder), "--data", str(data), "--rank", "4"]
    arguments += ["--steps", "60", "--check-every", "3", "--patience", "0", "--device", "cpu"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    # One thread each, in processes of their own: the order of sums must not depend on who runs it.
    alone = {"cwd": Path(__file__).parents[1], "env": os.environ | {"OMP_NUM_THREADS": "1"}}

    def command(out: Path, *more: str) -> list[str]:
        return [sys.executable, "-m", "training", *arguments, "--out", str(out), *more]

    subprocess.run(command(whole), check=True, stdout=subprocess.DEVNULL, **alone)
    process = subprocess.Popen(command(killed), stdout=subprocess.DEVNULL, **alone)
    state = killed / "training" / "state.pt"
    while not state.exists():
        time.sleep(0.05)
        assert process.poll() is None
    time.sleep(0.3)
    process.kill()
    process.wait()
    assert torch.load(state)["progress"]["step"] < 60
    subprocess.run(command(killed, "--resume"), check=True, stdout=subprocess.DEVNULL, **alone)
    left, right = (load_file(out / "adapter_model.safetensors") for out in (whole, killed))
    assert same(left, right)


def test_a_run_without_progress_stops(
    speech_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scores = iter([50.0, 40.0, 45.0, 41.0, 30.0])
    monkeypatch.setattr(running.Material, "score", lambda self, lab, adapter: {"new": next(scores)})
    written: list[int] = []
    monkeypatch.setattr(
        running.FinetuneRun, "write", lambda self: written.append(self.progress.step)
    )
    lines: list[str] = []
    how = {"steps": 20, "check_every": 1, "patience": 2}
    done = finetune(options(speech_folder, data, tmp_path / "out", **how), lines.append)
    assert done.steps == 3
    assert (done.before, done.after) == ({"new": 50.0}, {"new": 40.0})
    assert written == [1]
    assert lines[-1].startswith("stopped at step 3: no progress")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"plan": TrainablePlan(("lora",), 4, 4.0, ("qproj",), None)},
            "'qproj', which the decoder lacks",
        ),
        ({"bf16": True}, "expected CUDA"),
        ({"keep_share": 1.0, "keep": Path("x")}, "--keep-share is 1.0"),
        ({"epochs": 3.0}, "--steps and --epochs came together"),
        ({"learning_rate": 0.0}, "--learning-rate is 0.0"),
        ({"strength": 2.0}, "--augment is 2.0"),
    ],
    ids=["module", "bf16", "share", "length", "rate", "strength"],
)
def test_wrong_options_are_told(
    change: dict[str, Any], told: str, speech_folder: Path, data: Path, tmp_path: Path
):
    with pytest.raises(ValueError, match=told):
        run(speech_folder, data, tmp_path / "out", **change)
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()


def test_plans_that_train_nothing_are_told():
    for parts, rank, told in (
        (("lora", "decoder"), 4, "--train has 'decoder'; expected some of lora, projector"),
        ((), 4, "--train has nothing"),
        (("lora",), 0, "--rank is 0"),
    ):
        with pytest.raises(ValueError, match=told):
            TrainablePlan(parts, rank, 1.0, ("q_proj",), None)


def test_a_bad_row_ends_the_run_before_the_first_step(
    speech_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (data.parent / "4.wav").unlink()
    arguments = ["finetune", "--model", str(speech_folder), "--data", str(data)]
    arguments += ["--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert f"{data}, row 5: 4.wav" in told
    assert "Traceback" not in told
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()


def test_the_space_before_an_answer_is_the_models_own(
    speech_folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
):
    lab: Lab = core.load(speech_folder, device="cpu", dtype="float32")
    rows = read_manifest(data)[:2]
    for lead in ("", " "):
        wanted = lab.tokenizer.encode_continuation(f"{lead}##")[0]

        def likes(waveform: Tensor, ids: list[int], wanted: int = wanted) -> Tensor:
            return nn.functional.one_hot(torch.tensor([wanted]), 304).float() * 5

        monkeypatch.setattr(lab, "logits_along", likes)
        assert answer_lead(lab, [rows[0]]) == lead


def test_a_model_without_an_adapter_can_be_taught(
    data: Path, tmp_path: Path, tokenizer_file: Path, noise: Noise
):
    folder = tmp_path / "plain"
    raw = tiny_models.raw_config(has_lora_adapter=False)
    tiny_models.write_checkpoint(folder, raw, tiny_models.random_model(raw, seed=1))
    (folder / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    plan = TrainablePlan(("lora",), 2, 2.0, ("q_proj", "up_proj"), None)
    tensors = run(folder, data, tmp_path / "out", plan=plan)
    assert all("language_model" in name for name in tensors)
    lab = core.load(folder, device="cpu", dtype="float32")
    plain = lab.logits_along(noise(1.0), [5])
    lab.add_adapter("mine", tmp_path / "out")
    assert torch.equal(lab.logits_along(noise(1.0), [5]), plain)
    assert not torch.allclose(lab.logits_along(noise(1.0), [5], adapter="mine"), plain)


def test_words_that_are_kept_keep_their_rows_of_the_table(
    speech_folder: Path, data: Path, tmp_path: Path
):
    old = data.with_name("old.jsonl")
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    old.write_text("".join(json.dumps({**row, "text": "!!"}) + "\n" for row in rows))
    work = prepare(options(speech_folder, data, tmp_path / "out", keep=old), lambda line: None)
    table = work.lab.model.decoder.embed_tokens.weight
    before = table.detach().clone()
    for _ in range(3):
        work.step()
    changed = {row for row in range(table.shape[0]) if not torch.equal(table[row], before[row])}
    held = {*work.lab.prompt_ids(1), *work.batcher.answer("!!")}
    assert changed == set(range(table.shape[0])) - held
    assert set(work.batcher.answer("##")) & changed


@pytest.mark.oracle
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_peft_gives_the_same_logits_with_a_trained_adapter(
    tied: bool, data: Path, tmp_path: Path, tokenizer_file: Path, noise: Noise
):
    raw = tiny_models.raw_config(tie_word_embeddings=tied)
    adapter = {"r": 4, "lora_alpha": 2, "target_modules": ["q_proj", "v_proj"]}
    pair = reference.make_pair(tmp_path / "base", raw, adapter=adapter)
    (pair.folder / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    plan = TrainablePlan(ALL.parts, 3, 6.0, ("q_proj", "k_proj", "up_proj"), 1)
    run(pair.folder, data, tmp_path / "out", plan=plan)
    lab = core.load(pair.folder, device="cpu", dtype="float32")
    lab.add_adapter("mine", tmp_path / "out")

    plain = transformers.GraniteSpeechForConditionalGeneration.from_pretrained(
        pair.folder, dtype=torch.float32
    )
    plain.delete_adapter("default")  # the checkpoint's own, which transformers loads with it
    model = peft.PeftModel.from_pretrained(plain, tmp_path / "out").eval()
    clip, written = noise(1.3, seed=4), [5, 6, 7]
    features = pair.extractor(clip[None], device="cpu")
    frames = lab.feature_extractor(clip).shape[0]
    ids = torch.tensor([lab.prompt_ids(frames) + written])
    places = torch.ones(1, lab.model.num_audio_tokens(frames), dtype=torch.bool)
    with torch.inference_mode():
        output = model(
            input_ids=ids,
            input_features=features["input_features"],
            input_features_mask=places,
            attention_mask=torch.ones_like(ids),
        )
    scaling = reference.undivided_scaling(plain)
    theirs = output.logits[0, -len(written) - 1 :] / scaling
    ours = lab.logits_along(clip, written, adapter="mine")
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=2e-4)
    assert not torch.allclose(ours, lab.logits_along(clip, written), atol=1e-2)
