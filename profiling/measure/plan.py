"""A loaded model and a few choices -> the workload that is measured.

In: a :class:`core.lab.Lab` and what is to differ. Out: a
:class:`profiling.measure.workload.Workload` that says of device, dtype, adapter and threads what is
true of the model as it is loaded.
"""

from __future__ import annotations

import torch

from core.lab import Lab
from profiling.measure.workload import ClipInfo, Workload

DTYPES = ("float32", "bfloat16", "float16")


def workload_on(
    lab: Lab,
    clip: ClipInfo,
    *,
    model: str,
    engine: str = "eager",
    lora: bool | None = None,
    adapter: str | None = None,
    decoding: str = "greedy",
    max_new_tokens: int = 128,
    ignore_eos: bool = False,
    revision: str | None = None,
    seed: int = 0,
) -> Workload:
    """The workload of these choices on ``lab``, with torch's current number of threads.

    Args:
        lab: the model as it is loaded.
        clip: the recording.
        model: the name it was asked for under.
        engine: one of ``core.transcription.options.ENGINES``.
        lora: on, off, or None for on exactly where there is an adapter.
        adapter: one that was added to the model, or None for its own.
        decoding: one of ``core.transcription.options.DECODINGS``.
        max_new_tokens: longest text.
        ignore_eos: make exactly that many tokens.
        revision: of a repository.
        seed: of sampling.

    Raises:
        ValueError: an option nobody has.
    """
    if lora is None:
        lora = lab.has_adapter or adapter is not None
    return Workload(
        clip=clip,
        model=model,
        revision=revision,
        engine=engine,
        lora=None if not lab.has_adapter and not lora else lora,
        decoding=decoding,
        device=str(lab.device),
        dtype=str(lab.dtype).removeprefix("torch."),
        max_new_tokens=max_new_tokens,
        ignore_eos=ignore_eos,
        threads=torch.get_num_threads(),
        seed=seed,
        quantize=lab.quantize,
        adapter=adapter,
    )
