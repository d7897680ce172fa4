"""``python -m core transcribe | bulk | inspect | models | package | verify``.

In: command-line arguments. Out: results on stdout, progress and problems on stderr; exit status 0
all well, 1 some files failed, 2 nothing could be done, 130 stopped, 141 the output's reader went.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from huggingface_hub.utils import logging as hub_logging

from core import load
from core.checkpoint.catalog import CATALOG
from core.checkpoint.hub import is_here
from core.cli import (
    ALL_WELL,
    NOTHING_DONE,
    READER_GONE,
    STOPPED,
    add_transcribe,
)
from core.cli_bulk import add_bulk
from core.cli_output import escape_what_cannot_be_printed, give_up_stdout
from core.cli_package import add_package
from core.cli_verify import add_verify
from core.errors import UserError
from core.inspection import inspect
from core.units import format_bytes

logger = logging.getLogger("core")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    say = logging.StreamHandler(sys.stderr)
    logger.addHandler(say)
    hub_logging.set_verbosity_error()  # its retries say nothing that our one line does not
    escape_what_cannot_be_printed()
    asked = sys.argv[1:] if arguments is None else arguments
    # A shell's * gives names that look like options.
    words = [f"./{word}" if word[:1] == "-" and Path(word).is_file() else word for word in asked]
    parsed = build_parser().parse_args(words)
    try:
        status = int(parsed.run(parsed))
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:
        give_up_stdout()
        return READER_GONE
    except OSError as error:
        give_up_stdout()
        print(f"error: {error}", file=sys.stderr)
    except Exception:
        logger.exception("a fault of this program's own:")
        print("error: this program failed; what happened is written above", file=sys.stderr)
    else:
        return status
    return NOTHING_DONE


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(prog="python -m core", description="Granite Speech")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_transcribe(commands.add_parser("transcribe", help="recordings to text"))
    add_bulk(commands.add_parser("bulk", help="very many recordings to text, and on after a stop"))
    look = commands.add_parser("inspect", help="what a checkpoint is made of")
    look.add_argument("model", help="catalog name, Hub repository id, or folder")
    look.add_argument("--json", action="store_true", help="everything, as JSON")
    look.add_argument("--revision", help="branch, tag or commit of a repository")
    look.set_defaults(run=run_inspect)
    listing = commands.add_parser("models", help="the checkpoints this project knows")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=run_models)
    add_package(commands.add_parser("package", help="compile a model ahead of time"))
    add_verify(commands.add_parser("verify", help="compare a checkpoint with transformers"))
    return parser


def run_inspect(parsed: argparse.Namespace) -> int:
    """Print what a checkpoint is made of."""
    facts = inspect(load(parsed.model, device="cpu", revision=parsed.revision))
    if parsed.json:
        print(json.dumps(facts, indent=2, default=list))
        return ALL_WELL
    abilities = facts["capabilities"]
    print(f"{facts['title']} ({facts['model']}, family {facts['family']})")
    print(f"  folder      {facts['folder']}")
    print(f"  licence     {facts['licence']}")
    for name, part in facts["parts"].items():
        size = format_bytes(part["bytes"])
        print(f"  {name:<11} {part['parameters']:>13,} parameters {size:>10}")
    print(f"  {'total':<11} {facts['parameters']:>13,} parameters, as {facts['dtype']}")
    if facts["adapter"]:
        adapter = facts["adapter"]
        print(f"  {'LoRA':<11} {adapter['parameters']:>13,} parameters, {adapter['layers']} layers")
    if facts["bpe_ctc_head"]:
        head, name = facts["bpe_ctc_head"], "BPE CTC"
        size = format_bytes(head["bytes"])
        print(f"  {name:<11} {head['parameters']:>13,} parameters {size:>10}")
    stored, shards = format_bytes(facts["stored_bytes"]), len(facts["shards"])
    tensors = facts["tensors"]
    print(f"  stored      {stored} in {shards} file{'s' if shards > 1 else ''}")
    print(f"  tensors     {tensors['used']} used, {len(tensors['unused'])} unused")
    print(f"  tasks       {', '.join(abilities['tasks'])}")
    print(f"  languages   {', '.join(abilities['languages'])}")
    if abilities["target_languages"]:
        print(f"  into        {', '.join(abilities['target_languages'])}")
    print(f"  recordings  up to {abilities['max_audio_s']:.0f} s")
    return ALL_WELL


def run_models(parsed: argparse.Namespace) -> int:
    """Print the catalog, and what of it is on this machine already."""
    if parsed.json:
        rows = [
            {**asdict(model_info), "here": is_here(model_info.name)}
            for model_info in CATALOG.values()
        ]
        print(json.dumps(rows, indent=2))
        return ALL_WELL
    width = max(map(len, CATALOG))
    for model_info in CATALOG.values():
        size = format_bytes(model_info.size_bytes) if model_info.size_bytes else "bundled"
        state = "on this machine" if is_here(model_info.name) else "to download"
        name = model_info.name.ljust(width)
        print(f"{name} {size:>8}  {state:<16} {model_info.title} ({model_info.licence})")
    return ALL_WELL


if __name__ == "__main__":
    sys.exit(main())
