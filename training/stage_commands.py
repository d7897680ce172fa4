# ruff: noqa: PLC0415 - a stage imports only what it needs
"""The commands that make the bundled model: corpus to examples, in the order they are run.

In: command-line arguments. Out: files, and lines for a person.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import UserError
from training.corpus import corpus
from training.corpus.domains import DOMAINS
from training.corpus.prompt_texts import ASTERISK_TEXTS

INSIDE = (
    "dev,heldout_voice,heldout_speaker,asterisk_digits,asterisk_strings,prompts_met,prompts_unmet,"
    "prompts_letters"
)


def add_commands(stages: Any) -> None:
    """Add the commands to the parsers of ``python -m training``."""
    _add_corpus(stages.add_parser("corpus", help="synthesise and collect recordings"))
    add = _add_stage(stages, "encoder", _encoder, "train the encoder by character CTC")
    add("--steps", type=int, default=6500)
    add("--learning-rate", type=float, default=1.5e-3)
    add("--restart-from", type=Path, help="weights of an earlier round")
    add("--real-share", type=float, default=0.12, help="recordings among the clips")
    add("--joined", action="store_true", help="several lines of a voice in a clip")
    add("--bf16", action="store_true", help="compute in bfloat16")
    add = _add_stage(stages, "decoder", _decoder, "train the tokenizer and the text decoder")
    add("--domain", choices=sorted(DOMAINS), default="menu")
    add("--bf16", action="store_true", help="compute in bfloat16")
    add("--steps", type=int, default=5000)
    add("--learning-rate", type=float, default=1.5e-3)
    add("--restart-from", type=Path, help="weights of an earlier round")
    add = _add_stage(stages, "align", _align, "train projector and LoRA, the rest frozen")
    add("--steps", type=int, default=6000)
    add("--pools", type=int, default=24)
    add("--learning-rate", type=float, default=1.5e-3)
    add("--restart-from", type=Path, help="weights of an earlier round")
    add = _add_stage(stages, "joint", _joint, "train all but the decoder on audio always new")
    add("--steps", type=int, default=11000)
    add("--learning-rate", type=float, default=1.2e-3)
    add("--placing", type=int, default=1500, help="first steps, with more weight on word positions")
    add("--real-share", type=float, default=0.18, help="recordings among the clips")
    add("--bf16", action="store_true", help="compute in bfloat16")
    add = _add_stage(stages, "ctc", _ctc, "train the sibling: an encoder with a CTC head of words")
    add("--steps", type=int, default=6000)
    add("--learning-rate", type=float, default=1e-3)
    add("--start", default="tiny", help="checkpoint whose encoder it begins with")
    add("--real-share", type=float, default=0.18, help="recordings among the clips")
    add("--bf16", action="store_true", help="compute in bfloat16")
    stage = stages.add_parser("grow-encoder", help="begin a round with a deeper encoder")
    stage.add_argument("--from", dest="source", type=Path, required=True, help="trained folder")
    stage.set_defaults(run=_grow_encoder)
    _add_results(stages)


def _add_stage(
    stages: Any, name: str, run: Callable[[argparse.Namespace], None], help: str
) -> Callable[..., Any]:
    stage = stages.add_parser(name, help=help)
    stage.set_defaults(run=run)
    stage.add_argument("--smoke", action="store_true", help="a few steps: does it run at all")
    add: Callable[..., Any] = stage.add_argument
    return add


def _add_corpus(stage: argparse.ArgumentParser) -> None:
    stage.add_argument(
        "--parts",
        default="recordings,synthetic",
        help="also words (lines full of rare words), digits (strings of digits), outside",
    )
    stage.add_argument("--domain", choices=sorted(DOMAINS), default="menu")
    stage.add_argument("--fsdd", type=Path, help="folder of the Free MelClip Digit Dataset")
    stage.add_argument("--clips", type=int, default=13000)
    stage.add_argument("--workers", type=int, default=2)
    stage.add_argument("--engines", default="", help="only their voices, as hibari,flite,pico")
    stage.set_defaults(run=_corpus)


def _add_results(stages: Any) -> None:
    """Add what is made of a trained model."""
    stage = stages.add_parser("pack", help="write the checkpoint folder")
    stage.add_argument("--out", type=Path, default=Path("assets/tiny"))
    stage.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    stage.add_argument(
        "--average-with", type=Path, nargs="*", default=[], help="align.pt files of other rounds"
    )
    stage.set_defaults(run=_pack)
    stage = stages.add_parser("ctc-pack", help="write the sibling's checkpoint folder")
    stage.add_argument("--out", type=Path, default=Path("assets/tiny-ctc"))
    stage.set_defaults(run=_ctc_pack)
    stage = stages.add_parser("evaluate", help="word error rates on recordings never trained on")
    stage.add_argument("--model", default="tiny", help="one or several, separated by commas")
    stage.add_argument(
        "--systems", default="greedy,lora-off", help="also ctc, drafts, int8, whisper"
    )
    stage.add_argument("--limit", type=int, help="clips of each set, for a quick look")
    stage.add_argument("--json", type=Path, help="also write rates and errors to this file")
    stage.set_defaults(run=_evaluate)
    stage = stages.add_parser("calibrate", help="fit when the checkpoint says: outside my domain")
    stage.add_argument("--model", default="tiny", help="name or folder of a checkpoint")
    stage.add_argument("--inside", default=INSIDE, help="splits whose clips are of the domain")
    stage.add_argument("--outside", default="prompts_outside,outside,novel")
    stage.add_argument("--outside-corpus", type=Path, help="folder of these, if another")
    stage.add_argument("--limit", type=int, help="clips of each split, at most")
    stage.set_defaults(run=_calibrate)
    stage = stages.add_parser("examples", help="write the example recordings")
    stage.add_argument("--out", type=Path, default=Path("assets/examples"))
    stage.set_defaults(run=_examples)


def _corpus(arguments: argparse.Namespace) -> None:
    folder, parts = arguments.corpus, arguments.parts.split(",")
    if unknown := sorted(set(parts) - {"recordings", *corpus.PARTS}):
        raise UserError(
            f"--parts has {', '.join(unknown)}; expected some of recordings,"
            f"{','.join(corpus.PARTS)}"
        )
    if "recordings" in parts:
        _recordings(arguments)
    for part in corpus.PARTS:
        if part in parts:
            count = corpus.make_synthetic(
                folder,
                arguments.clips,
                arguments.workers,
                arguments.domain,
                part=part,
                engines=[name for name in arguments.engines.split(",") if name],
            )
            print(f"{part}: {count} clips")


def _recordings(arguments: argparse.Namespace) -> None:
    from training.corpus import recordings as rec
    from training.corpus.public_test_sets import make_public_test_sets

    folder = arguments.corpus
    if ASTERISK_TEXTS.exists():
        count = rec.make_asterisk(folder, rec.ASTERISK_SOUNDS, ASTERISK_TEXTS, 120)
        print(f"asterisk: {count} clips")
        if arguments.domain == "menu":
            count = rec.make_prompts(folder, rec.ASTERISK_SOUNDS, ASTERISK_TEXTS)
            print(f"prompts: {count} clips")
    print(f"public test sets: {make_public_test_sets(folder)} clips")
    if arguments.fsdd is not None:
        print(f"fsdd: {rec.make_fsdd(folder, arguments.fsdd)} clips")


def _encoder(arguments: argparse.Namespace) -> None:
    from training.stages import encoder_stage

    options = encoder_stage.EncoderOptions(
        steps=4 if arguments.smoke else arguments.steps,
        frames_per_batch=400 if arguments.smoke else 2000,
        warmup=200,
        save_every_s=180.0,
        **_given(arguments, "learning_rate,seed,restart_from,real_share,joined,bf16"),
    )
    print(encoder_stage.run(arguments.corpus, arguments.checkpoints, options))


def _decoder(arguments: argparse.Namespace) -> None:
    from training.stages import decoder_stage

    options = decoder_stage.DecoderOptions(
        steps=4 if arguments.smoke else arguments.steps,
        texts_per_batch=4 if arguments.smoke else 32,
        warmup=150,
        save_every_s=120.0,
        **_given(arguments, "learning_rate,seed,restart_from,domain,bf16"),
    )
    print(decoder_stage.run(arguments.checkpoints, options))


def _align(arguments: argparse.Namespace) -> None:
    from training.stages import align_stage

    smoke = arguments.smoke
    options = align_stage.AlignOptions(
        steps=4 if smoke else arguments.steps,
        pools=1 if smoke else arguments.pools,
        batches_per_pool=4 if smoke else 32,
        frames_per_batch=400 if smoke else 2000,
        strength=0.8,
        warmup=150,
        lora_off_share=0.1,
        save_every_s=120.0,
        **_given(arguments, "learning_rate,seed,restart_from"),
    )
    print(align_stage.run(arguments.corpus, arguments.checkpoints, options))


def _joint(arguments: argparse.Namespace) -> None:
    from training.stages import joint_stage

    options = joint_stage.JointOptions(
        steps=2 if arguments.smoke else arguments.steps,
        frames_per_batch=400 if arguments.smoke else 2000,
        warmup=100,
        lora_off_share=0.07,
        save_every_s=150.0,
        **_given(arguments, "learning_rate,seed,placing,real_share,bf16"),
    )
    print(joint_stage.run(arguments.corpus, arguments.checkpoints, options))


def _ctc(arguments: argparse.Namespace) -> None:
    from training.stages import ctc_stage

    options = ctc_stage.CTCOptions(
        steps=2 if arguments.smoke else arguments.steps,
        frames_per_batch=400 if arguments.smoke else 2000,
        warmup=100,
        new_first=0 if arguments.smoke else 300,
        save_every_s=150.0,
        **_given(arguments, "learning_rate,seed,start,real_share,bf16"),
    )
    print(ctc_stage.run(arguments.corpus, arguments.checkpoints, options))


def _given(arguments: argparse.Namespace, names: str) -> dict[str, Any]:
    """Return the options that go on as they came."""
    return {name: getattr(arguments, name) for name in names.split(",")}


def _grow_encoder(arguments: argparse.Namespace) -> None:
    from training.stages import grow_encoder

    print(grow_encoder.run(arguments.source, arguments.checkpoints))


def _pack(arguments: argparse.Namespace) -> None:
    import torch

    from training.stages import pack

    dtype = getattr(torch, arguments.dtype)
    print(pack.run(arguments.checkpoints, arguments.out, dtype, arguments.average_with))


def _ctc_pack(arguments: argparse.Namespace) -> None:
    from training.stages import ctc_pack

    print(ctc_pack.run(arguments.checkpoints, arguments.out))


def _evaluate(arguments: argparse.Namespace) -> None:
    from training.stages import evaluate

    systems, models = arguments.systems.split(","), arguments.model.split(",")
    found = evaluate.evaluate(arguments.corpus, models, systems=systems, limit=arguments.limit)
    rows = list(found)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([row.as_dict() for row in rows], indent=1))
    print(evaluate.table(rows))


def _calibrate(arguments: argparse.Namespace) -> None:
    from training.stages import calibrate

    inside = (arguments.corpus, arguments.inside.split(","))
    outside = (arguments.outside_corpus or arguments.corpus, arguments.outside.split(","))
    scale, found = calibrate.run(arguments.model, inside, outside, limit=arguments.limit)
    print(f"warns from a probability of {scale.limit:.3f} on; on clips it was not fitted to:")
    for group in found:
        print(f"  {group.kind} {group.group}: {100 * group.share:.1f} % of {group.count} clips")


def _examples(arguments: argparse.Namespace) -> None:
    from training.corpus import examples

    print(f"examples: {examples.write_examples(arguments.corpus, arguments.out)} recordings")
