"""GRPO on a variant: on clean, noisy or adversarial images (AT-GRPO), and on questions that are altered or not."""

from transformers import TrainingArguments

from safemed.data.prompts import of_variant
from safemed.models.processor import load_processor
from safemed.models.vlm import load_weights
from safemed.training import common, targets
from safemed.training.at_grpo import ATGRPOTrainer
from safemed.training.augmentation import Augmentation
from safemed.training.step_rows import unaltered


def main() -> None:
    """Write the model folder with cost.json and curves.csv; resumes from the checkpoint folder after a kill."""
    args, meter = common.begin(__doc__, __file__)
    settings, alterations = args.settings, common.alterations(args)
    settings |= {"num_generations": of_variant(settings["num_generations"], args.variant)}
    processor, questions = load_processor(args.start), common.train_questions(args)
    plain = targets.plain(questions, args.variant)
    common.check_targets(plain, processor, args)
    alter = unaltered
    if alterations:
        alter = alterations.for_grpo(settings["augmentation"], args.templates, args.seed, args.corpus)
    trainer = ATGRPOTrainer(
        load_weights(args.start),
        TrainingArguments(**common.shared_arguments(args)),
        train_dataset=common.training_rows(questions, args.variant, plain),
        processing_class=processor,
        peft_config=common.adapter(settings["peft"], dropout=False),
        augmentation=Augmentation.read(settings["augmentation"]),
        settings=settings,
        limit=settings["max_new_tokens"][args.variant],
        alter=alter,
    )
    common.train(trainer, args, meter, __file__)


if __name__ == "__main__":
    main()
