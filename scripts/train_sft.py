"""Supervised fine-tuning of a variant: on clean, noisy or adversarial images, towards plain or stepwise targets."""

from trl import SFTConfig

from safemed.data.dataset import load_questions
from safemed.models.processor import load_processor
from safemed.models.vlm import load_weights
from safemed.training import common
from safemed.training.augmentation import Augmentation
from safemed.training.sft import AugmentedSFTTrainer, AugmentingCollator, earlier_answers


def main() -> None:
    """Write the model folder with cost.json and curves.csv; resumes from the checkpoint folder after a kill."""
    args, meter = common.begin(__doc__, __file__)
    settings, alterations = args.settings, common.alterations(args)
    processor = load_processor(args.start)
    alter = alterations.for_sft(settings["augmentation"], args.templates, args.seed) if alterations else _unaltered
    earlier = earlier_answers(load_questions(args.data, "train")) if settings["targets"] == "stepwise" else None
    trainer = AugmentedSFTTrainer(
        model=load_weights(args.start),
        args=SFTConfig(**common.shared_arguments(args), max_length=None),
        train_dataset=common.training_rows(common.train_questions(args), args.variant, earlier),
        processing_class=processor,
        data_collator=AugmentingCollator(processor, alter),
        peft_config=common.adapter(settings["peft"]),
        augmentation=Augmentation.read(settings["augmentation"]),
    )
    common.train(trainer, args, meter, __file__)


def _unaltered(row: dict) -> dict:
    return row


if __name__ == "__main__":
    main()
