"""A catalog name, a Hub repository id or a folder -> the paths of a checkpoint's files.

In: a name. Out: :class:`CheckpointFiles`, every path resolved before anything is built. Downloads
go through huggingface_hub, only the files that are needed, with its progress bars on stderr; what
is already in the cache is used without a network. Pickle files are never fetched nor opened.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from core.checkpoint import records, schema
from core.checkpoint.catalog import CATALOG, DESCRIPTION_FILE, lookup
from core.checkpoint.config_file import PLUS, SUPPORTED, check_mel_bins
from core.checkpoint.hub_errors import CheckpointNotFound, hub_errors, refuse_without_network
from core.checkpoint.safetensors_io import (
    CheckpointError,
    read_settings,
    refuse_pointer,
)
from core.checkpoint.shards import INDEX, SINGLE, find_shards, read_index

logger = logging.getLogger(__name__)

FRONT_END = "preprocessor_config.json"
BPE_HEAD = "out_llm.safetensors"  # the BPE CTC head of 4.1
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_BESIDE_WEIGHTS = (
    "config.json",
    "generation_config.json",
    FRONT_END,
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    *ADAPTER,
    BPE_HEAD,
    DESCRIPTION_FILE,
)
_SCHEMAS: dict[str, type[schema.Section]] = {
    FRONT_END: records.FrontEnd,
    "processor_config.json": records.Processor,
    "tokenizer_config.json": records.TextSettings,
    "chat_template.json": records.Templates,
    "generation_config.json": records.Generation,
}


@dataclass(frozen=True)
class CheckpointFiles:
    """Where everything is. shards: stored tensor name -> file."""

    source: str
    folder: Path
    shards: dict[str, Path]

    def find(self, *names: str) -> Path | None:
        """Return the first of ``names`` that exists in the folder."""
        return next((self.folder / n for n in names if (self.folder / n).is_file()), None)

    def json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the folder, without its nulls.

        Returns:
            The object; empty if the file is absent.

        Raises:
            CheckpointError: the file is there but does not hold what belongs in it.
        """
        file = self.find(name)
        if file is None:
            return {}
        stated = {key: value for key, value in read_settings(file).items() if value is not None}
        if name not in _SCHEMAS:
            return stated
        record = schema.validate(_SCHEMAS[name], stated, str(file), error=CheckpointError)
        if name == FRONT_END:
            check_mel_bins(stated, self.json("config.json"), str(file))
        return stated | record.model_dump(exclude_unset=True)

    @property
    def num_bytes(self) -> int:
        """Return the bytes of the weight files."""
        return sum(file.stat().st_size for file in set(self.shards.values()))


ConfigCheck = Callable[[Mapping[str, Any], str], object]  # parsed config.json, its source


def resolve(
    name: str,
    *,
    revision: str | None = None,
    local_only: bool = False,
    check: ConfigCheck = lambda config, source: None,
) -> CheckpointFiles:
    """Find or download the checkpoint called ``name``.

    Args:
        name: a catalog name ("tiny"), a repository id ("ibm-granite/granite-speech-3.3-2b"), or a
            folder.
        revision: branch, tag or commit of a repository.
        local_only: look in folders and the cache, never on the network.
        check: refuses a config.json with an error, before weights are opened or downloaded.

    Returns:
        The paths of its files.

    Raises:
        CheckpointNotFound: nothing usable there; says what came and what to do.
    """
    model_info = lookup(name)
    source = model_info.source if model_info is not None else name
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _from_folder(folder, name, check)
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
    here = _cached(source, revision)
    lacks, unsure = ([], []) if here is None else _missing(source, here)
    if here is not None and not lacks and (local_only or not unsure):
        return _from_folder(here, name, check)  # without a request
    if local_only:
        raise CheckpointNotFound(f"{source!r} is not in the local cache, or not all of it")
    try:
        refuse_without_network(source)
        if model_info is not None and not model_info.commercial_use:
            logger.warning("%s: its licence is %s", source, model_info.licence)
        here = _download(source, revision if here is None else here.name, check)
    except CheckpointNotFound as error:
        if here is None:
            raise
        if lacks:
            raise CheckpointNotFound(
                f"the download of {source!r} is incomplete: {lacks[0]} is missing "
                f"({len(lacks)} in all) and could not be fetched; connect once to finish it"
            ) from error
        logger.warning(
            "the download of %s may be incomplete: %s is not in the local cache and the Hub cannot "
            "be asked for it (%d such files); connect once to finish it",
            *(source, unsure[0], len(unsure)),
        )
    return _from_folder(here, name, check)


