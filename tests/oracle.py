"""The oracle: transformers with peft, imported here and nowhere else in the tests.

In: nothing. Out: both modules, and :func:`refusal`, which says why they cannot be used together.
Tests that need them bear the mark ``oracle``; ``conftest.py`` leaves those out after a refusal, and
``test_oracle.py`` reports it once.
"""

from __future__ import annotations

from functools import cache

import tiny_models

try:
    import peft
    import transformers
except Exception as error:  # packages that do not fit raise what they like
    peft = transformers = None
    import_error: Exception | None = error
else:
    import_error = None


@cache
def refusal() -> str | None:
    """Give a small model of transformers an adapter of peft; say what went wrong, if anything."""
    try:
        if import_error is not None:
            raise import_error
        config = transformers.GraniteSpeechConfig(**tiny_models.raw_config())
        model = transformers.GraniteSpeechForConditionalGeneration(config)
        model.add_adapter(peft.LoraConfig(r=1, target_modules=["q_proj"]))
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "no reason given")
        return f"transformers and peft cannot be used together ({type(error).__name__}: {first})"
    return None
