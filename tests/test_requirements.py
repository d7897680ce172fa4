"""The requirement files and the lock agree, and every run-time package is used.

Run alone: ``python -m pytest tests/test_requirements.py``.
"""

from __future__ import annotations

from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from test_layers import imported_packages, python_files

ROOT = Path(__file__).parents[1]
RANGES = ("requirements.txt", "requirements-dev.txt", "requirements-training.txt")
USERS = ("core", "app", "app.py", "profiling", "training", "benchmarks")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = {
    "Linux": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    "macOS": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
    "Windows": {"sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64"},
}
# Required now, imported by what comes next: the first import removes the line.
NOT_YET_IMPORTED: set[str] = set()


def requirements(name: str) -> list[Requirement]:
    """The packages a file names itself, without those of the files it includes."""
    lines = (line.split(" #")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-r "))]


def locked(python: str, machine: str) -> dict[str, Version]:
    """Name -> version that the lock gives on one machine; a name given twice is an error."""
    here = {**MACHINES[machine], "python_version": python, "python_full_version": f"{python}.0"}
    versions: dict[str, Version] = {}
    for line in requirements("constraints.txt"):
        if line.marker is None or line.marker.evaluate(here):
            (exact,) = line.specifier
            assert exact.operator == "==", f"{line} is not one version"
            assert line.url is None
            assert not line.extras, f"pip refuses extras in a constraint: {line}"
            name = canonicalize_name(line.name)
            assert name not in versions, f"two versions of {name} on {machine}, {python}"
            versions[name] = Version(exact.version)
    return versions


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_is_inside_every_range(python: str, machine: str) -> None:
    versions = locked(python, machine)
    for name in RANGES:
        for line in requirements(name):
            version = versions.get(canonicalize_name(line.name))
            assert version is not None, f"{line.name} of {name} is not locked: make lock"
            assert version in line.specifier, f"{name} asks for {line}, the lock has {version}"


def test_the_sdk_of_spaces_is_the_gradio_of_the_lock() -> None:
    _, head, _ = (ROOT / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    found = Version(yaml.safe_load(head)["sdk_version"])
    assert found == locked("3.12", "Linux")["gradio"]


@pytest.mark.parametrize("name", [line.name for line in requirements("requirements.txt")])
def test_every_run_time_package_is_imported(name: str) -> None:
    modules = {
        module
        for module, owners in packages_distributions().items()
        if canonicalize_name(name) in map(canonicalize_name, owners)
    }
    files = [file for user in USERS for file in python_files(user)]
    assert any(modules & imported_packages(file.read_text()) for file in files), (
        f"nothing imports {name}: {sorted(modules)}"
    )
