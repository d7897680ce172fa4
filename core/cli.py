"""``python -m core transcribe``: recordings to text.

In: the command's arguments. Out: transcripts on stdout or in files as they are finished, progress
and problems on stderr, one line each, and the exit status: 0 all well, 1 some files failed, 2
nothing could be done, 130 stopped by Ctrl-C, 141 whoever read the output went away.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from core import Lab, Transcript, load
from core.builder_process import BackgroundBuild
from core.checkpoint.catalog import LANGUAGES
from core.cli_engine import EngineChoice
from core.cli_output import ResultWriter, give_up_stdout
from core.errors import UserError
from core.model.quantize import MODES
from core.text.export import EXPORTERS
from core.text.output_names import printable, unique_names
from core.text.prompts import TASKS
from core.transcription.options import (
    CHANNELS,
    DECODINGS,
    ENGINES,
    Finished,
    OptionFields,
    PartialText,
    TranscribeOptions,
)

logger = logging.getLogger(__name__)

ALL_WELL, SOME_FAILED, NOTHING_DONE, STOPPED, READER_GONE = 0, 1, 2, 130, 141


def load_asked(parsed: argparse.Namespace) -> Lab:
    """Load the model that a command line names, in the form it asks for."""
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
    add_request(parser)
    add("--format", choices=sorted(EXPORTERS), default="txt")
    add("--output-dir", type=Path, help="write FILE's result as OUTPUT_DIR/FILE.FORMAT")
    add("--batch-size", type=int, default=1, help="files (or spans of a long one) at once")
    add("--resume", type=Path, metavar="FOLDER", help="go on with a long file that was stopped")
    parser.set_defaults(run=run_transcribe)


def add_request(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the options that say which model, and what to ask of it."""
    add = parser.add_argument
    add("--model", default="tiny", help="catalog name, Hub repository id, or folder")
    add("--revision", help="branch, tag or commit of a repository")
    add("--engine", choices=ENGINES, default="eager")
    add("--wait", action="store_true", help="with --engine compile: compile first, then answer")
    add("--lora", choices=("on", "off"), help="default: on where the checkpoint has an adapter")
    drafts = "speculative: the greedy text in fewer passes; fast-draft: quicker, and lossy"
    add("--adapter", type=Path, metavar="FOLDER", help="transcribe with this adapter (PEFT format)")
    add("--decoding", choices=DECODINGS, default="greedy", help=drafts)
    add("--task", choices=TASKS, default="transcribe")
    add("--language", choices=sorted(LANGUAGES), help="what is spoken")
    add("--target-language", choices=sorted(LANGUAGES), help="what to translate into")
    add("--keywords", default="", help="names to listen for, separated by commas")
    add("--instruction", help="your own instruction, with --task instruct")
    add("--prefix-text", help="how the recording begins; the result is what follows")
    add("--max-new-tokens", type=int, default=200)
    add("--num-beams", type=int, help="with --decoding beam (4)")
    add("--temperature", type=float, help="with --decoding sample (0.7)")
    add("--edit-rounds", type=int, default=1, help="how often a draft is edited (NAR models)")
    add("--channels", choices=CHANNELS, default="mixed", help="speakers: stereo, one a channel")
    add("--seed", type=int, default=0, help="with --decoding sample")
    add("--device", help="cpu, cuda, cuda:1, mps")
    add("--dtype", choices=("float32", "bfloat16", "float16"))
    add("--quantize", choices=("none", *MODES), default="none", help="int8 decoder weights")


def run_transcribe(parsed: argparse.Namespace) -> int:
    """Transcribe every file; a file that fails is reported and the others go on."""
    options, files = request_options(parsed), parsed.files
    several = len(files) > 1
    if several and parsed.output_dir is None and parsed.format not in ("txt", "json"):
        raise UserError(
            f"{len(files)} files as {parsed.format} do not fit one output; expected "
            "--output-dir, or --format txt or json"
        )
    wanted = [Path(file).name for file in files]
    names = unique_names(wanted, [f".{parsed.format}"])
    writer = ResultWriter(parsed.output_dir, parsed.format, as_array=several)
    lab = load_asked(parsed)
    if parsed.adapter is not None:
        name = options["adapter"] = parsed.adapter.resolve().name
        lab.add_adapter(name, parsed.adapter)
    lab.check(**options)  # and what this model cannot do, once and not for every file
    if parsed.output_dir is not None:
        for file, old, new in zip(files, wanted, names, strict=True):
            if new != old:
                _tell(f"the result of {file} is named {new}.{parsed.format}")
    choice = EngineChoice(lab, parsed, options)
    results = _results(choice, files, parsed.batch_size, parsed.resume)
    try:
        with writer:
            num_done = _write_all(writer, names, results)
    finally:
        choice.close()
    if not num_done:
        return NOTHING_DONE
    return ALL_WELL if num_done == len(files) else SOME_FAILED


