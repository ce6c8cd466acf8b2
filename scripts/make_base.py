"""The base model in Hugging Face's layout: a tiny Qwen3-VL trained from random weights, or a published checkpoint."""

import json
import logging
import re
import shutil
from pathlib import Path

import pandas as pd
from datasets import Dataset

from safemed.data.dataset import IDENTITY, load_questions, read_questions
from safemed.models.chat import check_template
from safemed.models.geometry import check_resize
from safemed.models.processor import load_processor
from safemed.models.tiny import build_tiny
from safemed.models.vlm import VLM, save_model
from safemed.training import pretraining
from safemed.utils import cli, cost, files, provenance, resume


def main() -> None:
    """Write the model folder with its cost.json and curves.csv; a killed training resumes from the checkpoint."""
    parser = cli.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the study's data folder")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder for what a killed run needs to resume")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--name", required=True, help="the model's name, for cost.json")
    parser.add_argument(
        "--fetched", nargs="*", type=Path, default=[], help="what download_model.py wrote, of a hub's model"
    )
    args = parser.parse_args()
    cli.start_logging()
    if args.settings["model"]["name"] == "tiny":
        train_tiny(args)
    else:
        fetch(args)


def train_tiny(args) -> None:
    """Train the tiny model on the training split."""
    meter = cost.CostMeter("base", args.name)
    settings, side, variants = args.settings, args.settings["image_size"], args.settings["variants"]
    questions = load_questions(args.data, "train")
    check_guessed(settings["base"]["guessed"], set(questions.unique("question_type")))
    model, processor = build_tiny(pretraining.corpus(questions, variants), settings["model"]["tiny"], side, args.seed)
    check_resize(processor, side)
    vlm = VLM(model, processor)
    logging.info("%.2f M parameters, %d tokens", sum(p.numel() for p in model.parameters()) / 1e6, len(vlm.tokenizer))
    training = pretraining.Pretraining(vlm, questions, variants, settings["base"], args.seed, side, meter)
    learned = (args.data / "splits.csv", args.data / "questions" / IDENTITY)
    checkpoint = resume.checkpoints(args.checkpoint, resume.identity(args, __file__, *learned)) / "base.pt"
    curves = training.run(checkpoint, every=settings["base"]["save_steps"])
    with files.atomic_folder(args.out) as folder:
        save_model(model, processor, folder)
        files.write_csv(pd.DataFrame(curves), folder / "curves.csv")
        meter.write(folder / "cost.json", vlm.passes)
        provenance.write(folder, args, __file__)
    shutil.rmtree(args.checkpoint)


def check_guessed(guessed: list[str], types: set[str]) -> None:
    """End with one line where a question type that is to be unlearned is not among the training split's."""
    if unknown := sorted(set(guessed) - types):
        raise SystemExit(
            f"config: base.guessed: the training split has no questions of type {', '.join(unknown)}; "
            f"its types are {', '.join(sorted(types))}. Write base.guessed: [] to unlearn none."
        )


def check_templates(processor, questions: Dataset, variants: list[str]) -> None:
    """End with one line where the chat template does not serve a variant; some questions stand for all."""
    try:
        for variant in variants:
            for question in questions.remove_columns("image").select(range(min(20, len(questions)))):
                check_template(processor, question, variant)
    except ValueError as error:
        raise SystemExit(f"config: model.name: {error}") from error


def check_texts(tokenizer, questions: Dataset) -> None:
    """End with one line where a text holds a special token of this tokenizer.

    `prepare` drops what Qwen3-VL's own tokenizer does; a checkpoint may have more.
    """
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    own = re.compile("|".join(map(re.escape, added)) or "(?!)")
    for row in questions.select_columns(["question_id", "question", "options", "finding"]):
        if found := own.search(" ".join([row["question"], *row["options"], row["finding"] or ""])):
            raise SystemExit(
                f"question {row['question_id']!r} holds {found[0]!r}, a token of the model's own (model.name); take it "
                "out of the record's text"
            )


def fetch(args) -> None:
    """Copy a local checkpoint, or what was fetched from the hub into its cache: no network is needed here."""
    meter = cost.CostMeter("base", args.name)
    name, revision = args.settings["model"]["name"], args.settings["model"]["revision"]
    source = Path(json.loads(args.fetched[0].read_text())["path"]) if args.fetched else Path(name)
    if not source.is_dir():
        raise SystemExit(
            f"{source}: no such folder. Name another model.name, or delete {args.fetched} to fetch it again."
        )
    try:
        vlm = VLM.load(source)
    except ValueError as error:
        raise SystemExit(f"config: model.name: {error}") from error
    check_resize(vlm.processor, args.settings["image_size"])
    check_templates(vlm.processor, load_questions(args.data, "train"), args.settings["variants"])
    check_texts(vlm.tokenizer, read_questions(args.data / "questions"))
    with files.atomic_folder(args.out) as folder:
        save_model(vlm.model, load_processor(source), folder)
        files.write_csv(pd.DataFrame({"step": []}), folder / "curves.csv")
        meter.write(folder / "cost.json", vlm.passes, source=json.dumps([name, revision]))
        provenance.write(folder, args, __file__)


if __name__ == "__main__":
    main()
