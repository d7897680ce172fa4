"""``python -m core transcribe``: recordings to text.

In: the command's arguments. Out: transcripts on stdout or in files, progress and problems on
stderr, and the exit status: 0 all well, 1 some files failed, 2 nothing could be done.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from core import Lab, Transcript, load
from core.batch import transcribe_files
from core.checkpoint.catalog import LANGUAGES
from core.model.quantize import MODES
from core.text.export import EXPORTERS
from core.text.prompts import TASKS
from core.transcription.options import (
    DECODINGS,
    ENGINES,
    Finished,
    OptionFields,
    PartialText,
    TranscribeOptions,
)

ALL_WELL, SOME_FAILED, NOTHING_DONE = 0, 1, 2


def load_asked(parsed: argparse.Namespace) -> Lab:
    """The model that a command line names, in the form it asks for."""
    return load(
        parsed.model,
        device=parsed.device,
        dtype=parsed.dtype,
        revision=parsed.revision,
        quantize=None if parsed.quantize == "none" else parsed.quantize,
    )


def add_transcribe(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the command's options."""
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
    lab = load_asked(parsed)
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
