"""The components that prompts, drafts and decoding need.

In: the pieces that loading made. Out: :class:`Components`, shared by all requests and never
changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from core.model.ctc import BpeHead
from core.model.features import LogMel
from core.model.granite_speech import GraniteSpeech, check_audio_positions
from core.text.prompts import PromptBuilder, Request
from core.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Components:
    """An autoregressive model and what is around it; bpe_head where the checkpoint has one."""

    model: GraniteSpeech
    tokenizer: Tokenizer
    prompts: PromptBuilder
    feature_extractor: LogMel
    bpe_head: BpeHead | None
    device: torch.device

    def prompt(self, request: Request, num_frames: int) -> list[int]:
        """Write the prompt for a clip of ``num_frames`` feature frames.

        Returns:
            Token ids with exactly the audio positions the clip makes.

        Raises:
            UserError: the model cannot do what is asked.
        """
        audio_positions = self.model.num_audio_tokens(num_frames)
        ids = self.prompts.speech(request, audio_positions)
        check_audio_positions(ids, self.model.config.audio_token_id, audio_positions)
        return ids
