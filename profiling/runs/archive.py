"""A zip archive from a stranger -> the members that may be unpacked, within limits.

In: an open archive and the names that are expected in it. Out: its members by bare file name, or an
:class:`ArchiveError` before anything is written. Sizes are counted while unpacking: what an archive
says of itself is not believed.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from core.errors import UserError

MAX_MEMBERS = 32
MAX_MEMBER_BYTES = 200_000_000
MAX_TOTAL_BYTES = 400_000_000
MAX_RATIO = 200  # unpacked over packed; run.json and tables reach about 30
RATIO_MATTERS_FROM_BYTES = 1_000_000
_PIECE = 1 << 20
MAX_LIST_BYTES = 1 << 16
_TAIL = (1 << 16) + 22  # the longest comment, and the record before it


class ArchiveError(UserError):
    """An archive that is refused: what is in it, and what was expected, in one line."""


def open_archive(file: Path) -> zipfile.ZipFile:
    """Open a zip, if the list of its files is short: opening reads all of the list.

    Returns:
        The archive, open for reading.

    Raises:
        ArchiveError: no zip, one of too many files, or one that cannot be read.
    """
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - _TAIL))
            tail = opened.read(_TAIL)
        # Where zipfile looks for the record: at the very end, else the last one in sight.
        plain = tail[-22:].startswith(b"PK\5\6") and tail.endswith(b"\0\0")
        at = len(tail) - 22 if plain else tail.rfind(b"PK\5\6")
        listed = int.from_bytes(tail[at + 12 : at + 16], "little")
        large = tail[max(0, at - 20) : at].startswith(b"PK\6\7")  # a zip64's list has no bounds
        if at >= 0 and (large or listed > MAX_LIST_BYTES):
            raise ArchiveError(f"{file.name} holds too many files; expected at most {MAX_MEMBERS}")
        return zipfile.ZipFile(file)
    except ArchiveError:
        raise
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ArchiveError(
            f"{file.name} is no zip archive, or a damaged one ({error}); expected a whole one"
        ) from None


def checked_members(
    archive: zipfile.ZipFile, needed: str, allowed: tuple[str, ...]
) -> dict[str, zipfile.ZipInfo]:
    """Return the members of ``archive`` by file name.

    All may lie in one folder of the archive's own, as when somebody zips a folder by hand.

    Args:
        archive: open for reading.
        needed: a name that must be there.
        allowed: names that may.

    Raises:
        ArchiveError: a path out of the folder, a link, an unexpected or repeated name, encryption,
            too much of anything, or ``needed`` is missing.
    """
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) > MAX_MEMBERS:
        raise ArchiveError(f"the archive holds {len(members):,} files; at most {MAX_MEMBERS} do")
    found: dict[str, zipfile.ZipInfo] = {}
    folders = set()
    for member in members:
        path = _safe_path(member)
        if path.name not in (needed, *allowed):
            names = ", ".join((needed, *allowed))
            raise ArchiveError(f"the archive holds {member.filename!r}; expected {names} only")
        if path.name in found:
            raise ArchiveError(f"the archive holds {path.name!r} more than once")
        found[path.name] = member
        folders.add(path.parent)
    if needed not in found:
        raise ArchiveError(f"the archive has no {needed}; expected one made by exporting a run")
    if len(folders) > 1:
        raise ArchiveError("the archive's files lie in several folders; expected one")
    if sum(member.file_size for member in members) > MAX_TOTAL_BYTES:
        raise ArchiveError(f"the archive unpacks to more than {MAX_TOTAL_BYTES / 1e6:.0f} MB")
    return found


def _safe_path(member: zipfile.ZipInfo) -> PurePosixPath:
    name = member.filename
    path = PurePosixPath(name)
    plain = name.isprintable() and "\\" not in name and ":" not in name
    if path.is_absolute() or ".." in path.parts or not plain or len(path.parts) > 2:
        raise ArchiveError(
            f"the archive holds {name!r}, which leads out of its folder; expected plain file names"
        )
    mode = member.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise ArchiveError(f"the archive holds {name!r}, which is a link or no regular file")
    if member.flag_bits & 0x1:
        raise ArchiveError(f"the archive holds {name!r} encrypted; expected plain files")
    return path


def copy_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Unpack one member to ``target``, counting bytes.

    Raises:
        ArchiveError: it is damaged, or larger than the limits allow.
    """
    limit = MAX_MEMBER_BYTES
    if member.file_size > RATIO_MATTERS_FROM_BYTES:
        limit = min(limit, MAX_RATIO * max(1, member.compress_size))
    written = 0
    with target.open("xb") as file:
        for piece in _pieces(archive, member, target.name):
            written += len(piece)
            if written > limit:
                raise ArchiveError(
                    f"{target.name} unpacks to more than {limit:,} bytes from "
                    f"{member.compress_size:,}; refused as a zip bomb"
                )
            file.write(piece)


def _pieces(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Iterator[bytes]:
    """Unpack one member, in the two ways that zips of today are packed; others may ask for much."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(
            f"{name} in the archive is packed in an unusual way; expected a zip of stored or "
            "deflated files: pack it again"
        )
    damages = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
    try:
        with archive.open(member) as packed:
            while piece := packed.read(_PIECE):
                yield piece
    except (*damages, OSError, ValueError, struct.error) as error:  # seeking to odd places too
        raise ArchiveError(f"{name} in the archive is damaged ({error})") from None
