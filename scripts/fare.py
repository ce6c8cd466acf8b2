"""FARE on a fine-tuned variant: its vision tower made robust towards its own clean features, without labels."""

from transformers import TrainingArguments

from safemed import training
from safemed.fare import FARETrainer, one_row_an_image
from safemed.views import View
from safemed.vlm import load_processor


def main() -> None:
    """Write the model folder with cost.json and curves.csv; resumes from the checkpoint folder after a kill."""
    args, clock = training.begin(__doc__, __file__)
    settings, checkpoint = args.settings, args.checkpoint
    trainer = FARETrainer(
        training.load_policy(args.start, settings["peft"]),
        TrainingArguments(**training.shared_arguments(settings, checkpoint, args.seed, args.report_to)),
        train_dataset=one_row_an_image(training.train_questions(args)),
        processing_class=load_processor(args.start),
        peft_config=training.adapter(settings["peft"]),
        view=View(**settings["view"]),
    )
    training.train(trainer, args, clock, __file__)


if __name__ == "__main__":
    main()
