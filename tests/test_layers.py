"""Imports point down: app.py -> app -> profiling -> core, training -> core, benchmarks -> both.

Run alone: ``python -m pytest tests/test_layers.py``.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"core", "profiling", "training", "app", "benchmarks"}
# The tests' own packages, never needed to run.
NOT_AT_RUN_TIME = {"transformers", "peft", "playwright", "pytest"}

FORBIDDEN = {
    "core": OURS - {"core"} | {"gradio", "pandas", "plotly"} | NOT_AT_RUN_TIME,
    "profiling": OURS - {"core", "profiling"} | {"gradio"} | NOT_AT_RUN_TIME,
    "benchmarks": {"app", "training", "gradio"} | NOT_AT_RUN_TIME - {"transformers", "playwright"},
    "app": {"training", "benchmarks", "torch", "torchaudio"} | NOT_AT_RUN_TIME,
    "training": OURS - {"core", "training"} | {"gradio"} | NOT_AT_RUN_TIME,
    "app.py": {"training", "benchmarks", "torch", "torchaudio"} | NOT_AT_RUN_TIME,
}


def python_files(name: str) -> list[Path]:
    place = ROOT / name
    return sorted(place.rglob("*.py")) if place.is_dir() else [place] if place.exists() else []


def imported_packages(source: str) -> set[str]:
    """The first part of every absolute import, wherever in the file it stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def pinned_packages(name: str) -> Iterator[str]:
    for line in (ROOT / name).read_text().splitlines():
        if line and line[0].isalpha():
            yield line.split("~")[0].split(">")[0].split("=")[0].strip().lower()


@pytest.mark.parametrize("name", FORBIDDEN)
def test_imports_point_down(name: str):
    for file in python_files(name):
        wrong = imported_packages(file.read_text()) & FORBIDDEN[name]
        assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}"


def test_one_file_of_the_benchmarks_needs_transformers():
    # A process that measures us must not pay for it, and the page opens without it.
    files = {f.name for f in python_files("benchmarks") if "transformers" in f.read_text()}
    importing = {
        name
        for name in files
        if "transformers" in imported_packages((ROOT / "benchmarks" / name).read_text())
    }
    assert importing == {"peer.py"}


def test_one_file_of_the_tests_imports_the_oracle():
    # Where it cannot be imported, the others are collected all the same.
    files = {f.name for f in python_files("tests")}
    importing = {
        name
        for name in files
        if {"transformers", "peft"} & imported_packages((ROOT / "tests" / name).read_text())
    }
    assert importing == {"oracle.py"}


def test_the_reader_of_imports_sees_every_form():
    source = "import a.b, c\nfrom d.e import f\nfrom . import g\ndef h():\n    import i\n"
    assert imported_packages(source) == {"a", "c", "d", "i"}


def test_tests_are_flat():
    # A package named `core` below tests/ would shadow ours.
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert not [path for path in (ROOT / "tests").rglob("*.py") if path.parent != ROOT / "tests"]


def test_app_is_a_package():
    # Without __init__.py beside app.py, `python app.py` says that 'app' is not a package.
    assert not python_files("app") or (ROOT / "app" / "__init__.py").exists()


def test_python_3_15_is_excluded():
    # Its standard library has a package named `profiling`, which torch imports.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "<3.15" in project["requires-python"]


def test_run_time_requirements_hold_no_test_packages():
    assert not set(pinned_packages("requirements.txt")) & NOT_AT_RUN_TIME


def test_no_file_is_named_after_nothing():
    vague = {"utils.py", "helpers.py", "common.py", "manager.py"}
    for name in (*OURS, "tests"):
        assert not [path for path in python_files(name) if path.name in vague]
