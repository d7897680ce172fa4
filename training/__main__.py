# ruff: noqa: PLC0415 - a stage imports only what it needs: where voices are, torch may not be
"""python -m training corpus | encoder | decoder | align | joint | deepen | pack | calibrate |
evaluate | examples, and for one's own recordings speak | manifest | finetune | score | preview
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from training import commands
from training.corpus import corpus
from training.corpus.domains import DOMAINS
from training.corpus.prompt_texts import ASTERISK_TEXTS


def _corpus(arguments: argparse.Namespace) -> None:
    folder, parts = arguments.corpus, arguments.parts.split(",")
    if unknown := sorted(set(parts) - {"recordings", *corpus.PARTS}):
        raise ValueError(
            f"--parts has {', '.join(unknown)}; expected some of recordings,"
            f"{','.join(corpus.PARTS)}"
        )
    if "recordings" in parts:
        from training.corpus import recordings as rec

        if ASTERISK_TEXTS.exists():
            count = rec.make_asterisk(folder, rec.ASTERISK_SOUNDS, ASTERISK_TEXTS, 120)
            print(f"asterisk: {count} clips")
            if arguments.domain == "menu":
                count = rec.make_prompts(folder, rec.ASTERISK_SOUNDS, ASTERISK_TEXTS)
                print(f"prompts: {count} clips")
        from training.corpus.public_test_sets import make_others

        print(f"other people: {make_others(folder)} clips")
        if arguments.fsdd is not None:
            print(f"fsdd: {rec.make_fsdd(folder, arguments.fsdd)} clips")
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


def _encoder(arguments: argparse.Namespace) -> None:
    from training.stages import encoder_stage

    options = encoder_stage.EncoderOptions(
        steps=4 if arguments.smoke else arguments.steps,
        frames_per_batch=400 if arguments.smoke else 2000,
        learning_rate=arguments.learning_rate,
        warmup=200,
        save_every_s=180.0,
        seed=arguments.seed,
        restart_from=arguments.restart_from,
        real_share=arguments.real_share,
        joined=arguments.joined,
        bf16=arguments.bf16,
    )
    print(encoder_stage.run(arguments.corpus, arguments.checkpoints, options))


def _decoder(arguments: argparse.Namespace) -> None:
    from training.stages import decoder_stage

    options = decoder_stage.DecoderOptions(
        steps=4 if arguments.smoke else arguments.steps,
        texts_per_batch=4 if arguments.smoke else 32,
        learning_rate=arguments.learning_rate,
        warmup=150,
        save_every_s=120.0,
        seed=arguments.seed,
        restart_from=arguments.restart_from,
        domain=arguments.domain,
        bf16=arguments.bf16,
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
        learning_rate=arguments.learning_rate,
        warmup=150,
        deaf_share=0.1,
        save_every_s=120.0,
        seed=arguments.seed,
        restart_from=arguments.restart_from,
    )
    print(align_stage.run(arguments.corpus, arguments.checkpoints, options))


def _joint(arguments: argparse.Namespace) -> None:
    from training.stages import joint_stage

    smoke = arguments.smoke
    options = joint_stage.JointOptions(
        steps=2 if smoke else arguments.steps,
        frames_per_batch=400 if smoke else 2000,
        learning_rate=arguments.learning_rate,
        warmup=100,
        deaf_share=0.07,
        save_every_s=150.0,
        seed=arguments.seed,
        placing=arguments.placing,
        real_share=arguments.real_share,
        bf16=arguments.bf16,
    )
    print(joint_stage.run(arguments.corpus, arguments.checkpoints, options))


def _deepen(arguments: argparse.Namespace) -> None:
    from training.stages import grow_encoder

    print(grow_encoder.run(arguments.source, arguments.checkpoints))


def _pack(arguments: argparse.Namespace) -> None:
    import torch

    from training.stages import pack

    dtype = getattr(torch, arguments.dtype)
    others = arguments.average_with
    print(pack.run(arguments.checkpoints, arguments.out, dtype, others))


def _evaluate(arguments: argparse.Namespace) -> None:
    import json

    from training.stages import evaluate

    ways = arguments.ways.split(",")
    found = evaluate.evaluate(arguments.corpus, arguments.model, ways=ways, limit=arguments.limit)
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


def main(argv: list[str] | None = None) -> int:
    """Run one stage; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("corpus"))
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--seed", type=int, default=0)
    stages = parser.add_subparsers(dest="stage", required=True)
    stage = stages.add_parser("corpus", help="synthesise and collect recordings")
    stage.add_argument(
        "--parts",
        default="recordings,synthetic",
        help="also words (lines full of rare words), digits (strings of digits), outside",
    )
    stage.add_argument("--domain", choices=sorted(DOMAINS), default="menu")
    stage.add_argument("--fsdd", type=Path, help="folder of the Free Spoken Digit Dataset")
    stage.add_argument("--clips", type=int, default=13000)
    stage.add_argument("--workers", type=int, default=2)
    stage.add_argument("--engines", default="", help="only their voices, as hibari,flite,pico")
    stage.set_defaults(run=_corpus)
    stage = stages.add_parser("encoder", help="train the encoder by character CTC")
    stage.add_argument("--steps", type=int, default=6500)
    stage.add_argument("--learning-rate", type=float, default=1.5e-3)
    stage.add_argument("--restart-from", type=Path, help="weights of an earlier round")
    stage.add_argument("--real-share", type=float, default=0.12, help="recordings among the clips")
    stage.add_argument("--joined", action="store_true", help="several lines of a voice in a clip")
    stage.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    stage.add_argument("--smoke", action="store_true")
    stage.set_defaults(run=_encoder)
    stage = stages.add_parser("decoder", help="train the tokenizer and the text decoder")
    stage.add_argument("--domain", choices=sorted(DOMAINS), default="menu")
    stage.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    stage.add_argument("--steps", type=int, default=5000)
    stage.add_argument("--smoke", action="store_true")
    stage.add_argument("--learning-rate", type=float, default=1.5e-3)
    stage.add_argument("--restart-from", type=Path, help="weights of an earlier round")
    stage.set_defaults(run=_decoder)
    stage = stages.add_parser("align", help="train projector and LoRA, the rest frozen")
    stage.add_argument("--steps", type=int, default=6000)
    stage.add_argument("--pools", type=int, default=24)
    stage.add_argument("--learning-rate", type=float, default=1.5e-3)
    stage.add_argument("--restart-from", type=Path, help="weights of an earlier round")
    stage.add_argument("--smoke", action="store_true")
    stage.set_defaults(run=_align)
    stage = stages.add_parser("joint", help="train all but the decoder on audio always new")
    stage.add_argument("--steps", type=int, default=11000)
    stage.add_argument("--learning-rate", type=float, default=1.2e-3)
    stage.add_argument(
        "--placing", type=int, default=1500, help="first steps, weighting word places"
    )
    stage.add_argument("--real-share", type=float, default=0.18, help="recordings among the clips")
    stage.add_argument("--bf16", action="store_true", help="compute in bfloat16")
    stage.add_argument("--smoke", action="store_true")
    stage.set_defaults(run=_joint)
    stage = stages.add_parser("deepen", help="begin a round with a deeper encoder")
    stage.add_argument("--from", dest="source", type=Path, required=True, help="trained folder")
    stage.set_defaults(run=_deepen)
    stage = stages.add_parser("pack", help="write the checkpoint folder")
    stage.add_argument("--out", type=Path, default=Path("assets/tiny"))
    stage.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    stage.add_argument(
        "--average-with", type=Path, nargs="*", default=[], help="align.pt files of other rounds"
    )
    stage.set_defaults(run=_pack)
    stage = stages.add_parser("evaluate", help="word error rates on recordings never trained on")
    stage.add_argument("--model", default="tiny")
    stage.add_argument("--ways", default="greedy,lora-off", help="also ctc, drafts, int8, whisper")
    stage.add_argument("--limit", type=int, help="clips of each set, for a quick look")
    stage.add_argument("--json", type=Path, help="also write rates and errors to this file")
    stage.set_defaults(run=_evaluate)
    stage = stages.add_parser("calibrate", help="fit when the checkpoint says: outside my domain")
    stage.add_argument("--model", default="tiny", help="name or folder of a checkpoint")
    stage.add_argument(
        "--inside",
        default="dev,heldout_voice,heldout_speaker,asterisk_digits,asterisk_strings,prompts_met,"
        "prompts_unmet,prompts_letters",
        help="splits whose clips are of the domain",
    )
    stage.add_argument("--outside", default="prompts_outside,outside,novel")
    stage.add_argument("--outside-corpus", type=Path, help="folder of these, if another")
    stage.add_argument("--limit", type=int, help="clips of each split, at most")
    stage.set_defaults(run=_calibrate)
    stage = stages.add_parser("examples", help="write the example recordings")
    stage.add_argument("--out", type=Path, default=Path("assets/examples"))
    stage.set_defaults(run=_examples)
    commands.add_commands(stages)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    return commands.run_or_say_why(_run, arguments)


def _run(arguments: argparse.Namespace) -> object:
    """The stage. Processes of one that does not share its work would write the same files.

    Raises:
        ValueError: the environment speaks of several of them.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size != "1" and arguments.run is not _joint:
        raise ValueError(
            f"{arguments.stage} runs in one process, and WORLD_SIZE is {size!r}; start it without "
            "torchrun (joint is the stage that several processes share)"
        )
    return arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
