"""Training with several processes: mean gradients, equal weights, batches of one's own."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from training.__main__ import main
from training.stages.distributed import ProcessGroup, join_process_group

ROOT = Path(__file__).parents[1]
OTHER = f"""
import json, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from pathlib import Path
from test_training_distributed import take_part
print(json.dumps(take_part(Path(sys.argv[1]))))
"""


def take_part(file: Path) -> list[Any]:
    """[rank, weights at the start, gradients, what was read] of one process of two."""
    torch.set_num_threads(1)
    with join_process_group() as processes:
        torch.manual_seed(processes.rank)
        model = torch.nn.Linear(3, 2)
        processes.broadcast_values([value.data for value in model.parameters()])
        began = model.weight.flatten().tolist()
        with processes.leader_first():
            found = "" if processes.is_leader else file.read_text()
            if processes.is_leader:
                file.write_text("written once")
        model(torch.full((1, 3), 1.0 + processes.rank)).sum().backward()
        processes.average_gradients(model.parameters())
        assert model.weight.grad is not None
        return [processes.rank, began, model.weight.grad.flatten().tolist(), found]


def test_two_processes_begin_alike_and_average_their_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    for name, value in {**address, "RANK": "0", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    other = subprocess.Popen(  # the leader is this process, which has torch already
        [sys.executable, "-c", OTHER, str(tmp_path / "file")],
        env=os.environ | {"RANK": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    threads = torch.get_num_threads()
    _, began, gradient, _ = take_part(tmp_path / "file")
    torch.set_num_threads(threads)
    rank, other_began, other_gradient, read = json.loads(other.communicate(timeout=120)[0])
    assert rank == 1
    assert began == other_began
    assert gradient == other_gradient == [1.5] * 6  # inputs of ones and twos
    assert read == "written once"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_alone_there_is_one_process_and_it_leads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_process_group() as processes:
        assert processes == ProcessGroup(0, 1)
        assert processes.is_leader
        assert processes.pool_for(7) == 7


def test_processes_read_pools_of_their_own():
    assert [[ProcessGroup(rank, 3).pool_for(pool) for pool in range(2)] for rank in range(3)] == [
        [0, 3],
        [1, 4],
        [2, 5],
    ]


def test_stages_that_do_not_share_their_work_refuse_several_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["encoder", "--smoke"]) == 2
    error = capsys.readouterr().err
    assert "encoder runs in one process, and WORLD_SIZE is '2'; start it without torchrun" in error


@pytest.mark.parametrize(("size", "said"), [("2", "RANK, MASTER_ADDR"), ("two", "is no number")])
def test_half_an_environment_is_refused(size: str, said: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", size)
    if size == "2":
        for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
    else:
        for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.setenv(name, "1")
    with pytest.raises(ValueError, match=said), join_process_group():
        pass
