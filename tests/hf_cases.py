"""What is compared with transformers: models, adapters, lengths, and both sides' results.

Logits may differ by 1e-4 of their scale (they differ by 1e-6 to 3e-5: sums in another order);
tokens may not differ at all.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import tiny_models
from core.engine.stages import eager_engine
from core.generation.beam import beam_search
from core.generation.greedy import PromptBatch, generate
from core.generation.sampling import GenerationOptions
from core.model.encoder import padded_length
from core.model.features import pad_features
from core.phases import PhaseClock
from reference import Pair, hear, prompt_for, relative_error
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


def native_features(pair: Pair, waveform: Tensor) -> tuple[Tensor, Tensor]:
    """Features [1, T, F] padded for the encoder, and the real length [1]."""
    clip = pair.lab.feature_extractor(waveform)
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
    prompts = PromptBatch([ids], audio, None)
    *_, rows = search(eager_engine(lab.model), config, prompts, options, clock=PhaseClock())
    return rows[0].ids


def check_prefill(pair: Pair, waveform: Tensor, lora: Tensor | None = None) -> None:
    """All positions' logits, from the waveform on."""
    ids = torch.tensor([prompt_for(pair, waveform)])
    with torch.inference_mode():
        expected = pair.reference(input_ids=ids, **hear(pair, waveform)).logits
        found = pair.lab.model(*native_features(pair, waveform), ids, lora)
    assert relative_error(found, expected) < TOLERANCE
