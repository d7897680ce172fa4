"""The command line when something outside one recording goes wrong: one line, and the rest goes on.

Run alone: ``python -m pytest tests/test_cli.py``.
"""

import fcntl
import io
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import core
from bundled import EXAMPLES
from core.__main__ import main
from core.cli import READER_GONE, STOPPED
from core.lab import Lab
from core.text.output_names import printable, unique_names
from core.transcription.options import Finished
from core.transcription.resume import Journal

CLIP = EXAMPLES / "digit_seven.flac"
TEXT = "seven\n"
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def one_lab(monkeypatch: pytest.MonkeyPatch, tiny: Lab) -> None:
    monkeypatch.setattr("core.cli.load", lambda *_args, **_more: tiny)


@pytest.fixture(scope="module")
def tiny() -> Lab:
    return core.load("tiny")


def recordings(folder: Path, *names: str | bytes) -> list[str]:
    """The same word under each of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [os.fsdecode(os.path.join(os.fsencode(folder), os.fsencode(name))) for name in names]
    for path in paths:
        Path(path).write_bytes(CLIP.read_bytes())
    return paths


def run(*arguments: object) -> int:
    return main(["transcribe", *map(str, arguments)])


def stopping(lab: Lab, monkeypatch: pytest.MonkeyPatch, after: int, error: BaseException) -> None:
    """Let every call after the first ``after`` raise ``error`` instead."""
    real, calls = lab.stream_batch, iter(range(100))

    def stream_batch(group: Sequence[Any], **more: Any) -> Iterator[Any]:
        if next(calls) >= after:
            raise error
        return real(group, **more)

    monkeypatch.setattr(lab, "stream_batch", stream_batch)


def test_ctrl_c_leaves_what_is_finished_as_whole_json(
    tmp_path: Path, tiny: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    stopping(tiny, monkeypatch, 2, KeyboardInterrupt())
    files = recordings(tmp_path, "a.flac", "b.flac", "c.flac")
    assert run(*files, "--format", "json") == STOPPED == 130
    captured = capsys.readouterr()
    assert [one["file"] for one in json.loads(captured.out)] == files[:2]
    assert captured.err == "stopped\n"


@pytest.mark.slow
@pytest.mark.parametrize("in_a_terminal", [False, True])
def test_a_real_ctrl_c_leaves_what_is_finished_as_whole_json(tmp_path: Path, in_a_terminal: bool):
    files = recordings(tmp_path, *(f"{number:02}.flac" for number in range(40)))
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "core", "transcribe", *files, "--format", "json"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=theirs if in_a_terminal else subprocess.PIPE,
        start_new_session=True,
        preexec_fn=partial(fcntl.ioctl, theirs, termios.TIOCSCTTY) if in_a_terminal else None,
    ) as process:
        os.close(theirs)
        assert process.stdout is not None
        said = b""
        while said.count(b"\n  }") < 2:  # two are done
            piece = os.read(process.stdout.fileno(), 4096)
            assert piece, said
            said += piece
        if in_a_terminal:
            os.write(terminal, b"\x03")  # the key itself, for everything that runs there
        else:
            os.killpg(process.pid, signal.SIGINT)
        rest, errors = process.communicate(timeout=120)
    found = json.loads(said + rest)
    assert process.returncode == STOPPED
    assert [one["file"] for one in found] == files[: len(found)]
    assert 2 <= len(found) < len(files)
    assert {one["text"] for one in found} == {"seven"}
    told = os.read(terminal, 1 << 16) if in_a_terminal else errors
    os.close(terminal)
    assert told.rstrip().endswith(b"stopped")


def test_one_file_as_json_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(*recordings(tmp_path, "a.flac"), "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["text"] == "seven"


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_error_of_the_system_or_of_our_own_names_its_file_and_the_others_go_on(
    batch_size: int,
    tmp_path: Path,
    tiny: Lab,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    files = recordings(tmp_path, "a.flac", "bad.flac", "c.flac")
    real = tiny.stream_batch
    errors: list[Exception] = [OSError(28, "No space left on device"), RuntimeError("shapes")]

    def stream_batch(group: Sequence[Any], **more: Any) -> Iterator[Any]:
        if files[1] in group:
            raise errors[0]
        return real(group, **more)

    monkeypatch.setattr(tiny, "stream_batch", stream_batch)
    assert run(*files, "--batch-size", batch_size) == 1
    captured = capsys.readouterr()
    assert captured.out == 2 * TEXT
    assert captured.err == f"error: {files[1]}: No space left on device\n"
    errors.pop(0)
    assert run(*files, "--batch-size", batch_size) == 1
    captured = capsys.readouterr()
    assert captured.out == 2 * TEXT
    assert "RuntimeError: shapes" in captured.err  # in full, for whoever mends it
    assert captured.err.splitlines()[-1].startswith(f"error: {files[1]}: an error of this program")


def test_a_batch_keeps_what_it_finished_before_one_of_its_files_failed(
    tmp_path: Path, tiny: Lab, monkeypatch: pytest.MonkeyPatch
):
    files = recordings(tmp_path, "a.flac", "b.flac")
    real, groups = tiny.stream_batch, list[int]()

    def stream_batch(group: Sequence[Any], **more: Any) -> Iterator[Any]:
        groups.append(len(group))
        for event in real(group, **more):
            yield event
            if isinstance(event, Finished) and len(group) > 1:
                raise OSError(5, "Input/output error")

    monkeypatch.setattr(tiny, "stream_batch", stream_batch)
    assert run(*files, "--batch-size", 2) == 0
    assert groups == [2, 1]


def test_the_same_name_in_two_folders_is_two_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    files = recordings(tmp_path / "monday", "rec.flac") + recordings(
        tmp_path / "friday", "rec.flac"
    )
    assert run(*files, "--output-dir", tmp_path / "out", "--format", "srt") == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["rec.flac-2.srt", "rec.flac.srt"]
    assert f"the result of {files[1]} is named rec.flac-2.srt" in capsys.readouterr().err


def test_a_folder_that_cannot_be_used_is_told_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").touch()
    monkeypatch.setattr("core.cli.load", lambda *_args, **_more: pytest.fail("loaded"))
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        assert run(CLIP, "--output-dir", folder) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith(f"error: {folder}: results cannot be written there (")
        assert captured.err.count("\n") == 1
        assert captured.out == ""


def test_a_result_that_cannot_be_written_is_on_stdout_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    (out / "a.flac.txt").mkdir(parents=True)
    files = recordings(tmp_path, "a.flac", "b.flac")
    assert run(*files, "--output-dir", out) == 1
    captured = capsys.readouterr()
    assert captured.out == f"{TEXT}{out / 'b.flac.txt'}\n"
    assert captured.err.startswith(f"error: {files[0]}: {out / 'a.flac.txt'} cannot be written (")
    assert captured.err.count("\n") == 1
    assert sorted(path.name for path in out.iterdir()) == ["a.flac.txt", "b.flac.txt"]


ODD = (b"caf\xe9.flac", b"two\nlines.flac", "\N{MICROPHONE} 100%25.flac", "n" * 250 + ".flac")


@pytest.mark.parametrize(
    ("form", "encoding"),
    [("json", "utf-8"), ("json", "cp1252"), ("txt", "ascii"), ("srt", "utf-8")],
)
def test_odd_names_are_written_and_escaped(
    form: str, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files, out = recordings(tmp_path, *ODD), tmp_path / "out"
    printed = io.BytesIO()
    stream = io.TextIOWrapper(printed, encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    assert run(*files, "--output-dir", out, "--format", form) == 0
    assert len(printed.getvalue().splitlines()) == len(list(out.iterdir())) == 4
    if form == "json":
        printed.truncate(0)
        printed.seek(0)
        assert run(*files, "--format", "json") == 0
        found = json.loads(printed.getvalue().decode(encoding))
        assert [one["file"] for one in found] == files
        assert all(json.loads(path.read_text("utf-8"))["text"] == "seven" for path in out.iterdir())


def test_a_name_that_looks_like_an_option_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    recordings(tmp_path, "-rec.flac")
    monkeypatch.chdir(tmp_path)
    assert run("-rec.flac") == 0
    assert capsys.readouterr().out == TEXT


def test_a_reader_that_went_away_ends_the_command_quietly():
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m core models | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert done.stderr == ""
    assert int(done.stdout) in (0, READER_GONE)


def test_a_gone_reader_and_a_full_stdout_are_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    class Broken(io.StringIO):
        error: OSError = BrokenPipeError(32, "Broken pipe")

        def flush(self) -> None:
            raise self.error

    files = recordings(tmp_path, "a.flac", "b.flac")
    monkeypatch.setattr(sys, "stdout", Broken())
    assert run(*files) == READER_GONE == 141
    monkeypatch.setattr(Broken, "error", OSError(28, "No space left on device"))
    assert run(*files) == 2
    told = f"error: {files[0]}: stdout cannot be written to (No space left on device)\n"
    assert capsys.readouterr().err.startswith(told)


def test_a_fault_of_our_own_is_logged_in_full_and_told_in_general_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def load_model(*_args: object, **_more: object) -> None:
        raise ValueError("too many values to unpack")

    monkeypatch.setattr("core.cli.load", load_model)
    assert run(CLIP) == 2
    *logged, told = capsys.readouterr().err.splitlines()
    assert told == "error: this program failed; what happened is written above"
    assert "too many values to unpack" in "\n".join(logged)


Names = tuple[str, ...]


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (("a", "a", "a-2"), ("a", "a-3", "a-2")),
        (("a-2", "a", "a"), ("a-2", "a", "a-3")),
        (("A", "a"), ("A", "a-2")),
        (("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"), None),
        (("x",) * 12, ("x", *(f"x-{n}" for n in range(2, 13)))),
        (("n" * 300, "n" * 300), ("n" * 250, "n" * 248 + "-2")),
    ],
)
def test_no_two_results_have_one_name(wanted: Names, given: Names | None):
    found = unique_names(wanted, [".srt", ".json"])
    assert given is None or found == given
    assert len({name.casefold() for name in found}) == len(wanted)
    assert found[0] == wanted[0] or len(wanted[0]) > 255


def test_a_name_is_shortened_between_letters_and_keeps_its_number():
    found = unique_names(["\N{CYRILLIC SMALL LETTER A}" * 200] * 2, [".json"])
    assert all(len(f"{name}.json".encode()) <= 255 for name in found)
    assert found[1].endswith("-2")


def test_what_cannot_be_shown_is_escaped():
    assert printable("a\nb\udce9\N{MICROPHONE}") == "a\\nb\\udce9\N{MICROPHONE}"


def test_a_journal_cut_inside_a_letter_is_read_on(
    tmp_path: Path, tiny: Lab, caplog: pytest.LogCaptureFixture
):
    transcript = tiny.transcribe(CLIP)
    odd = core.Transcript(**{**vars(transcript), "text": "one\N{LINE SEPARATOR}two"})
    file = tmp_path / "kept.jsonl"
    Journal(file, {"model": "m"}).add((0.0, 1.0), odd)
    cut = b'{"span": [1.0, 2.0], "transcript": {"text": "caf' + b"\xc3"
    file.write_bytes(file.read_bytes() + cut)
    journal = Journal(file, {"model": "m"})
    assert "a line cut short was left out" in caplog.text
    journal.add((1.0, 2.0), transcript)
    again = Journal(file, {"model": "m"})
    assert again.get((0.0, 1.0)) == odd
    assert again.get((1.0, 2.0)) == transcript
