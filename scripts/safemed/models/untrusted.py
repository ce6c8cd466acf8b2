"""What a stranger's model folder may hold; without torch, for checks of a config."""

import json
import os
from collections.abc import Iterator
from pathlib import Path


def check_folder(folder: Path) -> None:
    """Raise ValueError, naming the file, where a model folder holds what a stranger could do harm with.

    All of its files lie in it. A link, and a name in an index of weights, may lead to another file of the folder or, in
    the hub's cache, to the blobs of the same model (models--NAME/snapshots/COMMIT/FILE -> models--NAME/blobs/HASH), and
    nowhere else. Weights are *.safetensors: other formats are pickles, which may run code. An adapter would be put on
    whatever model it names.
    """
    root = folder.resolve()
    homes = [root, *([root.parents[1] / "blobs"] if root.parent.name == "snapshots" else [])]
    for name in (*_files(root), *_indexed(root)):
        target = Path(os.path.realpath(root / name))
        if not any(target.is_relative_to(home) for home in homes):
            raise ValueError(f"{folder / name} leads out of its model's folder, to {target}; copy that file into it")
        if not target.is_file():
            raise ValueError(f"{folder / name} is no file; fetch or save the model again")
    if not any(root.glob("*.safetensors")):
        raise ValueError(f"{folder}: no *.safetensors; other formats of weights may run code: save it as safetensors")
    if (root / "adapter_config.json").exists():
        raise ValueError(f"{folder}: an adapter, and no model of its own; merge it into its model and save that")


def _files(root: Path) -> Iterator[str]:
    """All that is below a folder and no folder itself; a link to a folder is not followed."""
    for below, folders, files in os.walk(root):
        for name in (*files, *(name for name in folders if os.path.islink(os.path.join(below, name)))):
            yield os.path.relpath(os.path.join(below, name), root)


def _indexed(root: Path) -> Iterator[str]:
    """The files that the indices of weights name."""
    for index in root.glob("*.safetensors.index.json"):
        try:
            yield from dict.fromkeys(map(str, json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{index}: no index of weights; fetch or save the model again") from error
