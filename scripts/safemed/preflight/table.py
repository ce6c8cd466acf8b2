"""Which jobs of a study fit on a GPU, and how long they take: the table that `snakemake preflight` prints."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from safemed.models.vlm import PRECISIONS
from safemed.preflight.factors import Factors, Run
from safemed.preflight.peak import Cost
from safemed.preflight.shapes import Sizes
from safemed.training.token_losses import CHUNK

GB = 1e9
CACHE_COPIES = 1.1  # a cache grows by being copied, a layer at a time
COLUMNS = ["rule", "model", "what", "jobs", "step", "rows", "at_once", "largest", "memory_gb", "hours"]


@dataclass(frozen=True)
class Machine:
    """What is assumed of a GPU, in the config's section `preflight`."""

    gpu: str
    gpus: int
    memory_gb: float
    usable: float
    bf16_tflops: float
    fp32_tflops: float
    bandwidth_tb: float
    efficiency: float
    token_ms: float

    @property
    def free(self) -> float:
        """The bytes that a job may use: the rest is the driver's, and lost between tensors."""
        return self.memory_gb * GB * self.usable

    def seconds(self, flops: float, precision: str) -> float:
        """The time of so many operations in a precision."""
        peak = self.bf16_tflops if precision == "bf16" else self.fp32_tflops
        return flops / (peak * 1e12 * self.efficiency)

    def writing(self, batches: float, rows: int, tokens: int, weights: float, cache: float, flops: float) -> float:
        """The time of writing completions of so many tokens in batches, token by token.

        A token takes the longest of three: its kernels' launches, its operations, and reading weights and caches.
        """
        read = (weights + 2 * rows * cache) / (self.bandwidth_tb * 1e12)
        return batches * tokens * max(self.token_ms / 1e3, read, self.seconds(flops * rows, "bf16"))


@dataclass(frozen=True)
class Model:
    """A base model as it was measured. factors: step -> Factors; head: of a chunk of tokens; prompt: tokens of it and
    of the image; peft: the config's, None trains all weights; precision: of evaluations; shards: among how many
    processes what the optimizer remembers is divided.
    """

    sizes: Sizes
    factors: dict[str, Factors]
    head: Cost
    prompt: int
    peft: dict | None
    precision: str
    shards: int

    def run(self, rows: int, tokens: int) -> Run:
        """A step at the model's full depth."""
        return Run(self.sizes.text_layers, self.sizes.vision_layers, rows, self.prompt + tokens)

    @property
    def token_flops(self) -> float:
        """Operations of a token that is written: two for each weight of the language model and of its head."""
        return 2 * (self.sizes.parameters - self.sizes.tower)

    def resident(self, step: str, trainer: str | None, held: int) -> float:
        """Bytes that are there before a step: weights, a reference, what the optimizer remembers.

        held: how many models an evaluation holds, which has no trainer.
        """
        if trainer is None:
            return held * self.sizes.parameters * PRECISIONS[self.precision].itemsize
        trained = self.sizes.tower if trainer == "tower" else self.sizes.parameters
        if self.peft:
            trained = sum(self.peft["r"] * (rows + columns) for rows, columns in self.sizes.matrices)
        reference = self.sizes.tower if trainer == "tower" else self.sizes.parameters if trainer == "grpo" else 0
        kept = reference if trainer == "tower" or not self.peft else 0  # the policy without its adapters is one
        shards = 1 if trainer == "tower" else self.shards  # its tower is small, and not divided
        # Those of the batches before, where gradients accumulate; a step's own are measured with it.
        gradients = 0 if step in ("sft", "tower", "grpo") else 4 * trained
        return 4 * (self.sizes.parameters + kept + (trained if self.peft else 0)) + 8 * trained / shards + gradients

    def needed(self, step: str, rows: int, tokens: int) -> float:
        """Bytes that a step makes, at most."""
        if step in ("answer", "rollout"):
            size = 2 if step == "rollout" else PRECISIONS[self.precision].itemsize
            cache = rows * (self.prompt + tokens) * self.sizes.cache * size / 2 * CACHE_COPIES
            return cache + self.factors["query"].at(self.run(rows, 0)).bytes
        more = self.head.bytes if step == "grpo" else 0
        return self.factors[step].at(self.run(rows, tokens)).bytes + more

    def largest(self, step: str, tokens: int, free: float) -> int:
        """How many rows of a step fit into so many bytes."""
        fixed, one = self.needed(step, 0, tokens), self.needed(step, 1, tokens)
        return max(0, math.floor((free - fixed) / (one - fixed)))

    def seconds(self, work: dict, trained: bool, machine: Machine) -> float:
        """The time of a pass, of a training or of an evaluation."""
        step, rows, tokens = work["step"], work["rows"], work["tokens"]
        precision = "bf16" if trained else self.precision
        if step in ("answer", "rollout"):
            first = self.factors["query"].at(self.run(1, 0)).flops * work.get("prompts", rows)
            weights = self.sizes.parameters * (6 if step == "rollout" else PRECISIONS[precision].itemsize)
            cache = (self.prompt + tokens) * self.sizes.cache
            told = (rows / work["at_once"], work["at_once"], tokens, weights, cache, self.token_flops)
            return machine.seconds(first, precision) + machine.writing(*told)
        flops = self.factors[step].at(self.run(1, tokens)).flops * rows
        if step == "grpo":
            flops += self.head.flops / CHUNK * tokens * rows
        return machine.seconds(flops, precision)


