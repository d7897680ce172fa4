"""A download that stopped halfway is finished, and what is here is used without a request.

The Hub is a server on this machine, asked by the real client. Run alone:
``python -m pytest tests/test_hub_download.py``.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from core.checkpoint.hub import is_here, resolve
from core.checkpoint.hub_errors import CheckpointNotFound

REPO, COMMIT = "someone/granite-speech-3.3-mini", "a" * 40
BESIDE = ("generation_config.json", "preprocessor_config.json", "tokenizer_config.json")


class Hub:
    """Serves a folder as a repository; ``asked`` lists the requests."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache, self.asked = folder, cache, list[str]()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                hub.asked.append(f"{self.command} {self.path}")

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                status, body, headers = hub.answer(self.path.split("?")[0])
                self.send_response(status)
                for key, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        files = sorted(file.name for file in self.folder.iterdir())
        if path.startswith("/api/models/") and "/tree/" in path:
            tree = [{"type": "file", "path": f, "size": 1, "oid": "0" * 40} for f in files]
            return 200, json.dumps(tree).encode(), {}
        if path.startswith("/api/models/"):
            siblings = [{"rfilename": file} for file in files]
            told = {"id": REPO, "sha": COMMIT, "siblings": siblings, "private": False}
            return 200, json.dumps(told).encode(), {}
        name = path.rsplit("/", 1)[1]
        if "/resolve/" not in path or name not in files:
            return 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
        body = (self.folder / name).read_bytes()
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        return 200, body, {"ETag": etag, "X-Repo-Commit": COMMIT}

    def keep(self, *missing: str) -> Path:
        """Fill the cache with all files but these, as a download that stopped leaves it."""
        repo = self.cache / f"models--{REPO.replace('/', '--')}"
        snapshot = repo / "snapshots" / COMMIT
        snapshot.mkdir(parents=True)
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text(COMMIT)
        for file in self.folder.iterdir():
            if file.name not in missing:
                (snapshot / file.name).write_bytes(file.read_bytes())
        return snapshot


@pytest.fixture
def hub(speech_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The random checkpoint as a repository with the usual files beside the weights."""
    remote = tmp_path / "remote"
    remote.mkdir()
    for file in speech_folder.iterdir():
        (remote / file.name).write_bytes(file.read_bytes())
    for name in BESIDE:
        (remote / name).write_text("{}")
    (remote / "chat_template.jinja").write_text("{{ messages }}")
    (remote / "lab.json").write_text('{"family": "3.3"}')
    served = Hub(remote, tmp_path / "cache")
    address = f"http://127.0.0.1:{served.server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(served.cache))
    yield served
    served.server.shutdown()
    served.server.server_close()


def test_a_whole_download_is_used_without_a_request(hub: Hub) -> None:
    snapshot = hub.keep()
    assert resolve(REPO).folder == snapshot
    assert is_here(REPO)
    assert not hub.asked


@pytest.mark.parametrize(
    "missing",
    ["model.safetensors", "tokenizer.json", "adapter_config.json", "adapter_model.safetensors"],
)
def test_what_a_model_cannot_do_without_is_fetched_or_named(missing: str, hub: Hub) -> None:
    snapshot = hub.keep(missing)
    assert not is_here(REPO)
    assert not hub.asked
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(CheckpointNotFound, match=f"incomplete: {missing} is missing") as told:
            resolve(REPO)
    assert "\n" not in str(told.value)
    assert resolve(REPO).folder == snapshot
    assert (snapshot / missing).read_bytes() == (hub.folder / missing).read_bytes()
    hub.asked.clear()
    resolve(REPO)
    assert not hub.asked


@pytest.mark.parametrize("missing", [*BESIDE, "chat_template.jinja", "lab.json"])
def test_what_a_model_may_lack_is_fetched_or_warned_of(
    missing: str, hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = hub.keep(missing)
    assert is_here(REPO)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        resolve(REPO)
    assert f"may be incomplete: {missing} is not in the local cache" in caplog.text
    resolve(REPO)
    assert (snapshot / missing).is_file()


def test_the_plus_family_needs_an_adapter_only_where_its_config_says_so(hub: Hub) -> None:
    raw = json.loads((hub.folder / "config.json").read_text())
    raw = {k: v for k, v in raw.items() if k != "has_lora_adapter"}
    (hub.folder / "config.json").write_text(json.dumps(raw | {"model_type": "granite_speech_plus"}))
    snapshot = hub.keep("adapter_config.json", "adapter_model.safetensors")
    assert resolve(REPO).folder == snapshot
    assert not hub.asked


def test_what_the_hub_has_not_is_asked_for_once(hub: Hub) -> None:
    (hub.folder / "generation_config.json").unlink()
    snapshot = hub.keep()
    assert resolve(REPO).folder == snapshot
    assert [line for line in hub.asked if line.endswith("generation_config.json")]
    hub.asked.clear()
    assert resolve(REPO).folder == snapshot
    assert not hub.asked


def test_a_first_download_fetches_all_and_then_asks_no_more(hub: Hub) -> None:
    assert {file.name for file in resolve(REPO).folder.iterdir()} == {
        file.name for file in hub.folder.iterdir()
    }
    hub.asked.clear()
    assert resolve(REPO).find("tokenizer.json")
    assert not hub.asked


def test_nothing_is_reported_to_anybody() -> None:
    assert constants.HF_HUB_DISABLE_TELEMETRY
