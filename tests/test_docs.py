"""README and docs name what exists: files, commands and options, make targets, Python names."""

from __future__ import annotations

import argparse
import ast
import inspect
import logging
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import gradio_client
import openai
import pytest

import core

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PATH = re.compile(
    r"(?<![\w./-])((?:app|assets|benchmarks|core|docs|profiling|tests|training)/[\w./*-]*)"
)
COMMAND = re.compile(r"python (?:-m (?P<module>[\w.]+)|(?P<script>\w+\.py))\b(?P<words>.*)")
PACKAGES = ("benchmarks", "core", "profiling", "training")  # those with a command line
# What a name stands for in the blocks of Python, by the class that owns its attributes.
OBJECTS = {"lab": core.Lab, "t": core.Transcript, "client": gradio_client.Client}

# serve (ray) and vllm are not among our packages; docs/deploy.md runs them on a server.
SYSTEM = {"make", "curl", "cd", "python3", "docker", "git", ".venv/bin/serve", "vllm"}
README = ROOT / "README.md"
QUICK = (".venv/bin/python -m core models", ".venv/bin/python -m core inspect tiny")

each_document = pytest.mark.parametrize("file", DOCS, ids=lambda file: file.name)


def blocks(file: Path) -> list[tuple[str, str]]:
    """Return language and text of each fenced block."""
    return FENCE.findall(file.read_text(encoding="utf-8"))


def spans(file: Path) -> list[str]:
    """Return the code inside sentences, each on one line."""
    prose = FENCE.sub("", file.read_text(encoding="utf-8"))
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def lines(file: Path) -> list[str]:
    """Return the lines of all blocks but those of Python, continued lines joined."""
    texts = [text.replace("\\\n", " ") for language, text in blocks(file) if language != "python"]
    return [line.strip() for text in texts for line in text.splitlines()]


def words_of(command: str) -> list[str]:
    """Return the words of one command, up to a comment, a pipe or the next command."""
    words = shlex.split(command, comments=True)
    ends = [place for place, word in enumerate(words) if word in ("|", "||", "&&", ";", "...")]
    return words[: min(ends, default=len(words))]


