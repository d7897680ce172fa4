"""transformers as an oracle: what each of its stages makes of one recording.

In: a checkpoint's folder and a safetensors file: ``waveform`` [N], and for models with a decoder
``prompt_ids`` [P]. Out: another one, with a tensor a stage, named as in ``core.verification``.

``python -m core verify`` starts it as a process of its own: transformers' memory is free again when
it ends, and core never imports it. What it cannot do it says on one line, with exit status 3.

Shapes: N samples, T frames, P prompt tokens, Q new tokens, V vocabulary.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

CLASSES = {
    "granite_speech": "GraniteSpeechForConditionalGeneration",
    "granite_speech_plus": "GraniteSpeechPlusForConditionalGeneration",
    "granite_speech5_ctc": "GraniteSpeech5ForCTC",
}
REFUSED = 3  # exit status


class ReferenceRefused(Exception):
    """transformers cannot say anything about this checkpoint; the message is one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every stage; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reference")
    parser.add_argument("folder", type=Path)
    parser.add_argument("given", type=Path)
    parser.add_argument("found", type=Path)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tokens", type=int, default=32)
    parsed = parser.parse_args(arguments)
    transformers.logging.set_verbosity_error()
    with safe_open(parsed.given, framework="pt") as file:
        messages = json.loads((file.metadata() or {}).get("messages", "null"))
    try:
        model = load_reference(parsed.folder, getattr(torch, parsed.dtype), parsed.device)
        given = load_file(parsed.given, device=parsed.device)
        with torch.inference_mode():
            found = (
                _ctc_stages(model, parsed.folder, given["waveform"])
                if "prompt_ids" not in given
                else _decoder_stages(model, parsed, given)
            )
        if messages is not None:
            found |= _prompt(parsed.folder, messages)
    except ReferenceRefused as reason:
        print(reason, file=sys.stderr)
        return REFUSED
    tensors = {name: value.cpu().contiguous() for name, value in found.items()}
    save_file(tensors, parsed.found, metadata={"transformers": transformers.__version__})
    return 0


def load_reference(folder: Path, dtype: torch.dtype, device: str) -> Any:
    """Load a checkpoint with the class that transformers has for it.

    Args:
        folder: the checkpoint's.
        dtype: of its weights.
        device: where it runs.

    Returns:
        The model.

    Raises:
        ReferenceRefused: no such class, or its tensors are not those of the file.
    """
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    loader = getattr(transformers, CLASSES.get(kind, ""), None)
    if loader is None:
        raise ReferenceRefused(f"transformers {transformers.__version__} has no class for {kind}")
    model, report = loader.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    strange = [*report["missing_keys"], *report["unexpected_keys"]]
    if strange:
        raise ReferenceRefused(
            f"transformers {transformers.__version__} does not read all of the weights "
            f"({len(strange)} tensors, first {sorted(strange)[0]!r})"
        )
    for module in model.modules():  # of TurboCTC; some releases cast it
        if kind == "granite_speech5_ctc" and isinstance(module, torch.nn.BatchNorm1d):
            module.float()
    return model.eval().to(device)


def _ctc_stages(model: Any, folder: Path, waveform: Tensor) -> dict[str, Tensor]:
    extractor = _extractor(transformers.GraniteSpeech5FeatureExtractor, folder)
    inputs = extractor([waveform.cpu().numpy()], sampling_rate=16_000, return_tensors="pt")
    features = inputs["input_features"]
    values = features.to(model.device, model.dtype)
    frames = model.encoder(values).last_hidden_state
    logits = model(input_features=values).logits
    return {
        "features": features,
        "encoder": frames,
        "ctc": logits,
        "labels": logits[0].argmax(dim=-1),
    }


def _decoder_stages(
    model: Any, asked: argparse.Namespace, given: dict[str, Tensor]
) -> dict[str, Tensor]:
    config, ids = model.config, given["prompt_ids"][None]
    extractor = _extractor(
        transformers.GraniteSpeechFeatureExtractor,
        asked.folder,
        projector_window_size=config.window_size,
        projector_downsample_rate=config.downsample_rate,
    )
    inputs = extractor(given["waveform"].cpu())
    features, mask = inputs["input_features"], inputs["input_features_mask"]
    values, mask = features.to(model.device, model.dtype), mask.to(model.device)
    if model._hf_peft_config_loaded:
        model.enable_adapters()
    encoder = model.model.encoder
    frames = encoder(values).last_hidden_state  # [1, T, D], or [1, T, (n + 1) * D]
    heard = {"input_features": values, "input_features_mask": mask}
    hidden = model.model(input_ids=ids, **heard).last_hidden_state[0, -1]
    made = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        **heard,
        max_new_tokens=asked.tokens,
        do_sample=False,
        num_beams=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    return {
        "features": features,
        "encoder": frames,
        "ctc": encoder.out(frames[..., -config.encoder_config.hidden_dim :]),
        "projector": model.get_audio_features(values).pooler_output,
        # Some releases leave the division out of forward.
        "logits": model.lm_head(hidden) / config.text_config.logits_scaling,
        "tokens": made[0, ids.shape[1] :],
    }


def _extractor(kind: Any, folder: Path, **settings: Any) -> Any:
    """Make the checkpoint's front end, or the family's where its folder states none."""
    try:
        return kind.from_pretrained(folder, **settings)
    except OSError:
        return kind(**settings)


def _prompt(folder: Path, messages: list[dict[str, str]]) -> dict[str, Tensor]:
    """Render and encode the conversation, if the folder has a template of its own."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if not tokenizer.chat_template:
        return {}
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return {"prompt": torch.tensor(ids)}


if __name__ == "__main__":
    sys.exit(main())
