"""What every test gets: no network, a fixed seed, one torch thread, and tiny checkpoints.

The checkpoints are random and made on the spot (see ``tiny_models.py``); nothing is downloaded.
"""

import os
import socket
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# Packages of whoever runs the tests are theirs: no test finds them.
os.environ["GRANITE_SPEECH_PACKAGES"] = "off"
os.environ["GRANITE_SPEECH_PRODUCTS"] = "off"  # nothing is measured but by tests of it

import pytest
import torch
from torch import Tensor

import core
import tiny_models
from core.audio.vad import NoSpeech
from core.audio.waveform import is_silent
from core.lab import Lab
from core.text.tokenizer import Tokenizer

pytest_plugins = ["browser_page"]

# Tiny shapes gain nothing from threads, and spinning ones slow down a neighbour.
torch.set_num_threads(1)


def pytest_report_header() -> str:
    """Name the releases that a result depends on most."""
    names = {"torch", "torchaudio", "gradio", "transformers", "peft"}
    found = sorted(f"{one.name} {one.version}" for one in distributions() if one.name in names)
    return "releases: " + ", ".join(found)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs the oracle where it cannot be used; ``test_oracle.py`` says why."""
    comparing = [item for item in items if item.get_closest_marker("oracle")]
    if comparing and import_module("oracle").refusal() is not None:
        config.hook.pytest_deselected(items=comparing)
        items[:] = [item for item in items if not item.get_closest_marker("oracle")]


@pytest.fixture(autouse=True)
def _same_random_numbers_every_time() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _noise_counts_as_speech(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random models are given noise, which no detector takes for speech; its level alone counts.

    A test of what is spoken asks for the real detector with the mark ``speech_gate``.
    """
    if request.node.get_closest_marker("speech_gate") is None:
        monkeypatch.setattr("core.transcription.transcribe.why_no_speech", why_silent)


def why_silent(waveform: Tensor, *, channels_cancel: bool) -> NoSpeech | None:
    """What the level of a recording says of it."""
    return NoSpeech.NO_SPEECH if is_silent(waveform) else None


@pytest.fixture(autouse=True)
def _no_graphs_of_slow_tests_before(request: pytest.FixtureRequest) -> Iterator[None]:
    """A slow test may count its graphs: none is left from a test in the same process."""
    slow = request.node.get_closest_marker("slow") is not None
    if slow:
        torch.compiler.reset()
    yield
    if slow:
        torch.compiler.reset()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for another host fails, whatever machine it runs on."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else None
        if host is not None and host not in ("localhost", "::1", "") and not _is_loopback(host):
            raise AssertionError(f"a test tried to connect to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


def _is_loopback(host: object) -> bool:
    return isinstance(host, str) and host.startswith("127.")


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer.json with Granite's special tokens."""
    return tiny_models.write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


@pytest.fixture(scope="session")
def tokenizer(tokenizer_file: Path) -> Tokenizer:
    return Tokenizer(tokenizer_file)


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Path:
    """A whole random checkpoint in the layout of 3.3: weights, tokenizer, LoRA adapter."""
    folder = tmp_path_factory.mktemp("checkpoint")
    raw = tiny_models.raw_config()
    model = tiny_models.random_model(raw, seed=1)
    tiny_models.write_checkpoint(folder, raw, model)
    tiny_models.write_adapter(folder, model, seed=2)
    (folder / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    return folder


@pytest.fixture(scope="session")
def lab(speech_folder: Path) -> Lab:
    """The random checkpoint, loaded; shared by all tests, so never merge or change it."""
    return core.load(speech_folder, device="cpu", dtype="float32")


@pytest.fixture
def noise() -> Callable[..., Tensor]:
    """``noise(seconds, seed=0)``: a waveform [N] at 16 kHz, well above silence."""
    return tiny_models.noise


@pytest.fixture(scope="session")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """``pair_of(case, adapter)``: transformers' model and ours with the same weights, made once."""
    # transformers takes seconds to import, and few tests need it.
    cases, reference = import_module("hf_cases"), import_module("reference")
    made: dict[tuple[str, str | None], Any] = {}

    def get(case: str, adapter: str | None = None) -> Any:
        if (case, adapter) not in made:
            made[case, adapter] = reference.make_pair(
                tmp_path_factory.mktemp("pair"),
                cases.CASES[case],
                adapter=None if adapter is None else cases.ADAPTERS[adapter],
            )
        return made[case, adapter]

    yield get
    made.clear()
