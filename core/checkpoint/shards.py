"""A checkpoint's folder -> which of its safetensors files holds which tensor.

In: a folder. Out: tensor name -> file. Nothing but safetensors files of that folder is ever named;
pickle files, which can run code when opened, are refused unopened.
"""

from __future__ import annotations

from pathlib import Path

from core.checkpoint import records, schema
from core.checkpoint.hub_errors import CheckpointNotFound
from core.checkpoint.safetensors_io import CheckpointError, open_safetensors, read_settings

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")


def find_shards(folder: Path) -> dict[str, Path]:
    """Map tensor names to files. Where there is an index it rules: other shards are orphans.

    Returns:
        Stored tensor name -> file.

    Raises:
        CheckpointNotFound: no weights, only pickles, or not every file that the index names.
        CheckpointError: an index or a file that cannot be read.
    """
    index, single = folder / INDEX, folder / SINGLE
    if index.is_file():
        names = read_index(index)
        missing = sorted({n for n in names.values() if not (folder / n).is_file()})
        if missing:
            raise CheckpointNotFound(
                f"{folder}: shard {missing[0]!r} is missing ({len(missing)} in all); expected "
                "every file the index names: finish the download"
            )
        return {tensor: folder / file for tensor, file in names.items()}
    if single.is_file():
        with open_safetensors(single) as handle:
            return dict.fromkeys(handle.keys(), single)
    if any(next(folder.glob(pattern), None) for pattern in _PICKLES):
        raise CheckpointNotFound(
            f"{folder} holds only pickle weights, which can run code when opened; expected "
            f"{SINGLE}: convert them with safetensors first"
        )
    raise CheckpointNotFound(f"{folder} has neither {INDEX} nor {SINGLE}")


def read_index(index: Path) -> dict[str, str]:
    """Read an index: tensor name -> name of a safetensors file beside it, nothing else.

    Returns:
        Tensor name -> file name.

    Raises:
        CheckpointError: it is broken, or names another kind of file or another folder.
    """
    record = schema.validate(
        records.WeightIndex, read_settings(index), str(index), error=CheckpointError
    )
    for file in sorted(set(record.weight_map.values())):
        if Path(file).name != file:
            raise CheckpointError(f"{index}: {file!r} points outside the checkpoint's folder")
        if not file.endswith(".safetensors"):
            raise CheckpointError(f"{index}: {file!r}; expected safetensors files only")
    return record.weight_map
