"""Imports point down: app.py -> app -> profiling -> core, training -> core, benchmarks -> both.

Within a package they point down too, from room to room: a room is a folder, or "root" for the
modules beside them, but for those that are the ground every room may stand on.

Run alone: ``python -m pytest tests/test_layers.py``.
"""

import ast
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
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

# Package -> room -> the rooms just below it; those below these may be imported as well.
ROOMS: dict[str, dict[str, set[str]]] = {
    "app": {
        "root": {"tabs", "api"},
        "tabs": {"components"},
        "api": {"components"},
        "components": {"wording"},
        "wording": {"service"},
    },
    "core": {
        "root": {"bulk"},
        "bulk": {"transcription"},
        "transcription": {"generation"},
        "generation": {"text"},
        "text": {"engine", "checkpoint"},
        "engine": {"model", "audio"},
        "checkpoint": {"model", "audio"},
    },
    "profiling": {
        "root": {"evaluate", "runs"},
        "evaluate": {"report"},
        "report": {"statistics", "figures"},
        "runs": {"statistics", "trace"},
        "statistics": {"measure"},
        "measure": {"roofline", "trace"},
        "figures": {"trace"},
    },
    "training": {"root": {"finetune"}, "finetune": {"stages"}, "stages": {"corpus"}},
}
GROUND = {
    "core": {"phases", "memory", "errors", "saving", "units", "plain_json"},
    "training": {"architecture", "saving"},
}
MOST_FILES = 25


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


def modules_imported(file: Path) -> set[str]:
    """Every module of ours that a file imports: ``from a import b`` is a.b where that is one."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            inner = {name for name in whole if is_module(name)}
            names |= inner or {node.module}
    return {name for name in names if name.split(".")[0] in OURS}


def is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or place.is_dir()


def room_of(module: str) -> str:
    """The room of a dotted name: its folder, "ground", or "root"."""
    package, _, rest = module.partition(".")
    first = rest.partition(".")[0]
    if first in GROUND.get(package, ()):
        return "ground"
    return first if first and (ROOT / package / first).is_dir() else "root"


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_imports(package: str) -> dict[str, dict[str, set[str]]]:
    """Room -> room it imports -> the files that do."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for file in python_files(package):
        room = room_of(module_name(file))
        for name in modules_imported(file):
            if name.split(".")[0] == package and room_of(name) != room:
                found[room][room_of(name)].add(str(file.relative_to(ROOT)))
    return found


def rooms_below(order: dict[str, set[str]], room: str) -> set[str]:
    direct = order.get(room, set())
    return direct.union(*(rooms_below(order, one) for one in direct))


def pinned_packages(name: str) -> Iterator[str]:
    for line in (ROOT / name).read_text().splitlines():
        if line and line[0].isalpha():
            yield line.split("~")[0].split(">")[0].split("=")[0].strip().lower()


@pytest.mark.parametrize("name", FORBIDDEN)
def test_imports_point_down(name: str):
    for file in python_files(name):
        wrong = imported_packages(file.read_text()) & FORBIDDEN[name]
        assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_downwards(package: str):
    for room, imported in room_imports(package).items():
        allowed = rooms_below(ROOMS[package], room) | ({"ground"} if room != "ground" else set())
        wrong = {name: sorted(files) for name, files in imported.items() if name not in allowed}
        assert not wrong, f"{package}/{room} imports {wrong}"


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_each_other_in_no_circle(package: str):
    TopologicalSorter({r: set(below) for r, below in room_imports(package).items()}).prepare()


@pytest.mark.parametrize("package", ROOMS)
def test_every_room_has_its_place_in_the_order(package: str):
    rooms = {room_of(module_name(file)) for file in python_files(package)} - {"ground"}
    assert rooms == set(ROOMS[package]).union(*ROOMS[package].values())


@pytest.mark.parametrize("room", ["app/service", "app/wording"])
def test_what_is_said_and_done_knows_no_gradio(room: str):
    for file in python_files(room):
        assert "gradio" not in imported_packages(file.read_text()), file.name


@pytest.mark.parametrize("package", sorted(OURS))
def test_no_class_has_the_name_of_another_in_its_package(package: str):
    trees = [ast.parse(file.read_text()) for file in python_files(package)]
    names = Counter(n.name for tree in trees for n in ast.walk(tree) if isinstance(n, ast.ClassDef))
    assert not [name for name, times in names.items() if times > 1]


@pytest.mark.parametrize("package", sorted(OURS))
def test_no_folder_is_crowded(package: str):
    folders = Counter(file.parent.relative_to(ROOT) for file in python_files(package))
    assert not {str(name): files for name, files in folders.items() if files > MOST_FILES}


def test_every_module_is_imported_or_started():
    # By what is not a test; it is started by "-m", by "serve run" or its name in quotes, in code,
    # docs or Makefile.
    ours = [file for name in (*sorted(OURS), "app.py", "docs") for file in python_files(name)]
    used = set().union(*(modules_imported(file) for file in ours))
    texts = [*ours, ROOT / "README.md", ROOT / "Makefile", *(ROOT / "docs").glob("*.md")]
    said = " ".join(file.read_text() for file in texts)
    started = set(re.findall(r"(?:-m |serve run |\")([a-z_.0-9]+)", said))
    started |= {
        module_name(file) for file in (ROOT / "benchmarks" / "studies").glob("*.py")
    }  # by name
    names = {module_name(f) for f in ours if f.name not in ("__init__.py", "__main__.py", "app.py")}
    known = {name for name in names if name.split(".")[0] in OURS}
    assert not known - used - started


def test_the_reader_of_rooms_knows_root_ground_and_folders():
    assert [room_of(name) for name in ("core", "core.lab", "core.phases", "core.text.words")] == [
        *("root", "root", "ground", "text")
    ]
    assert rooms_below(ROOMS["app"], "components") == {"wording", "service"}


def test_two_files_of_the_benchmarks_need_transformers():
    # Each starts as a process of its own: what measures or verifies us must not pay for it.
    files = {f.name for f in python_files("benchmarks") if "transformers" in f.read_text()}
    importing = {
        name
        for name in files
        if "transformers" in imported_packages((ROOT / "benchmarks" / name).read_text())
    }
    assert importing == {"peer.py", "reference.py"}


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
