"""What every script does first: read its arguments, and log."""

import argparse
import json
import logging
import sys

# Line breaks and terminal codes: what a record holds must not pass for a line of the log.
CONTROL = {code: repr(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class OneLine(logging.Formatter):
    """A formatter whose messages stay on one line, whatever they quote; a traceback follows as it is."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).translate(CONTROL)


def parser(doc: str) -> argparse.ArgumentParser:
    """A parser described by the script's docstring, with the options that every stage has."""
    made = argparse.ArgumentParser(description=doc)
    made.add_argument("--settings", type=json.loads, default={}, help="the stage's section of the config, as JSON")
    made.add_argument("--seed", type=int, default=0, help="seed of everything random in this stage")
    return made


def start_logging() -> None:
    """Log lines to standard error, progress bars only where somebody watches."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(LOG_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def watched() -> bool:
    """Whether a person watches standard error (a progress bar makes sense) rather than a log file."""
    return sys.stderr.isatty()
