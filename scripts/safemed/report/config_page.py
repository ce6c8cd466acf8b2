"""The documentation of every configuration key, as Markdown, from the schema and the default configuration."""

from collections.abc import Iterator

INTRODUCTION = """# Configuration

This page is written by `scripts/write_reference.py` from `workflow/schemas/config.schema.yaml` and the default
configuration; do not edit it.

Snakemake reads `workflow/defaults.yaml`, then `config.yaml`, then the study files that `--configfile` names, then
`--config`; what comes later overrides what came before, key by key. Unknown keys and impossible values are refused
before anything runs, with the key's path and what was probably meant. A change of a key re-runs the rules that use it
and what follows from them, and nothing else.

The column "default" holds the values of the default study. `{name}` stands for any name, and `{sft,tower,grpo}` for
each of the names; their defaults are given in the same order where they differ.
"""
HEAD = "| key | type | default | meaning |\n| --- | --- | --- | --- |"


def page(schema: dict, defaults: dict) -> str:
    """A section for each top-level key, with a row for each key below it.

    defaults: the default study's whole configuration. A part of the schema that several keys share is listed below the
    first of them; the others refer to it.
    """
    listed: dict[str, str] = {}
    parts = [INTRODUCTION]
    for key, part in schema["properties"].items():
        rows = "\n".join(_rows(key, part, [defaults.get(key, _NOTHING)], schema["$defs"], listed))
        parts.append(f"## {key}\n\n{HEAD}\n{rows}\n")
    return "\n".join(parts)


_NOTHING = object()  # a key that the default configuration leaves out


def _rows(path: str, part: dict, values: list, shared: dict, listed: dict[str, str]) -> Iterator[str]:
    """The rows of a key and of all keys below it. values: its default, one for each key that the path stands for."""
    name = part.get("$ref", "").rpartition("/")[2]
    found = {**shared[name], **part} if name else part
    below = _below(found, shared)
    if below and name in listed:
        yield _row(path, _type(found, shared), _NOTHING, f"The keys of `{listed[name]}`.")
        return
    if below and name:
        listed[name] = path
    described = found.get("description", "")
    shown = values if not below else [value for value in values if not isinstance(value, dict)]  # keys have their own
    yield _row(path, _type(found, shared), _default(shown, {} if below else found), described)
    for key, inner in below:
        yield from _rows(f"{path}.{key}", inner, _values(values, key), shared, listed)


def _below(part: dict, shared: dict) -> list[tuple[str, dict]]:
    """The keys below an object, each with its schema. Keys of the same shared object are one, {first,second,...}."""
    part = next((one for one in part.get("anyOf", []) if one.get("type") == "object"), part)
    free = part.get("additionalProperties")
    if isinstance(free, dict):
        return [("{name}", free)]
    groups: dict[str, list[str]] = {}
    for key, inner in part.get("properties", {}).items():
        name = inner.get("$ref", "").rpartition("/")[2]
        groups.setdefault(name if "properties" in shared.get(name, {}) else key, []).append(key)
    return [_group(keys, part["properties"]) for keys in groups.values()]


def _group(keys: list[str], properties: dict) -> tuple[str, dict]:
    """One key, or several of one part of the schema with the descriptions of all."""
    if len(keys) == 1:
        return keys[0], properties[keys[0]]
    described = dict.fromkeys(properties[key]["description"] for key in keys if "description" in properties[key])
    merged = {"description": " / ".join(described)} if described else {}
    return "{" + ",".join(keys) + "}", {"$ref": properties[keys[0]]["$ref"], **merged}


def _values(values: list, key: str) -> list:
    """The defaults one key deeper."""
    keys = key.strip("{}").split(",")
    if key == "{name}":
        return [_NOTHING]
    return [value.get(one, _NOTHING) if isinstance(value, dict) else _NOTHING for value in values for one in keys]


def _default(values: list, part: dict) -> object:
    """The default to show: several keys' values side by side where they differ."""
    known = [part.get("default", _NOTHING) if value is _NOTHING else value for value in values]
    given = [value for value in known if value is not _NOTHING]
    if not given:
        return _NOTHING
    texts = [_text(value) for value in given]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def _text(value: object) -> str:
    """A value as YAML writes it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_text(inner)}" for key, inner in value.items()) + "}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _type(part: dict, shared: dict) -> str:
    """What a value may be, with its bounds."""
    if "$ref" in part and len(part) == 1:
        return _type(shared[part["$ref"].rpartition("/")[2]], shared)
    if "anyOf" in part:
        return " or ".join(_type(one, shared) for one in part["anyOf"])
    if "enum" in part:
        return "one of " + ", ".join(map(_text, part["enum"]))
    kinds = part["type"] if isinstance(part.get("type"), list) else [part.get("type", "any")]
    if "array" in kinds:
        return f"list of {_type(part['items'], shared)}" if "items" in part else "list"
    bounds = [
        f"{sign} {part[bound]}"
        for bound, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if bound in part
    ]
    return " or ".join(kinds) + (f" {', '.join(bounds)}" if bounds else "")


def _row(path: str, kind: str, default: object, description: str) -> str:
    shown = "" if default is _NOTHING else f"`{default}`"
    cells = (f"`{path}`", kind, shown, description.rstrip(".").replace("*", "\\*"))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
