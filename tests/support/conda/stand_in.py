"""What Snakemake asks of `conda`, with a real solver: environments of packages of a channel, and of pip's.

It is not conda: it shows that environment files parse, that their pins resolve and install, and that each rule runs in
its own environment. Channels are looked up by name below the URL in CONDA_CHANNEL_ALIAS.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import yaml
from rattler import MatchSpec, Platform, VirtualPackage, install, solve

PLATFORM = str(Platform.current())
ABOUT = {"conda_prefix": str(Path(__file__).resolve().parent), "platform": PLATFORM, "conda_version": "24.7.1"}


def main(argv: list[str]) -> None:
    match argv:
        case ["--version"]:
            print(f"conda {ABOUT['conda_version']}")
        case ["info", "--json"]:
            print(json.dumps(ABOUT))
        case ["config", "--get", "channel_priority", "--json"]:
            print(json.dumps({"get": {"channel_priority": "strict"}}))
        case ["env", "create", *arguments]:
            create(parser().parse_args(arguments))
        case ["clean", *_]:
            pass  # there are no tarballs
        case _:
            raise SystemExit(f"conda {' '.join(argv)}: not known to this stand-in")


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(prog="conda env create")
    arguments.add_argument("--file", type=Path, required=True)
    arguments.add_argument("--prefix", type=Path, required=True)
    for flag in ("--quiet", "--no-default-packages"):
        arguments.add_argument(flag, action="store_true")
    return arguments


def create(args: argparse.Namespace) -> None:
    """Make the environment at --prefix of a YAML file: its conda packages first, then those of its `pip:` section."""
    asked = yaml.safe_load(args.file.read_text())
    channels = [f"{os.environ['CONDA_CHANNEL_ALIAS']}/{name}" for name in asked["channels"] if name != "nodefaults"]
    packages = [MatchSpec(line) for line in asked["dependencies"] if isinstance(line, str)]
    asyncio.run(link(channels, packages, args.prefix))
    lines = [line for part in asked["dependencies"] if isinstance(part, dict) for line in part["pip"]]
    requirements = args.prefix.with_suffix(".requirements.txt")
    requirements.write_text("".join(f"{line}\n" for line in lines))
    pip = [args.prefix / "bin" / "python", "-m", "pip", "install", "--quiet", "--upgrade"]
    subprocess.run([*pip, "--requirement", requirements], check=True)


async def link(channels: list[str], packages: list[MatchSpec], prefix: Path) -> None:
    """Solve for the packages and link them into the prefix."""
    machine = VirtualPackage.detect()
    records = await solve(channels, packages, platforms=[PLATFORM, "noarch"], virtual_packages=machine)
    await install(records, prefix, show_progress=False)


if __name__ == "__main__":
    main(sys.argv[1:])
