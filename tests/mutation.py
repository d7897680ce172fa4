"""Damage to valid files by a seeded generator: JSON by its structure, anything else by its bytes.

In: a valid value or file and a ``random.Random``. Out: a damaged copy and what was done to it. The
damage may be none at all: a reader is asked for one line of advice or a right result, either way.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import random
import re
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

DIGITS = "9" * 5_000  # more than Python turns into a number
RAW = "\0raw\0"
_RAW = re.compile(r'"\\u0000raw\\u0000(?:[^"\\]|\\.)*"')
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 0.5, -0.5, 7, 1e-300, 1e308, -1e308, 2**31, 2**63, 10**30),
    *(float("nan"), float("inf"), float("-inf"), RAW + DIGITS, RAW + "1e999", RAW + "-0.0"),
    *("", "x", "\0", "\ud800", "\u2028", "<script>alert(1)</script>", "../../x", "x" * 100_000),
    *("NaN", "1", "a" * 5_000, "line\nof two", "{{ 7 * 7 }}", "\N{REPLACEMENT CHARACTER}"),
    *([], {}, [[]], [None], [1, "x", None], {"a": 1}, {"": {}}, [{}] * 50, list(range(2_000))),
]
WORDS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 2**40, 2**63 - 1, 2**64 - 1)
NAMES = ("../x", "/etc/x", "a/b/c/x", "C:\\x", "x\0y", "\n", "", "run.json/", "ä" * 300, "con")


def edited(rng: random.Random, value: Any) -> tuple[str, Any]:
    """A copy of a JSON value with one place of it changed."""
    held = {"": copy.deepcopy(value)}
    holder, key, path = rng.choice(list(_places(held)))
    kind = rng.choice(("odd",) * 5 + ("drop", "twice", "deep", "other", "key", "scale"))
    old = holder[key]
    if kind == "drop" and path:
        del holder[key]
    elif kind == "twice":
        holder[key] = [old, old] if not isinstance(old, list) else old * 2
    elif kind == "deep":
        levels = rng.choice((3, 90, 3_000))
        holder[key] = RAW + "[" * levels + as_text(old) + "]" * levels
    elif kind == "other":
        inside, there, _ = rng.choice(list(_places(held)))
        holder[key] = copy.deepcopy(inside[there])
    elif kind == "key" and isinstance(holder, dict) and path:
        holder[rng.choice(("", key.upper(), key + " ", key * 2_000, "__class__"))] = holder.pop(key)
    elif kind == "scale" and isinstance(old, int | float) and abs(old) < 1e100:
        holder[key] = old * rng.choice((-1, 1e3, 1e9, 1e18, 1e-9))
    else:
        holder[key] = copy.deepcopy(rng.choice(ODD))
    return f"{path or 'all'} {kind}", held[""]


def _places(value: Any, path: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Every place of a value: its holder, its key there, and its path."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        at = f"{path}.{key}".strip(".")[:60]
        yield value, key, at
        if isinstance(inner, dict | list):
            yield from _places(inner, at)


def as_text(value: Any) -> str:
    """Write a value as JSON; a text that begins with :data:`RAW` stands for JSON itself."""
    return _RAW.sub(lambda found: json.loads(found[0])[len(RAW) :], json.dumps(value))


def damaged_json(rng: random.Random, value: Any) -> tuple[str, bytes]:
    """A file of JSON: one to three places changed, now and then the text itself."""
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        said, value = edited(rng, value)
        done.append(said)
    data = as_text(value).encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        said, data = _damaged_text(rng, data)
        done.append(said)
    return ", ".join(done), data


def _damaged_text(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    at = rng.randrange(len(data) + 1)
    changes: dict[str, bytes] = {
        "cut": data[:at],
        "rest": data + b"}]",
        "mark": b"\xef\xbb\xbf" + data,
        "wide": data.decode("utf-8", "replace").encode("utf-16"),
        "comment": b"// words\n" + data,
        "single quotes": data.replace(b'"', b"'"),
        "keys twice": data.replace(b"{", b'{"name": 1, "name": [],', 3).replace(b",}", b"}"),
        "not a letter": data[:at] + b"\xff\xfe\x00" + data[at:],
        "nothing": b"",
        "deep": b"[" * 100_000 + data,
        "number": data.replace(b"1", DIGITS.encode(), 1),
    }
    kind = rng.choice(list(changes))
    return kind, changes[kind]


def damaged_bytes(
    rng: random.Random, data: bytes, others: Sequence[bytes] = (), head: int = 400
) -> tuple[str, bytes]:
    """A file with bytes changed, most of them among its first ``head``, where its lengths are.

    Args:
        rng: decides what is done.
        data: of the file.
        others: files of other kinds, whose parts may come in.
        head: as many of its first bytes are changed more often than the rest.
    """
    out = bytearray(data)
    spot = rng.randrange(min(len(out), head) if rng.random() < 0.7 else len(out))
    kind = rng.choice(
        ("cut", "flip", "flip", "length", "length", "length", "zeros", "noise", "hole", "twice")
        + ("begin", "other", "other")
    )
    if kind == "cut":
        del out[rng.randrange(len(out)) :]
    elif kind == "flip":
        for _ in range(rng.choice((1, 3, 20))):
            out[rng.randrange(min(len(out), head))] ^= 1 << rng.randrange(8)
    elif kind == "length":  # what a header says of what follows
        size = rng.choice((1, 2, 4, 8))
        word = rng.choice(WORDS) % 2 ** (8 * size)
        out[spot : spot + size] = word.to_bytes(size, rng.choice(("little", "big")))
    elif kind == "zeros":
        out[spot : spot + 64] = bytes(len(out[spot : spot + 64]))
    elif kind == "noise":
        out[spot : spot + 200] = rng.randbytes(len(out[spot : spot + 200]))
    elif kind == "hole":
        del out[spot : spot + rng.choice((1, 7, 300))]
    elif kind == "twice":
        out[spot:spot] = out[: rng.choice((4, 44, 500))]
    elif kind == "begin":
        out[:0] = rng.choice((b"\n", b"ID3\x04\0\0\x7f\x7f\x7f\x7f", b"\xff\xd8\xff\xe0", b"#!"))
    elif others:
        other = rng.choice(others)
        at = rng.choice((4, 12, 44, 200))
        out = bytearray(other[:at] + bytes(out[at:]))
    return f"{kind} at {spot}", bytes(out)


def damaged_gzip(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """The data packed, and the package damaged in half the cases."""
    packed = gzip.compress(data, 1)
    if rng.random() < 0.5:
        return "packed", packed
    said, packed = damaged_bytes(rng, packed, (b"PK\3\4" + packed,), head=20)
    return f"packed, {said}", packed


def damaged_zip(rng: random.Random, files: Mapping[str, bytes]) -> tuple[str, bytes]:
    """An archive of the files: other names, links, odd sizes, more files, or bytes changed."""
    kind = rng.choice(
        ("name", "twice", "link", "many", "bomb", "folder", "method", "bytes", "tail")
    )
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    if kind == "method":
        method = rng.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    packed = io.BytesIO()
    members = list(files.items())
    if kind == "twice":
        members.append(rng.choice(members))
    if kind == "many":
        members += [(f"{number}.txt", b"x") for number in range(rng.choice((10, 5_000)))]
    if kind == "bomb":
        members[rng.randrange(len(members))] = (rng.choice(list(files)), bytes(60_000_000))
    odd = rng.randrange(len(files))
    with zipfile.ZipFile(packed, "w", method, compresslevel=1) as archive:
        for number, (name, data) in enumerate(members):
            if kind == "name" and number == odd:
                name = rng.choice(NAMES)
            if kind == "folder":
                name = rng.choice(("", "one/", "two/", "a/b/")) + name
            info = zipfile.ZipInfo(name or "x")
            info.compress_type = method
            if kind == "link" and number == odd:
                mode = rng.choice((stat.S_IFLNK, stat.S_IFCHR, stat.S_IFDIR, stat.S_IFIFO))
                info.external_attr = (mode | 0o777) << 16
            archive.writestr(info, data)
    done = packed.getvalue()
    if kind == "bytes":
        said, done = damaged_bytes(rng, done, (gzip.compress(done, 1),))
        return said, done
    if kind == "tail":  # the list of files stands at the end
        at = len(done) - rng.randrange(1, min(len(done), 160))
        size = rng.choice((1, 2, 4))
        word = (rng.choice(WORDS) % 2 ** (8 * size)).to_bytes(size, "little")
        done = done[:at] + word + done[at + size :]
    return kind, done


def generated(
    kind: str, count: int, make: Callable[[random.Random], tuple[str, T]]
) -> Iterator[tuple[str, T]]:
    """Cases by number; each has a seed of its own."""
    for number in range(count):
        rng = random.Random(f"{kind} {number}")
        said, case = make(rng)
        yield f"{kind} {number}, {said}", case
