"""JSON that somebody else wrote -> Python values, or one kind of error.

In: text or bytes. Out: the value, or ``ValueError``. Python itself raises ``RecursionError`` for
what is nested too deeply.
"""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Returns:
        The value.

    Raises:
        ValueError: it is none, holds a number of thousands of digits, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
