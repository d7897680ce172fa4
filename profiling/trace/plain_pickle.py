"""A pickle of plain values, from anybody -> the values. No pickle can run code here.

In: bytes. Out: dicts, lists, tuples, texts and numbers, as memory snapshots consist of. Whatever
names a class or a function, or calls one, is refused before it is looked up, and so is what refers
to things outside of the pickle. Nothing is reserved for sizes that a pickle only claims.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

# What torch's own writer and Python's protocols 2 to 5 use for plain values.
ALLOWED = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK),
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BINFLOAT),
    *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1),
    *(pickle.SHORT_BINUNICODE, pickle.BINUNICODE, pickle.BINUNICODE8),
    *(pickle.SHORT_BINBYTES, pickle.BINBYTES),
    *(pickle.EMPTY_DICT, pickle.DICT, pickle.SETITEM, pickle.SETITEMS),
    *(pickle.EMPTY_LIST, pickle.LIST, pickle.APPEND, pickle.APPENDS),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
    pickle.DUP,
)


class RefusedPickle(ValueError):
    """A pickle that holds more than plain values, or is damaged."""


# The Python class, not the C one: that one reserves memory for whatever index a pickle names.
class _Plain(pickle._Unpickler):
    dispatch = {opcode[0]: pickle._Unpickler.dispatch[opcode[0]] for opcode in ALLOWED}

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise RefusedPickle(f"it names {module_name}.{global_name}")


def load_plain(data: bytes) -> Any:
    """Return the value in a pickle.

    Raises:
        RefusedPickle: it holds something else than plain values, or is damaged or cut short.
    """
    try:
        return _Plain(io.BytesIO(data)).load()
    except RefusedPickle:
        raise
    except KeyError as error:
        raise RefusedPickle(f"it does more than hold plain values (opcode {error})") from None
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        IndexError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
        MemoryError,
    ) as error:
        raise RefusedPickle(f"it is damaged or cut short ({type(error).__name__})") from None
