"""How each method is trained: its script, start model, settings, processes and resources."""

import json
from pathlib import Path

from safemed.utils.dependencies import fingerprint
from safemed.workflow import config as configs

ALTERATIONS = (
    "safemed.training.alterations"  # what alters questions; a method without alterations does not depend on it
)
ALTERING = ("hints", "told", "turns", "retrieved", "erased")  # the settings of an augmentation that ask for it


class Trainings:
    """What the rules of the trainings need to know of a study. Methods take wildcards: method, variant and seed."""

    def __init__(self, config: dict, results: str, gpus_here: int = 0):
        """config: the study's; results: its folder; gpus_here: those that jobs share where no cluster does."""
        self.config, self.results, self.gpus_here = config, results, gpus_here
        asked = config["resources"]
        self.monitoring = json.dumps(config["monitoring"], sort_keys=True)
        self.nodes, self.processes, self.gpus = asked["train_nodes"], asked["train_processes"], asked["gpus"]

    def bases(self) -> list[str]:
        """The folders of the models that all trainings start from."""
        return [f"{self.results}/models/{base}" for base in configs.trained_bases(self.config)]

    def fetched(self, wildcards) -> list[str]:
        """The file that says where a base was fetched to from the hub; none for the tiny model or a local folder."""
        model = configs.base_model(self.config, wildcards.base)
        if model["name"] == "tiny" or Path(model["name"]).is_dir():
            return []
        return [f"resources/models/{'--'.join(Path(model['name']).parts)}-{model['revision']}.json"]

    def models(self, method: str) -> list[str]:
        """The model folders of a method, one a variant and seed."""
        return [f"{self.results}/models/{model}" for model in configs.models(self.config, [method])]

    def start(self, wildcards) -> str:
        """The folder of the model that a training starts from."""
        start, variant, seed = self.config["methods"][wildcards.method]["start"], wildcards.variant, wildcards.seed
        base = configs.trained_base(self.config, variant, seed)
        return f"{self.results}/models/{base if start == configs.BASE else f'{start}-{variant}{seed}'}"

    def seed(self, wildcards) -> int:
        """The seed that a model is trained with."""
        return int(wildcards.seed.removeprefix("-seed") or self.config["seed"])

    def corpus(self, wildcards) -> list[str]:
        """The corpus of that model's tower, where the method is trained with retrieved reports."""
        start = self.config["methods"][wildcards.method]["start"]
        taught = configs.retrieves(self.config, wildcards.method)
        return [f"{self.results}/corpora/{start}-{wildcards.variant}{wildcards.seed}"] if taught else []

    def script(self, wildcards) -> str:
        """The script of the method's trainer, below scripts/."""
        return f"train_{self.config['methods'][wildcards.method]['trainer']}.py"

    def code(self, wildcards) -> str:
        """What stands for the code that the training runs."""
        return fingerprint(self.script(wildcards), *self.alterations(wildcards))

    def settings(self, wildcards) -> str:
        """The script's --settings: the trainer's defaults, overridden by the method's own keys."""
        return json.dumps(configs.training_settings(self.config, wildcards.method), sort_keys=True)

    def base_settings(self, wildcards) -> str:
        """The --settings of the base model's script."""
        config, model = self.config, configs.base_model(self.config, wildcards.base)
        settings = {"model": model, "base": config["base"], "image_size": config["data"]["image_size"]}
        settings["variants"] = configs.variants_of(config, wildcards.base)
        return json.dumps(settings, sort_keys=True)

    def alterations(self, wildcards) -> list[str]:
        """The module that alters the questions, where the method draws hints or turns, tells, retrieves or erases."""
        augmentation = configs.training_settings(self.config, wildcards.method)["augmentation"]
        return [ALTERATIONS] if any(augmentation.get(key) for key in ALTERING) else []

    def targets(self, wildcards) -> list[str]:
        """The folder of the start model's own answers, where the method teaches those."""
        own = configs.teaches_own(self.config, wildcards.method, wildcards.variant)
        return [f"{self.results}/targets/{wildcards.method}-{wildcards.variant}{wildcards.seed}"] if own else []

    def sample_settings(self, wildcards) -> str:
        """The --settings of the script that samples those answers."""
        method = configs.training_settings(self.config, wildcards.method)
        settings = {
            "target_samples": method["target_samples"],
            "train_on": method.get("train_on"),
            "batch_size": self.config["certify"]["batch_size"],  # no gradients either
            "max_new_tokens": self.config["max_new_tokens"],
            "precision": self.config["evaluation_precision"],
        }
        return json.dumps(settings, sort_keys=True)

    def templates(self, wildcards) -> list[str]:
        """The file of templates, where the method alters questions."""
        return [self.config["templates"]] if self.alterations(wildcards) else []

    def launcher(self) -> str:
        """How a script is started: once, or in every process that shares a training."""
        if self.nodes > 1:
            # One torchrun a node; they meet where this line is run, at a port that no other job has.
            return (
                f"srun --kill-on-bad-exit --cpu-bind none --nodes {self.nodes} --ntasks {self.nodes} "
                f"--ntasks-per-node 1 torchrun --nnodes {self.nodes} --nproc-per-node {self.processes} "
                "--rdzv-backend c10d --rdzv-id $SLURM_JOB_ID "
                "--rdzv-endpoint $(hostname):$((20000 + SLURM_JOB_ID % 10000)) --"
            )
        return f"torchrun --standalone --nproc-per-node {self.processes} --" if self.processes > 1 else "python"

    def threads(self) -> int:
        """CPU threads of a training. Slurm multiplies them by GPUs or by tasks."""
        return 1 if self.gpus or self.nodes > 1 else self.processes

    def resources(self) -> dict:
        """The resources of a training's processes, on one node or on several."""
        asked = self.gpus * self.nodes * self.processes
        # torchrun's processes take the first GPUs of a machine, whoever else is there: they wait for all of them.
        gpus = {"gpu": max(asked, self.gpus_here) if asked > 1 else asked}
        if self.nodes == 1:
            return gpus
        # Tasks a node keep Slurm from putting three of four GPUs on one of two nodes. `mpi` keeps Snakemake's own srun,
        # which would take one node of the job, from around the launcher's.
        tasks = {"tasks_per_node": self.processes} if self.processes > 1 else {"tasks": self.nodes}
        return {**gpus, **tasks, "tasks_per_gpu": 0, "nodes": self.nodes, "mpi": "srun"}