def is_here(name: str) -> bool:
    """Return whether the checkpoint can be loaded without a network."""
    try:
        resolve(name, local_only=True)
    except CheckpointError:
        return False
    return True


def _from_folder(folder: Path, source: str, check: ConfigCheck) -> CheckpointFiles:
    if not (folder / "config.json").is_file():
        raise CheckpointNotFound(f"{folder} has no config.json; expected a checkpoint's folder")
    for beside in (folder / name for name in _BESIDE_WEIGHTS):
        if beside.is_file():
            refuse_pointer(beside)
    check(read_settings(folder / "config.json"), source)
    return CheckpointFiles(source=source, folder=folder, shards=find_shards(folder))


def _cached(repo: str, revision: str | None) -> Path | None:
    """Find the folder of ``repo`` in the local cache, complete or not."""
    try:
        with hub_errors(repo, revision):
            config = hf_hub_download(repo, "config.json", revision=revision, local_files_only=True)
    except CheckpointNotFound:
        return None
    return Path(config).parent


def _missing(repo: str, folder: Path) -> tuple[list[str], list[str]]:
    """List the files that ``folder`` lacks, and those that only the Hub knows whether it lacks."""

    def absent(*names: str) -> list[str]:
        # What the Hub once said it does not have is noted in the cache as an object, not a path.
        kept = (try_to_load_from_cache(repo, name, revision=folder.name) for name in names)
        found = zip(names, kept, strict=True)
        return [name for name, at in found if not (folder / name).is_file() and at is None]

    index, config = folder / INDEX, read_settings(folder / "config.json")
    weights = sorted(set(read_index(index).values())) if index.is_file() else [SINGLE]
    kind = config.get("model_type")
    adapter = ADAPTER if config.get("has_lora_adapter", kind == SUPPORTED) is True else ()
    lacks = [name for name in weights if not (folder / name).is_file()]
    lacks += absent("tokenizer.json", *adapter)
    if kind not in (SUPPORTED, PLUS):
        return lacks, absent("processor_config.json", "tokenizer_config.json")
    usual = ["generation_config.json", FRONT_END, "tokenizer_config.json"]
    if not any((folder / f"chat_template.{kind}").is_file() for kind in ("jinja", "json")):
        usual.append("chat_template.jinja")
    if lookup(repo) is None:
        usual.append(DESCRIPTION_FILE)
    if "4.1" in repo:
        usual.append(BPE_HEAD)
    return lacks, absent(*usual)


def _download(repo: str, revision: str | None, check: ConfigCheck) -> Path:
    """Fetch what is needed of ``repo`` and is not there; returns the snapshot's folder."""
    with hub_errors(repo, revision):
        config = hf_hub_download(repo, "config.json", revision=revision, local_files_only=False)
        check(read_settings(Path(config)), repo)
        try:
            index = Path(hf_hub_download(repo, INDEX, revision=revision, local_files_only=False))
            wanted = [INDEX, *sorted(set(read_index(index).values()))]
        except (EntryNotFoundError, LocalEntryNotFoundError):
            wanted = [SINGLE]
        folder = Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=[*_BESIDE_WEIGHTS, *wanted],
                local_files_only=False,
            )
        )
        for name in chain(*_missing(repo, folder)):  # asked once: the cache notes the answer
            try:
                hf_hub_download(repo, name, revision=folder.name, local_files_only=False)
            except LocalEntryNotFoundError:  # nobody could be asked
                raise
            except EntryNotFoundError:
                continue
        return folder
