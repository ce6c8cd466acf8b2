"""GRPO on a fine-tuned variant: on clean, noisy or adversarial images, and on questions that are altered or not."""

from argparse import Namespace

from trl import GRPOConfig

from safemed.models.processor import load_processor, placeholder_ids
from safemed.training import common, rewards
from safemed.training.at_grpo import ATGRPOTrainer
from safemed.training.augmentation import Augmentation
from safemed.training.step_rows import unaltered


def main() -> None:
    """Write the model folder with cost.json and curves.csv; resumes from the checkpoint folder after a kill."""
    args, meter = common.begin(__doc__, __file__)
    settings = args.settings
    processor, alterations = load_processor(args.start), common.alterations(args)
    trainer = ATGRPOTrainer(
        model=common.load_policy(args.start, settings["peft"]),
        args=grpo_config(args, processor.tokenizer),
        reward_funcs=[rewards.accuracy, rewards.format],
        train_dataset=common.training_rows(common.train_questions(args), args.variant),
        processing_class=processor,
        peft_config=common.adapter(settings["peft"]),
        augmentation=Augmentation.read(settings["augmentation"]),
        beta=settings["beta"],
        alter=alterations.for_grpo(settings["augmentation"], args.templates, args.seed) if alterations else unaltered,
    )
    common.train(trainer, args, meter, __file__)


def grpo_config(args: Namespace, tokenizer) -> GRPOConfig:
    """TRL's configuration: one update a generated batch, so that the perturbation is the current policy's.

    vLLM draws from weights of its own, so its rollouts are weighted by importance; it bans tokens by their bias.
    """
    settings, banned = args.settings, placeholder_ids(tokenizer)
    return GRPOConfig(
        **common.shared_arguments(args),
        num_generations=settings["num_generations"],
        max_completion_length=settings["max_new_tokens"][args.variant],
        temperature=settings["temperature"],
        reward_weights=[settings["rewards"]["accuracy"], settings["rewards"]["format"]],
        scale_rewards=settings["scale_rewards"],
        loss_type="grpo",
        beta=0.0,
        generation_kwargs=(
            {"logit_bias": dict.fromkeys(banned, -100.0)} if settings["vllm"] else {"suppress_tokens": banned}
        ),
        use_vllm=settings["vllm"],
        vllm_mode="colocate",
        vllm_importance_sampling_correction=True,
    )


if __name__ == "__main__":
    main()
