"""Packages built beside the work: eager answers meanwhile, compiled ones later, and what fails.

The builder is a stand-in process that takes a moment. The slow test runs the real one.
Run alone: ``python -m pytest tests/test_background_build.py -m ""``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from app.service import measurement_job
from app.service.measurement import MeasurementService
from app.service.measurement_job import MeasurementProgress
from app.service.profiles.library import ProfileLibrary
from app.service.service import TranscriptionService
from app.service.settings import Settings
from app.service.updates import EagerMeanwhile
from app.service.worker import CancelToken
from app.wording.progress import ProgressLine
from app_stubs import last
from core import cli_package
from core.background_build import BackgroundBuilds, PackageRequest, learnt_seconds
from core.builder_process import BackgroundBuild, BuildStatus
from core.engine import aot_load
from core.engine.aot_load import ENVIRONMENT, MANIFEST, Manifest, package_name
from core.engine.fingerprint import fingerprint
from core.engine.stages import eager_engine
from core.lab import Lab
from core.loading import load
from core.memory import weight_bytes
from core.transcription import autoregressive
from core.transcription.options import PhaseStarted
from measuring import RECORDING

NAMES = ("encode-B1", "encode_blocks-B1", "project", "prefill-B1", "decode-B1", "verify-B1")
COMPILED = Settings(model="random", engine="compile", max_new_tokens=2)
SOON_S = 20.0

# Says how far it is after each line it reads from the file that the test writes, then ends.
BUILDER = """
import json, sys, time
from pathlib import Path
steps, names, done = Path(sys.argv[1]), json.loads(sys.argv[2]), {}
print(json.dumps({"graphs": names, "seconds": done}), flush=True)
while len(done) < len(names):
    if steps.read_text().startswith("fail"):
        print("error: there is no room for files", file=sys.stderr)
        sys.exit(2)
    for name in names[len(done):len(steps.read_text())]:
        done[name] = 2.0
        print(json.dumps({"graphs": names, "seconds": done}), flush=True)
    time.sleep(0.02)
