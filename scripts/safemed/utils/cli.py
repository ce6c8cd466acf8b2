"""What every script does first: read its arguments, and log."""

import argparse
import json
import logging
import sys

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def parser(doc: str) -> argparse.ArgumentParser:
    """A parser described by the script's docstring, with the options that every stage has."""
    made = argparse.ArgumentParser(description=doc)
    made.add_argument("--settings", type=json.loads, default={}, help="the stage's section of the config, as JSON")
    made.add_argument("--seed", type=int, default=0, help="seed of everything random in this stage")
    return made


def start_logging() -> None:
    """Log lines to standard error, progress bars only where somebody watches."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr, force=True)


def watched() -> bool:
    """Whether a person watches standard error (a progress bar makes sense) rather than a log file."""
    return sys.stderr.isatty()