def _write_all(
    writer: ResultWriter,
    names: Sequence[str],
    results: Iterator[tuple[str, Transcript | Exception]],
) -> int:
    """Write results as they come, and what went wrong; returns how many were written."""
    num_done = 0
    for name, (file, result) in zip(names, results, strict=True):
        if isinstance(result, Exception):
            _tell(f"error: {_told(file, result)}")
            continue
        for warning in result.warnings:
            _tell(f"{file}: {warning}")
        try:
            writer.write(name, result)
        except UserError as error:
            _tell(f"error: {_told(file, error)}")
        except BrokenPipeError:
            raise
        except OSError as error:  # what comes next has nowhere to go either
            give_up_stdout()
            _tell(f"error: {file}: stdout cannot be written to ({error.strerror})")
            break
        else:
            num_done += 1
    return num_done


def request_options(parsed: argparse.Namespace) -> OptionFields:
    """Collect the request's options; a wrong one is refused before a model is loaded."""
    options: OptionFields = {
        "task": parsed.task,
        "language": parsed.language,
        "target_language": parsed.target_language,
        "keywords": [word for word in parsed.keywords.split(",") if word.strip()],
        "instruction": parsed.instruction,
        "prefix_text": parsed.prefix_text,
        "lora": None if parsed.lora is None else parsed.lora == "on",
        "engine": parsed.engine,
        "decoding": parsed.decoding,
        "max_new_tokens": parsed.max_new_tokens,
        "num_beams": parsed.num_beams,
        "temperature": parsed.temperature,
        "edit_rounds": parsed.edit_rounds,
        "channels": parsed.channels,
        "seed": parsed.seed,
        "batch_size": max(parsed.batch_size, 4),
    }
    if parsed.batch_size < 1:
        raise UserError(f"--batch-size is {parsed.batch_size}; expected at least 1")
    TranscribeOptions(**options)
    return options


def _results(
    choice: EngineChoice, files: Sequence[str], batch_size: int, resume: Path | None
) -> Iterator[tuple[str, Transcript | Exception]]:
    """Yield every file's transcript or error; partial text on stderr while a person is watching."""
    if batch_size > 1 or not sys.stderr.isatty():
        yield from transcribe_files(choice, files, at_once=batch_size, resume=resume)
        return
    for file in files:
        result: Transcript | Exception
        try:
            options, build = choice.options([file])
            for event in choice.lab.stream(file, resume=resume, **options):
                if isinstance(event, PartialText):
                    shown = printable(event.text[-100:])
                    print(f"\r\033[K{shown}", end="", file=sys.stderr, flush=True)
                if isinstance(event, Finished):
                    print("\r\033[K", end="", file=sys.stderr)
                    result = _warned(event.transcript, build)
        except Exception as error:
            result = error
        yield file, result


def transcribe_files(
    choice: EngineChoice, files: Sequence[str], *, at_once: int, resume: Path | None = None
) -> Iterator[tuple[str, Transcript | Exception]]:
    """Transcribe ``files`` in batches; a file that fails does not take others with it.

    Each gets the text it would get alone. The phases of a batch's transcripts are the batch's.

    Args:
        choice: a loaded checkpoint, and the options of each batch.
        files: paths.
        at_once: how many make a batch.
        resume: as for ``Lab.stream``.

    Yields:
        Each file and its transcript or error, in the files' order.
    """
    for start in range(0, len(files), at_once):
        group = list(files[start : start + at_once])
        done: dict[int, Transcript] = {}
        try:
            options, build = choice.options(group)
            for event in choice.lab.stream_batch(group, resume=resume, **options):
                if isinstance(event, Finished):
                    done[event.index] = _warned(event.transcript, build)
        except Exception as error:
            if len(group) == 1:
                yield group[0], error
                continue
        for number, file in enumerate(group):
            if number in done:
                yield file, replace(done[number], file=file)
            else:  # one of them is bad: find out which, and keep the others
                yield from transcribe_files(choice, [file], at_once=1, resume=resume)


def _warned(transcript: Transcript, build: BackgroundBuild | None) -> Transcript:
    """Say beside an eager answer that another was asked for."""
    return transcript if build is None else transcript.warned(build.note())


def _told(file: str, error: Exception) -> str:
    """Say what went wrong with a file; what is no mistake of the caller's is logged in full."""
    if isinstance(error, UserError):
        # An error of the recording names it already, without its folder.
        return f"{file}: {str(error).removeprefix(f'{Path(file).name}: ')}"
    if isinstance(error, OSError):
        return f"{file}: {error.strerror or error}"
    logger.error("%s", printable(file), exc_info=error)
    return f"{file}: an error of this program's own, written above; the other files go on"


def _tell(text: str) -> None:
    print(printable(text), file=sys.stderr)
