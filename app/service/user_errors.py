"""An exception -> the line that whoever made the request may read.

In: whatever a request raised. Out: the words of a :class:`core.errors.UserError`; for anything else
general words, and the stack in the log. No Gradio.
"""

from __future__ import annotations

import logging

from core.errors import UserError
from core.memory import is_out_of_memory

logger = logging.getLogger(__name__)
NO_MEMORY = (
    "There was not enough memory for this model and recording; use a shorter recording, a smaller "
    "model, or another device"
)
NOT_YOURS = "Something went wrong here, not with your request ({kind}); the log says more"


def user_message(error: BaseException) -> str:
    """Return what to tell the caller; log what is not their mistake, once, with its stack."""
    if isinstance(error, UserError):
        return str(error).strip() or type(error).__name__
    logger.error("a request failed", exc_info=error)
    return NO_MEMORY if is_out_of_memory(error) else NOT_YOURS.format(kind=type(error).__name__)
