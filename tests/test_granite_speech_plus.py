"""granite_speech_plus through the whole path: config, prompt, speakers, word times, limits.

The checkpoint is random and made on the spot; what it is taken to write is the test's own.
Run alone: ``python -m pytest tests/test_granite_speech_plus.py``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

import core
from core.checkpoint.catalog import CATALOG
from core.checkpoint.config_file import parse_config
from core.checkpoint.key_map import to_stored
from core.engine import compiling
from core.errors import UserError
from core.generation.greedy import EOS, Hypothesis
from core.lab import Lab
from core.model.config import ConfigError
from core.model.granite_speech import GraniteSpeech
from core.text.export import EXPORTERS
from core.transcription import autoregressive
from core.transcription.long_form import NEW_NUMBERS
from core.transcription.options import TranscribeOptions
from core.transcription.resume import read_transcript
from tiny_models import (
    random_model,
    raw_config,
    raw_plus_config,
    write_checkpoint,
    write_tokenizer,
)

NAME = "granite-speech-4.1-2b-plus"
ANSWER = "[Speaker 1]: so you can [Speaker 2]: no <b> [Speaker 1]: yes"
PUBLISHED = raw_config(
    model_type="granite_speech_plus",
    has_lora_adapter=False,
    audio_token_index=100_352,
    encoder={
        **{"num_layers": 16, "hidden_dim": 1024, "num_heads": 8, "dim_head": 128},
        **{"feedforward_mult": 4, "output_dim": 348, "context_size": 200, "max_pos_emb": 512},
        "cat_hidden_layers": [3],
    },
    projector={
        **{"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16},
        "encoder_hidden_size": 2048,
    },
    decoder={
        **{"vocab_size": 100_353, "hidden_size": 2048, "intermediate_size": 4096},
        **{"num_hidden_layers": 40, "num_attention_heads": 16, "num_key_value_heads": 4},
        **{"head_dim": 128, "max_position_embeddings": 4096},
    },
)


def write_folder(folder: Path, **decoder: Any) -> Path:
    raw = raw_plus_config([2], decoder={"max_position_embeddings": 1024, **decoder})
    write_checkpoint(folder, raw, random_model(raw, seed=1))
    write_tokenizer(folder / "tokenizer.json")
    return folder


@pytest.fixture(scope="module")
def plus(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return core.load(write_folder(tmp_path_factory.mktemp("plus")), device="cpu", dtype="float32")


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch, plus: Lab) -> Callable[[str], None]:
    """``writes(text)``: the decoder writes this for every clip."""

    def set_text(text: str) -> None:
        ids = plus.tokenizer.encode_continuation(text)

        def decode(*arguments: Any, **_: Any) -> Iterator[list[Hypothesis]]:
            yield [Hypothesis([], list(ids), [-0.5] * len(ids), EOS) for _ in arguments[3]]

        monkeypatch.setattr(autoregressive, "decode_tokens", decode)

    return set_text


def test_the_published_dimensions_give_the_published_tensors() -> None:
    with torch.device("meta"):
        model = GraniteSpeech(parse_config(PUBLISHED, source="published")).to(torch.bfloat16)
    stored = to_stored(model.state_dict())
    kinds = [tensor.dtype for tensor in stored.values()]
    assert (kinds.count(torch.bfloat16), kinds.count(torch.int64)) == (937, 16)
    assert "language_model.lm_head.weight" not in stored
    assert stored["language_model.model.embed_tokens.weight"].shape == (100_353, 2048)
    for layer in range(2):
        for part in ("key", "value"):
            name = f"projector.qformer.encoder.layer.{layer}.crossattention.attention.{part}.weight"
            assert stored[name].shape == (1024, 2048)
    entry = CATALOG[NAME]
    assert entry.parameters == sum(p.numel() for p in model.parameters())
    assert entry.size_bytes == pytest.approx(2 * entry.parameters, rel=0.01)


def test_hidden_layers_are_a_set_and_belong_to_this_model_type_alone() -> None:
    def kept(layers: object, **changes: object) -> tuple[int, ...]:
        raw = raw_plus_config([1])
        raw["encoder_config"]["cat_hidden_layers"] = layers
        raw["projector_config"] |= changes
        return parse_config(raw, source="here").encoder.cat_hidden_layers

    assert kept([2, 1], encoder_hidden_size=96) == kept([1, 2, 1], encoder_hidden_size=96) == (1, 2)
    assert kept(None, encoder_hidden_size=32) == kept([], encoder_hidden_size=32) == ()
    for layers in ([4], [-1]):
        with pytest.raises(ConfigError, match="expected numbers from 0 to 3"):
            kept(layers)
    with pytest.raises(ConfigError, match="expected a valid integer"):
        kept(["1"])
    with pytest.raises(ConfigError, match="frames of width 64, the encoder makes 96"):
        kept([0, 1])
    with pytest.raises(ConfigError, match="expected 'granite_speech_plus'"):
        parse_config({**raw_plus_config([1]), "model_type": "granite_speech"}, source="here")


def test_compiled_text_is_the_eager_text_and_lengths_share_their_graphs(
    plus: Lab, noise: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = CompileCounter()
    traced = partial(torch.compile, backend=counter)
    monkeypatch.setattr(compiling.torch, "compile", traced)
    torch.compiler.reset()
    engine = compiling.compiled_engine(plus.model, plus.compile_ledger)
    with torch.inference_mode():
        for frames in (3, 5, 7, 8, 16, 40, 72):
            width = plus.config.encoder.input_dim
            features, lengths = torch.randn(1, frames, width), torch.tensor([frames])
            found = engine.encode(features, lengths, None)
            expected = plus.model.encoder(features, lengths)
            assert torch.allclose(found.frames, expected.frames, atol=1e-5)
            assert found.frames.shape == (1, frames, 64)
            engine.project(found.frames, None)
    assert counter.frame_count == 3  # within a block, of several, the projector
    torch.compiler.reset()


def prompt_text(lab: Lab, **asked: Any) -> str:
    request = TranscribeOptions(**asked).request()
    ids = lab.autoregressive.components.prompts.speech(request, 2)
    # Special tokens by name: a tokenizer leaves them out of a text.
    names = {index: name for name, index in lab.tokenizer.special_tokens.items()}
    return "".join(names.get(token) or lab.tokenizer.decode([token]) for token in ids)


def test_the_prompt_is_the_published_one(plus: Lab) -> None:
    assert prompt_text(plus) == (
        "<|start_of_role|>system<|end_of_role|>Knowledge Cutoff Date: April 2024.\n"
        "Today's Date: December 19, 2024.\n"
        "You are Granite, developed by IBM. You are a helpful AI assistant<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|><|audio|><|audio|> can you transcribe the speech into "
        "a written format?<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"
    )


@pytest.mark.parametrize(
    ("asked", "instruction"),
    [
        ({"language": "fr"}, "can you transcribe the French speech into a written format?"),
        (
            {"keywords": ["ohm", "volt"]},
            "can you transcribe the speech into a written format? Keywords: ohm, volt",
        ),
        (
            {"keywords": ["ohm"], "language": "de"},
            "can you transcribe the German speech into a written format? Keywords: ohm",
        ),
        (
            {"task": "speakers"},
            "Speaker attribution: Transcribe and denote who is speaking by adding [Speaker 1]: and "
            "[Speaker 2]: tags before speaker turns.",
        ),
        (
            {"task": "timestamps"},
            "Timestamps: Transcribe the speech. After each word, add a timestamp tag showing the "
            "end time in centiseconds, e.g. hello [T:45] world [T:82]",
        ),
    ],
)
def test_each_task_has_its_instruction(asked: dict[str, Any], instruction: str, plus: Lab) -> None:
    assert f"<|audio|> {instruction}<|end_of_text|>" in prompt_text(plus, **asked)


def test_the_plain_template_of_its_base_is_replaced_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, plus: Lab
) -> None:
    plain = "{% for m in messages %}USER: {{ m.content }}\n ASSISTANT:{% endfor %}"
    (write_folder(tmp_path) / "chat_template.jinja").write_text(plain)
    lab = core.load(tmp_path, device="cpu", dtype="float32")
    with caplog.at_level(logging.WARNING):
        assert prompt_text(lab) == prompt_text(plus)
    assert "has no <|start_of_role|>" in caplog.text
    caplog.clear()
    ours = "{% for m in messages %}<|start_of_role|>{{ m.role }}{{ m.content }}{% endfor %}"
    (tmp_path / "chat_template.jinja").write_text(ours)
    with caplog.at_level(logging.WARNING):
        assert prompt_text(core.load(tmp_path, device="cpu")).startswith("<|start_of_role|>system")
    assert not caplog.text
    (tmp_path / "chat_template.jinja").unlink()
    with caplog.at_level(logging.WARNING):
        assert prompt_text(core.load(tmp_path, device="cpu")) == prompt_text(plus)
    assert "its chat template is missing" in caplog.text


def test_its_description_may_not_name_another_family(tmp_path: Path) -> None:
    description = write_folder(tmp_path) / "lab.json"
    description.write_text(json.dumps({"family": "4.1"}))
    with pytest.raises(UserError, match=r"family is '4\.1'; expected '4\.1-plus'"):
        core.load(tmp_path, device="cpu")
    description.write_text(json.dumps({"family": "4.1-plus", "title": "Mine"}))
    assert core.load(tmp_path, device="cpu").model_info.title == "Mine"


def test_speakers_become_turns_with_aligned_words(
    plus: Lab, writes: Callable[[str], None], noise: Callable[..., Tensor]
) -> None:
    writes(ANSWER)
    found = plus.transcribe(noise(2.0), task="speakers")
    assert found.text == "so you can no <b> yes"
    assert [(w.text, w.speaker) for w in found.words] == [
        *(("so", 1), ("you", 1), ("can", 1), ("no", 2), ("<b>", 2), ("yes", 1))
    ]
    assert [(s.text, s.speaker) for s in found.segments] == [
        *(("so you can", 1), ("no <b>", 2), ("yes", 1))
    ]
    times = [time for word in found.words for time in (word.start, word.end)]
    assert None not in times
    assert times == sorted(times)
    assert (found.segments[0].start, found.segments[0].end) == (times[0], times[5])
    assert all(0 < segment.confidence <= 1 for segment in found.segments)
    assert read_transcript(json.loads(json.dumps(found.to_dict()))) == found


def test_exports_name_the_speakers(
    plus: Lab, writes: Callable[[str], None], noise: Callable[..., Tensor]
) -> None:
    writes(ANSWER)
    found = plus.transcribe(noise(2.0), task="speakers")
    written = {name: write(found) for name, write in EXPORTERS.items()}
    assert written["txt"] == "Speaker 1: so you can\nSpeaker 2: no <b>\nSpeaker 1: yes\n"
    assert "\nSpeaker 2: no <b>\n" in written["srt"]
    assert "\n<v Speaker 2>no &lt;b&gt;\n" in written["vtt"]
    plain = json.loads(written["json"])
    assert [segment["speaker"] for segment in plain["segments"]] == [1, 2, 1]
    assert [word["speaker"] for word in plain["words"]] == [1, 1, 1, 2, 2, 1]


def test_word_times_are_those_of_the_tags(
    plus: Lab, writes: Callable[[str], None], noise: Callable[..., Tensor]
) -> None:
    writes("_[T:30] so [T:57] you[T:95] can")
    found = plus.transcribe(noise(2.0), task="timestamps")
    assert found.text == "so you can"
    times = [time for word in found.words for time in (word.start, word.end)]
    assert times == pytest.approx([0.3, 0.57, 0.57, 0.95, 0.95, 2.0])
    assert not found.has_speakers


def test_plain_text_is_untouched_and_a_batch_is_its_clips(
    plus: Lab, noise: Callable[..., Tensor]
) -> None:
    clips = [noise(seconds, seed=seed) for seed, seconds in enumerate((1.3, 0.5, 2.1))]
    for task in ("transcribe", "speakers", "timestamps"):
        together = plus.transcribe_batch(clips, task=task, max_new_tokens=24)
        alone = [plus.transcribe(clip, task=task, max_new_tokens=24) for clip in clips]
        assert [t.token_ids for t in together] == [t.token_ids for t in alone]
        assert [t.text for t in together] == [t.text for t in alone]


BEGUN = {"transcribe": "so you", "speakers": "[Speaker 2]: so you", "timestamps": "so you[T:57]"}
CONTINUED = {"transcribe": "can", "speakers": "can", "timestamps": "can[T:95]"}


@pytest.mark.parametrize("task", BEGUN)
def test_a_begun_text_is_continued_and_left_out_of_the_result(
    task: str, plus: Lab, writes: Callable[[str], None], noise: Callable[..., Tensor]
) -> None:
    clip = noise(2.0)
    writes(f"{BEGUN[task]} {CONTINUED[task]}")
    whole = plus.transcribe(clip, task=task)
    writes(CONTINUED[task])
    found = plus.transcribe(clip, task=task, prefix_text=BEGUN[task])
    assert found.text == "can"
    times = [[(w.text, w.start, w.end, w.speaker) for w in t.words] for t in (found, whole)]
    assert times[0] == times[1][2:]
    assert [s.speaker for s in found.segments] == [2 if task == "speakers" else None]


def test_a_begun_text_follows_the_assistants_header(plus: Lab) -> None:
    prompts = plus.session.recognizer.components.prompts
    request = TranscribeOptions(prefix_text=" so you ").request()
    plain = prompts.speech(TranscribeOptions().request(), 3)
    assert prompts.speech(request, 3) == [*plain, *plus.tokenizer.encode_continuation("so you")]


def test_a_begun_text_is_continued_in_one_pass_alone(
    plus: Lab, noise: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plus.session.recognizer, "max_audio_s", 2.0)
    with pytest.raises(UserError, match="longer than 2 s, which takes several passes"):
        plus.transcribe(noise(3.0), prefix_text="so")


def test_words_of_speakers_end_where_the_recording_does(
    plus: Lab, writes: Callable[[str], None], noise: Callable[..., Tensor]
) -> None:
    writes("[Speaker 1]: " + "so you can no yes " * 2)
    seconds = 1.99  # the last frame of 20 ms reaches beyond it
    found = plus.transcribe(noise(seconds, seed=3), task="speakers")
    assert max(word.end for word in found.words) <= seconds


def test_a_pass_is_as_long_as_fits_the_positions(plus: Lab) -> None:
    recognizer = plus.session.recognizer
    context = plus.config.decoder.max_position_embeddings
    for task in ("speakers", "timestamps"):
        settled = recognizer.settle(options := TranscribeOptions(task=task))
        longest = recognizer.longest_pass_s(options)
        frames = int(longest / recognizer.frame_s)
        prompt = recognizer.components.prompt(options.request(), frames)
        assert context - 20 < len(prompt) + settled.max_new_tokens <= context
    given = TranscribeOptions(task="speakers", max_new_tokens=100)
    assert recognizer.settle(given) == given
    assert recognizer.settle(TranscribeOptions()) == TranscribeOptions()
    assert recognizer.longest_pass_s(given) > recognizer.longest_pass_s(TranscribeOptions())


def test_an_answer_without_room_for_audio_is_refused_before_anything_runs(plus: Lab) -> None:
    with pytest.raises(UserError, match="max_position_embeddings of 1024"):
        plus.check(task="speakers", max_new_tokens=1000)


def test_speakers_of_a_recording_longer_than_a_pass_begin_again_and_it_is_said(
    plus: Lab,
    writes: Callable[[str], None],
    noise: Callable[..., Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writes(ANSWER)
    assert plus.transcribe(noise(3.0), task="speakers").warnings == ()
    monkeypatch.setattr(plus.session.recognizer, "max_audio_s", 2.0)
    found = plus.transcribe(noise(3.0), task="speakers", skip_silence=False)
    assert NEW_NUMBERS in found.warnings
    assert [s.speaker for s in found.segments] == [1, 2, 1, 1, 2, 1]
    assert found.segments[3].start >= 1.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "translate", "target_language": "fr"}, "has no task 'translate'"),
        ({"task": "speakers", "target_language": "fr"}, "came with task 'speakers'"),
        ({"task": "speakers", "keywords": ["ohm"]}, "keywords came with task 'speakers'"),
        ({"task": "timestamps", "decoding": "fast-draft"}, "only the decoder writes"),
        ({"language": "ja"}, "transcribes en, fr, de, es, pt"),
        ({"prefix_text": "so", "task": "speakers"}, r"begins with 'so'.*\[Speaker 1\]: "),
        ({"prefix_text": "so", "decoding": "speculative"}, "drafts begin where the recording does"),
        ({"prefix_text": "so<|audio|>"}, "which the model reserves"),
    ],
)
def test_what_it_cannot_do_is_refused(options: dict[str, Any], said: str, plus: Lab) -> None:
    with pytest.raises(ValueError, match=said):
        plus.check(**options)


def test_other_models_have_no_speakers(lab: Lab) -> None:
    for task in ("speakers", "timestamps"):
        with pytest.raises(ValueError, match=f"has no task '{task}'; it has"):
            lab.check(task=task)
    with pytest.raises(UserError, match="continues no prefix_text; granite-speech-4.1-2b-plus"):
        lab.check(prefix_text="so")
