"""The base model in Hugging Face's layout: a tiny Qwen3-VL trained from random weights, or a published checkpoint."""

import json
import logging
import shutil
from pathlib import Path

import pandas as pd

from safemed import pretrain, provenance, run
from safemed.data import IDENTITY, load_questions
from safemed.tiny import build_tiny
from safemed.vlm import VLM, check_resize, load_processor, save_model


def main() -> None:
    """Write the model folder with its cost.json and curves.csv; a killed training resumes from the checkpoint."""
    parser = run.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the study's data folder")
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder for what a killed run needs to resume")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument(
        "--fetched", nargs="*", type=Path, default=[], help="what download_model.py wrote, of a hub's model"
    )
    args = parser.parse_args()
    run.start_logging()
    if args.settings["model"]["name"] == "tiny":
        train_tiny(args)
    else:
        fetch(args)


def train_tiny(args) -> None:
    """Train the tiny model on the training split."""
    clock = run.Stopwatch("base", "base")
    settings, side = args.settings, args.settings["image_size"]
    questions = load_questions(args.data, "train")
    model, processor = build_tiny(pretrain.corpus(questions), settings["model"]["tiny"], side, args.seed)
    check_resize(processor, side)
    vlm = VLM(model, processor)
    logging.info("%.2f M parameters, %d tokens", sum(p.numel() for p in model.parameters()) / 1e6, len(vlm.tokenizer))
    training = pretrain.Pretraining(vlm, questions, settings["base"], args.seed, side, clock)
    learned = (args.data / "splits.csv", args.data / "questions" / IDENTITY)
    checkpoint = run.checkpoints(args.checkpoint, run.identity(args, __file__, *learned)) / "base.pt"
    curves = training.run(checkpoint, every=settings["base"]["log_steps"])
    with run.atomic_folder(args.out) as folder:
        save_model(model, processor, folder)
        pd.DataFrame(curves).to_csv(folder / "curves.csv", index=False)
        clock.write(folder / "cost.json", vlm.passes)
        provenance.write(folder, args, __file__)
    shutil.rmtree(args.checkpoint)


def fetch(args) -> None:
    """Copy a local checkpoint, or what was fetched from the hub into its cache: no network is needed here."""
    clock = run.Stopwatch("base", "base")
    name, revision = args.settings["model"]["name"], args.settings["model"]["revision"]
    source = Path(json.loads(args.fetched[0].read_text())["path"]) if args.fetched else Path(name)
    if not source.is_dir():
        raise SystemExit(
            f"{source}: no such folder. Name another model.name, or delete {args.fetched} to fetch it again."
        )
    vlm = VLM.load(source)
    check_resize(vlm.processor, args.settings["image_size"])
    with run.atomic_folder(args.out) as folder:
        save_model(vlm.model, load_processor(source), folder)
        pd.DataFrame({"step": []}).to_csv(folder / "curves.csv", index=False)
        clock.write(folder / "cost.json", vlm.passes, source=json.dumps([name, revision]))
        provenance.write(folder, args, __file__)


if __name__ == "__main__":
    main()
