"""The kind of model that is supported, and the kind that a folder holds; without torch, for checks of a config."""

import json
from pathlib import Path

MODEL_TYPE = "qwen3_vl"


def model_type(folder: Path) -> str | None:
    """What the config.json of a model folder calls its kind; None where there is no such file, or it says none."""
    config = folder / "config.json"
    return json.loads(config.read_text()).get("model_type") if config.is_file() else None
