"""The kind of model that is supported, and what a model folder lacks of it; without torch, for checks of a config."""

import json
from pathlib import Path

MODEL_TYPE = "qwen3_vl"
INDEX = "model.safetensors.index.json"  # of weights in several files
PARTS = {  # what a folder must hold beside its config and its weights: one of these sets of files
    "tokenizer": [["tokenizer.json"], ["vocab.json", "merges.txt"]],
    "image processor": [["processor_config.json"], ["preprocessor_config.json"]],
}


def lacking(folder: Path) -> str | None:
    """Why a folder cannot be loaded as a Qwen3-VL, to be put behind its name; None where nothing is missing.

    Only names are looked at, and what config.json and the weights' index say: no tensor is read.
    """
    if not folder.is_dir():
        return "is no folder of a model; `hf download` fetches one of the hub to a --local-dir"
    try:
        return _wrong_kind(folder) or _missing_weights(folder) or _missing_parts(folder)
    except ValueError as error:
        return f"holds a file that is no JSON ({error}); fetch or save the model again"


def _wrong_kind(folder: Path) -> str | None:
    config = folder / "config.json"
    kind = _object(config).get("model_type") if config.is_file() else None
    if kind == MODEL_TYPE:
        return None
    found = f"a model of type {kind}" if kind else "no config.json that names its model_type"
    return f"holds {found}; only {MODEL_TYPE} is supported"


def _missing_weights(folder: Path) -> str | None:
    whole, index = folder / "model.safetensors", folder / INDEX
    if whole.is_file():
        return None
    if not index.is_file():
        return f"holds no weights, neither {whole.name} nor {INDEX}"
    files = _object(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        return f"holds an {INDEX} that names no weights; fetch or save the model again"
    absent = sorted({str(name) for name in files.values() if not (folder / str(name)).is_file()})
    return f"lacks {len(absent)} of its files of weights, such as {absent[0]}; fetch it again" if absent else None


def _missing_parts(folder: Path) -> str | None:
    for part, choices in PARTS.items():
        if not any(all((folder / name).is_file() for name in names) for names in choices):
            return f"holds no {part}, neither {' nor '.join(' with '.join(names) for names in choices)}"
    return None


def _object(path: Path) -> dict:
    """A JSON object. Raises ValueError, naming the file, for anything else."""
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name}: not an object")
    return found
