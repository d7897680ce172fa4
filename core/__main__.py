"""``python -m core transcribe | inspect | models | package``.

In: command-line arguments. Out: results on stdout, progress and problems on stderr; exit status 0
all well, 1 some files failed, 2 nothing could be done.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from huggingface_hub.utils import logging as hub_logging

from core import Lab, Transcript, load
from core.catalog import CATALOG, LANGUAGES
from core.export import EXPORTERS
from core.files import transcribe_files
from core.hub import is_here
from core.inspection import inspect
from core.options import DECODINGS, ENGINES, Finished, OptionFields, PartialText, TranscribeOptions
from core.packaging import build_package
from core.prompts import TASKS
from core.quantize import MODES

ALL_WELL, SOME_FAILED, NOTHING_DONE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    say = logging.StreamHandler(sys.stderr)
    logging.getLogger("core").addHandler(say)
    hub_logging.set_verbosity_error()  # its retries say nothing that our one line does not
    parsed = build_parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return NOTHING_DONE


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m core", description="Granite Speech")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_transcribe(commands.add_parser("transcribe", help="recordings to text"))
    look = commands.add_parser("inspect", help="what a checkpoint is made of")
    look.add_argument("model", help="catalog name, Hub repository id, or folder")
    look.add_argument("--json", action="store_true", help="everything, as JSON")
    look.add_argument("--revision", help="branch, tag or commit of a repository")
    look.set_defaults(run=run_inspect)
    listing = commands.add_parser("models", help="the checkpoints this project knows")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=run_models)
    _add_package(commands.add_parser("package", help="compile a model ahead of time"))
    return parser


def _add_transcribe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="wav, flac, mp3, ogg, opus, m4a, aac, webm, mp4")
    add("--model", default="tiny", help="catalog name, Hub repository id, or folder")
    add("--revision", help="branch, tag or commit of a repository")
    add("--engine", choices=ENGINES, default="eager")
    add("--lora", choices=("on", "off"), help="default: on where the checkpoint has an adapter")
    drafts = "speculative: the greedy text in fewer passes; fast-draft: quicker, and lossy"
    add("--adapter", type=Path, metavar="FOLDER", help="transcribe with this adapter (PEFT format)")
    add("--decoding", choices=DECODINGS, default="greedy", help=drafts)
    add("--task", choices=TASKS, default="transcribe")
    add("--language", choices=sorted(LANGUAGES), help="what is spoken")
    add("--target-language", choices=sorted(LANGUAGES), help="what to translate into")
    add("--keywords", default="", help="names to listen for, separated by commas")
    add("--instruction", help="your own instruction, with --task instruct")
    add("--max-new-tokens", type=int, default=200)
    add("--num-beams", type=int, help="with --decoding beam (4)")
    add("--temperature", type=float, help="with --decoding sample (0.7)")
    add("--seed", type=int, default=0, help="with --decoding sample")
    add("--format", choices=sorted(EXPORTERS), default="txt")
    add("--output-dir", type=Path, help="write FILE's result as OUTPUT_DIR/FILE.FORMAT")
    add("--batch-size", type=int, default=1, help="files (or spans of a long one) at once")
    add("--resume", type=Path, metavar="FOLDER", help="go on with a long file that was stopped")
    add("--device", help="cpu, cuda, cuda:1, mps")
    add("--dtype", choices=("float32", "bfloat16", "float16"))
    add("--quantize", choices=("none", *MODES), default="none", help="int8 decoder weights")
    parser.set_defaults(run=run_transcribe)


def _add_package(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", help="catalog name, Hub repository id, or folder")
    add("--revision", help="branch, tag or commit of a repository")
    add("--device", help="cpu, cuda, cuda:1")
    add("--dtype", choices=("float32", "bfloat16", "float16"))
    add("--quantize", choices=("none", *MODES), default="none", help="int8 decoder weights")
    add("--batches", action="store_true", help="also for several files at once, and beams")
    add("--output-dir", type=Path, help="folder of packages (default: the user's cache)")
    parser.set_defaults(run=run_package)


def run_transcribe(parsed: argparse.Namespace) -> int:
    """Transcribe every file; a file that fails is reported and the others go on."""
    options: OptionFields = {
        "task": parsed.task,
        "language": parsed.language,
        "target_language": parsed.target_language,
        "keywords": [word for word in parsed.keywords.split(",") if word.strip()],
        "instruction": parsed.instruction,
        "lora": None if parsed.lora is None else parsed.lora == "on",
        "engine": parsed.engine,
        "decoding": parsed.decoding,
        "max_new_tokens": parsed.max_new_tokens,
        "num_beams": parsed.num_beams,
        "temperature": parsed.temperature,
        "seed": parsed.seed,
        "batch_size": max(parsed.batch_size, 4),
    }
    if parsed.batch_size < 1:
        raise ValueError(f"--batch-size is {parsed.batch_size}; expected at least 1")
    TranscribeOptions(**options)  # a wrong option is said before a model is loaded
    several = len(parsed.files) > 1
    if several and parsed.output_dir is None and parsed.format not in ("txt", "json"):
        raise ValueError(
            f"{len(parsed.files)} files as {parsed.format} do not fit one output; expected "
            "--output-dir, or --format txt or json"
        )
    lab = load(
        parsed.model,
        device=parsed.device,
        dtype=parsed.dtype,
        revision=parsed.revision,
        quantize=None if parsed.quantize == "none" else parsed.quantize,
    )
    if parsed.adapter is not None:
        name = options["adapter"] = parsed.adapter.resolve().name
        lab.add_adapter(name, parsed.adapter)
    lab.check(**options)  # and what this model cannot do, once and not for every file
    done: list[Transcript] = []
    for file, result in _results(lab, parsed.files, parsed.batch_size, parsed.resume, options):
        if isinstance(result, ValueError):
            print(f"error: {result}", file=sys.stderr)
            continue
        done.append(result)
        for warning in result.warnings:
            print(f"{file}: {warning}", file=sys.stderr)
        if parsed.output_dir is not None:
            _write(parsed.output_dir, result, parsed.format)
        elif parsed.format != "json":
            print(EXPORTERS[parsed.format](result), end="", flush=True)
    if parsed.format == "json" and parsed.output_dir is None and done:
        objects = [transcript.to_dict() for transcript in done]
        print(json.dumps(objects if several else objects[0], ensure_ascii=False, indent=2))
    if not done:
        return NOTHING_DONE
    return ALL_WELL if len(done) == len(parsed.files) else SOME_FAILED


def _results(
    lab: Lab, files: Sequence[str], batch_size: int, resume: Path | None, options: OptionFields
) -> Iterator[tuple[str, Transcript | ValueError]]:
    """Every file's transcript or error; partial text on stderr while a person is watching."""
    if batch_size > 1 or not sys.stderr.isatty():
        yield from transcribe_files(lab, files, at_once=batch_size, resume=resume, **options)
        return
    for file in files:
        try:
            for event in lab.stream(file, resume=resume, **options):
                if isinstance(event, PartialText):
                    print(f"\r\033[K{event.text[-100:]}", end="", file=sys.stderr, flush=True)
                if isinstance(event, Finished):
                    print("\r\033[K", end="", file=sys.stderr)
                    yield file, event.transcript
        except ValueError as error:
            yield file, error


