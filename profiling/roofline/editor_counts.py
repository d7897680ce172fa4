"""Parameters, operations and bytes that Granite Speech NAR needs at least, from its dimensions.

In: :class:`core.model.granite_speech_nar.GraniteSpeechNarConfig`, frames of a clip, tokens of its
draft, and how often that was edited. Out: a :class:`Cost` a phase. What counts is as in
:mod:`profiling.roofline.counts`; the editor's attention sees every pair of rows.

Letters: T encoder frames, W windows, A audio rows, L slots of text.
"""

from __future__ import annotations

from core import phases
from core.model.granite_speech_nar import GraniteSpeechNarConfig
from core.model.window_projector import WindowProjectorConfig
from profiling.roofline.counts import Cost, decoder_parameters, encoder_flops, encoder_parameters

EDIT = "edit"


def draft_parameters(config: GraniteSpeechNarConfig) -> int:
    """Return weights and biases of the CTC head over pooled frames."""
    return (config.encoder.hidden_dim + 1) * config.draft_head.num_labels


def window_projector_parameters(part: WindowProjectorConfig) -> int:
    """Return weights, biases, queries and window positions."""
    width, norm = part.hidden_size, 2 * part.hidden_size
    attention = 4 * (width * width + (width if part.attention_bias else 0))
    mlp = 2 * width * part.mlp_size + (part.mlp_size + width if part.mlp_bias else 0)
    ends = part.num_states * (2 + width) * part.encoder_size + width
    ends += (part.num_queries + part.window_size) * width + norm
    ends += (width + 1) * part.output_size
    return part.num_layers * (attention + mlp + 2 * norm) + ends


def window_projector_flops(part: WindowProjectorConfig, num_frames: int) -> float:
    """Return operations for every window of ``num_frames`` frames."""
    width, queries, window = part.hidden_size, part.num_queries, part.window_size
    layer = 2 * width * width * (queries + window) + 2 * queries * window * width
    layer += 2 * width * part.mlp_size * queries
    ends = part.num_states * part.encoder_size * width * window + width * part.output_size * queries
    return 2.0 * -(-num_frames // window) * (part.num_layers * layer + ends)


def count_editor(
    config: GraniteSpeechNarConfig,
    num_frames: int,
    num_tokens: int,
    *,
    rounds: int,
    element_bytes: int,
) -> dict[str, Cost]:
    """Return the cost of each phase whose work follows from the dimensions.

    Args:
        config: the model's.
        num_frames: of the encoder.
        num_tokens: of the draft.
        rounds: how often it was edited.
        element_bytes: of a weight.
    """
    decoder, head = config.decoder, config.draft_head
    table = decoder.vocab_size * decoder.hidden_size
    weights = decoder_parameters(decoder)
    body = weights - table * (1 if decoder.tie_word_embeddings else 2)
    slots = config.num_slots(num_tokens)
    rows = num_frames // config.frames_per_audio_row + slots
    pairs = 4.0 * rows * rows * decoder.num_attention_heads * decoder.head_dim
    edit = 2.0 * (body * rows + table * slots) + pairs * decoder.num_hidden_layers
    pooled = -(-num_frames // head.pooling_window)
    drafting = 2.0 * pooled * config.encoder.hidden_dim * head.num_labels
    found = {
        phases.ENCODER: (
            1,
            encoder_flops(config.encoder, num_frames),
            encoder_parameters(config.encoder),
        ),
        phases.DRAFT: (1, drafting, draft_parameters(config)),
        phases.PROJECTOR: (
            1,
            window_projector_flops(config.projector, num_frames),
            window_projector_parameters(config.projector),
        ),
        EDIT: (rounds, edit * rounds, (body + table) * rounds),
    }
    return {
        name: Cost(name, calls, flops, float(element_bytes * read), 0.0)
        for name, (calls, flops, read) in found.items()
    }
