"""Warnings about how a recording was read, collected while it is decoded."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class DecodeReport:
    """Warnings for whoever reads the text, in the order in which they came.

    channels_cancel: the channels are opposite to each other, and little is left of their mean.
    """

    warnings: list[str] = field(default_factory=list)
    channels_cancel: bool = False

    def warn(self, text: str) -> None:
        """Add a warning, each once."""
        if text not in self.warnings:
            self.warnings.append(text)
