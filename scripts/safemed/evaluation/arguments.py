"""The arguments of the scripts that evaluate a model."""

import argparse
from pathlib import Path

from datasets import Dataset

from safemed.data.prompts import VARIANTS
from safemed.evaluation.evaluator import Evaluator
from safemed.models.vlm import VLM
from safemed.utils.cli import parser

FILES = {"templates": "the file of templates", "attack": "folder of the attack whose images are shown, too"}


def evaluation_parser(doc: str, *files: str) -> argparse.ArgumentParser:
    """The options of the scripts that evaluate a model; files: those of FILES that a script needs, too."""
    made = parser(doc)
    made.add_argument("--data", type=Path, required=True, help="the study's data folder")
    made.add_argument("--weights", type=Path, required=True, help="model folder")
    made.add_argument("--model", required=True, help="the model's name, for the rows")
    made.add_argument("--method", required=True, help="the method's name, for the rows")
    made.add_argument("--variant", required=True, choices=VARIANTS)
    for name in files:
        made.add_argument(f"--{name}", type=Path, required=True, help=FILES[name])
    made.add_argument("--out", type=Path, required=True, help="folder to write")
    return made


def model_columns(args: argparse.Namespace) -> dict[str, str]:
    """The columns of a row that name the model, and the precision in which it is asked."""
    named = {"model": args.model, "method": args.method, "variant": args.variant}
    return named | {"precision": args.settings["precision"]}


def load(args: argparse.Namespace) -> VLM:
    """The model that a script evaluates, in the precision that its settings say."""
    return VLM.load(args.weights, args.settings["precision"])


def asking(vlm: VLM, questions: Dataset, args: argparse.Namespace) -> Evaluator:
    """The model, asked questions as the variant that a script evaluates."""
    return Evaluator(vlm, questions, args.variant, args.settings["max_new_tokens"][args.variant])
