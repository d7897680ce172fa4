"""A published baseline, as published and corrected: Granite Speech 3.3 8B on one H200, eager.

In: nothing. Out: :data:`PUBLISHED`, one row per clip length.

Source: the week 2 report of the Columbia University and IBM project on torch.compile for speech
models (one run a cell, bfloat16, at most 128 new tokens). Its tokens per second times its seconds
give 60, 134 and 435 tokens in every row: the prompt (7) and the recording (30, 102, 300) are
counted as if they had been generated. What is left is 23, 25 and 128 new tokens, the last being
the limit, so that its real-time factor at 30 s is that of a text cut short.
"""

from __future__ import annotations

from dataclasses import dataclass

WEIGHT_BYTES_PER_TOKEN = 16.34e9  # 8.17 billion weights in bfloat16
H200_BYTES_PER_S = 4.8e12
PROMPT_TOKENS = 7
PEAK_MB = 17_353  # the weights in bfloat16 and 50 MB: says nothing about a phase


@dataclass(frozen=True)
class Published:
    """One clip length. audio_tokens: that the prompt holds; tokens_per_s: as published.

    speed_total_ms: of the runs that ``tokens_per_s`` was taken from, another table's.
    """

    seconds: int
    total_ms: float
    encoder_ms: float
    decoder_ms: float
    tokens_per_s: float
    speed_total_ms: float
    audio_tokens: int

    @property
    def counted_tokens(self) -> int:
        """Return tokens that the published speed counts."""
        return round(self.tokens_per_s * self.speed_total_ms / 1000)

    @property
    def new_tokens(self) -> int:
        """Return tokens that were generated."""
        return self.counted_tokens - self.audio_tokens - PROMPT_TOKENS

    @property
    def ms_per_token(self) -> float:
        """Return decoder time over new tokens; the prefill, not timed apart, is in it."""
        return self.decoder_ms / self.new_tokens

    @property
    def true_tokens_per_s(self) -> float:
        """Return new tokens per second of decoder time."""
        return 1000 / self.ms_per_token

    @property
    def rtf(self) -> float:
        """Return the real-time factor."""
        return self.total_ms / 1000 / self.seconds

    @property
    def decoder_share(self) -> float:
        """Return the decoder's share of the total."""
        return self.decoder_ms / self.total_ms

    @property
    def bandwidth_share(self) -> float:
        """Return the share of the data sheet's bandwidth, reading every weight once a token."""
        return WEIGHT_BYTES_PER_TOKEN / (self.ms_per_token / 1000) / H200_BYTES_PER_S


PUBLISHED = (
    Published(3, 489.4, 17.7, 471.7, 120.7, 497.0, 30),
    Published(10, 532.3, 18.2, 514.1, 249.0, 538.1, 102),
    Published(30, 2662.2, 18.8, 2643.4, 162.1, 2684.3, 300),
)
