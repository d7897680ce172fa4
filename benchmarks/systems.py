"""The systems that are compared, by name, and the answer that one run of them gives.

In: a name. Out: a :class:`System`: how our engine is to be loaded and called, or that transformers
is meant. Nothing is loaded here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

EAGER, COMPILE, INT8, INT8_COMPILE = "eager", "compile", "int8", "int8-compile"
DRAFTS, DRAFTS_COMPILE = "drafts", "drafts-compile"
PEER_EAGER, PEER_COMPILE = "transformers", "transformers-compile"


@dataclass(frozen=True)
class System:
    """An engine with its options. ours: False for transformers; exact: gives greedy tokens."""

    name: str
    title: str
    ours: bool = True
    engine: str = "eager"
    quantize: str | None = None
    decoding: str = "greedy"

    @property
    def exact(self) -> bool:
        """Say whether its tokens must be those of float32 greedy decoding."""
        return self.quantize is None


SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        System(PEER_EAGER, "transformers, eager, dynamic cache", ours=False),
        System(PEER_COMPILE, "transformers, compiled, static cache", ours=False, engine="compile"),
        System(EAGER, "ours, eager"),
        System(COMPILE, "ours, compiled", engine="compile"),
        System(INT8, "ours, int8, eager", quantize="int8"),
        System(INT8_COMPILE, "ours, int8, compiled", engine="compile", quantize="int8"),
        System(DRAFTS, "ours, exact drafts, eager", decoding="speculative"),
        System(
            DRAFTS_COMPILE, "ours, exact drafts, compiled", engine="compile", decoding="speculative"
        ),
    )
}
ON_EQUAL_TOKENS = (PEER_EAGER, PEER_COMPILE, EAGER, COMPILE, INT8, INT8_COMPILE)
ON_RECORDINGS = (EAGER, DRAFTS, COMPILE, DRAFTS_COMPILE)


@dataclass(frozen=True)
class Answer:
    """One run. phases_ms: what is known of its phases; graphs: compiled during it.

    peak_bytes: the largest resident set of the system's process since its start.
    """

    end_to_end_ms: float
    phases_ms: Mapping[str, float]
    token_ids: tuple[int, ...]
    graphs: int
    peak_bytes: int
    passes: int | None = None
    text: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Answer:
        """Read what :meth:`to_json` wrote."""
        return cls(**{**raw, "token_ids": tuple(raw["token_ids"])})
