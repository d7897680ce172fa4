"""Fine-tuning: a loaded model, recordings with texts -> an adapter folder.

In: :class:`FinetuneOptions`. Out: an adapter folder (``training.finetune.adapter_export``) as it
was at the step with the fewest word errors on the dev rows, and lines that say how it goes.
Everything is checked before the first step: every row is read once.

A run keeps its state; with ``resume`` it goes on exactly where it was (on the same machine and
versions: bit for bit).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import core
from core.checkpoint.peft_format import AdapterWeights
from core.errors import UserError
from core.lab import Lab
from core.memory import run_within_memory
from training.finetune import trainable as tuned
from training.finetune.adapter_export import write_adapter
from training.finetune.data import Batcher, Recordings
from training.finetune.material import Material, answer_lead, gather
from training.finetune.optimiser_groups import FinetuneOptimiser
from training.finetune.options import FinetuneOptions
from training.finetune.row_schedule import Schedule
from training.finetune.state import (
    STATE,
    State,
    TrainingProgress,
    load_state,
    log_line,
    save_state,
)
from training.stages.schedule import cosine

NAME = "finetuned"
WARM_UP = 0.06  # of the steps
SAY_EVERY_S = 5.0

Say = Callable[[str], None]


@dataclass
class FinetuneRun:
    """One run while it lasts. progress: where it stands; learning: what is trained, by name."""

    lab: Lab
    options: FinetuneOptions
    material: Material
    schedule: Schedule
    batcher: Batcher
    learning: dict[str, nn.Parameter]
    optimiser: FinetuneOptimiser
    progress: TrainingProgress
    steps: int
    check_every: int
    say: Say

    def step(self) -> dict[str, float]:
        """Update once from ``accumulate`` batches, weighted by what they hold.

        Returns:
            Losses, learning rate and clips.

        Raises:
            UserError: the loss is not a number.
        """
        options, number = self.options, self.progress.step
        first = number * options.accumulate
        batches = [
            self.batcher.batch(self.schedule.batch(first + index))
            for index in range(options.accumulate)
        ]
        num_tokens = sum(batch.num_tokens for batch in batches)
        num_characters = max(1, sum(batch.num_characters for batch in batches))
        ctc_weight = options.characters if "encoder" in options.plan.parts else 0.0
        tuned.training_mode(self.lab.model, options.plan)
        torch.manual_seed(options.seed * 1_000_003 + number)  # dropout: the step's own
        totals = [0.0, 0.0]
        for batch in batches:
            with self._precision():
                found = tuned.losses(
                    self.lab, batch, characters=ctc_weight > 0, save_memory=options.save_memory
                )
            loss = found.words / num_tokens + ctc_weight * found.characters / num_characters
            loss.backward()
            totals[0] += found.words.item() / num_tokens
            totals[1] += found.characters.item() / num_characters
        if not all(map(_finite, totals)):
            raise UserError(
                f"the loss of step {number + 1} is not a number; expected a smaller "
                "--learning-rate, or recordings without damage"
            )
        rate = cosine(number, self.steps, int(WARM_UP * self.steps), options.learning_rate)
        self.optimiser.step(rate)
        self.progress = replace(self.progress, step=number + 1)
        clips = sum(batch.ids.shape[0] for batch in batches)
        return {"loss": totals[0], "characters": totals[1], "rate": rate, "clips": clips}

    def check(self) -> bool:
        """Check the dev rows and keep the adapter if it is the best.

        Returns:
            Whether to go on.
        """
        self.lab.model.eval()
        scores = self.material.score(self.lab, NAME)
        total = sum(scores.values()) / max(1, len(scores))
        before = self.progress.best
        better = not scores or before is None or total < before
        self.progress = replace(
            self.progress,
            best=total if better else before,
            bad=0 if better else self.progress.bad + 1,
            last=scores if better else self.progress.last,
        )
        if better:
            self.write()
        shown = ", ".join(f"{name} {value:.1f} %" for name, value in scores.items())
        self.say(f"step {self.progress.step}: word errors {shown}{' (best)' if better else ''}")
        log_line(self.options.out, {"step": self.progress.step, "wer": scores})
        self.save()
        return not (self.options.patience and self.progress.bad >= self.options.patience)

    def write(self) -> None:
        """Write the adapter as it is now."""
        whole = tuned.full_modules(self.lab.model, self.options.plan)
        write_adapter(self.options.out, self.lab.model, whole, self.lab.files.source)

    def save(self) -> None:
        """Keep the state, so that a stopped run can go on."""
        weights: dict[str, Tensor] = dict(self.learning)
        state = State(self.progress, self.options.settings(), weights, self.optimiser.state_dict())
        save_state(self.options.out, state)

    def _precision(self) -> Any:
        if not self.options.bf16:
            return nullcontext()
        return torch.autocast(self.lab.device.type, torch.bfloat16)


@dataclass(frozen=True)
class FinetuneResult:
    """Word error rates in percent before and after, by name of the rows; steps that were run."""

    before: dict[str, float]
    after: dict[str, float]
    steps: int


def finetune(options: FinetuneOptions, say: Say = print) -> FinetuneResult:
    """Train, and leave the adapter in ``options.out``.

    Returns:
        Word error rates before and after.

    Raises:
        ManifestError: a row that cannot be trained on.
        SaveError: the folder cannot be written to; what it held is whole.
        UserError: options, model or state that do not fit.
    """
    run = prepare(options, say)
    with run.lab.adapters.using(NAME):
        _train(run)
    return FinetuneResult(run.progress.before, run.progress.last, run.progress.step)


def _train(run: FinetuneRun) -> None:
    """Step after step, to the end or until nothing gets better."""
    options, say = run.options, run.say
    began, said, done = time.monotonic(), 0.0, 0
    while run.progress.step < run.steps:
        found = run_within_memory(run.step, run.lab.device)
        done += 1
        step, elapsed = run.progress.step, time.monotonic() - began
        log_line(options.out, {"step": step} | {k: round(v, 6) for k, v in found.items()})
        if elapsed - said > SAY_EVERY_S or step == run.steps:
            said, left = elapsed, elapsed / done * (run.steps - step)
            say(
                f"step {step}/{run.steps}: loss {found['loss']:.3f}, about {left / 60:.1f} min left"
            )
        if (step % run.check_every == 0 or step == run.steps) and not run.check():
            say(f"stopped at step {step}: no progress in {options.patience} looks at the dev rows")
            return


def prepare(options: FinetuneOptions, say: Say = print) -> FinetuneRun:
    """Prepare everything up to the first step: model, checked rows, what is trained, state.

    Returns:
        The run.

    Raises:
        UserError: options, model or state that do not fit.
    """
    if (options.out / STATE).exists() and not options.resume:
        raise UserError(
            f"{options.out} holds a run already; give --resume to go on with it, or another folder"
        )
    state = load_state(options.out, options.settings()) if options.resume else None
    options.out.mkdir(parents=True, exist_ok=True)
    lab = core.load(
        options.model, device=options.device, dtype="float32", revision=options.revision
    )
    if options.bf16 and lab.device.type != "cuda":
        raise UserError(f"--bf16 came with {lab.device}; expected CUDA: leave it out here")
    material = gather(lab, options)
    say(material.summary())
    before = state.progress.before if state else material.score(lab, None)
    for name, value in before.items():
        say(f"before: word errors {name} {value:.1f} %")
    lead = answer_lead(lab, material.lead_rows())
    # From here on no other adapter may be used: it would take the place of what is trained.
    lab.adapters.add(NAME, AdapterWeights(tuned.new_lora(lab.model, options.plan, options.seed)))
    learning = _put_in(lab, options)
    if not learning:
        raise UserError("nothing would be trained; give --train lora, projector or encoder")
    say(f"training {sum(p.numel() for p in learning.values()):,} of the model's parameters")
    optimiser = FinetuneOptimiser(learning)
    progress = state.progress if state else TrainingProgress(0, None, 0, before, {})
    if state is not None:
        _restore(state, learning, optimiser)
        say(f"going on from step {progress.step}")
    recordings = Recordings(lab, options.max_seconds)
    batcher = Batcher(lab, recordings, strength=options.strength, lead=lead)
    if material.keep is not None:
        tuned.hold_rows(learning, batcher.ids_of(material.keep.rows))
    schedule = material.schedule(options)
    per_step = options.accumulate
    epochs = 10.0 if options.epochs is None else options.epochs
    steps = options.steps or max(1, -(-schedule.batches_of(epochs) // per_step))
    return FinetuneRun(
        lab=lab,
        options=options,
        material=material,
        schedule=schedule,
        batcher=batcher,
        learning=learning,
        optimiser=optimiser,
        progress=progress,
        steps=steps,
        check_every=options.check_every or max(1, min(steps, steps // 10)),
        say=say,
    )


def _restore(state: State, learning: dict[str, nn.Parameter], optimiser: FinetuneOptimiser) -> None:
    with torch.no_grad():
        for name, weights in state.weights.items():
            learning[name].copy_(weights)
    optimiser.load_state_dict(state.optimiser)


def _put_in(lab: Lab, options: FinetuneOptions) -> dict[str, nn.Parameter]:
    """Put the adapter in its layers, as long as the process lasts; returns what is trained."""
    with lab.adapters.using(NAME):
        return tuned.trainable(lab.model, options.plan)


def _finite(value: float) -> bool:
    return abs(value) < float("inf")