def priced(jobs: list[dict], models: dict[str, Model], machine: Machine) -> pd.DataFrame:
    """One row a pass of each job, of COLUMNS. models: name -> the base model that its training starts from.

    Columns:
    rule, model, what: the job. jobs: how many jobs share it.
    step: what is done: answer, rollout (prompts read, and tokens written), query (a forward pass), attack and
        training_attack (a gradient at the image), tower_attack, sft, tower, grpo (a step of a training, without its
        attack and rollouts).
    rows: questions, prompts or draws, in all jobs together; an upper bound.
    at_once: how many the config puts into a batch of one GPU. largest: how many would fit.
    memory_gb: of a batch, in 1e9 bytes, with weights, optimizer and reference.
    hours: of the GPU, in all jobs together.
    """
    return pd.DataFrame([row for job in jobs for row in _rows(job, models[job["model"]], machine)], columns=COLUMNS)


def _rows(job: dict, model: Model, machine: Machine) -> Iterator[dict]:
    for work in job["passes"]:
        step, tokens, at_once = work["step"], work["tokens"], work["at_once"]
        resident = model.resident(step, job["trainer"], job["held"])
        yield {
            **{key: job[key] for key in ("rule", "model", "what", "jobs")},
            "step": step,
            "rows": work["rows"],
            "at_once": at_once,
            "largest": model.largest(step, tokens, machine.free - resident),
            "memory_gb": (resident + model.needed(step, at_once, tokens)) / GB,
            "hours": model.seconds(work, job["trainer"] is not None, machine) / 3600,
        }


def refusals(table: pd.DataFrame, machine: Machine) -> list[str]:
    """A line for each model and step that does not fit, with the setting to change.

    Evaluations halve a batch that does not fit, and fail where a single question does not; a training fails.
    """
    lines = []
    for _, row in table.iterrows():
        if row.largest >= (row.at_once if row["rule"].startswith("train_") else 1):
            continue
        job = f"{row['rule']} {row.model}: {row.step} of {row.at_once} at once"
        needs = f"needs {row.memory_gb:.0f} GB, and {machine.gpu} has {machine.free / GB:.0f} to use"
        lines.append(f"{job} {needs}; {_way_out(row.largest)}")
    return lines


def _way_out(largest: int) -> str:
    if not largest:
        return "train adapters (peft), lower data.image_size or max_new_tokens, or take a larger GPU"
    return f"at most {largest} fit: lower batch_size and raise gradient_accumulation by as much"


def summary(table: pd.DataFrame, machine: Machine, starts: dict[str, list[str]]) -> pd.DataFrame:
    """Hours by rule, of all jobs, and of the longest chain of jobs that wait for each other.

    starts: each trained model -> the models of its chain of trainings, itself included.
    """
    by_rule = table.groupby("rule", sort=False).hours.sum().to_dict()
    own = table[table.rule.str.startswith(("train_", "sample_"))].groupby("model").hours.sum()
    after = table[~table.rule.str.startswith(("train_", "sample_"))]
    longest = (after.hours / after.jobs).groupby([after.model, after.rule, after.what]).sum().groupby("model").max()
    chains = {name: sum(own.get(one, 0) for one in chain) + longest.get(name, 0) for name, chain in starts.items()}
    total, longest_chain = sum(by_rule.values()), max(chains.values())
    shared = max(total / machine.gpus, longest_chain)
    rows = [*by_rule.items(), ("all", total), ("longest chain", longest_chain), (f"on {machine.gpus} GPUs", shared)]
    return pd.DataFrame(rows, columns=["what", "hours"])
