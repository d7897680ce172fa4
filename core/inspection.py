"""Counts and sizes of a checkpoint's parts, without running it.

In: a loaded :class:`core.lab.Lab`. Out: a plain dictionary: parts, parameters, bytes, tensors used
and unused, capabilities. ``python -m core inspect`` prints it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import nn

from core.lab import Lab
from core.model.lora import adapted_layers


def inspect(lab: Lab) -> dict[str, Any]:
    """Describe a loaded checkpoint in JSON types."""
    model = lab.model
    parts = {name: count(part) for name, part in model.named_children()}
    bpe_head = getattr(lab.session.recognizer, "bpe_head", None)
    adapter = [t for _, layer in adapted_layers(model) for t in (layer.lora_a, layer.lora_b)]
    total = sum(part["parameters"] for part in parts.values())
    return {
        "model": lab.model_info.name,
        "title": lab.model_info.title,
        "family": lab.model_info.family,
        "folder": str(lab.files.folder),
        "licence": lab.model_info.licence,
        "dtype": str(lab.dtype).removeprefix("torch."),
        "device": str(lab.device),
        "parts": parts,
        "parameters": total,
        "adapter": {
            "layers": lab.session.num_adapted_layers,
            "parameters": sum(t.numel() for t in adapter if t is not None),
        }
        if lab.has_adapter
        else None,
        "bpe_ctc_head": None if bpe_head is None else count(bpe_head),
        "stored_bytes": lab.files.num_bytes,
        "shards": sorted({file.name for file in lab.files.shards.values()}),
        "tensors": {"used": lab.report.num_tensors, "unused": list(lab.report.unused)},
        "capabilities": {
            "tasks": list(lab.model_info.tasks),
            "languages": list(lab.model_info.languages),
            "target_languages": list(lab.model_info.target_languages),
            "keywords": lab.model_info.keywords,
            "punctuation": lab.model_info.punctuation,
            "text_mode": lab.model_info.text_mode,
            "prefix_text": lab.model_info.prefix_text,
            "lora": lab.has_adapter,
            "max_audio_s": lab.max_audio_s,
        },
        "config": asdict(lab.config),
    }


def count(part: nn.Module) -> dict[str, int]:
    """Count the parameters and bytes of one part, batch-norm statistics and adapters left out."""
    own = [t for name, t in part.named_parameters() if not name.endswith((".lora_a", ".lora_b"))]
    return {
        "parameters": sum(t.numel() for t in own),
        "bytes": sum(t.numel() * t.element_size() for t in own),
    }