"""


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    file = tmp_path / "steps"
    file.write_text("")
    return file


@pytest.fixture
def builder(steps: Path) -> Iterator[Callable[..., BackgroundBuild]]:
    made: list[BackgroundBuild] = []

    def start(*_: Any, expected: dict[str, float] | None = None) -> BackgroundBuild:
        command = [sys.executable, "-c", BUILDER, str(steps), json.dumps(NAMES)]
        made.append(BackgroundBuild(command, expected))
        return made[-1]

    yield start
    for build in made:
        build.close()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setenv(ENVIRONMENT, str(folder))
    return folder


@pytest.fixture
def clip(tmp_path: Path) -> str:
    file = tmp_path / "noise.wav"
    file.write_bytes(RECORDING)
    return str(file)


@pytest.fixture
def own_lab(speech_folder: Path) -> Lab:
    return load(speech_folder, device="cpu", dtype="float32")


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def write_package(folder: Path, lab: Lab, *names: str) -> None:
    """A package of ``lab`` whose graphs are names alone."""
    here = fingerprint(lab.model)
    target = folder / package_name(lab.model_info.name, here.structure)
    target.mkdir(exist_ok=True)
    Manifest(here, dict.fromkeys(names or NAMES, 2.0)).write(target)


def named_stages(model: Any, ledger: Any, *, name: str, beside: Path) -> Any:
    """Stand in for the stages of a package: eager ones, with the names of its graphs."""
    (folder,) = aot_load.packages_folder().glob(f"{Path(name).name}-*")
    ledger.packaged = tuple(json.loads((folder / MANIFEST).read_text())["graphs"])
    return replace(eager_engine(model), name="compile")


class TestStatus:
    @pytest.mark.parametrize(
        ("status", "said"),
        [
            (BuildStatus(), "compiling begins"),
            (BuildStatus(0, 6), "compiling 1 of 6"),
            (BuildStatus(2, 6, 19.6), "compiling 3 of 6, about 20 s left"),
            (BuildStatus(6, 6, 0.2), "compiling 6 of 6, about 1 s left"),
            (BuildStatus(6, 6, is_over=True), "the next answer is compiled"),
            (BuildStatus(1, 6, failure="no g++"), "not compiled: no g++"),
        ],
    )
    def test_it_is_one_line(self, status: BuildStatus, said: str) -> None:
        assert str(status) == said

    def test_the_page_says_it_as_a_sentence(self) -> None:
        update = EagerMeanwhile(BuildStatus(2, 6, 20.0))
        said = "Compiling 3 of 6, about 20 s left; this answer is eager."
        line = ProgressLine("compile")
        assert said in str(line.html(update))
        assert "minute or two" not in str(line.html(PhaseStarted(0, "encoder")))


class TestBuilder:
    def test_it_says_how_far_it_is_and_when_it_is_over(
        self, builder: Callable[..., BackgroundBuild], steps: Path
    ) -> None:
        build = builder()
        until(lambda: build.status.total == len(NAMES))
        assert build.status.done == 0
        assert build.status.left_s is None  # nothing was ever built
        steps.write_text("..")
        until(lambda: build.status.done == 2)
        left = build.status.left_s
        assert left is not None
        assert 6.0 < left <= 8.0  # four graphs at 2 s
        steps.write_text("......")
        assert build.wait(SOON_S)
        assert build.status == BuildStatus(6, 6, is_over=True)

    def test_the_time_left_is_learnt_from_other_times_at_the_pace_of_this_one(
        self, builder: Callable[..., BackgroundBuild], steps: Path
    ) -> None:
        build = builder(expected={"encode-B1": 1.0, "decode-B1": 9.0})
        steps.write_text(".")
        until(lambda: build.status.done == 1)
        left = build.status.left_s
        assert left is not None
        assert 55 < left <= 58  # twice as slow as then: 9 + 4 * 5 seconds, doubled

    def test_a_failure_is_told_in_full_once(
        self,
        builder: Callable[..., BackgroundBuild],
        steps: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        steps.write_text("fail")
        build = builder()
        assert build.wait(SOON_S)
        assert build.note() == "not compiled: there is no room for files; this answer is eager"
        assert build.note() == "compiling failed; this answer is eager"
        told = [record.getMessage() for record in caplog.records]
        assert told == [
            "compiling in the background failed, eager goes on: there is no room for files"
        ]

    def test_it_ends_when_it_is_closed_also_while_it_is_paused(
        self, builder: Callable[..., BackgroundBuild]
    ) -> None:
        build = builder()
        until(lambda: build.status.total > 0)
        build.pause(paused=True)
        build.close()
        assert build.wait(SOON_S)

    def test_the_real_one_ends_with_its_parent(self, tmp_path: Path) -> None:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:  # only waits for the end of its input, as the command does
            os.setsid()
            os.dup2(reading, 0)
            os.close(writing)
            cli_package._end_with_parent()
        os.close(reading)
        os.close(writing)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


class TestPackages:
    def test_seconds_are_learnt_from_packages_that_no_longer_fit(
        self, packages: Path, own_lab: Lab
    ) -> None:
        (packages / "old").mkdir()
        Manifest(replace(fingerprint(own_lab.model), torch="1.0"), {"project": 7.0}).write(
            packages / "old"
        )
        assert learnt_seconds() == {"project": 7.0}

    def test_the_command_of_a_request_names_everything_that_decides_the_graphs(self) -> None:
        request = PackageRequest("-x", "cpu", "float32", "int8", "main", (Path("/a"),))
        words = request.command(batches=True, nice=True)
        assert words[:3] == ["nice", "-n", "19"]
        assert words[-2:] == ["--", "-x"]
        for pair in ("--dtype float32", "--quantize int8", "--revision main", "--adapter /a"):
            assert pair in " ".join(words)
        assert "--batches" in words
        assert request.command(batches=False, nice=False)[0] == sys.executable


def test_no_builder_is_started_where_memory_does_not_hold_the_weights_twice(
    packages: Path, own_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []

    def start(*asked: Any) -> Any:
        started.append(asked)
        return None

    size = weight_bytes(own_lab.model)
    for free, expected in ((size, 0), (2 * size, 1)):
        monkeypatch.setattr("core.background_build.available_bytes", lambda free=free: free)
        assert BackgroundBuilds(start).missing(own_lab, PackageRequest("random")) is None
        assert len(started) == expected


class TestApp:
    @pytest.fixture
    def service(
        self,
        own_lab: Lab,
        packages: Path,
        builder: Callable[..., BackgroundBuild],
        monkeypatch: pytest.MonkeyPatch,
    ) -> Iterator[TranscriptionService]:
        monkeypatch.setattr(autoregressive, "ready_engine", named_stages)
        made = TranscriptionService(
            model="random", loader=lambda *_, **__: own_lab, builds=BackgroundBuilds(builder)
        )
        yield made
        made.close()

    def test_a_request_for_compiled_is_eager_until_the_package_is_there_and_says_so(
        self, service: TranscriptionService, clip: str, steps: Path, packages: Path, own_lab: Lab
    ) -> None:
        *before, answer = service.stream("s", clip, COMPILED)
        assert any(isinstance(update, EagerMeanwhile) for update in before)
        assert answer.transcript.engine == "eager"
        assert answer.transcript.warnings[-1].endswith("; this answer is eager")
        assert answer.compile_s == 0
        steps.write_text("......")
        build = service.builds.missing(own_lab, PackageRequest("random"))
        assert build is not None
        assert build.wait(SOON_S)
        write_package(packages, own_lab)
        later = last(service.stream("s", clip, COMPILED))
        assert later.transcript.engine == "compile"
        assert not any("eager" in warning for warning in later.transcript.warnings)

    def test_a_failed_build_leaves_eager_answers(
        self, service: TranscriptionService, clip: str, steps: Path
    ) -> None:
        steps.write_text("fail")

        def note() -> str:
            return last(service.stream("s", clip, COMPILED)).transcript.warnings[-1]

        notes = [note()]  # on a quick machine the reason is known by now
        until(lambda: _only_build(service).status.is_over)
        notes += [note(), note()]
        assert sum("there is no room for files" in one for one in notes) == 1
        assert notes[-1] == "compiling failed; this answer is eager"

    def test_beams_need_graphs_that_a_package_of_single_clips_lacks(
        self, service: TranscriptionService, clip: str, packages: Path, own_lab: Lab
    ) -> None:
        write_package(packages, own_lab)
        assert last(service.stream("s", clip, COMPILED)).transcript.engine == "compile"
        beams = replace(COMPILED, decoding="beam")
        assert last(service.stream("s", clip, beams)).transcript.engine == "eager"
        write_package(packages, own_lab, *NAMES, "encode", "prefill", "decode", "verify")
        assert last(service.stream("s", clip, beams)).transcript.engine == "compile"
        assert "encode" in own_lab.compile_ledger.packaged

    def test_the_start_model_is_built_once(self, service: TranscriptionService, clip: str) -> None:
        service.build_package()
        service.build_package()
        last(service.stream("s", clip, COMPILED))
        assert len(service.builds._builds) == 1

    def test_a_measurement_waits_and_says_how_far_it_is(
        self,
        service: TranscriptionService,
        clip: str,
        steps: Path,
        packages: Path,
        own_lab: Lab,
        tmp_path: Path,
    ) -> None:
        measuring = MeasurementService(service, ProfileLibrary(None, shipped=tmp_path / "none"))
        said: list[MeasurementProgress] = []
        for update in measuring.compiled(CancelToken(), (1.0,), COMPILED):
            assert isinstance(update, MeasurementProgress)
            said.append(update)
            write_package(packages, own_lab)
            steps.write_text("......")
        assert said
        assert said[0].stage is measurement_job.MeasurementStage.COMPILING
        assert said[0].text.startswith("compiling")
        assert not service.lab(COMPILED).session.recognizer.is_compiled
        assert service.missing(COMPILED, (1.0,)) is None


def _only_build(service: TranscriptionService) -> BackgroundBuild:
    assert service.builds is not None
    (build,) = service.builds._builds.values()
    return build


@pytest.mark.long
def test_what_the_real_builder_made_is_found_at_the_next_start_and_gives_the_eager_tokens(
    speech_folder: Path, packages: Path, own_lab: Lab, noise: Callable[..., Tensor]
) -> None:
    builds, request = BackgroundBuilds(), PackageRequest.of(own_lab, str(speech_folder))
    build = builds.missing(own_lab, request)
    assert build is not None
    assert build is builds.missing(own_lab, request)
    seen = set()
    while not build.wait(0.1):
        seen.add(build.status.done)
    assert build.status == BuildStatus(6, 6, is_over=True)
    assert len(seen) > 3
    assert builds.missing(own_lab, request) is None
    again = load(speech_folder, device="cpu", dtype="float32")
    assert BackgroundBuilds().missing(again, request) is None
    options = {"max_new_tokens": 8, "ignore_eos": True}
    clip = noise(0.9)
    found = again.transcribe(clip, engine="compile", **options)
    assert found.engine == "compile"
    assert found.token_ids == own_lab.transcribe(clip, **options).token_ids
    assert again.compile_ledger.graphs == {}


STARTER = """
import sys, time
from core.builder_process import BackgroundBuild
build = BackgroundBuild([sys.executable, "-c", "import sys; sys.stdin.read()"])
build.pause(paused=True)
print(build._process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
def test_a_paused_builder_ends_with_a_program_that_is_killed() -> None:
    program = subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    builder = int(program.stdout.readline())

    def state() -> str:
        try:
            return Path(f"/proc/{builder}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return "gone"

    until(lambda: state() == "T")
    program.kill()
    program.wait()
    until(lambda: state() in ("gone", "Z"))
