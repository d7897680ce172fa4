"""Adapters that were added to models, by name.

In: uploads, or a folder or repository id. Out: :class:`AddedAdapter`, and a model with the
adapter that a request names. A model that is loaded again gets its adapters again; uploaded files
are copied, for uploads are deleted after an hour, and last as long as the app runs. No Gradio.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Lock

from core import Lab
from core.checkpoint.adapter_source import resolve_adapter
from core.checkpoint.peft_format import CONFIG, WEIGHTS
from core.errors import UserError
from profiling.runs.archive import ArchiveError, copy_member, open_archive

FILES = (CONFIG, WEIGHTS)
EXPECTED = f"expected {CONFIG} and {WEIGHTS}, or a zip with both"
LONGEST_NAME = 60
NONE_CAME = (
    "no adapter was given; type a folder or a repository id, or choose its two files: "
    f"{CONFIG} and {WEIGHTS}"
)


@dataclass(frozen=True)
class AddedAdapter:
    """One adapter. source: where it came from, in words; folder: where its two files are."""

    name: str
    source: str
    folder: Path


class AdapterRegistry:
    """Adapters by model and name."""

    def __init__(self) -> None:
        self._root = tempfile.TemporaryDirectory(prefix="granite-speech-lab-adapters-")
        self._added: dict[str, dict[str, AddedAdapter]] = {}
        self._lock = Lock()

    def of(self, model: str) -> tuple[AddedAdapter, ...]:
        """Return the adapters of one model, in the order they were added."""
        with self._lock:
            return tuple(self._added.get(model, {}).values())

    def add(self, lab: Lab, model: str, name: str, source: str, files: list[str]) -> AddedAdapter:
        """Give a loaded model one more adapter. Only on the model's thread.

        Args:
            lab: the model.
            model: its name here.
            name: of the adapter in requests; empty for that of its folder or file.
            source: a folder or a repository id; empty where files came.
            files: paths of uploads: both files of an adapter, or one zip.

        Returns:
            What was added.

        Raises:
            UserError: nothing was given, or no adapter of this model.
        """
        if bool(source) == bool(files):
            both = "a name and files were both given; give one of them"
            raise UserError(both if source else NONE_CAME)
        copied = Path(tempfile.mkdtemp(dir=self._root.name)) if files else None
        try:
            folder = resolve_adapter(source) if copied is None else unpacked(files, copied)
            said = source or ", ".join(Path(file).name for file in files)
            added = AddedAdapter(_name(name.strip() or _usual(source, files)), said, folder)
            lab.add_adapter(added.name, folder)
        except Exception:
            if copied is not None:
                shutil.rmtree(copied, ignore_errors=True)
            raise
        with self._lock:
            self._added.setdefault(model, {})[added.name] = added
        return added

    def remove(self, labs: list[Lab], model: str, name: str) -> None:
        """Remove an adapter from every loaded copy of the model. Only on its thread.

        Args:
            labs: the loaded copies.
            model: its name here.
            name: of the adapter.

        Raises:
            UserError: no adapter of that name.
        """
        self._find(model, name)
        for lab in labs:
            if name in lab.adapters.names:
                lab.remove_adapter(name)
        with self._lock:
            gone = self._added[model].pop(name)
        if gone.folder.is_relative_to(self._root.name):
            shutil.rmtree(gone.folder, ignore_errors=True)

    def fit(self, lab: Lab, model: str, name: str) -> Lab:
        """Return ``lab`` after adding the adapter a request names. Only on the model's thread.

        Returns:
            The same Lab.

        Raises:
            UserError: no adapter of that name; lists those there are.
        """
        if name and name not in lab.adapters.names:
            lab.add_adapter(name, self._find(model, name).folder)
        return lab

    def _find(self, model: str, name: str) -> AddedAdapter:
        with self._lock:
            known = self._added.get(model, {})
            if name not in known:
                here = ", ".join(known) or "none"
                raise UserError(
                    f"no adapter {name!r} was added to {model}; there are: {here}. Add it on the "
                    "Models page, or choose another"
                )
            return known[name]


def unpacked(files: list[str], folder: Path) -> Path:
    """Copy an adapter's two files from uploads, out of a zip if need be; nothing else of it.

    Returns:
        ``folder``.

    Raises:
        UserError: other files came.
    """
    names = [Path(file).name for file in files]
    if len(files) == 1 and zipfile.is_zipfile(files[0]):
        with open_archive(Path(files[0])) as archive:
            for name, member in _members(archive, names[0]).items():
                copy_member(archive, member, folder / name)
    elif sorted(names) == sorted(FILES):
        for file, name in zip(files, names, strict=True):
            shutil.copyfile(file, folder / name)
    else:
        raise UserError(f"{', '.join(names)} came; {EXPECTED}")
    return folder


def _members(archive: zipfile.ZipFile, said: str) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = PurePosixPath(member.filename).name
        if name in FILES and name in found:
            raise ArchiveError(f"{said} holds {name} more than once; {EXPECTED}")
        if name in FILES and not member.is_dir():
            found[name] = member
    if missing := [name for name in FILES if name not in found]:
        raise ArchiveError(f"{said} holds no {' and no '.join(missing)}; {EXPECTED}")
    return found


def _usual(source: str, files: list[str]) -> str:
    """Return the default name of an adapter."""
    if source:
        return Path(source).expanduser().resolve().name
    zipped = [Path(file).stem for file in files if Path(file).suffix.lower() == ".zip"]
    return zipped[0] if zipped else "mine"


def _name(name: str) -> str:
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise UserError(
            f"the adapter's name is {name[:LONGEST_NAME]!r}; expected 1 to {LONGEST_NAME} letters"
        )
    return name