def _write(folder: Path, transcript: Transcript, form: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{Path(transcript.file).name}.{form}"
    target.write_text(EXPORTERS[form](transcript), encoding="utf-8")
    print(target)


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
        megabytes = part["bytes"] / 2**20
        print(f"  {name:<11} {part['parameters']:>13,} parameters {megabytes:>9.1f} MiB")
    print(f"  {'total':<11} {facts['parameters']:>13,} parameters, as {facts['dtype']}")
    if facts["adapter"]:
        adapter = facts["adapter"]
        print(f"  {'LoRA':<11} {adapter['parameters']:>13,} parameters, {adapter['layers']} layers")
    if facts["bpe_ctc_head"]:
        head, name = facts["bpe_ctc_head"], "BPE CTC"
        print(
            f"  {name:<11} {head['parameters']:>13,} parameters {head['bytes'] / 2**20:>9.1f} MiB"
        )
    stored, shards = facts["stored_bytes"] / 2**20, len(facts["shards"])
    tensors = facts["tensors"]
    print(f"  stored      {stored:.1f} MiB in {shards} file{'s' if shards > 1 else ''}")
    print(f"  tensors     {tensors['used']} used, {len(tensors['unused'])} unused")
    print(f"  tasks       {', '.join(abilities['tasks'])}")
    print(f"  languages   {', '.join(abilities['languages'])}")
    if abilities["target_languages"]:
        print(f"  into        {', '.join(abilities['target_languages'])}")
    print(f"  recordings  up to {abilities['max_audio_s']:.0f} s")
    return ALL_WELL


def run_package(parsed: argparse.Namespace) -> int:
    """Compile a model ahead of time and print where the result is."""
    lab = load(
        parsed.model,
        device=parsed.device,
        dtype=parsed.dtype,
        revision=parsed.revision,
        quantize=None if parsed.quantize == "none" else parsed.quantize,
    )
    folder = build_package(
        lab.model,
        name=lab.entry.name,
        into=parsed.output_dir,
        batches=parsed.batches,
        say=lambda text: print(text, file=sys.stderr),
    )
    print(folder)
    return ALL_WELL


def run_models(parsed: argparse.Namespace) -> int:
    """Print the catalog, and what of it is on this machine already."""
    if parsed.json:
        rows = [{**asdict(entry), "here": is_here(entry.name)} for entry in CATALOG.values()]
        print(json.dumps(rows, indent=2))
        return ALL_WELL
    for entry in CATALOG.values():
        size = f"{entry.size_bytes / 2**30:5.1f} GiB" if entry.size_bytes else "  bundled"
        state = "on this machine" if is_here(entry.name) else "to download"
        print(f"{entry.name:<24} {size}  {state:<16} {entry.title} ({entry.licence})")
    return ALL_WELL


if __name__ == "__main__":
    sys.exit(main())
