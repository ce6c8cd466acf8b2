"""What workflow/schemas/config.schema.yaml says of a config: one line a fault, with the whole path of its key."""

import json
import math
from collections.abc import Iterator
from datetime import date
from difflib import get_close_matches
from functools import cache
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError, validators

from safemed.workflow.config import ROOT

FILE = ROOT / "workflow" / "schemas" / "config.schema.yaml"
KINDS = {  # what a value of each type is called
    "object": "a section of keys",
    "array": "a list",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "null": "null",
}


def faults(config: dict) -> list[str]:
    """What the schema refuses, a line each, in the order of the config; empty for a config that it accepts."""
    return list(dict.fromkeys(line for error in _validator().iter_errors(config) for line in _lines(error)))


def did_you_mean(name: str, known: list[str]) -> str:
    """The known name that is nearest to a wrong one, or all of them, to be put behind a message."""
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"


def typed(value: Any, schema: dict | None = None) -> Any:
    """What `--config` gives, with text read as the number, true, false or null that the schema wants in its place.

    Snakemake leaves everything inside {...} and [...] on the command line as text. What spells none of these, or is
    text by the schema, stays as it is. schema: the part of the schema for this value; the whole one if left out.
    """
    schema = _resolved(_validator().schema if schema is None else schema)
    if isinstance(value, dict):
        return {key: typed(own, _of_key(schema, key)) for key, own in value.items()}
    if isinstance(value, list):
        return [typed(own, _of_items(schema)) for own in value]
    return _read(value, schema) if isinstance(value, str) else value


def keys(schema: dict | None = None, path: str = "") -> dict[str, dict]:
    """Path -> part of the schema, references resolved, of every key; * stands for the name of a method or attack.

    schema, path: the part below which to look; the whole one if left out.
    """
    found = {}
    for option in _options(_resolved(_validator().schema if schema is None else schema)):
        further = option.get("additionalProperties")
        named = {"*": further} if isinstance(further, dict) else {}
        for key, own in (option.get("properties", {}) | named).items():
            found |= {_joined(path, key): _resolved(own)} | keys(own, _joined(path, key))
    return found


def _options(schema: dict) -> list[dict]:
    """The schemas of which a value must satisfy one, with their references resolved."""
    return [_resolved(one) for one in schema.get("anyOf", [schema])]


@cache
def _validator() -> Draft202012Validator:
    """The schema's validator, for which 5.0 is no integer, and nan and infinity are no numbers."""
    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    types = types.redefine("number", lambda _, value: type(value) in (int, float) and math.isfinite(value))
    schema = yaml.load(FILE.read_text(), Loader=yaml.CSafeLoader)
    return validators.extend(Draft202012Validator, type_checker=types)(schema)


def _resolved(schema: dict) -> dict:
    """A part of the schema with the $def that it refers to, if any; its own keys override those."""
    if "$ref" not in schema:
        return schema
    own = {key: value for key, value in schema.items() if key != "$ref"}
    return {**_resolved(_validator().schema["$defs"][schema["$ref"].rpartition("/")[2]]), **own}


def _of_key(schema: dict, key: str) -> dict:
    """The part of the schema for a key of a section; {} for an unknown one."""
    for option in _options(schema):
        further = option.get("additionalProperties")
        if found := option.get("properties", {}).get(key) or (further if isinstance(further, dict) else None):
            return found
    return {}


def _of_items(schema: dict) -> dict:
    """The part of the schema for the items of a list; {} where no list is wanted."""
    return next((option["items"] for option in _options(schema) if "items" in option), {})


def _read(text: str, schema: dict) -> Any:
    """A text as the number, true, false or null that it spells; where the schema takes text, null alone is read."""
    try:
        spelt = yaml.safe_load(text)
        spelt = float(text) if isinstance(spelt, str) and _is_number(text) else spelt  # 1e-3 is text in YAML
    except yaml.YAMLError:
        return text
    accepts = _validator().evolve(schema=schema).is_valid
    if isinstance(spelt, dict | list) or (accepts(text) and not (spelt is None and accepts(None))):
        return text
    return spelt


