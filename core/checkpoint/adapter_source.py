"""A folder or a Hub repository id -> the folder that holds an adapter.

In: a name as somebody types it. Out: a path with ``adapter_config.json`` and
``adapter_model.safetensors``, fetched if need be and nothing else with them; what is in the cache
already is used without a network. Pickle files are never fetched nor opened.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import hf_hub_download

from core.checkpoint.hub_errors import CheckpointNotFound, hub_errors, refuse_without_network
from core.checkpoint.peft_format import CONFIG, WEIGHTS, adapter_files

INSTEAD = "or give a folder on this machine"
LACKS = f"not both {CONFIG} and {WEIGHTS}; expected an adapter in PEFT's format"


def resolve_adapter(name: str) -> Path:
    """Find or download the adapter called ``name``: a folder, or a repository id "owner/name".

    Returns:
        The folder with its two files.

    Raises:
        CheckpointNotFound: nothing under that name; says what came and what to do.
        CheckpointError: a folder without the two files.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        adapter_files(folder)
        return folder
    if folder.exists():
        raise CheckpointNotFound(f"{name!r} is a file; expected the folder of an adapter")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointNotFound(
            f"{name!r} is neither a folder nor a Hub repository id; expected a folder with "
            f"{CONFIG} and {WEIGHTS}, or an id such as 'owner/adapter'"
        )
    try:
        return _fetch(name, local_only=True)
    except CheckpointNotFound:
        refuse_without_network(name, INSTEAD)
    return _fetch(name, local_only=False)


def _fetch(repo: str, *, local_only: bool) -> Path:
    with hub_errors(repo, lacks=LACKS, instead=INSTEAD):
        config, _ = (
            Path(hf_hub_download(repo, file, local_files_only=local_only))
            for file in (CONFIG, WEIGHTS)
        )
    return config.parent
