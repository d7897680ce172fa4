"""The names of a model's modules in a trace.

In: the name of a call. Out: whether it is a module's, and what a tree of calls calls it.
"""

from __future__ import annotations

import re

MODULE = "nn.Module: "
_NUMBER = re.compile(r"\.\d+(?=\.|$)")


def is_module(name: str) -> bool:
    """Tell a module's call from an operator's."""
    return name.startswith(MODULE)


def name_in_tree(name: str) -> str:
    """Return one name for a module in every layer, ``layers.*.ff1``; operators keep theirs."""
    return _NUMBER.sub(".*", name) if is_module(name) else name
