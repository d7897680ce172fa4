"""Tiny random granite_speech_nar models, their checkpoint folders, and the oracle of parts.

In: changes to a config.json. Out: our model; and transformers' conformer blocks and Granite decoder
with its weights, put together as the release does. No package has the whole model.
"""

from __future__ import annotations

import copy
import json
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import tiny_models
from core.checkpoint.config_granite_speech_nar import parse_granite_speech_nar
from core.checkpoint.key_map import to_stored
from core.model.granite_speech_nar import GraniteSpeechNar
from oracle import transformers
from tiny_models import END_ID, VOCABULARY, write_tokenizer

_TEXT: dict[str, Any] = {
    **{"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512},
    **{"rms_norm_eps": 1e-5, "hidden_act": "silu", "embedding_multiplier": 12.0},
    **{"attention_multiplier": 0.125, "residual_multiplier": 0.6, "logits_scaling": 8.0},
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    **{"bos_token_id": 60, "eos_token_id": 60, "pad_token_id": 61, "tie_word_embeddings": True},
}
_RAW: dict[str, Any] = {
    "architectures": ["GraniteSpeechNarForASR"],
    "model_type": "granite_speech_nar",
    **{"blank_token_id": 60, "pad_token_id": 61, "min_edit_sequence_length": 8},
    **{"encoder_layer_indices": [1, 2, -1], "scale_projected_embeddings": True},
    "encoder_config": {
        **{"input_dim": 160, "num_layers": 4, "hidden_dim": 32, "num_heads": 2, "dim_head": 16},
        **{"feedforward_mult": 2, "output_dim": 128, "context_size": 8, "max_pos_emb": 32},
        **{"conv_kernel_size": 15, "conv_expansion_factor": 2, "dropout": 0.1},
        **{"self_conditioning_layer": 2, "bpe_output_dim": 64, "bpe_pooling_window": 4},
        "pred_dropout": 0.25,
    },
    "projector_config": {
        **{"encoder_dim": 32, "num_encoder_layers": 3, "hidden_size": 64, "num_heads": 4},
        **{"num_layers": 2, "block_size": 15, "downsample_rate": 5, "llm_dim": 32, "mlp_ratio": 2},
        **{"layernorm_eps": 1e-6, "attn_bias": True, "mlp_bias": True, "dropout_prob": 0.1},
    },
    "text_config": _TEXT,
}
PUBLISHED: dict[str, Any] = {
    **_RAW,
    **{"blank_token_id": 100_257, "pad_token_id": 100_256, "encoder_layer_indices": [4, 8, 12, -1]},
    "encoder_config": {
        **_RAW["encoder_config"],
        **{"num_layers": 16, "hidden_dim": 1024, "num_heads": 8, "dim_head": 128},
        **{"feedforward_mult": 4, "output_dim": 348, "context_size": 200, "max_pos_emb": 512},
        **{"self_conditioning_layer": 8, "bpe_output_dim": 100_352},
    },
    "projector_config": {
        **_RAW["projector_config"],
        **{"encoder_dim": 1024, "num_encoder_layers": 4, "hidden_size": 2048, "num_heads": 32},
        "llm_dim": 2048,
    },
    "text_config": {
        **_TEXT,
        **{"vocab_size": 100_352, "hidden_size": 2048, "intermediate_size": 4096, "head_dim": 128},
        **{"num_hidden_layers": 40, "num_attention_heads": 16, "num_key_value_heads": 4},
        **{"max_position_embeddings": 4096, "attention_multiplier": 0.0078125},
        **{"residual_multiplier": 0.22, "eos_token_id": 100_257, "pad_token_id": 100_256},
    },
}


def raw_nar_config(**parts: dict[str, Any]) -> dict[str, Any]:
    """A config.json of today's release, with changes to ``model`` and to its three parts."""
    raw = copy.deepcopy(_RAW)
    raw.update(parts.pop("model", {}))
    for name, changes in parts.items():
        raw[f"{name}_config"].update(changes)
    return raw


def as_first_release(raw: dict[str, Any]) -> dict[str, Any]:
    """The same dimensions as the first release wrote them."""
    raw = copy.deepcopy(raw) | {"model_type": "nle", "architectures": ["NLENARDecoder"]}
    for key in ("min_edit_sequence_length", "blank_token_id"):
        del raw[key]
    raw["encoder_config"]["bpe_output_dim"] += 1
    raw["projector_config"]["encoder_layer_indices"] = raw.pop("encoder_layer_indices")
    raw["llm_config"] = raw.pop("text_config")
    raw["llm_config"] |= raw["llm_config"].pop("rope_parameters")
    return raw


def random_nar_model(raw: dict[str, Any] | None = None) -> GraniteSpeechNar:
    model = GraniteSpeechNar(parse_granite_speech_nar(raw or raw_nar_config(), "test"))
    return tiny_models.randomise(model, seed=1).eval().requires_grad_(False)


def write_nar_folder(folder: Path, *, first_release: bool = False, **parts: Any) -> Path:
    """A whole checkpoint with a tokenizer of bytes, whose end token is the blank."""
    raw = raw_nar_config(
        model={"blank_token_id": END_ID, "pad_token_id": END_ID},
        encoder={"bpe_output_dim": VOCABULARY},
        text={"vocab_size": VOCABULARY, "eos_token_id": END_ID, "pad_token_id": END_ID}
        | parts.get("text", {}),
    )
    raw = as_first_release(raw) if first_release else raw
    (folder / "config.json").write_text(json.dumps(raw))
    save_file(to_stored(random_nar_model(raw).state_dict()), folder / "model.safetensors")
    write_tokenizer(folder / "tokenizer.json")
    return folder


class Oracle:
    """The same weights in transformers' parts. causal: the mistake that a test must catch."""

    def __init__(self, raw: dict[str, Any], model: GraniteSpeechNar, *, causal: bool = False):
        self.raw, self.causal = raw, causal
        self.text = raw.get("text_config") or raw["llm_config"]
        self.stored = to_stored(model.state_dict())
        stated = {k: v for k, v in raw["encoder_config"].items() if not k.startswith("bpe_")}
        config = transformers.GraniteSpeechEncoderConfig(**stated)
        module = transformers.models.granite_speech.modeling_granite_speech
        self.encoder = module.GraniteSpeechCTCEncoder(config).eval()
        self._fill(self.encoder, "encoder.", but="out_bpe.")
        self.decoder = transformers.GraniteModel(transformers.GraniteConfig(**self.text)).eval()
        self._fill(self.decoder, "language_model.model.")

    def _fill(self, part: torch.nn.Module, prefix: str, but: str = "nothing") -> None:
        mine = {k.removeprefix(prefix): v for k, v in self.stored.items() if k.startswith(prefix)}
        part.load_state_dict({k: v for k, v in mine.items() if not k.startswith(but)})

    def encode(self, features: Tensor) -> tuple[list[Tensor], Tensor]:
        """One clip [T, F]: kept states [T, D] each, and blank probabilities [T]."""
        encoder, raw = self.encoder, self.raw["encoder_config"]
        x = encoder.input_linear(features[None])
        distances = encoder.attention_dists.to(x.device)
        states = [x]
        for number, layer in enumerate(encoder.layers, start=1):
            x = layer(x, attention_dists=distances)
            if number == raw["self_conditioning_layer"]:
                posteriors = encoder.out(x).float().softmax(-1)
                blank, x = posteriors[0, :, 0], x + encoder.out_mid(posteriors)
            states.append(x)
        indices = self.raw.get("encoder_layer_indices")
        indices = indices or self.raw["projector_config"]["encoder_layer_indices"]
        return [states[index][0] for index in indices], blank

    def draft(self, last: Tensor, blank: Tensor) -> Tensor:
        """Logits of the draft's head, window after window."""
        weight, bias = (self.stored[f"encoder.out_bpe.{part}"] for part in ("weight", "bias"))
        rows = []
        for start in range(0, len(last), self.raw["encoder_config"]["bpe_pooling_window"]):
            window = slice(start, start + self.raw["encoder_config"]["bpe_pooling_window"])
            shares = (1 - blank[window]) / ((1 - blank[window]).sum() + 1e-8)
            rows.append(weight @ (shares[:, None] * last[window]).sum(0) + bias)
        return torch.stack(rows)

    def project(self, states: list[Tensor]) -> Tensor:
        """Audio rows [T // 5, E], window after window and head after head."""
        part = self.raw["projector_config"]
        size, step, heads = part["block_size"], part["downsample_rate"], part["num_heads"]

        def norm(x: Tensor, name: str) -> Tensor:
            weight, bias = (self.stored[f"projector.{name}.{kind}"] for kind in ("weight", "bias"))
            return F.layer_norm(x, x.shape[-1:], weight, bias, part["layernorm_eps"])

        def linear(x: Tensor, name: str) -> Tensor:
            weight, bias = (self.stored[f"projector.{name}.{kind}"] for kind in ("weight", "bias"))
            return torch.einsum("ti,oi->to", x, weight) + bias

        normed = [norm(state, f"layer_norms.{n}") for n, state in enumerate(states)]
        frames = F.gelu(linear(torch.cat(normed, -1), "layer_projector"))
        out = []
        for start in range(0, len(frames), size):
            window = frames[start : start + size]
            window = torch.cat([window, window.new_zeros(size - len(window), window.shape[1])])
            means = torch.stack([window[n : n + step].mean(0) for n in range(0, size, step)])
            x = self.stored["projector.query"][0] + means
            source = window + self.stored["projector.window_positions"][0]
            for layer in range(part["num_layers"]):
                at = f"qformer.layers.{layer}"
                queries, attended = norm(x, f"{at}.attn_norm"), []
                q, k, v = (
                    linear(rows, f"{at}.cross_attention.{name}_proj").chunk(heads, -1)
                    for rows, name in ((queries, "q"), (source, "k"), (source, "v"))
                )
                for head in range(heads):
                    scores = torch.einsum("qd,fd->qf", q[head], k[head])
                    weights = (scores * q[head].shape[-1] ** -0.5).softmax(-1)
                    attended.append(torch.einsum("qf,fd->qd", weights, v[head]))
                x = x + linear(torch.cat(attended, -1), f"{at}.cross_attention.o_proj")
                inner = F.silu(linear(norm(x, f"{at}.mlp_norm"), f"{at}.mlp.fc1"))
                x = x + linear(inner, f"{at}.mlp.fc2")
            out.append(linear(norm(x, "out_norm"), "out_linear"))
        rows = torch.cat(out)[: len(frames) // step]
        return rows / self.text["embedding_multiplier"]

    def edit(self, audio: Tensor, slots: list[int]) -> Tensor:
        """Logits [L, V] of the slots, by a decoder with a mask of zeros."""
        table = self.decoder.embed_tokens.weight
        embeddings = torch.cat([audio, table[torch.tensor(slots)]])[None]
        mask = torch.zeros(1, 1, embeddings.shape[1], embeddings.shape[1])
        if self.causal:
            mask = torch.full_like(mask, -torch.inf).triu(1)
        hidden = self.decoder(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state[0]
        scale = 1.0 if "llm_config" in self.raw else self.text["logits_scaling"]
        return hidden[len(audio) :] @ table.T / scale


def oracle_collapse(labels: Tensor, blank: int) -> list[int]:
    return [label for label, _ in groupby(labels.tolist()) if label != blank]
