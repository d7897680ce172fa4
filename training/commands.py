# ruff: noqa: PLC0415 - a command imports only what it needs: where voices are, torch may not be
"""The commands for one's own recordings: speak, manifest, finetune, score, preview.

In: command-line arguments. Out: files, and lines for a person. What is wrong with the arguments or
the data is one line on stderr and exit status 2.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

MODULES = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"


def add_commands(stages: Any) -> None:
    """Add the commands to the parsers of ``python -m training``."""
    _add_speak(stages.add_parser("speak", help="recordings of words by the installed voices"))
    _add_manifest(stages.add_parser("manifest", help="look at a manifest and its recordings"))
    _add_finetune(stages.add_parser("finetune", help="teach a model from your recordings"))
    _add_score(stages.add_parser("score", help="word error rates over a manifest"))
    _add_preview(stages.add_parser("preview", help="a page that shows and plays augmentation"))


def _add_speak(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--words", required=True, help="the new words, separated by commas")
    add("--known", default="", help="words the model has already, to mix in")
    add("--clips", type=int, default=1200, help="recordings by the training voices together")
    add("--test-clips", type=int, default=150, help="recordings by voices kept for the test")
    add("--out", type=Path, required=True, help="folder for audio and manifests")
    parser.set_defaults(run=_speak)


def _speak(arguments: argparse.Namespace) -> None:
    from training.corpus.speak import SpeakOptions, speak

    options = SpeakOptions(
        words=_names(arguments.words),
        known=_names(arguments.known),
        clips=arguments.clips,
        test_clips=arguments.test_clips,
        seed=arguments.seed,
    )
    for name, count in speak(arguments.out, options).items():
        print(f"{arguments.out / name}.jsonl: {count} rows")


def _add_manifest(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(required=True, metavar="check")
    check = what.add_parser("check", help="counts, hours, speakers, problems")
    check.add_argument("file", type=Path)
    check.add_argument("--model", help="also see that this model can write the texts")
    check.add_argument("--max-seconds", type=float, default=30.0, help="the longest clip allowed")
    check.set_defaults(run=_manifest_check)


def _manifest_check(arguments: argparse.Namespace) -> int:
    import core
    from training.finetune.manifest_check import inspect

    lab = None if arguments.model is None else core.load(arguments.model, device="cpu")
    report = inspect(arguments.file, lab, arguments.max_seconds)
    for line in report.lines():
        print(line)
    return 1 if report.problems else 0


def _add_finetune(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", default="tiny", help="catalog name, Hub repository id, or folder")
    add("--revision", help="branch, tag or commit of a repository")
    add("--data", type=Path, required=True, help="manifest of the recordings to learn from")
    add("--dev", type=Path, help="manifest to validate with (default: a part of --data)")
    add("--keep", type=Path, help="manifest of what the model knows already and should keep")
    add("--keep-share", type=float, default=0.3, help="of the batches")
    add("--out", type=Path, required=True, help="folder for the adapter and the run's state")
    add("--resume", action="store_true", help="go on where the run in --out was stopped")
    add("--train", default="lora,projector", help="some of lora, projector, encoder, embeddings")
    add("--rank", type=int, default=16, help="of the columns added to the adapter")
    add("--alpha", type=float, help="the update is scaled by alpha / rank (default: the rank)")
    add("--modules", default=MODULES, help="layers of the decoder that get LoRA")
    add("--encoder-layers", type=int, help="only the encoder's last layers (default: all)")
    add("--batch", type=int, default=16, help="clips in a batch, at most")
    add("--batch-seconds", type=float, default=30.0, help="sound in a batch, at most")
    add("--accumulate", type=int, default=1, help="batches in a step")
    add("--steps", type=int)
    add("--epochs", type=float, help="in place of --steps (10)")
    add("--learning-rate", type=float, default=1e-3)
    add("--character-weight", type=float, default=0.3, help="of the encoder's CTC loss")
    add("--augment", type=float, default=0.3, help="0 as recorded, 1 hard")
    add("--bf16", action="store_true", help="compute in bfloat16 (CUDA)")
    add("--gradient-checkpointing", action="store_true", help="less memory, more time")
    add("--patience", type=int, default=6, help="looks at the dev rows without progress; 0: never")
    add("--check-every", type=int, help="steps between looks (default: a tenth of the run)")
    add("--dev-limit", type=int, default=120, help="rows of each kind to validate with, at most")
    add("--max-seconds", type=float, default=30.0, help="the longest clip allowed")
    add("--device", help="cpu, cuda, cuda:1")
    parser.set_defaults(run=_finetune)


def _finetune(arguments: argparse.Namespace) -> None:
    from training.finetune.finetune import finetune
    from training.finetune.options import FinetuneOptions
    from training.finetune.row_schedule import Size
    from training.finetune.trainable import TrainablePlan

    alpha = float(arguments.rank if arguments.alpha is None else arguments.alpha)
    parts, modules = _names(arguments.train), _names(arguments.modules)
    options = FinetuneOptions(
        model=arguments.model,
        revision=arguments.revision,
        data=arguments.data,
        dev=arguments.dev,
        keep=arguments.keep,
        keep_share=arguments.keep_share,
        out=arguments.out,
        resume=arguments.resume,
        plan=TrainablePlan(parts, arguments.rank, alpha, modules, arguments.encoder_layers),
        size=Size(arguments.batch, arguments.batch_seconds),
        accumulate=arguments.accumulate,
        steps=arguments.steps,
        epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
        characters=arguments.character_weight,
        strength=arguments.augment,
        bf16=arguments.bf16,
        save_memory=arguments.gradient_checkpointing,
        patience=arguments.patience,
        check_every=arguments.check_every,
        dev_limit=arguments.dev_limit,
        max_seconds=arguments.max_seconds,
        seed=arguments.seed,
        device=arguments.device,
    )
    done = finetune(options, _say)
    for name, before in done.before.items():
        print(
            f"word errors, {name} dev rows: {before:.1f} % before, {done.after[name]:.1f} % after"
        )
    print(f"adapter after {done.steps} steps in {arguments.out}")


def _add_score(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", default="tiny", help="catalog name, Hub repository id, or folder")
    add("--revision", help="branch, tag or commit of a repository")
    add("--adapter", type=Path, help="folder of an adapter; scored beside the model as it is")
    add("--data", type=Path, required=True, help="manifest")
    add("--split", help="only rows with this split")
    add("--limit", type=int, help="only so many rows")
    add("--errors", type=int, default=0, help="also print so many wrong transcripts")
    add("--json", action="store_true", help="rates as JSON")
    parser.set_defaults(run=_score)


def _score(arguments: argparse.Namespace) -> None:
    import core
    from core.text.manifest import ManifestError
    from core.text.word_errors import error_rate
    from training.corpus.manifest import read_manifest, with_splits
    from training.finetune.manifest_score import transcribe_rows

    rows = read_manifest(arguments.data)
    if arguments.split is not None:
        rows = with_splits(rows, [arguments.split])
    rows = rows[: arguments.limit]
    if not rows:
        raise ManifestError(f"{arguments.data} has no rows with split {arguments.split!r}")
    lab = core.load(arguments.model, revision=arguments.revision)
    names: list[str | None] = [None]
    if arguments.adapter is not None:
        names.append(arguments.adapter.resolve().name)
        lab.add_adapter(str(names[-1]), arguments.adapter)
    found = {}
    for name in names:
        pairs = transcribe_rows(lab, rows, name)
        rate = found[name or "as it is"] = error_rate(pairs)
        if not arguments.json:
            print(
                f"{name or 'the model as it is'}: {rate.percent:.1f} % word errors "
                f"({rate.low:.1f} to {rate.high:.1f}), {rate.num_exact} of {rate.num_clips} exact"
            )
        for reference, hypothesis in [pair for pair in pairs if pair[0] != pair[1]][
            : arguments.errors
        ]:
            print(f"  reference: {reference}  hypothesis: {hypothesis}")
    if arguments.json:
        print(json.dumps({name: vars(rate) for name, rate in found.items()}, indent=1))


def _add_preview(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, required=True, help="manifest")
    add("--out", type=Path, required=True, help="the page to write")
    add("--clips", type=int, default=4, help="how many recordings")
    add("--versions", type=int, default=2, help="augmented versions of each")
    add("--strength", type=float, default=0.3, help="of the augmentation, 0 to 1")
    parser.set_defaults(run=_preview)


def _preview(arguments: argparse.Namespace) -> None:
    from training.finetune.preview import write_page

    print(
        write_page(
            arguments.data,
            arguments.out,
            clips=arguments.clips,
            versions=arguments.versions,
            strength=arguments.strength,
            seed=arguments.seed,
        )
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _say(line: str) -> None:
    print(line, flush=True)
