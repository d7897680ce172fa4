"""Granite Speech NAR: a CTC head drafts the text, and a bidirectional decoder edits it at once.

In: features of a batch, then the draft as slots of text. Out: logits of the draft, and of every
slot. The encoder and the decoder are those of the autoregressive models, but the decoder's
attention is not causal and it has no cache: audio rows and text slots all see each other. A clip's
result depends neither on its padding nor on its batch neighbours.

Shapes: B clips, T frames, D encoder width, n encoder states in a frame, C characters, W windows of
F or P frames, R labels of the draft, A audio rows, L text slots, E decoder width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.model.config import DecoderConfig, EncoderConfig
from core.model.ctc import BLANK, pool_windows
from core.model.decoder import GraniteDecoder, LayerRunner, call_layer
from core.model.encoder import ConformerEncoder
from core.model.linear import Linear
from core.model.window_projector import WindowProjector, WindowProjectorConfig


@dataclass(frozen=True)
class DraftHeadConfig:
    """The CTC head over pooled frames. Label i is token ``i - token_offset``, but for the blank."""

    num_labels: int
    pooling_window: int
    blank_label: int
    token_offset: int


@dataclass(frozen=True)
class GraniteSpeechNarConfig:
    """A whole checkpoint.

    Attributes:
        blank_token_id: fills the slots between tokens, and says "nothing" in the edited text.
        min_edit_length: the fewest slots.
        scale_audio: audio rows are divided by the decoder's embedding multiplier.
        lower_case_draft: the draft is written in lower case and tokenised again before the edit.
        whole_steps: the front end leaves the last, centred mel frame out.
    """

    encoder: EncoderConfig
    draft_head: DraftHeadConfig
    projector: WindowProjectorConfig
    decoder: DecoderConfig
    blank_token_id: int
    min_edit_length: int
    scale_audio: bool
    lower_case_draft: bool
    whole_steps: bool

    @property
    def frames_per_audio_row(self) -> int:
        """Return the frames that one audio row of the decoder stands for."""
        return self.projector.downsample_rate

    @property
    def longest_frames(self) -> int:
        """Count the frames whose audio rows, and a token in every window, surely have positions."""
        positions = self.decoder.max_position_embeddings - 3  # a slot more, and a started window
        return int(positions / (1 / self.frames_per_audio_row + 2 / self.draft_head.pooling_window))

    def num_slots(self, num_tokens: int) -> int:
        """Count the slots for a text of ``num_tokens``: one before, between and after each."""
        return max(2 * num_tokens + 1, self.min_edit_length)

    def slots(self, ids: list[int]) -> list[int]:
        """Lay ``ids`` out among blanks, as the decoder reads them."""
        slots = [self.blank_token_id] * self.num_slots(len(ids))
        slots[1 : 2 * len(ids) : 2] = ids
        return slots


class GraniteSpeechNar(nn.Module):
    """Encoder with two CTC heads, projector, and an editor of text."""

    def __init__(self, config: GraniteSpeechNarConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ConformerEncoder(config.encoder)
        self.bpe_head = Linear(config.encoder.hidden_dim, config.draft_head.num_labels)
        self.projector = WindowProjector(config.projector)
        self.decoder = GraniteDecoder(config.decoder)

    def draft(self, windows: Tensor, mid_logits: Tensor, frame_is_real: Tensor) -> Tensor:
        """Score the labels of pooled frames, each weighted by how likely it is no blank.

        Args:
            windows: [W, P, D], last states.
            mid_logits: [W, P, C] of the head in the middle of the encoder.
            frame_is_real: [W, P, 1] as numbers.

        Returns:
            [W, R].
        """
        importance = 1 - mid_logits.float().softmax(dim=-1)[..., BLANK]  # [W, P]
        pooled = pool_windows(windows.float(), importance * frame_is_real[..., 0])
        return self.bpe_head(pooled.to(windows.dtype))

    def project(self, windows: Tensor, frame_is_real: Tensor) -> Tensor:
        """Embed windows [W, F, n*D] with frame_is_real [W, F, 1]: audio rows [W, Q, E]."""
        audio = self.projector(windows, frame_is_real)
        multiplier = self.config.decoder.embedding_multiplier
        return audio / multiplier if self.config.scale_audio else audio

    def edit(
        self,
        audio: Tensor,
        slots: Tensor,
        num_audio: Tensor,
        num_slots: Tensor,
        run_layer: LayerRunner = call_layer,
    ) -> Tensor:
        """Score every slot of text, all at once.

        Args:
            audio: [B, A, E].
            slots: [B, L] int64.
            num_audio: [B] int64, audio rows of each clip that are real.
            num_slots: [B] int64, slots of each clip that are real.
            run_layer: calls a layer with its arguments; compilers may do it in their own way.

        Returns:
            [B, L, V] in float32; rows past a clip's slots mean nothing.
        """
        text = self.decoder.embed_tokens(slots)  # [B, L, E]
        rows = torch.arange(audio.shape[1], device=slots.device)  # [A]
        places = torch.arange(slots.shape[1], device=slots.device)  # [L]
        # Text follows a clip's own last audio row; where padding lies in memory says nothing.
        before = rows.expand(audio.shape[0], -1)
        positions = torch.cat([before, num_audio[:, None] + places], dim=1)  # [B, A + L]
        real = torch.cat([rows < num_audio[:, None], places < num_slots[:, None]], dim=1)
        mask = real[:, None, None]  # [B, 1, 1, A + L]
        embeddings = torch.cat([audio.to(text.dtype), text], dim=1)  # [B, A + L, E]
        hidden = self.decoder(embeddings, positions, run_layer=run_layer, mask=mask)
        return self.decoder.logits(hidden[:, audio.shape[1] :])
