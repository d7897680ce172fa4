"""Several processes train one model: each reads batches of its own, and gradients are averaged.

In: the environment that ``torchrun --nproc-per-node N -m training ...`` sets (RANK, WORLD_SIZE,
MASTER_ADDR, MASTER_PORT); without it there is one process and nothing here does anything. Out: who
this process is, equal weights at the start, mean gradients after every step.

Why: the operations of a model this small are too short for several threads to share. A process a
core shares whole batches.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from core.errors import UserError

PATIENCE = timedelta(hours=12)  # a training that was suspended goes on when it is woken


@dataclass(frozen=True)
class ProcessGroup:
    """This process among ``size`` of them; the one of rank 0 logs and saves."""

    rank: int = 0
    size: int = 1

    @property
    def is_leader(self) -> bool:
        """Say whether this process logs and saves."""
        return self.rank == 0

    def pool_for(self, pool: int) -> int:
        """Return the number of the pool that this process reads when all are at ``pool``."""
        return pool * self.size + self.rank

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over all processes.

        Every process must have gradients for the same parameters.
        """
        gradients = [one.grad for one in parameters if one.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([one.reshape(-1) for one in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        parts = flat.split([one.numel() for one in gradients])
        for one, mean in zip(gradients, parts, strict=True):
            one.copy_(mean.view_as(one))

    def broadcast_values(self, values: Sequence[Tensor]) -> None:
        """Give every process the leader's values."""
        for value in values if self.size > 1 else ():
            dist.broadcast(value, src=0)

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Let the leader go first; the others follow when it is done or has failed."""
        if self.size > 1 and not self.is_leader:
            dist.barrier()
        try:
            yield
        finally:
            if self.size > 1 and self.is_leader:
                dist.barrier()


ALONE = ProcessGroup()


@contextmanager
def join_process_group() -> Iterator[ProcessGroup]:
    """Join the processes that the environment names; alone where it names none.

    Yields:
        This process's place among them.

    Raises:
        UserError: WORLD_SIZE is set and what belongs to it is not.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        yield ALONE
        return
    lacking = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if lacking or not size.isdecimal():
        raise UserError(
            f"WORLD_SIZE is {size!r}, and {', '.join(lacking) or 'it is no number'}"
            f"{' not set' if lacking else ''}; start with torchrun --nproc-per-node N -m training, "
            "or unset WORLD_SIZE"
        )
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
