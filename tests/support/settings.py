"""The smallest study's config, and small settings for the scripts."""

from safemed.workflow import config, config_files
from support.paths import SMALLEST_STUDY

LORA = {"r": 4, "alpha": 8, "dropout": 0.0}
ADVERSARIAL = {"kind": "adversarial", "eps": 8, "steps": 2, "ramp": 0.0}


SMALLEST = config_files.read(SMALLEST_STUDY)


def training_settings(method: str, **changes) -> dict:
    """What the smallest study gives a method's training script, with some changes."""
    return {**config.training_settings(SMALLEST, method), **changes}


SIDE = SMALLEST["data"]["image_size"]
SPLIT = SMALLEST["data"]["split"]
TINY = {**SMALLEST["model"]["tiny"], "layers": 2}
BASE = SMALLEST["base"]
MONITORING = {**SMALLEST["monitoring"], "log_steps": 1}
TRAINING = training_settings("sft", steps=6, batch_size=8, learning_rate=1e-3)
FARE = training_settings("fare", steps=6, batch_size=8, augmentation=ADVERSARIAL, learning_rate=1e-3)
GRPO = training_settings("at-grpo", steps=6, batch_size=4, augmentation=ADVERSARIAL)
