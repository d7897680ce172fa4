"""Ranges around the calls of a model's modules, so that a trace tells them beside operators.

In: a model. Out: inside the context, each call of a module is a range ``nn.Module: encoder.ff1``
in a running profiler. torch's own ``with_modules`` knows TorchScript only, and with ``with_stack``
modules come with every Python frame. Compiled code has no calls of modules: nothing shows there,
and a hook would make it compile again, so this is for eager runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.autograd.profiler import record_function

from profiling.trace.module_names import MODULE


@contextmanager
def module_ranges(model: nn.Module) -> Iterator[None]:
    """Open a range around each call of each module inside ``model``, named by its path."""
    open_ranges: list[record_function] = []
    with ExitStack() as hooks:
        for path, module in model.named_modules():
            if path:
                before, after = _hooks(f"{MODULE}{path}", open_ranges)
                hooks.callback(module.register_forward_pre_hook(before).remove)
                hooks.callback(module.register_forward_hook(after, always_call=True).remove)
        yield


def _hooks(name: str, open_ranges: list[record_function]) -> tuple[Any, Any]:
    def before(*_: Any) -> None:
        open_ranges.append(record_function(name))
        open_ranges[-1].__enter__()

    def after(*_: Any) -> None:
        open_ranges.pop().__exit__(None, None, None)

    return before, after
