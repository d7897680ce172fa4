"""``/compare``, ``/profile`` and ``/read_trace`` as programs call them, on a random checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from app_server import running_app
from measuring import RECORDING

pytestmark = pytest.mark.slow  # an app of its own, and some dozens of runs

TRACE = Path(__file__).parent / "data" / "tiny_trace.json"
SHORT = {"max_new_tokens": 4}


@pytest.fixture(scope="module")
def client(
    speech_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Client, Path]]:
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GSL_RUNS", str(runs))
        with running_app(str(speech_folder)) as address:
            client = Client(address, verbose=False, analytics_enabled=False)
            yield client, runs
            client.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("clip") / "noise.wav"
    file.write_bytes(RECORDING)
    return handle_file(str(file))


def test_two_ways_are_compared_and_nothing_stays(client: tuple[Client, Path], clip: Any) -> None:
    caller, runs = client
    drafts = {**SHORT, "decoding": "speculative"}
    answer = caller.predict(clip, SHORT, drafts, blocks=1, api_name="/compare")
    assert set(answer) == {"comparison", "a", "b"}
    assert answer["comparison"]["end_to_end"]["ratio"] > 0
    assert answer["comparison"]["tokens_identical"] is True
    assert answer["b"]["workload"]["decoding"] == "speculative"
    assert answer["a"]["workload"]["clip"]["name"] == "noise.wav"
    assert "/" not in answer["a"]["workload"]["model"]
    assert list(runs.iterdir()) == []


def test_a_profile_is_the_run_as_json(client: tuple[Client, Path], clip: Any) -> None:
    run = client[0].predict(clip, {**SHORT, "lora": False}, blocks=1, api_name="/profile")
    assert run["workload"]["lora"] is False
    assert {phase["name"] for phase in run["phases"]} >= {"encoder", "prefill", "decode"}
    assert run["trace"]["num_bytes"] > 0


def test_a_trace_is_read_without_a_model(client: tuple[Client, Path]) -> None:
    found = client[0].predict(handle_file(str(TRACE)), api_name="/read_trace")
    assert found["num_events"] > 0
    assert found["operators"]
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("a", "b", "blocks", "message"),
    [
        ({}, {}, 6, "are identical"),
        ({"engin": "eager"}, {}, 6, "have engin"),
        ({"engine": "fast"}, {}, 6, "engine is 'fast'"),
        ({"quantize": "int2"}, {}, 6, "int2"),
        ({"dtype": "float8"}, {}, 6, "float8"),
    ],
)
def test_wrong_settings_get_a_sentence(
    client: tuple[Client, Path], clip: Any, a: Any, b: Any, blocks: int, message: str
) -> None:
    with pytest.raises(AppError) as caught:
        client[0].predict(clip, a, b, blocks=blocks, api_name="/compare")
    assert message in str(caught.value)


def test_a_broken_trace_gets_a_sentence(client: tuple[Client, Path], tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_bytes(TRACE.read_bytes()[:2000])
    with pytest.raises(AppError, match="cut.json ends in the middle") as caught:
        client[0].predict(handle_file(str(tmp_path / "cut.json")), api_name="/read_trace")
    assert str(tmp_path) not in str(caught.value)
