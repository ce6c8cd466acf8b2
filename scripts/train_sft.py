"""Supervised fine-tuning of a variant: on clean, noisy or adversarial images, towards targets of one of three kinds."""

from argparse import Namespace

from datasets import Dataset
from trl import SFTConfig

from safemed.data.dataset import load_questions
from safemed.data.prompts import of_variant
from safemed.models.processor import load_processor
from safemed.models.vlm import load_weights
from safemed.training import common, targets
from safemed.training.augmentation import Augmentation
from safemed.training.sft import AugmentedSFTTrainer, AugmentingCollator


def main() -> None:
    """Write the model folder with cost.json and curves.csv; resumes from the checkpoint folder after a kill."""
    args, meter = common.begin(__doc__, __file__)
    settings, alterations = args.settings, common.alterations(args)
    processor, questions = load_processor(args.start), common.train_questions(args)
    taught = targets_of(questions, args)
    common.check_targets(taught, processor, args)
    alter = _unaltered
    if alterations:
        altering = (settings["augmentation"], args.templates, args.seed)
        common.check_targets(alterations.told_targets(questions, args.variant, taught, *altering), processor, args)
        alter = alterations.for_sft(*altering, args.corpus)
    trainer = AugmentedSFTTrainer(
        model=load_weights(args.start),
        args=SFTConfig(**common.shared_arguments(args), max_length=None),
        train_dataset=common.training_rows(questions, args.variant, taught),
        processing_class=processor,
        data_collator=AugmentingCollator(processor, alter),
        peft_config=common.adapter(settings["peft"]),
        augmentation=Augmentation.read(settings["augmentation"]),
    )
    common.train(trainer, args, meter, __file__)


def targets_of(questions: Dataset, args: Namespace) -> targets.Targets:
    """The targets that the settings name."""
    kind = of_variant(args.settings["targets"], args.variant)
    if kind == "own":
        return targets.own(questions, args.targets)
    if kind == "stepwise":
        return targets.stepwise(questions, load_questions(args.data, "train"), args.variant)
    return targets.plain(questions, args.variant)


def _unaltered(row: dict) -> dict:
    return row


if __name__ == "__main__":
    main()
