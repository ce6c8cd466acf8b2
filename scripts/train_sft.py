"""Supervised fine-tuning of a variant: on clean images or on augmentations of them, towards plain or stepwise targets."""

from argparse import Namespace
from collections.abc import Callable
from functools import partial

from trl import SFTConfig

from safemed.data.dataset import load_questions
from safemed.models.processor import load_processor
from safemed.training import alterations, common
from safemed.training.abstention import offered
from safemed.training.augmentation import Augmentation
from safemed.training.sft import AugmentedSFTTrainer, AugmentingCollator, earlier_answers


def main() -> None:
    """Write the model folder with cost.json and curves.csv; resumes from the checkpoint folder after a kill."""
    args, meter = common.begin(__doc__, __file__)
    settings, checkpoint = args.settings, args.checkpoint
    processor = load_processor(args.start)
    earlier = earlier_answers(load_questions(args.data, "train")) if settings["targets"] == "stepwise" else None
    trainer = AugmentedSFTTrainer(
        model=common.load_policy(args.start, settings["peft"]),
        args=SFTConfig(**common.shared_arguments(settings, checkpoint, args.seed, args.report_to), max_length=None),
        train_dataset=common.training_rows(common.train_questions(args), args.variant, earlier),
        processing_class=processor,
        data_collator=AugmentingCollator(processor, altered(args)),
        peft_config=common.adapter(settings["peft"]),
        augmentation=Augmentation(**settings["augmentation"]),
    )
    common.train(trainer, args, meter, __file__)


def altered(args: Namespace) -> Callable[[dict], dict]:
    """What training rows become: as they are, or with abstention offered, and the same ones erased in every epoch."""
    if not (share := args.settings["augmentation"].get("erased")):
        return lambda row: row
    return partial(offered, abstain=alterations.templates(args).abstain, share=share, seed=args.seed, purpose="sft")


if __name__ == "__main__":
    main()
