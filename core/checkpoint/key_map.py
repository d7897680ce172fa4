"""Names and layout of stored tensors <-> ours: one table each way.

In: a name, or a state dict. Out: the other side's. Accepts the names IBM stored, those of its first
release of 3.2, and those of transformers 5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

# Stored names (and transformers-5 names) -> ours; applied in order, each at most once.
_RENAMES = [
    (r"^model\.(encoder|projector)\.", r"\1."),
    (r"^(model\.language_model|language_model\.model)\.", "decoder."),
    (r"^(language_model\.)?lm_head\.", "decoder.lm_head."),
    (r"^encoder\.out_bpe\.", "bpe_head."),
    (r"^projector\.qformer\.layernorm\.", "projector.norm."),
    (r"^projector\.qformer\.encoder\.layer\.", "projector.layers."),
    (r"^(projector\.layers\.\d+\.\w+)\.attention\.(query|key|value)\.", r"\1.\2."),
    (r"^(projector\.layers\.\d+\.(?:cross)?attention)\.output\.dense\.", r"\1.dense."),
    (r"^(projector\.layers\.\d+\.(?:cross)?attention)\.output\.LayerNorm\.", r"\1.norm."),
    (r"^(projector\.layers\.\d+)\.intermediate_query\.dense\.", r"\1.up."),
    (r"^(projector\.layers\.\d+)\.output_query\.dense\.", r"\1.down."),
    (r"^(projector\.layers\.\d+)\.output_query\.LayerNorm\.", r"\1.norm."),
    (r"\.base_layer\.", "."),
]

# The first release of 3.2: 0 is the input layer, and block N - 1 is stored as N, with these names.
FIRST_RELEASE = "encoder.rnn_tr."
_BLOCK = re.compile(r"^encoder\.rnn_tr\.(\d+)\.")
_FIRST_RELEASE_RENAMES = [
    (r"\.attn\.norm\.", ".attn.pre_norm."),
    (r"\.attn\.fn\.", ".attn."),
    (r"\.(ff[12])\.fn\.norm\.", r".\1.pre_norm."),
    (r"\.(ff[12])\.fn\.fn\.net\.0\.", r".\1.up_proj."),
    (r"\.(ff[12])\.fn\.fn\.net\.3\.", r".\1.down_proj."),
    (r"\.conv\.net\.0\.", ".conv.norm."),
    (r"\.conv\.net\.2\.", ".conv.up_conv."),
    (r"\.conv\.net\.4\.conv\.", ".conv.depth_conv.conv."),
    (r"\.conv\.net\.5\.", ".conv.batch_norm."),
    (r"\.conv\.net\.7\.", ".conv.down_conv."),
]

# Ours -> stored, for saving; the mirror of the table above.
_STORED = [
    (r"^decoder\.lm_head\.", "language_model.lm_head."),
    (r"^decoder\.", "language_model.model."),
    (r"^bpe_head\.", "encoder.out_bpe."),
    (r"^projector\.norm\.", "projector.qformer.layernorm."),
    (r"^(projector)\.layers\.(\d+)\.norm\.", r"\1.layers.\2.output_query.LayerNorm."),
    (r"^(projector)\.layers\.(\d+)\.up\.", r"\1.layers.\2.intermediate_query.dense."),
    (r"^(projector)\.layers\.(\d+)\.down\.", r"\1.layers.\2.output_query.dense."),
    (r"^(projector\.layers\.\d+\.(?:cross)?attention)\.norm\.", r"\1.output.LayerNorm."),
    (r"^(projector\.layers\.\d+\.(?:cross)?attention)\.dense\.", r"\1.output.dense."),
    (r"^(projector\.layers\.\d+\.\w+)\.(query|key|value)\.", r"\1.attention.\2."),
    (r"^projector\.layers\.", "projector.qformer.encoder.layer."),
]

POINTWISE = re.compile(r"^encoder\.layers\.\d+\.conv\.(up|down)_conv\.weight$")


def native_name(stored: str) -> str:
    """Return our name of a stored tensor."""
    block = _BLOCK.match(stored)
    if block is not None:
        number = int(block[1])
        place = f"layers.{number - 1}" if number else "input_linear"
        return _renamed(f"encoder.{place}.{stored[block.end() :]}", _FIRST_RELEASE_RENAMES)
    return _renamed(stored, _RENAMES)


def stored_name(native: str) -> str:
    """Return the stored name of one of our tensors: the inverse of :func:`native_name`."""
    return _renamed(native, _STORED)


def _renamed(name: str, table: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name, count=1)
    return name


def to_stored(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert our state dict to stored names and layout, without adapters: one shard."""
    out = {}
    for name, tensor in state.items():
        if name.endswith((".lora_a", ".lora_b")):
            continue
        wide = tensor.unsqueeze(-1) if POINTWISE.match(name) else tensor
        out[stored_name(name)] = wide.contiguous()
    return out
