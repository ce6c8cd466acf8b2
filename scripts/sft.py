"""Supervised fine-tuning of a variant: on clean images or on views of them, towards plain or stepwise targets."""

from argparse import Namespace
from collections.abc import Callable
from functools import partial

from trl import SFTConfig

from safemed import training
from safemed.abstention import offered
from safemed.data import load_questions
from safemed.sft import ViewCollator, ViewSFTTrainer, earlier_answers
from safemed.views import View
from safemed.vlm import load_processor


def main() -> None:
    """Write the model folder with cost.json and curves.csv; resumes from the checkpoint folder after a kill."""
    args, clock = training.begin(__doc__, __file__)
    settings, checkpoint = args.settings, args.checkpoint
    processor = load_processor(args.start)
    earlier = earlier_answers(load_questions(args.data, "train")) if settings["targets"] == "stepwise" else None
    trainer = ViewSFTTrainer(
        model=training.load_policy(args.start, settings["peft"]),
        args=SFTConfig(**training.shared_arguments(settings, checkpoint, args.seed, args.report_to), max_length=None),
        train_dataset=training.training_rows(training.train_questions(args), args.variant, earlier),
        processing_class=processor,
        data_collator=ViewCollator(processor, altered(args)),
        peft_config=training.adapter(settings["peft"]),
        view=View(**settings["view"]),
    )
    training.train(trainer, args, clock, __file__)


def altered(args: Namespace) -> Callable[[dict], dict]:
    """What training rows become: as they are, or with abstention offered, and the same ones erased in every epoch."""
    if not (share := args.settings["view"].get("erased")):
        return lambda row: row
    return partial(offered, abstain=training.templates(args).abstain, share=share, seed=args.seed, purpose="sft")


if __name__ == "__main__":
    main()
