"""The one kind of error whose words a caller sees.

A :class:`UserError` is a mistake of the caller's, said on one line: what came, what was expected,
what to do. Any other exception, a plain ``ValueError`` included, is this project's own fault: the
command line and the app log it in full and say so in general words.
"""

from __future__ import annotations


class UserError(ValueError):
    """A mistake of the caller's; its message is shown word for word."""
