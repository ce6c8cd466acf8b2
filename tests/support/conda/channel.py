"""Make a conda channel on this machine: `python` is the interpreter that runs this, `pip` is the wheel of PyPI."""

import argparse
import asyncio
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from rattler import Platform
from rattler.index import index_fs
from rattler_build import assemble_package

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
VERSION = f"{MINOR}.{sys.version_info.micro}"
PLATFORM = str(Platform.current())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the channel")
    parser.add_argument("--pip", required=True, metavar="VERSION", help="version of pip")
    args = parser.parse_args()
    for subfolder in (PLATFORM, "noarch"):
        (args.out / subfolder).mkdir(parents=True)
    with TemporaryDirectory() as stage:
        add_python(args.out / PLATFORM, Path(stage) / "python")
        add_pip(args.out / "noarch", args.pip, Path(stage) / "pip")
    asyncio.run(index_fs(args.out))
    # A thread of the indexer may still release Python's objects while an ordinary exit takes the interpreter down,
    # which ends one run in ten with a segmentation fault.
    os._exit(0)


def add_python(folder: Path, stage: Path) -> None:
    """A prefix of its own around this machine's interpreter and its standard library, without its site-packages."""
    real = Path(sys.base_prefix) / "bin" / f"python{MINOR}"
    (stage / "bin").mkdir(parents=True)
    for name in ("python", "python3", f"python{MINOR}"):
        (stage / "bin" / name).symlink_to(real)
    (stage / "pyvenv.cfg").write_text(f"home = {real.parent}\ninclude-system-site-packages = false\n")
    packages = stage / "lib" / f"python{MINOR}" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "README.txt").write_text("Packages are installed here.\n")  # a package has files, not folders
    assemble_package("python", VERSION, PLATFORM, "0_cpython", folder, files_dir=stage, detect_prefix=False)


def add_pip(folder: Path, version: str, stage: Path) -> None:
    """The wheel's files, to be linked into the site-packages of any python."""
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"pip=={version}", "--dest", stage]
    subprocess.run(download, check=True)
    (wheel,) = stage.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(stage / "package" / "site-packages")
    needs = {"depends": [f"python >={MINOR}"], "noarch": "python"}
    assemble_package("pip", version, "noarch", "0", folder, files_dir=stage / "package", detect_prefix=False, **needs)


if __name__ == "__main__":
    main()
