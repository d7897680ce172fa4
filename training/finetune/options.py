"""The options of a fine-tuning run: one frozen object, checked once.

In: keyword options. Out: :class:`FinetuneOptions`; and of its fields those that a resumed run must
share with the one it goes on from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import UserError
from training.corpus.manifest import MAX_SECONDS
from training.finetune.row_schedule import Size
from training.finetune.trainable import TrainablePlan


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """A run.

    model: catalog name, repository or folder. data, dev, keep: manifests; without dev, rows of data
    with the split "dev", or else a tenth of them, are for validation. keep: rows of what the model
    knows already, ``keep_share`` of the batches. size and accumulate: a batch, and how many make a
    step. steps or epochs: whichever is given. check_every: steps between looks at the dev rows;
    patience: how many looks without progress end the run, 0 for never. characters: weight of the
    encoder's own CTC loss, where the encoder is trained. strength: of the augmentation, 0 to 1.
    """

    model: str
    data: Path
    out: Path
    plan: TrainablePlan
    dev: Path | None = None
    keep: Path | None = None
    keep_share: float = 0.3
    size: Size = field(default_factory=lambda: Size(16, 30.0))
    accumulate: int = 1
    steps: int | None = None
    epochs: float | None = None
    learning_rate: float = 1e-3
    characters: float = 0.3
    strength: float = 0.3
    bf16: bool = False
    save_memory: bool = False
    patience: int = 6
    check_every: int | None = None
    dev_limit: int = 120
    max_seconds: float = MAX_SECONDS
    seed: int = 0
    device: str | None = None
    revision: str | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise UserError("--steps and --epochs came together; give one of them")
        for name, value, least in (
            ("--steps", self.steps, 1),
            ("--epochs", self.epochs, 0.01),
            ("--accumulate", self.accumulate, 1),
            ("--check-every", self.check_every, 1),
            ("--patience", self.patience, 0),
            ("--dev-limit", self.dev_limit, 1),
        ):
            if value is not None and value < least:
                raise UserError(f"{name} is {value}; expected at least {least}")
        if not 0.0 < self.learning_rate < 1.0:
            raise UserError(f"--learning-rate is {self.learning_rate}; expected between 0 and 1")
        if not 0.0 <= self.strength <= 1.0:
            raise UserError(f"--augment is {self.strength}; expected 0 to 1")
        if not 0.0 <= self.keep_share < 1.0:
            raise UserError(f"--keep-share is {self.keep_share}; expected 0 to less than 1")

    def settings(self) -> dict[str, Any]:
        """Return what decides the weights of each step; a resumed run must share all of it."""
        plan = self.plan
        return {
            "--model": self.model,
            "--data": str(self.data),
            "--dev": str(self.dev),
            "--keep": str(self.keep),
            "--keep-share": self.keep_share,
            "--train": ",".join(plan.parts),
            "--rank": plan.rank,
            "--alpha": plan.alpha,
            "--modules": ",".join(plan.modules),
            "--encoder-layers": plan.encoder_layers,
            "--batch": self.size.clips,
            "--batch-seconds": self.size.seconds,
            "--accumulate": self.accumulate,
            "--steps": self.steps,
            "--epochs": self.epochs,
            "--learning-rate": self.learning_rate,
            "--character-weight": self.characters,
            "--augment": self.strength,
            "--bf16": self.bf16,
            "--check-every": self.check_every,
            "--patience": self.patience,
            "--dev-limit": self.dev_limit,
            "--seed": self.seed,
        }
