"""Training with several processes: mean gradients, equal weights, batches of one's own."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from training.__main__ import main
from training.stages.distributed import ProcessGroup, join_process_group

ROOT = Path(__file__).parents[1]
MEMBER = """
import sys, json, torch
from torch import nn
from training.stages.distributed import join_process_group

torch.set_num_threads(1)
with join_process_group() as team:
    torch.manual_seed(team.rank)
    model = nn.Linear(3, 2)
    team.begin_alike([value.data for value in model.parameters()])
    began = model.weight.flatten().tolist()
    with team.after_the_leader():
        found = open(sys.argv[1]).read() if not team.leads else ""
        if team.leads:
            open(sys.argv[1], "w").write("written once")
    x = torch.full((1, 3), 1.0 + team.rank)
    model(x).sum().backward()
    team.average_gradients(model.parameters())
    print(json.dumps([team.rank, began, model.weight.grad.flatten().tolist(), found]))
"""


def test_two_processes_begin_alike_and_average_their_gradients(tmp_path: Path):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
    }
    members = [
        subprocess.Popen(
            [sys.executable, "-c", MEMBER, str(tmp_path / "file")],
            env=environment | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [json.loads(member.communicate(timeout=120)[0]) for member in members]
    (_, began, gradient, _), (rank, other_began, other_gradient, read) = said
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
    with join_process_group() as team:
        assert team == ProcessGroup(0, 1)
        assert team.leads
        assert team.share(7) == 7


def test_processes_read_pools_of_their_own():
    assert [[ProcessGroup(rank, 3).share(pool) for pool in range(2)] for rank in range(3)] == [
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
