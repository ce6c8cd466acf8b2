"""What a killed job may go on from: checkpoints and partial results of the same settings, code and inputs alone."""

import argparse
import itertools
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from safemed.utils.dependencies import fingerprint
from safemed.utils.files import content_hash

MARK = "settings.json"  # in a folder of checkpoints: what they are of

log = logging.getLogger(__name__)


def identity(args: argparse.Namespace, script: str, *files: Path, modules: Sequence[str] = ()) -> dict:
    """What checkpoints must agree on: settings, seed, the script's code, and the contents of the files given.

    Files that do not exist are left out; of several with one name, all count, in their order. modules: those that the
    script imports by a name that it is given.
    """
    hashes: dict[str, str] = {}
    for path in filter(Path.exists, files):
        hashes[path.name] = " ".join(filter(None, [hashes.get(path.name), content_hash(path)]))
    return {"settings": args.settings, "seed": args.seed, "code": fingerprint(Path(script).name, *modules), **hashes}


def checkpoints(folder: Path, wanted: dict) -> Path:
    """The folder for checkpoints of an identity, made where there is none.

    One of another identity, or of none that is known, is set aside under another name: none is resumed, none is
    deleted.
    """
    mark, text = folder / MARK, json.dumps(wanted, sort_keys=True, indent=1)
    if folder.exists() and (not mark.exists() or mark.read_text() != text):
        kept = set_aside(folder)
        log.warning("%s: checkpoints of other settings or code, kept as %s; starting anew", folder, kept)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(text)
    return folder


def set_aside(folder: Path) -> Path:
    """Rename a folder to the first free one of NAME.old-1, NAME.old-2, ...; returns its new path."""
    names = (folder.with_name(f"{folder.name}.old-{number}") for number in itertools.count(1))
    kept = next(name for name in names if not name.exists())
    folder.rename(kept)
    return kept