def parser_of(package: str, words: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """Return the parser that ``python -m package`` hands words to, and the words it gets."""
    met: list[tuple[argparse.ArgumentParser, list[str]]] = []

    def stop(parser: argparse.ArgumentParser, given: list[str]) -> None:
        met.append((parser, given))
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch, suppress(SystemExit):
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(logging.Logger, "addHandler", lambda *_: None)
        import_module(f"{package}.__main__").main(words)
    return met[0]


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of a parser's subcommands, by name."""
    actions = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    return {name: found for one in actions for name, found in one.choices.items()}


def unknown_words(parser: argparse.ArgumentParser, words: list[str]) -> Iterator[str]:
    """Yield the options and subcommands that a parser lacks."""
    remaining = iter(words)
    for word in remaining:
        action = parser._option_string_actions.get(word.split("=")[0])
        if word.startswith("--") and action is None:
            yield word
        elif action is not None and action.nargs != 0 and "=" not in word:
            next(remaining, None)
        elif action is None and (commands := commands_of(parser)):
            if word in commands:
                yield from unknown_words(commands[word], list(remaining))
            else:
                yield word
            return


def lacking(command: str) -> list[str]:
    """Return what a command of ours names in vain: its file, subcommands, options.

    Of a file that is not one of :data:`PACKAGES` the source is read: its options stand there.
    """
    found = COMMAND.search(command)
    if not found:
        return []
    words = words_of(found["words"])
    if found["module"] in PACKAGES:
        return list(unknown_words(*parser_of(found["module"], words)))
    name = found["script"] or found["module"].replace(".", "/")
    if not (ROOT / Path(name).parts[0]).exists():
        return [] if found["module"] else [name]  # pip, pytest
    files = [file for file in (ROOT / name, ROOT / f"{name}.py") if file.is_file()]
    files += [ROOT / name / "__main__.py"] if (ROOT / name).is_dir() else []
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    options = {word.split("=")[0] for word in words if word.startswith("--")} - {"--help"}
    return [option for option in sorted(options) if f'"{option}"' not in source] or (
        [] if files else [name]
    )


@each_document
def test_every_file_that_is_named_exists(file: Path) -> None:
    code = [*spans(file), *(text for _, text in blocks(file))]
    named = {path.rstrip(".") for text in code for path in PATH.findall(text)}
    links = re.findall(r"\]\(([^)#\s]+)", FENCE.sub("", file.read_text(encoding="utf-8")))
    missing = {path for path in named if not any(ROOT.glob(path.rstrip("/")))}
    missing |= {link for link in links if ":" not in link and not (file.parent / link).exists()}
    assert not missing, f"{file.name} names {sorted(missing)}, which are not there"


@each_document
def test_every_command_has_the_options_that_are_named(file: Path) -> None:
    for command in [*spans(file), *lines(file)]:
        assert not (unknown := lacking(command)), f"{file.name}: {command}: no {unknown}"


@each_document
def test_every_command_in_a_block_parses(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in lines(file):
        found = COMMAND.search(line)
        if found and found["module"] in PACKAGES:
            parser, words = parser_of(found["module"], words_of(found["words"]))
            try:
                parser.parse_args(words)
            except SystemExit:
                pytest.fail(f"{file.name}: {line}\n{capsys.readouterr().err}")


@each_document
def test_every_make_target_exists(file: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = [*spans(file), *lines(file)]
    named = {
        name for text in code for name in re.findall(r"^(?:\w+=\S+ )*make ([a-z][\w-]*)", text)
    }
    assert named <= targets, f"{file.name} names make {sorted(named - targets)}"


@each_document
def test_shell_blocks_run_as_printed_without_an_activated_environment(file: Path) -> None:
    made = {f".venv/bin/{program.name}" for program in Path(sys.executable).parent.iterdir()}
    for text in (text for language, text in blocks(file) if language == "sh"):
        for line in text.replace("\\\n", " ").splitlines():
            for first in programs(line):
                known = first in SYSTEM or first in made
                assert known, f"{file.name}: nothing installs {first!r}: {line}"


@pytest.mark.parametrize("command", QUICK)
def test_a_quick_command_of_the_readme_runs(command: str) -> None:
    assert command in lines(README), f"README does not print {command!r} any more"
    done = subprocess.run(
        [sys.executable, *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def programs(line: str) -> Iterator[str]:
    """Yield the programs that a line of a shell block starts."""
    expects = True
    for word in shlex.split(line.replace("=$(", "=x | "), comments=True):
        if word in ("|", "||", "&&", ";", "&"):
            expects = True
        elif expects and not re.match(r"\w+=", word):
            yield word
            expects = False


@each_document
def test_python_blocks_compile_and_their_names_exist(file: Path) -> None:
    for text in (text for language, text in blocks(file) if language == "python"):
        owners: dict[str, object] = dict(OBJECTS)
        if "OpenAI(" in text:
            owners["client"] = openai.OpenAI(api_key="none")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                owners |= {alias.name: import_module(alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                module = import_module(node.module)
                missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                assert not missing, f"{file.name}: {node.module} has no {missing}"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = owners.get(node.value.id)
                has = owner is None or node.attr in names_of(owner)
                assert has, f"{file.name}: {node.value.id} has no {node.attr}"


def names_of(owner: object) -> set[str]:
    """Return the attributes of a module, or of a class and its instances."""
    source = inspect.getsource(owner) if isinstance(owner, type) else ""
    own = re.findall(r"\bself\.(\w+)|^    (\w+):", source, re.MULTILINE)
    return set(dir(owner)) | {name for pair in own for name in pair}
