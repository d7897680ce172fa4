"""The machine a run was measured on, and how busy other processes kept it.

In: a device. Out: plain JSON types. What the system does not say is None. Nothing here names a
person, a host or a path.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from core.engine.fingerprint import cpu_field, cpu_name, processor_class

STAT, MEMINFO = Path("/proc/stat"), Path("/proc/meminfo")
CHECKOUT = Path(__file__).parents[2]
_KINDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return processor, memory, GPU, and the versions that decide speed."""
    cuda = device.type == "cuda"
    return {
        "cpu": cpu_name(),
        "cpu_class": processor_class(),
        "cpu_mhz": _cpu_mhz(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if cuda else None,
        "gpu_memory_bytes": torch.cuda.get_device_properties(device).total_memory if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "commit": commit_of(CHECKOUT),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_1m": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def commit_of(checkout: Path) -> str | None:
    """Return the commit that is checked out, read without git; None where there is no checkout."""
    place = checkout / ".git"
    try:
        if place.is_file():  # of a worktree or submodule: "gitdir: <folder>"
            place = checkout / place.read_text().split(":", 1)[1].strip()
        head = (place / "HEAD").read_text().strip()
        if not head.startswith("ref:"):
            return head or None
        name = head.split(":", 1)[1].strip()
        shared = place / "commondir"
        common = place / shared.read_text().strip() if shared.is_file() else place
        for folder in (place, common):
            if (folder / name).is_file():
                return (folder / name).read_text().strip() or None
        packed = (common / "packed-refs").read_text().splitlines()
    except (OSError, IndexError, UnicodeDecodeError):
        return None
    return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)


class Busyness:
    """Starts to watch when made; :meth:`read` gives the share that other processes took.

    others_cpu_share: processor time of other programs over all there was; stolen_share: what the
    host of a virtual machine kept for itself. None where there is no /proc.
    """

    def __init__(self) -> None:
        self._before = _jiffies()
        self._own = _own_seconds()
        self._wall = time.perf_counter()

    def read(self) -> dict[str, float | None]:
        """Return the shares so far, 0 to 1."""
        after, wall = _jiffies(), time.perf_counter() - self._wall
        if after is None or self._before is None or wall <= 0:
            return {"others_cpu_share": None, "stolen_share": None}
        spent = {kind: after[kind] - self._before[kind] for kind in _KINDS}
        ticks = os.sysconf("SC_CLK_TCK")
        all_time = wall * (os.cpu_count() or 1)
        busy = sum(spent[kind] for kind in ("user", "nice", "system", "irq", "softirq")) / ticks
        others = max(0.0, busy - (_own_seconds() - self._own))
        # Processor time is counted in hundredths of a second: the rest is what sums leave over.
        return {
            "others_cpu_share": round(min(1.0, others / all_time), 6),
            "stolen_share": round(min(1.0, spent["steal"] / ticks / all_time), 6),
        }


def _own_seconds() -> float:
    """Return processor seconds of this process and of its children that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _jiffies() -> dict[str, int] | None:
    try:
        first = STAT.read_text().splitlines()[0].split()
    except OSError:
        return None
    return dict(zip(_KINDS, map(int, first[1 : 1 + len(_KINDS)]), strict=True))


def _cpu_mhz() -> float | None:
    field = cpu_field("cpu MHz")
    return None if field is None else float(field)


def _memory_bytes() -> int | None:
    if sys.platform == "win32":
        return None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
