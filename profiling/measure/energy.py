"""Energy that was used between two moments, where the machine counts it.

In: a device. Out: joules, and the method in words. RAPL (Linux, /sys/class/powercap) counts the
processor packages, whoever used them; NVML counts one GPU. Where neither can be read there is no
figure: nothing is estimated. Counters are renewed every 1 ms (RAPL) and 20 to 100 ms (NVML), so a
short window is uncertain by as much.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")
NVML = "libnvidia-ml.so.1"


class EnergyMeter:
    """Reads what the machine counts; ``method`` is None where nothing can be read."""

    def __init__(self, device: torch.device, powercap: Path = POWERCAP) -> None:
        self._packages = {zone: read for zone in _zones(powercap) if (read := _microjoules(zone))}
        self._gpu = _GpuCounter.of(device)
        counted = []
        if self._packages:
            counted.append(f"RAPL, {len(self._packages)} processor package(s), all processes")
        if self._gpu is not None:
            counted.append("NVML, the GPU, all processes")
        self.method = "; ".join(counted) or None

    def read(self) -> dict[Path | str, int]:
        """Return the counters now: microjoules by package, and of the GPU as "gpu"."""
        found: dict[Path | str, int] = {
            zone: value for zone in self._packages if (value := _microjoules(zone)) is not None
        }
        if self._gpu is not None and (value := self._gpu.microjoules()) is not None:
            found["gpu"] = value
        return found

    def joules(self, before: dict[Path | str, int], after: dict[Path | str, int]) -> float | None:
        """Return the energy between two readings; None where a counter could not be read."""
        if not before or before.keys() != after.keys():
            return None
        total = 0
        for zone, value in after.items():
            used = value - before[zone]
            if used < 0:  # the counter began anew
                if not isinstance(zone, Path):
                    return None
                used += _number(zone / "max_energy_range_uj") or 0
            total += used
        return total / 1e6


def _zones(powercap: Path) -> list[Path]:
    """Return the zones of whole packages: "intel-rapl:0", not "intel-rapl:0:1" inside it."""
    return sorted(zone for zone in powercap.glob("*-rapl:*") if zone.name.count(":") == 1)


def _microjoules(zone: Path) -> int | None:
    return _number(zone / "energy_uj")


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # mostly no permission: root alone may read it
        return None


class _GpuCounter:
    """NVML's total energy of one GPU, which is found by its UUID."""

    def __init__(self, nvml: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
        self._nvml, self._handle = nvml, handle

    @classmethod
    def of(cls, device: torch.device) -> _GpuCounter | None:
        if device.type != "cuda":
            return None
        try:
            nvml = ctypes.CDLL(NVML)
        except OSError:
            return None
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
        handle = ctypes.c_void_p()
        if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle)):
            return None
        found = cls(nvml, handle)
        return None if found.microjoules() is None else found

    def microjoules(self) -> int | None:
        value = ctypes.c_ulonglong()
        if self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle, ctypes.byref(value)):
            return None
        return value.value * 1000  # it counts millijoules
