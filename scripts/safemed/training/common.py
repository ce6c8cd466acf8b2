"""What the three trainers share: rows, adapters, curves, checkpoints, and processes.

A training runs in one process or, started by torchrun, in several (data parallelism): every script does the same in all
of them, and the first one writes.
"""

import argparse
import copy
import importlib
import json
import logging
import os
import pickle
import shutil
from pathlib import Path
from types import ModuleType

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from peft import LoraConfig
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from safemed.data import prompts
from safemed.data.dataset import IDENTITY, load_questions
from safemed.models.chat import Chat
from safemed.models.vlm import save_model
from safemed.training.callbacks import CostCallback, of_all
from safemed.training.checkpoints import last_whole_checkpoint
from safemed.training.monitoring import curves, probe_callback
from safemed.training.targets import Targets, check_lengths
from safemed.utils import cli, cost, files, gpus, provenance, resume

SHARDED = ["Qwen3VLTextDecoderLayer", "Qwen3VLVisionBlock"]  # layers that are gathered one by one
# Of a question, in its row.
READ = ("question_id", "image", "question", "options", "gold", "modality", "question_type", "box")
log = logging.getLogger(__name__)


def training_parser(doc: str) -> argparse.ArgumentParser:
    """The arguments of every training script."""
    made = cli.parser(doc)
    made.add_argument("--data", type=Path, required=True, help="the study's data folder")
    made.add_argument("--start", type=Path, required=True, help="model folder to start from")
    made.add_argument("--stage", required=True, help="the method's name, for cost.json")
    made.add_argument("--name", required=True, help="the model's name, for cost.json")
    made.add_argument("--variant", required=True, choices=prompts.VARIANTS)
    made.add_argument("--checkpoint", type=Path, required=True, help="folder for what a killed run needs to resume")
    made.add_argument("--out", type=Path, required=True, help="model folder to write")
    made.add_argument("--templates", nargs="?", type=Path, help="the file of templates, for a method with alterations")
    made.add_argument("--targets", nargs="?", type=Path, help="what sample_targets.py wrote, for `targets: own`")
    made.add_argument("--corpus", nargs="?", type=Path, help="what build_corpus.py wrote, for `retrieved`")
    made.add_argument("--alterations", nargs="?", help="the module that alters the questions of such a method")
    made.add_argument("--monitoring", type=json.loads, required=True, help="what is logged of the training, as JSON")
    return made


def begin(doc: str, script: str) -> tuple[argparse.Namespace, cost.CostMeter]:
    """A training script's arguments and its running meter; its checkpoint folder holds nothing of another identity."""
    args = training_parser(doc).parse_args()
    cli.start_logging()
    gpus.take_one()
    # Beside the checkpoint folders, which do not outlive their training.
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(args.checkpoint.parent.parent / "tensorboard" / args.name))
    meter, processes = cost.CostMeter(args.stage, args.name), joined()
    if processes.is_main_process:
        resume.checkpoints(args.checkpoint, identity(args, script))
    processes.wait_for_everyone()
    return args, meter


def joined() -> PartialState:
    """The processes that torchrun started, as one training; a single one without it.

    Raises RuntimeError where each of them would train for itself.
    """
    processes, started = PartialState(cpu=not torch.cuda.is_available()), int(os.environ.get("WORLD_SIZE", 1))
    if processes.num_processes != started:
        raise RuntimeError(f"{started} processes were started, and {processes.num_processes} would share the training")
    return processes


def identity(args: argparse.Namespace, script: str) -> dict:
    """What a checkpoint must agree on to be resumed: settings, seed, variant, code, start weights, data, templates, and
    the number of processes, each of which draws its own rollouts. What is monitored is none of it.
    """
    inputs = [args.start / "model.safetensors", args.data / "splits.csv", args.data / "questions" / IDENTITY]
    inputs += [args.templates] if args.templates else []
    inputs += [args.targets / "rows.parquet"] if args.targets else []
    inputs += [args.corpus / "neighbours.parquet"] if args.corpus else []
    known = resume.identity(args, script, *inputs, modules=[args.alterations] if args.alterations else [])
    return known | {"variant": args.variant, "processes": joined().num_processes}


def alterations(args: argparse.Namespace) -> ModuleType | None:
    """The module that alters a method's questions, training.alterations; None for a method without any.

    It is imported by the name that the rule gives, so that other methods do not depend on its code.
    """
    return importlib.import_module(args.alterations) if args.alterations else None


def train_questions(args: argparse.Namespace) -> Dataset:
    """The training split, or the part of it that the method trains on."""
    return load_questions(args.data, "train", args.settings.get("train_on"))


def training_rows(questions: Dataset, variant: str, targets: Targets) -> Dataset:
    """The rows of SFT and GRPO, of the questions with a target: what is READ of each, and how it is `prompts.posed`.

    They are made when they are read, so that no copy of the images is cached in the data folder.
    """
    taught = [i for i, name in enumerate(questions["question_id"]) if name in targets]

    def row(question: dict) -> dict:
        read = {name: question[name] for name in READ if name in question}
        return read | prompts.posed(question, variant, targets[question["question_id"]])

    def rows(batch: dict[str, list]) -> dict[str, list]:
        made = [row(dict(zip(batch, values, strict=True))) for values in zip(*batch.values(), strict=True)]
        return {name: [row[name] for row in made] for name in made[0]}

    return questions.select(taught).with_transform(rows)


