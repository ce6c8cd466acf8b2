"""The documentation of the config: every key of the schema, with the default study's value."""

import pytest

from safemed.report import config_page

SCHEMA = {
    "properties": {
        "seed": {"type": "integer", "minimum": 0, "description": "The seed."},
        "peft": {
            "anyOf": [{"type": "null"}, {"type": "object", "properties": {"r": {"type": "integer"}}}],
            "description": "Adapters | or none.",
        },
        "training": {
            "type": "object",
            "properties": {
                "sft": {"$ref": "#/$defs/trainer", "description": "Supervised."},
                "fare": {"$ref": "#/$defs/trainer", "description": "Unsupervised."},
            },
        },
        "methods": {"type": "object", "additionalProperties": {"$ref": "#/$defs/trainer"}},
    },
    "$defs": {
        "trainer": {
            "type": "object",
            "properties": {
                "steps": {"type": "integer", "exclusiveMinimum": 0, "description": "Steps."},
                "amp": {"type": "boolean", "default": False},
                "kind": {"enum": ["clean", "noisy"]},
            },
        }
    },
}
DEFAULTS = {"seed": 0, "peft": None, "training": {"sft": {"steps": 1}, "fare": {"steps": 2}}, "methods": {}}


@pytest.mark.parametrize(
    "row",
    [
        "| `seed` | integer ≥ 0 | `0` | The seed |",
        "| `peft` | null or object | `null` | Adapters \\| or none |",
        "| `peft.r` | integer |  |  |",
        "| `training.{sft,fare}` | object |  | Supervised. / Unsupervised |",
        "| `training.{sft,fare}.steps` | integer > 0 | `1 / 2` | Steps |",
        "| `training.{sft,fare}.amp` | boolean | `false` |  |",
        "| `training.{sft,fare}.kind` | one of clean, noisy |  |  |",
        "| `methods.{name}` | object |  | The keys of `training.{sft,fare}` |",
    ],
)
def test_each_key_has_a_row_with_its_type_default_and_meaning(row):
    assert row in config_page.page(SCHEMA, DEFAULTS).splitlines()
