"""The training code: grammar, augmentation, batches, scores, and a short run of every stage."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment

import core
from core.checkpoint.config_granite_speech5_ctc import STANDARD_FRONT_END
from core.model.delta_features import DeltaLogMel
from core.model.features import FeatureConfig, LogMel
from training.__main__ import main
from training.corpus import text
from training.corpus.corpus import RATE, CorpusClip, read_manifest, write_manifest, write_wav
from training.corpus.synthesis import VOICES
from training.corpus.vocabulary import CHAT_TEMPLATE, Vocabulary, chat_prompt, train_tokenizer
from training.stages import (
    align_stage,
    ctc_pack,
    ctc_stage,
    decoder_stage,
    encoder_stage,
    grow_encoder,
    joint_stage,
    mels,
    pack,
)
from training.stages.augment import augment, mel_centres, stretch, telephone
from training.stages.batches import MIXED, Composer
from training.stages.wer import edit_counts, error_rate

WORDS = ("one", "two", "three", "four")


def tone(word: str, seconds: float, seed: int) -> np.ndarray:
    """A stand-in for a spoken word: two harmonics and a little noise, [N] float32."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    pitch = 150.0 + 120.0 * WORDS.index(word)
    wave = 0.3 * np.sin(6.283 * pitch * time) + 0.1 * np.sin(18.85 * pitch * time)
    return (wave + 0.01 * rng.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus folder of 16 short clips: two voices and one 'real' speaker."""
    folder = tmp_path_factory.mktemp("corpus")
    clips = []
    for index in range(16):
        word = WORDS[index % 4]
        speaker = ("voice-a", "voice-b", "fsdd-someone")[index % 3]
        name = f"audio/{index:02d}.wav"
        write_wav(folder / name, tone(word, 0.5 + 0.05 * index, index))
        split = "dev" if index == 15 else "train"
        clips.append(CorpusClip(name, word, "en", speaker, "none", split))
    write_manifest(folder, "tones", clips)
    return folder


def test_the_grammar_is_seeded_and_stays_within_its_vocabulary() -> None:
    first = [text.spoken(random.Random(seed)) for seed in range(300)]
    assert first == [text.spoken(random.Random(seed)) for seed in range(300)]
    words = {word for said in first for word in text.transcript(said).split()}
    assert words == text.VOCABULARY
    assert all(text.transcript(said) for said in first)


def test_digit_words_are_written_as_digits() -> None:
    assert text.written(["four", "double", "seven", "oh", "triple", "one"]) == "4770111"
    with pytest.raises(ValueError, match="'ten' is not a digit word"):
        text.written(["ten"])
    with pytest.raises(ValueError, match="expected a digit after it"):
        text.written(["one", "double"])


def test_exchanges_are_seeded_and_answered_right() -> None:
    exchanges = [text.sample_exchange(random.Random(seed)) for seed in range(400)]
    assert exchanges == [text.sample_exchange(random.Random(seed)) for seed in range(400)]
    tidied = [one for one in exchanges if "tidy up" in one.prompt and one.prompt != one.answer]
    for one in tidied:
        kept = one.prompt.replace("tidy up", "").replace(":", "").split()
        assert [
            w for w in kept if w in text.VOCABULARY
        ] == one.answer.split() or "ask me" in one.answer


@pytest.mark.parametrize(
    ("reference", "hypothesis", "words", "characters"),
    [  # counted by hand: edits of either, over the reference's length
        ("four one five", "four one five", (0, 3), (0, 13)),
        ("four one five", "four five", (1, 3), (4, 13)),
        ("four one", "four one one one", (2, 2), (8, 8)),
        ("please hold", "please fold it", (2, 2), (4, 11)),
        ("two", "", (1, 1), (3, 3)),
        ("", "oh no", (2, 0), (5, 0)),
        ("abc", "axcd", (1, 1), (2, 3)),
    ],
)
def test_edits_are_those_counted_by_hand(
    reference: str, hypothesis: str, words: tuple[int, int], characters: tuple[int, int]
) -> None:
    pairs = [("zero", "zero"), (reference, hypothesis)]
    for wanted, whole, by_character in ((words, (0, 1), False), (characters, (0, 4), True)):
        edits, lengths = edit_counts(pairs, characters=by_character)
        assert list(zip(edits.tolist(), lengths.tolist(), strict=True)) == [whole, wanted]


def test_error_rates_have_an_interval() -> None:
    rate = error_rate([("one two", "one two"), ("three four", "three")] * 20)
    assert rate.percent == pytest.approx(25.0)
    assert rate.low < 25.0 < rate.high
    assert (rate.num_clips, rate.num_exact) == (40, 20)
    assert error_rate([("one", "")], characters=True).percent == pytest.approx(100.0)


def test_power_mels_become_the_features_of_core() -> None:
    wave = torch.from_numpy(tone("two", 1.013, 0))
    config = FeatureConfig(sampling_rate=RATE, n_fft=512, win_length=400, hop_length=160, n_mels=80)
    assert torch.allclose(mels.features(mels.power_mel(wave)), LogMel(config)(wave), atol=1e-6)
    deltas = DeltaLogMel(STANDARD_FRONT_END)(wave)
    assert torch.allclose(mels.delta_features(mels.power_mel(wave)), deltas, atol=1e-6)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_augmentation_keeps_shapes_and_is_seeded(strength: float) -> None:
    power = mels.power_mel(torch.from_numpy(tone("one", 0.8, 1)))
    made = [augment(power, strength, torch.Generator().manual_seed(s)) for s in range(30)]
    again = augment(power, strength, torch.Generator().manual_seed(7))
    assert torch.equal(made[7], again)
    assert all(one.shape == power.shape and one.isfinite().all() for one in made)
    assert all(float(one.min()) >= mels.FLOOR for one in made)


def test_stretch_and_telephone_do_what_they_say() -> None:
    power = mels.power_mel(torch.from_numpy(tone("one", 0.8, 1)))
    assert stretch(power, 1.25).shape == (round(power.shape[0] * 1.25), 80)
    lost = telephone(power, 300.0, 3400.0, 60.0) / power
    assert lost[:, mel_centres() > 4000].max() < 1e-5
    inside = (mel_centres() > 350) & (mel_centres() < 3300)
    assert torch.allclose(lost[:, inside], torch.ones(()))


def test_batches_are_unpadded_seeded_and_hold_every_text(corpus: Path) -> None:
    spoken = mels.load(corpus, read_manifest(corpus, ["train"]))
    composer = Composer(spoken, real_share=0.5, seed=3)
    first = list(composer.pool(0, 1.0, num_batches=8, frames=300))
    again = list(composer.pool(0, 1.0, num_batches=8, frames=300))
    other = list(composer.pool(1, 1.0, num_batches=8, frames=300))
    assert [batch.texts for batch in first] == [batch.texts for batch in again]
    assert [batch.texts for batch in first] != [batch.texts for batch in other]
    for batch, twin in zip(first, again, strict=True):
        assert torch.equal(batch.features, twin.features)
        assert batch.features.isfinite().all()
        length = batch.features.shape[1]
        assert length <= 200 or length % 200 == 0, "not whole attention blocks"
        assert len(batch.texts) == batch.features.shape[0]
        said = {word for words in batch.texts for word in words.split()}
        assert said <= set(WORDS)


def test_joined_strings_are_of_one_voice_and_longer(corpus: Path) -> None:
    spoken = [one for one in mels.load(corpus, read_manifest(corpus, ["train"]))]
    renamed = [
        replace(one, speaker=f"voice-{n % 2}", text=f"v{n % 2}") for n, one in enumerate(spoken)
    ]

    def texts(*, joined: bool) -> list[str]:
        composer = Composer(renamed, real_share=0.0, seed=3, joined=joined)
        batches = composer.pool(0, 0.5, num_batches=16, frames=300)
        short = [batch for batch in batches if batch.features.shape[1] <= 200]
        return [said for batch in short for said in batch.texts if said]

    alone, together = texts(joined=False), texts(joined=True)
    assert max(len(said.split()) for said in alone) == 1 < max(len(s.split()) for s in together)
    assert all(len(set(said.split())) == 1 for said in together)


def test_a_voice_with_few_clips_has_as_many_turns_as_its_weight_says() -> None:
    one = mels.MelClip(torch.zeros(60, mels.NUM_MELS).half(), "few", "kokoro-mixes")
    many = [replace(one, speaker="piper-joe", text="many")] * 99
    composer = Composer([one, *many], real_share=0.0, seed=3, joined=True)
    batches = composer.pool(0, 0.0, num_batches=16, frames=300)
    heard = Counter(word for batch in batches for said in batch.texts for word in said.split())
    weights = {voice.name: voice.weight for voice in VOICES}
    mixed = MIXED * weights["kokoro-mixes"]  # every clip of it is another speaker
    expected = mixed / (mixed + weights["piper-joe"])
    assert heard["few"] / heard.total() == pytest.approx(expected, abs=0.2)


def test_a_mistake_of_ours_is_logged_in_full_and_told_in_general_words(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(source: Path, target: Path) -> None:
        raise ValueError("shapes do not match")

    monkeypatch.setattr(grow_encoder, "run", broken)
    assert main(["grow-encoder", "--from", str(tmp_path)]) == 2
    assert "error: an unexpected problem; its details are above" in capsys.readouterr().err
    assert "shapes do not match" in caplog.text
    assert "Traceback" in caplog.text


def test_what_the_caller_left_out_is_told_word_for_word(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--corpus", str(corpus), "--checkpoints", str(tmp_path)]
    assert main([*folders, "align", "--smoke"]) == 2
    assert "tokenizer.json is not there; the decoder stage makes it" in capsys.readouterr().err
    train_tokenizer(0, num_exchanges=100).save(str(tmp_path / "tokenizer.json"))
    assert main([*folders, "align", "--smoke"]) == 2
    assert "encoder.pt cannot be read (FileNotFoundError); expected" in capsys.readouterr().err


def test_chat_prompts_equal_the_template() -> None:
    template = ImmutableSandboxedEnvironment().from_string(CHAT_TEMPLATE)
    turn = [{"role": "user", "content": "repeat: one"}]
    rendered = template.render(messages=turn, add_generation_prompt=True)
    assert rendered == chat_prompt("repeat: one")


def test_the_tokenizer_has_its_special_tokens_where_they_belong() -> None:
    vocabulary = Vocabulary(train_tokenizer(0, num_exchanges=500))
    assert vocabulary.tokenizer.token_to_id("<|end_of_text|>") == 0
    assert vocabulary.tokenizer.token_to_id("<|audio|>") == vocabulary.audio_id
    prompt, answer = vocabulary.speech(5, "four one")
    assert prompt.count(vocabulary.audio_id) == 5
    assert answer[-1] == 0
    assert vocabulary.tokenizer.decode(answer) == "four one"


def test_every_stage_runs_resumes_and_packs_a_loadable_folder(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_stage, "NUM_CHECKS", 1)
    train_tokenizer(0, num_exchanges=300).save(str(tmp_path / "tokenizer.json"))

    def steps(name: str) -> list[int]:
        lines = (tmp_path / f"{name}_log.jsonl").read_text().splitlines()
        return [json.loads(line)["step"] for line in lines]

    for wanted in (1, 2):
        encoder_stage.run(corpus, tmp_path, encoder_options(wanted))
        decoder_stage.run(tmp_path, decoder_options(wanted))
    assert steps("encoder") == steps("decoder") == [1, 2]
    before = torch.load(tmp_path / "decoder.pt", weights_only=True)["decoder"]
    for wanted in (1, 2):
        align_stage.run(corpus, tmp_path, align_options(wanted))
    assert steps("align") == [1, 2]
    for wanted in (1, 2):
        joint_stage.run(corpus, tmp_path, joint_options(wanted))
    assert steps("joint") == [1, 2]

    folder = pack.run(tmp_path, tmp_path / "packed")
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) >= 2
    assert "language_model.model.embed_tokens.weight" in index
    assert not any("lm_head" in name for name in index)
    lab = core.load(str(folder), dtype="float32")
    wave = tmp_path / "clip.wav"
    write_wav(wave, tone("three", 0.6, 5))
    assert isinstance(lab.transcribe(str(wave), lora=False).text, str)
    kept = lab.model.decoder.embed_tokens.weight
    assert torch.allclose(kept, before["embed_tokens.weight"], atol=1e-2), "the decoder moved"
    learned = torch.load(tmp_path / "joint.pt", weights_only=True)["weights"]
    heard = lab.model.encoder.layers[0].ff1.up_proj.weight
    assert torch.allclose(heard, learned["encoder.layers.0.ff1.up_proj.weight"], atol=1e-2)
    earlier = torch.load(tmp_path / "encoder.pt", weights_only=True)["encoder"]
    assert not torch.equal(
        learned["encoder.layers.0.ff1.up_proj.weight"], earlier["layers.0.ff1.up_proj.weight"]
    ), "the last stage did not train the encoder"


def test_the_sibling_begins_with_the_bundled_encoder_resumes_and_packs_a_loadable_folder(
    corpus: Path, tmp_path: Path
) -> None:
    for wanted in (1, 2):
        ctc_stage.run(corpus, tmp_path, ctc_options(wanted))
    lines = (tmp_path / "ctc_log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    lab = core.load(str(ctc_pack.run(tmp_path, tmp_path / "packed")), dtype="float32")
    kept = core.load("tiny", dtype="float32").model.encoder.layers[0].attn.to_q.weight
    learned = torch.load(tmp_path / "ctc.pt", weights_only=True)["weights"]
    heard = lab.model.state_dict()
    assert set(heard) == set(learned)
    assert all(torch.allclose(heard[name], learned[name], atol=1e-2) for name in heard)
    moved = heard["encoder.layers.0.self_attn.q_proj.weight"] - kept
    assert 0.0 < moved.abs().max() < 0.05
    write_wav(tmp_path / "clip.wav", tone("three", 0.6, 5))
    found = lab.transcribe(tmp_path / "clip.wav")
    assert (found.model, lab.model_info.reliable_s) == (str(tmp_path / "packed"), 8.0)


def ctc_options(steps: int) -> ctc_stage.CTCOptions:
    return ctc_stage.CTCOptions(
        start="tiny",
        steps=steps,
        frames_per_batch=200,
        learning_rate=1e-3,
        warmup=2,
        new_first=1,
        save_every_s=0.0,
        seed=0,
        real_share=0.3,
    )


def encoder_options(steps: int) -> encoder_stage.EncoderOptions:
    return encoder_stage.EncoderOptions(
        steps=steps, frames_per_batch=200, learning_rate=1e-3, warmup=2, save_every_s=0.0, seed=0
    )


def decoder_options(steps: int) -> decoder_stage.DecoderOptions:
    return decoder_stage.DecoderOptions(
        steps=steps, texts_per_batch=4, learning_rate=1e-3, warmup=2, save_every_s=0.0, seed=0
    )


def joint_options(steps: int) -> joint_stage.JointOptions:
    return joint_stage.JointOptions(
        steps=steps,
        frames_per_batch=200,
        learning_rate=1e-3,
        warmup=2,
        lora_off_share=0.3,
        save_every_s=0.0,
        seed=0,
    )


def align_options(steps: int) -> align_stage.AlignOptions:
    return align_stage.AlignOptions(
        steps=steps,
        pools=1,
        batches_per_pool=3,
        frames_per_batch=200,
        strength=0.5,
        learning_rate=1e-3,
        warmup=2,
        lora_off_share=0.3,
        save_every_s=0.0,
        seed=0,
    )