def check_targets(targets: Targets, processor, args: argparse.Namespace) -> None:
    """End with one line where a target is longer than the training's variant may write."""
    limit = args.settings["max_new_tokens"][args.variant]
    check_lengths(targets, Chat(processor), processor.tokenizer, limit, f"max_new_tokens.{args.variant}")


def adapter(settings: dict | None, dropout: bool = True) -> LoraConfig | None:
    """LoRA on every linear layer, vision tower included, or None for full fine-tuning.

    settings: the config's `peft` (r, alpha, dropout) or None. Naming q/k/v alone would miss Qwen3-VL's vision tower.
    dropout: False for GRPO, whose loss is of the very policy that rollouts were drawn from.
    """
    if settings is None:
        return None
    return LoraConfig(
        r=settings["r"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"] if dropout else 0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def shared_arguments(args: argparse.Namespace) -> dict:
    """The arguments of transformers' TrainingArguments that all trainers share; every default that bites is set here.

    args: of `training_parser`. The processes of a training share batch_size, and the model where settings say
    `sharded`. Raises ValueError where they cannot.
    """
    settings = args.settings
    shared, rest = divmod(settings["batch_size"], PartialState().num_processes)
    if rest:
        raise ValueError(
            f"batch_size {settings['batch_size']} cannot be shared by {PartialState().num_processes} processes"
        )
    return {
        "output_dir": str(args.checkpoint),
        "max_steps": settings["steps"],
        "per_device_train_batch_size": shared,
        "gradient_accumulation_steps": settings["gradient_accumulation"],
        "learning_rate": settings["learning_rate"],
        "weight_decay": 0.01,
        "lr_scheduler_type": "cosine",
        # The first step of a warm-up has a learning rate of 0: of a single step, it would be the whole training.
        "warmup_steps": min(max(1, settings["steps"] // 20), settings["steps"] - 1),
        "max_grad_norm": 1.0,
        "use_cpu": not torch.cuda.is_available(),  # otherwise processes without a GPU do not find each other
        "bf16": torch.cuda.is_available(),
        "gradient_checkpointing": torch.cuda.is_available(),
        "logging_steps": args.monitoring["log_steps"],
        "save_strategy": "steps",
        "save_steps": settings["save_steps"],
        "save_total_limit": 1,
        "report_to": args.monitoring["report_to"] or "none",
        **(sharding() if settings["sharded"] else {}),
        "remove_unused_columns": False,
        "disable_tqdm": not cli.watched(),
        "seed": args.seed,
        "data_seed": args.seed,
    }


def sharding() -> dict:
    """The arguments of FSDP2. Raises ValueError without GPUs, where accelerate would leave it out without a word.

    Weights stay gathered from a forward pass to its backward pass: the anchor's KL uses the output head between them.
    """
    if not torch.cuda.is_available():
        raise ValueError("resources.shard_training: sharding needs GPUs")
    return {"fsdp": True, "fsdp_config": {"transformer_layer_cls_to_wrap": SHARDED, "reshard_after_forward": False}}


def train(trainer, args: argparse.Namespace, meter: cost.CostMeter, script: str) -> None:
    """Run a trainer from its last checkpoint, or from the start where there is none, and write the model's folder.

    The folder holds weights, processor, curves.csv, cost.json and provenance.json; the checkpoints have served then
    and are removed. The whole model is the trainer's `vlm.model`, whatever part of it is trained.
    """
    trainer.add_callback(probe_callback(trainer.vlm, args))
    trainer.add_callback(CostCallback(meter, trainer.vlm.passes))
    first, sharded, whole = trainer.is_world_process_zero(), args.settings["sharded"], trainer.vlm.model
    if sharded:
        # Generation asks whether a process that is done must go on for the others' sake; FSDP2 does not say so itself.
        (whole.get_base_model() if hasattr(whole, "peft_config") else whole)._is_fsdp_managed_module = True
        whole = copy.deepcopy(whole).cpu() if first else None  # for its weights alone
    (last,) = broadcast_object_list([last_whole_checkpoint(args.checkpoint) if first else None])
    try:
        trainer.train(resume_from_checkpoint=last)
    except pickle.UnpicklingError as error:
        raise SystemExit(f"{last}: no checkpoint of this training; delete {args.checkpoint} to start anew") from error
    if sharded:
        gather(trainer.vlm.model, whole)
    passes = of_all(trainer.vlm.passes)
    if not first:
        return
    with files.atomic_folder(args.out) as folder:
        save_model(whole, trainer.processing_class, folder)
        files.write_csv(curves(trainer.state.log_history), folder / "curves.csv")
        meter.write(folder / "cost.json", passes, processes=PartialState().num_processes)
        provenance.write(folder, args, script)
    shutil.rmtree(args.checkpoint)


def gather(sharded: torch.nn.Module, whole: torch.nn.Module | None) -> None:
    """Give `whole`, the first process's copy from before FSDP2 shared the model out, its weights as they are now.

    Every process must ask. (FSDP2's own state_dict is of the parts, whatever is gathered.)
    """
    weights = get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if weights:
        whole.load_state_dict(weights)