def _is_number(text: str) -> bool:
    """Whether a text is a finite number in Python."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _lines(error: ValidationError) -> Iterator[str]:
    """A fault that the validator found, in our own words where its own would not be understood."""
    path = ".".join(key for key in error.absolute_path if isinstance(key, str))
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        for key in map(str, error.instance):
            if key not in known:
                yield f"config: {_joined(path, key)}: unknown key{_meant_key(key, known)}"
    elif error.validator == "required":
        missing = error.message.split("'")[1]
        yield f"config: {_joined(path, missing)}: missing"
    elif error.validator == "anyOf":
        yield from _of_options(error, path)
    elif "propertyNames" in error.absolute_schema_path:
        yield f"config: {_joined(path, str(error.instance))}: {_wrong_name(error)}"
    else:
        yield f"config: {path}: {_said(error)}"


def _of_options(error: ValidationError, path: str) -> Iterator[str]:
    """The faults of the option that a value comes nearest to: the one of its type."""
    wrong = {found.relative_schema_path[0] for found in error.context if _wrong_type(found, error)}
    right = [found for found in error.context if found.relative_schema_path[0] not in wrong]
    for found in right:
        yield from _lines(found)
    if not right:
        kinds = [KINDS[kind] for option in _options(error.schema) for kind in _types(option)]
        way_out = _way_out(error.instance, kinds)
        yield f"config: {path}: {_shown(error.instance)} is neither {' nor '.join(kinds)}{way_out}"


def _types(schema: dict) -> list[str]:
    """The types that a part of the schema accepts."""
    return [schema["type"]] if isinstance(schema["type"], str) else schema["type"]


def _wrong_type(found: ValidationError, error: ValidationError) -> bool:
    return found.validator == "type" and found.absolute_path == error.absolute_path


def _wrong_name(error: ValidationError) -> str:
    """What is wrong with the name of a method or an attack."""
    return _said(error) if error.validator == "maxLength" else error.schema["description"]


def _said(error: ValidationError) -> str:
    """What is wrong with a value."""
    value, wanted = error.instance, error.validator_value
    if error.validator == "type":
        kinds = [KINDS[kind] for kind in _types(error.schema)]
        return f"{_shown(value)} is not {' or '.join(kinds)}{_way_out(value, kinds)}"
    if error.validator == "enum":
        near = get_close_matches(str(value), map(str, wanted), n=1)
        listed = ", ".join(map(str, wanted))
        return f"{_shown(value)} is not one of {listed}" + (f"; did you mean {near[0]}?" if near else "")
    if error.validator == "pattern":
        return f"{value!r} does not match {wanted}" + (f", {error.schema['title']}" if "title" in error.schema else "")
    if error.validator == "maxLength":
        return f"{len(value)} characters; at most {wanted}"
    if error.validator == "contains":
        return f"{value} lacks {wanted['const']}"
    if error.validator in ("minItems", "minProperties"):
        return f"{value} has fewer entries than {wanted}"
    if error.validator == "uniqueItems":
        return f"{value} names something twice"
    return error.message  # of bounds: "0 is less than the minimum of 1"


def _shown(value: Any) -> str:
    """A value of the wrong type as YAML has it; a section by its keys alone."""
    if isinstance(value, dict):
        return f"a section of {', '.join(map(str, value))}"
    if isinstance(value, date):
        return value.isoformat()
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def _way_out(value: Any, kinds: list[str]) -> str:
    """What to write instead, where a value looks like what is wanted."""
    if isinstance(value, str) and _is_number(value):
        if KINDS["number"] in kinds:
            return f", but text: write {float(value)}"
        if KINDS["integer"] in kinds and float(value).is_integer():
            return f", but text: write {int(float(value))}"
    if KINDS["string"] in kinds:
        if isinstance(value, bool):  # yes and no, on and off are read so, too
            return ": write the word in quotes"
        if isinstance(value, int | float | date):
            return f': write "{value}", in quotes'
    return ""


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _meant_key(key: str, siblings: list[str]) -> str:
    """The key that an unknown one was meant for: a like one beside it, or the only one of its name elsewhere."""
    elsewhere = [path for path in keys() if path.rpartition(".")[2] == key]
    if not get_close_matches(key, siblings, n=1) and len(elsewhere) == 1:
        return f"; did you mean {elsewhere[0]}?"
    return did_you_mean(key, siblings)
