"""What Hugging Face Spaces reads: the README's front matter, requirements, sizes of files."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from bundled import tracked_files

ROOT = Path(__file__).resolve().parent.parent
MAX_FILE_BYTES = 10 * 10**6  # larger ones need LFS
MAX_DESCRIPTION = 60


@pytest.fixture(scope="module")
def front_matter() -> dict[str, object]:
    _, head, _ = (ROOT / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head)


def requirement(name: str) -> Requirement:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return next(r for r in found if r.name == name)


def test_the_sdk_is_a_gradio_that_the_range_admits(front_matter: dict[str, str]) -> None:
    # That it is also the lock's: test_requirements.py.
    assert front_matter["sdk"] == "gradio"
    assert requirement("gradio").specifier.contains(front_matter["sdk_version"])


def test_python_is_one_that_we_support(front_matter: dict[str, str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    supported = SpecifierSet(project["requires-python"])
    assert isinstance(front_matter["python_version"], str), "unquoted, 3.10 would read as 3.1"
    assert supported.contains(front_matter["python_version"])
    assert not supported.contains("3.15"), "its standard library has a package named profiling"


def test_the_app_file_is_there(front_matter: dict[str, str]) -> None:
    assert (ROOT / front_matter["app_file"]).is_file()
    assert (ROOT / "app" / "__init__.py").is_file()


def test_the_description_fits(front_matter: dict[str, str]) -> None:
    assert 0 < len(front_matter["short_description"]) <= MAX_DESCRIPTION


def test_no_tracked_file_is_too_large() -> None:
    large = [str(n) for n in tracked_files() if (ROOT / n).stat().st_size > MAX_FILE_BYTES]
    assert large == []


def test_the_builder_gets_packages_of_an_index_and_nothing_optional() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(one.url is None and one.specifier and not one.extras for one in found)
    # `spaces` is ZeroGPU's own to bring, MCP needs an older pydantic, and torch is chosen there.
    assert not {"spaces", "mcp"} & {one.name for one in found}
    assert requirement("torch").specifier.contains("2.11.0")


def test_what_the_first_visit_shows_is_in_the_repository() -> None:
    for folder in ("tiny", "examples", "runs"):
        assert any((ROOT / "assets" / folder).iterdir()), folder
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "runs/" not in ignored, "it would hide assets/runs; write /runs/"
