"""GraniteSpeech: the encoder, the projector and the decoder, composed.

In: features and prompt ids. Out: logits. Generation, prompts, files and devices live elsewhere;
this file is the architecture and nothing more.

Shapes: B batch, T feature frames, A audio positions, P prompt length, E decoder width,
V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from core.errors import UserError
from core.model.cache import KVCache
from core.model.config import ModelConfig
from core.model.decoder import GraniteDecoder
from core.model.encoder import ConformerEncoder, EncoderOutput
from core.model.features import num_audio_tokens
from core.model.projector import Projector


class AudioEmbeddings(NamedTuple):
    """embeddings [B, A, E], A the longest clip's; encoded: what the encoder heard."""

    embeddings: Tensor
    encoded: EncoderOutput


class GraniteSpeech(nn.Module):
    """Granite Speech 3.x and 4.x (arXiv 2505.08699)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ConformerEncoder(config.encoder)
        self.projector = Projector(config.projector)
        self.decoder = GraniteDecoder(config.decoder)

    def num_audio_tokens(self, num_frames: int) -> int:
        """Count the audio positions a clip of ``num_frames`` feature frames takes in its prompt."""
        part = self.config.projector
        return num_audio_tokens(
            num_frames, window=part.window_size, downsample=part.downsample_rate
        )

    def embed_audio(
        self, features: Tensor, lengths: Tensor, lora: Tensor | None = None
    ) -> AudioEmbeddings:
        """Embed features [B, T, F] of real ``lengths`` [B]: every window of T frames."""
        encoded = self.encoder(features, lengths, lora)
        return AudioEmbeddings(self.projector(encoded.frames, lora), encoded)

    def embed_text(self, ids: Tensor) -> Tensor:
        """Look up the table's rows for ``ids`` [B, P].

        The audio token, which may lie outside the table, reads row 0: in a prompt audio replaces
        it, and where a model writes one itself the reference reads that row too.

        Returns:
            [B, P, E].
        """
        return self.decoder.embed_tokens(ids.masked_fill(ids == self.config.audio_token_id, 0))

    def splice(self, prompt_ids: Tensor, audio: Tensor) -> Tensor:
        """Embed prompts: the table's rows, with audio at the audio positions.

        The k-th audio place of a row takes that row's k-th audio embedding. Counts must agree;
        :func:`check_audio_positions` says so before any work is done.

        Args:
            prompt_ids: [B, P] int64.
            audio: [B, A, E]; rows past a clip's own places are never read.

        Returns:
            [B, P, E].
        """
        is_audio = prompt_ids == self.config.audio_token_id  # [B, P]
        text = self.embed_text(prompt_ids)  # [B, P, E]
        place = (is_audio.cumsum(dim=1) - 1).clamp(min=0, max=audio.shape[1] - 1)  # [B, P]
        spoken = audio.gather(1, place[..., None].expand(-1, -1, audio.shape[-1]))  # [B, P, E]
        return torch.where(is_audio[..., None], spoken.to(text.dtype), text)

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        prompt_ids: Tensor,
        lora: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Compute logits of every prompt position: training and parity tests.

        Args:
            features: [B, T, F], padded to whole attention blocks.
            lengths: [B] int64, real frames of each clip.
            prompt_ids: [B, P] int64 with each clip's audio positions; rows padded on the right.
            lora: [B, 1, 1] adapter switch, or None.
            cache: filled with the prompt's keys and values if given.

        Returns:
            [B, P, V].
        """
        audio = self.embed_audio(features, lengths, lora).embeddings
        embeddings = self.splice(prompt_ids, audio)
        positions = torch.arange(prompt_ids.shape[1], device=prompt_ids.device)
        positions = positions.expand(prompt_ids.shape[0], -1)
        return self.decoder.logits(self.decoder(embeddings, positions, cache, lora), lora)


def check_audio_positions(prompt_ids: list[int], audio_token_id: int, expected: int) -> None:
    """Compare a prompt's audio positions with the audio embeddings it will get.

    Raises:
        UserError: the counts differ; both are named.
    """
    audio_positions = prompt_ids.count(audio_token_id)
    if audio_positions != expected:
        raise UserError(
            f"the prompt has {audio_positions} audio positions but the recording makes {expected} "
            "audio embeddings; expected as many positions as embeddings"
        )
