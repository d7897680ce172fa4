"""Parameters, operations and bytes that TurboCTC needs at least, counted from its dimensions.

In: :class:`core.model.granite_speech5_ctc.GraniteSpeech5Config` and the feature rows of a clip.
Out: the :class:`Cost` of its encoder. What counts is as in :mod:`profiling.roofline.counts`;
reading the labels has no weights and next to no arithmetic.
"""

from __future__ import annotations

from core import phases
from core.model.granite_speech5_ctc import GraniteSpeech5Config
from profiling.roofline.counts import Cost


def ctc_parameters(config: GraniteSpeech5Config) -> int:
    """Return weights and biases; batch-norm statistics are no parameters."""
    width, inner, labels = config.hidden_dim, config.feedforward_dim, config.vocab_size
    attended, conv = config.num_heads * config.dim_head, width * config.conv_expansion_factor
    feedforward = 2 * width * inner + (inner + width if config.feedforward_bias else 0)
    attention = 4 * width * attended + width + (2 * config.max_pos_emb + 1) * config.dim_head
    convolution = 2 * width * conv + 2 * conv + conv * config.conv_kernel_size + 2 * conv
    convolution += conv * width + width
    layer = 2 * feedforward + attention + convolution + 5 * 2 * width  # five norms
    ends = config.input_dim * width + width + 2 * width * labels + labels + width
    return config.num_layers * layer + ends


def ctc_flops(config: GraniteSpeech5Config, num_rows: int) -> float:
    """Return operations for ``num_rows`` feature rows; attention only within blocks."""
    width, inner, labels = config.hidden_dim, config.feedforward_dim, config.vocab_size
    attended, conv = config.num_heads * config.dim_head, width * config.conv_expansion_factor
    rows, products = num_rows, float(config.input_dim * width * num_rows)
    for layer in range(config.num_layers):
        blocks, rest = divmod(rows, config.context_size)
        pairs = blocks * config.context_size**2 + rest**2
        before = 2 * width * inner + 4 * width * attended + 2 * width * conv
        products += rows * before + 3 * pairs * attended  # q.k, q.r and p.v
        rows //= 2 if layer in config.subsample_layers else 1
        products += rows * (conv * config.conv_kernel_size + conv * width + 2 * width * inner)
        if layer + 1 == config.num_layers // 2:
            products += rows * 2 * width * labels
    return 2.0 * (products + rows * width * labels)


def count_ctc(
    config: GraniteSpeech5Config, num_rows: int, *, element_bytes: int
) -> dict[str, Cost]:
    """Return the cost of the phases whose work follows from the dimensions: the encoder's."""
    weights = float(element_bytes * ctc_parameters(config))
    flops = ctc_flops(config, num_rows)
    return {phases.ENCODER: Cost(phases.ENCODER, 1, flops, weights, 0.0)}
