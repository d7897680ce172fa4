"""Parameters, operations and bytes a phase needs at least, counted from a model's dimensions.

In: :class:`core.model.config.ModelConfig` and how long the clip, the prompt and the answer are.
Out: one :class:`Cost` per phase. Nothing is measured and no model is built; a test compares the
parameters with built models and the operations with torch's own counter.

What counts: an operation of a matrix product is a multiply or an add (so 2 a weight and a row);
norms, activations and rotations are left out, below one in a hundred. Bytes are the weights, read
once, and the cache, read and written; activations may stay in caches and are left out. Padding and
what masks throw away are not needed, so not counted: the engine may do more, never less.

Letters: T encoder frames, A audio tokens, P prompt tokens, N new tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from core import phases
from core.model.config import DecoderConfig, EncoderConfig, ModelConfig, ProjectorConfig


@dataclass(frozen=True)
class Shape:
    """Lengths of one request, in frames and tokens."""

    num_frames: int
    num_prompt_tokens: int
    num_new_tokens: int


@dataclass(frozen=True)
class Cost:
    """Bytes and FLOPs of a phase. calls: how often its weights are read (decode: once a token)."""

    name: str
    calls: int
    flops: float
    weight_bytes: float
    cache_bytes: float

    @property
    def num_bytes(self) -> float:
        """Return bytes that must move, at least."""
        return self.weight_bytes + self.cache_bytes


def encoder_parameters(part: EncoderConfig) -> int:
    """Return weights and biases of the conformer; batch-norm statistics are no parameters."""
    width, inner = part.hidden_dim, part.hidden_dim * part.feedforward_mult
    attended, conv = part.num_heads * part.dim_head, width * part.conv_expansion_factor
    norm = 2 * width
    feedforward = norm + width * inner + inner + inner * width + width
    attention = norm + 3 * width * attended + attended * width + width
    attention += (2 * part.max_pos_emb + 1) * part.dim_head
    convolution = norm + width * 2 * conv + 2 * conv + conv * part.conv_kernel_size + 2 * conv
    convolution += conv * width + width
    layer = 2 * feedforward + attention + convolution + norm
    ends = part.input_dim * width + width + 2 * width * part.output_dim + part.output_dim + width
    return part.num_layers * layer + ends


def encoder_flops(part: EncoderConfig, num_frames: int) -> float:
    """Return operations for ``num_frames`` frames; attention only within blocks."""
    width, inner = part.hidden_dim, part.hidden_dim * part.feedforward_mult
    attended, conv = part.num_heads * part.dim_head, width * part.conv_expansion_factor
    per_frame = 4 * width * inner + 4 * width * attended
    per_frame += 2 * width * conv + conv * part.conv_kernel_size + conv * width
    blocks, rest = divmod(num_frames, part.context_size)
    pairs = blocks * part.context_size**2 + rest**2
    # q.k, q.r and p.v: each one multiply and one add per pair and channel.
    layer = 2 * per_frame * num_frames + 3 * 2 * pairs * attended
    ends = part.input_dim * width + 3 * width * part.output_dim
    return part.num_layers * layer + 2 * ends * num_frames


def projector_parameters(part: ProjectorConfig) -> int:
    """Return weights, biases and queries of the Q-Former and its output layer."""
    width, source = part.hidden_size, part.encoder_hidden_size
    norm = 2 * width
    own = 4 * (width * width + width) + norm
    cross = 2 * (width * width + width) + 2 * (source * width + width) + norm
    feedforward = 2 * width * part.intermediate_size + part.intermediate_size + width + norm
    layers = part.num_hidden_layers * (own + feedforward) + _crossing(part) * cross
    return layers + part.num_queries * width + norm + width * part.output_size + part.output_size


def projector_flops(part: ProjectorConfig, num_frames: int) -> float:
    """Return operations for every window of ``num_frames`` frames."""
    width, queries, window = part.hidden_size, part.num_queries, part.window_size
    own = 4 * width * width * queries + 2 * queries * queries * width
    cross = 2 * width * width * queries + 2 * part.encoder_hidden_size * width * window
    cross += 2 * queries * window * width
    feedforward = 2 * width * part.intermediate_size * queries
    layers = part.num_hidden_layers * (own + feedforward) + _crossing(part) * cross
    windows = -(-num_frames // window)
    return 2.0 * windows * (layers + width * part.output_size * queries)


def _crossing(part: ProjectorConfig) -> int:
    return -(-part.num_hidden_layers // part.cross_attention_frequency)


def decoder_parameters(part: DecoderConfig) -> int:
    """Return weights of the language model; a tied table is there once."""
    table = part.vocab_size * part.hidden_size
    return _layers_and_norm(part) + table * (1 if part.tie_word_embeddings else 2)


def _layers_and_norm(part: DecoderConfig) -> int:
    width, inner = part.hidden_size, part.intermediate_size
    queries = part.num_attention_heads * part.head_dim
    shared = part.num_key_value_heads * part.head_dim
    layer = width * (queries + 2 * shared) + queries * width + 3 * width * inner + 2 * width
    layer += (queries + 2 * shared + width) if part.attention_bias else 0
    layer += (2 * inner + width) if part.mlp_bias else 0
    return part.num_hidden_layers * layer + width


def cache_bytes_per_token(part: DecoderConfig, element_bytes: int) -> int:
    """Return keys and values of one position in all layers."""
    shared = part.num_key_value_heads * part.head_dim
    return 2 * part.num_hidden_layers * shared * element_bytes


def _attention_flops(part: DecoderConfig, pairs: float) -> float:
    return 4.0 * pairs * part.num_attention_heads * part.head_dim * part.num_hidden_layers


def count(
    config: ModelConfig, shape: Shape, *, element_bytes: int, adapter_parameters: int = 0
) -> dict[str, Cost]:
    """Return the cost of each phase whose work follows from the dimensions.

    Args:
        config: the model's.
        shape: how long everything is.
        element_bytes: of a weight and of a cached value.
        adapter_parameters: of an unmerged LoRA adapter on the decoder that is in use.
    """
    decoder, prompt = config.decoder, shape.num_prompt_tokens
    per_slot = cache_bytes_per_token(decoder, element_bytes)
    table = decoder.vocab_size * decoder.hidden_size
    body = _layers_and_norm(decoder) + adapter_parameters
    per_token = body + table
    steps = max(0, shape.num_new_tokens - 1)  # the first token comes out of the prefill
    # A step at position p writes one slot and reads p + 1.
    reads = steps * prompt + steps * (steps + 1) / 2
    attended = reads
    return {
        phases.ENCODER: Cost(
            phases.ENCODER,
            1,
            encoder_flops(config.encoder, shape.num_frames),
            element_bytes * encoder_parameters(config.encoder),
            0.0,
        ),
        phases.PROJECTOR: Cost(
            phases.PROJECTOR,
            1,
            projector_flops(config.projector, shape.num_frames),
            element_bytes * projector_parameters(config.projector),
            0.0,
        ),
        phases.PREFILL: Cost(
            phases.PREFILL,
            1,
            2.0 * (body * prompt + table) + _attention_flops(decoder, prompt * (prompt + 1) / 2),
            element_bytes * per_token,
            per_slot * prompt,
        ),
        phases.DECODE: Cost(
            phases.DECODE,
            steps,
            2.0 * per_token * steps + _attention_flops(decoder, attended),
            float(element_bytes * per_token * steps),
            per_slot * (reads + steps),
        ),
    }
