"""Laid into an environment by the tests: at exit, writes which interpreter ran what, and where modules came from."""

import atexit
import json
import os
import sys
from pathlib import Path
from uuid import uuid4


def write(folder: Path) -> None:
    modules = {name: module for name, module in sys.modules.items() if "." not in name}
    record = {
        "words": sys.orig_argv,
        "prefix": sys.prefix,
        "path": sys.path,
        "user_site": not sys.flags.no_user_site,
        "origins": {name: file for name, module in modules.items() if (file := getattr(module, "__file__", None))},
    }
    (folder / f"{uuid4()}.json").write_text(json.dumps(record))


if "PROBE" in os.environ:
    atexit.register(write, Path(os.environ["PROBE"]))
