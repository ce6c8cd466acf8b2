"""The vision tower made robust, the language model left as it is, by FARE or another objective."""

from transformers import TrainingArguments

from safemed.models.processor import load_processor
from safemed.models.vlm import load_weights
from safemed.training import common, targets
from safemed.training.augmentation import Augmentation
from safemed.training.tower import TowerTrainer, one_row_an_image


def main() -> None:
    """Write the model folder with cost.json and curves.csv; resumes from the checkpoint folder after a kill."""
    args, meter = common.begin(__doc__, __file__)
    settings, processor, questions = args.settings, load_processor(args.start), common.train_questions(args)
    taught = targets.plain(questions, args.variant)
    common.check_targets(taught, processor, args)
    asks = settings["objective"] == "tecoa"
    trainer = TowerTrainer(
        load_weights(args.start),
        TrainingArguments(**common.shared_arguments(args)),
        train_dataset=common.training_rows(questions, args.variant, taught) if asks else one_row_an_image(questions),
        processing_class=processor,
        peft_config=common.adapter(settings["peft"]),
        objective=settings["objective"],
        augmentation=Augmentation.read(settings["augmentation"]),
        vision_optimizer=settings["vision_optimizer"],
    )
    common.train(trainer, args, meter, __file__)


if __name__ == "__main__":
    main()
