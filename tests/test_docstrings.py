"""Public functions explain themselves: ruff holds Returns and Raises, this holds the rest.

Run alone: ``python -m pytest tests/test_docstrings.py``.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("core", "app", "profiling", "training", "benchmarks")
EXPLAINED_FROM = 4  # parameters
# A first word that names a thing where a verb should say what is done.
NO_VERBS = {
    *("A", "All", "An", "Each", "Every", "How", "The", "What", "When", "Where", "Whether"),
    *("Which", "Who", "Whose", "Why"),
}


def public_functions(package: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions of modules and methods of classes, those nested in functions left out."""
    for file in sorted((ROOT / package).rglob("*.py")):
        module = ast.parse(file.read_text(encoding="utf-8"))
        classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
        for node in (*module.body, *(one for part in classes for one in part.body)):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield f"{file.relative_to(ROOT)}:{node.lineno} {node.name}", node


def parameters(node: ast.FunctionDef) -> list[str]:
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [argument.arg for argument in given if argument.arg not in ("self", "cls")]


@pytest.mark.parametrize("package", PACKAGES)
def test_four_parameters_or_more_are_explained(package: str):
    bare = [
        where
        for where, node in public_functions(package)
        if len(parameters(node)) >= EXPLAINED_FROM
        and "Args:" not in (ast.get_docstring(node) or "")
    ]
    assert not bare, f"{len(bare)} without Args:, first {bare[:5]}"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_docstring_opens_with_a_verb(package: str):
    wrong = [
        where
        for where, node in public_functions(package)
        if (ast.get_docstring(node) or "-").split()[0] in NO_VERBS
    ]
    assert not wrong, f"{len(wrong)} open with no verb, first {wrong[:5]}"


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_and_classes_do_not_open_with_a_question(package: str):
    wrong = []
    for file in sorted((ROOT / package).rglob("*.py")):
        module = ast.parse(file.read_text(encoding="utf-8"))
        named = [
            (1, module),
            *((n.lineno, n) for n in ast.walk(module) if isinstance(n, ast.ClassDef)),
        ]
        wrong += [
            f"{file.relative_to(ROOT)}:{line}"
            for line, node in named
            if (ast.get_docstring(node) or "-").split()[0] in ("What", "Whether", "How")
        ]
    assert not wrong, f"{len(wrong)} open with What, Whether or How, first {wrong[:5]}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_parameter_has_a_type(package: str):
    untyped = [
        where
        for where, node in public_functions(package)
        for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if argument.annotation is None and argument.arg not in ("self", "cls")
    ]
    assert not untyped
