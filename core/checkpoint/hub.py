"""A catalog name, a Hub repository id or a folder -> the paths of a checkpoint's files.

In: a name. Out: :class:`CheckpointFiles`, every path resolved before anything is built. Downloads
go through huggingface_hub, only the files that are needed, with its progress bars on stderr; what
is already in the cache is used without a network. Pickle files are never fetched nor opened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

from core.checkpoint.catalog import CATALOG, lookup
from core.checkpoint.hub_errors import CheckpointNotFound, hub_errors, refuse_without_network

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_BESIDE_WEIGHTS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "out_llm.safetensors",  # the BPE CTC head of 4.1
    "lab.json",
)
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class CheckpointFiles:
    """Where everything is. shards: stored tensor name -> file."""

    source: str
    folder: Path
    shards: dict[str, Path]

    def find(self, *names: str) -> Path | None:
        """The first of ``names`` that exists in the folder."""
        return next((self.folder / n for n in names if (self.folder / n).is_file()), None)

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder, parsed; empty if it is absent.

        Raises:
            CheckpointNotFound: the file is there but is not JSON.
        """
        file = self.find(name)
        if file is None:
            return {}
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise CheckpointNotFound(f"{file}: not valid JSON ({error}); load it again") from error
        if not isinstance(raw, dict):
            kind = type(raw).__name__
            raise CheckpointNotFound(f"{file}: not a JSON object but a {kind}; load it again")
        return raw

    @property
    def num_bytes(self) -> int:
        """Bytes of the weight files."""
        return sum(file.stat().st_size for file in set(self.shards.values()))


def resolve(name: str, *, revision: str | None = None, local_only: bool = False) -> CheckpointFiles:
    """Find or download the checkpoint called ``name``.

    Args:
        name: a catalog name ("tiny"), a repository id ("ibm-granite/granite-speech-3.3-2b"), or a
            folder.
        revision: branch, tag or commit of a repository.
        local_only: look in folders and the cache, never on the network.

    Raises:
        CheckpointNotFound: nothing usable there; says what came and what to do.
    """
    model_info = lookup(name)
    source = model_info.source if model_info is not None else name
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _from_folder(folder, name)
    if folder.exists():
        raise CheckpointNotFound(f"{name!r} is a file; expected the folder of a checkpoint")
    if model_info is not None and folder.is_absolute():
        raise CheckpointNotFound(
            f"the bundled model {name!r} is not in {folder}; make it with 'make demo-model' or "
            "name another model"
        )
    if model_info is None and (source.count("/") != 1 or source.startswith((".", "/", "~"))):
        raise CheckpointNotFound(
            f"{name!r} is neither a folder, nor a known model ({', '.join(CATALOG)}), nor a Hub "
            "repository id such as 'ibm-granite/granite-speech-3.3-2b'"
        )
    try:  # what is here already is used without asking the network
        return _from_folder(_download(source, revision, local_only=True), name)
    except CheckpointNotFound:
        if local_only:
            raise
    refuse_without_network(source)
    return _from_folder(_download(source, revision, local_only=False), name)


def is_here(name: str) -> bool:
    """Whether the checkpoint can be loaded without a network."""
    try:
        resolve(name, local_only=True)
    except CheckpointNotFound:
        return False
    return True


def _from_folder(folder: Path, source: str) -> CheckpointFiles:
    if not (folder / "config.json").is_file():
        raise CheckpointNotFound(f"{folder} has no config.json; expected a checkpoint's folder")
    return CheckpointFiles(source=source, folder=folder, shards=_find_shards(folder))


def _find_shards(folder: Path) -> dict[str, Path]:
    """Tensor name -> file. Where there is an index it rules: other shards are orphans."""
    index, single = folder / INDEX, folder / SINGLE
    if index.is_file():
        names = _read_index(index)
        missing = sorted({n for n in names.values() if not (folder / n).is_file()})
        if missing:
            raise CheckpointNotFound(
                f"{folder}: shard {missing[0]!r} is missing ({len(missing)} in all); expected "
                "every file the index names: finish the download"
            )
        return {tensor: folder / file for tensor, file in names.items()}
    if single.is_file():
        try:
            with safe_open(single, framework="pt") as handle:
                return dict.fromkeys(handle.keys(), single)
        except (SafetensorError, OSError) as error:
            raise CheckpointNotFound(
                f"{single} cannot be read as safetensors ({error}); load it again"
            ) from error
    if any(next(folder.glob(pattern), None) for pattern in _PICKLES):
        raise CheckpointNotFound(
            f"{folder} holds only pickle weights, which can run code when opened; expected "
            f"{SINGLE}: convert them with safetensors first"
        )
    raise CheckpointNotFound(f"{folder} has neither {INDEX} nor {SINGLE}")


def _read_index(index: Path) -> dict[str, str]:
    """Tensor name -> name of a safetensors file beside the index; nothing else may stand there."""
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(names.values()))
        outside = [file for file in files if Path(file).name != file]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointNotFound(f"{index}: not a weight index ({error!r})") from error
    if outside:
        raise CheckpointNotFound(f"{index}: {outside[0]!r} points outside the checkpoint's folder")
    foreign = [file for file in files if not file.endswith(".safetensors")]
    if foreign:
        raise CheckpointNotFound(f"{index}: {foreign[0]!r}; expected safetensors files only")
    return names


def _download(repo: str, revision: str | None, *, local_only: bool) -> Path:
    """Fetch what is needed of ``repo``; returns the snapshot's folder."""
    with hub_errors(repo, revision):
        hf_hub_download(repo, "config.json", revision=revision, local_files_only=local_only)
        try:
            index = Path(
                hf_hub_download(repo, INDEX, revision=revision, local_files_only=local_only)
            )
            wanted = [INDEX, *sorted(set(_read_index(index).values()))]
        except (EntryNotFoundError, LocalEntryNotFoundError):
            wanted = [SINGLE]
        folder = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=[*_BESIDE_WEIGHTS, *wanted],
            local_files_only=local_only,
        )
        return Path(folder)
