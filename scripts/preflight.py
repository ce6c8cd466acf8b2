"""What a study needs of a GPU, before anything is submitted: memory, batches that fit, and hours, a row a step.

Bytes and operations are measured on this machine's CPU, in a few minutes: on models of the configured widths with three
to five layers, from which those of all layers are extrapolated. Speeds are assumptions, in the config's `preflight`.
"""

from pathlib import Path

import pandas as pd

from safemed.preflight import factors, shapes, table
from safemed.preflight.peak import Cost
from safemed.training.common import adapter
from safemed.utils import cli, files
from safemed.workflow import config as configs
from safemed.workflow.jobs import jobs

COUNTED = ("text_tokens", "stress_tests", "asked", "drawn")  # assumptions about a study, and not about a GPU


def main() -> None:
    """Print the table and write it; fails with a line for each step that does not fit."""
    parser = cli.parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="CSV file to write")
    args = parser.parse_args()
    cli.start_logging()
    config = args.settings  # all of it
    assumed = {key: value for key, value in config["preflight"].items() if key not in COUNTED}
    machine = table.Machine(**assumed)
    work = jobs(config)
    steps = {one["step"] for job in work for one in job["passes"]}
    bases = {base: measured(configs.base_model(config, base), config, steps) for base in configs.bases(config)}
    models = {job["model"]: bases[configs.base_of(config, configs.variant_of(job["model"]))] for job in work}
    found = table.priced(work, models, machine)
    files.write_csv(found, args.out)
    tell(found, table.summary(found, machine, chains(config)))
    if configs.own_targets(config) and not config["data"]["published_counts"]:
        print("not priced: sample_targets, since data.published_counts does not tell how many questions there are")
    print(f"written to {args.out}")
    if lines := table.refusals(found, machine):
        print("\n".join(lines))  # beneath the table: what is written to standard error goes to the log
        raise SystemExit(f"{len(lines)} steps do not fit")


def measured(model: dict, config: dict, steps: set[str]) -> table.Model:
    """A base model's sizes, and the factors of some kinds of steps. model: its section of the config."""
    side, peft, precision = config["data"]["image_size"], config["peft"], config["evaluation_precision"]
    shape = shapes.read_shape(model, side)
    sizes = shapes.sizes(shape)
    prompt = (side // sizes.patch // sizes.merge) ** 2 + config["preflight"]["text_tokens"]
    costs = factors.measured(steps, shape, side, prompt, precision, adapter(peft), factors.runs(prompt))
    fits = {step: factors.Factors.of(runs) for step, runs in costs.items()}
    head = factors.head(shape) if "grpo" in steps else Cost(0, 0)
    return table.Model(sizes, fits, head, prompt, peft, precision, shards(config["resources"]))


def shards(resources: dict) -> int:
    """Among how many processes a training's optimizer is divided."""
    return resources["train_nodes"] * resources["train_processes"] if resources["shard_training"] else 1


def chains(config: dict) -> dict[str, list[str]]:
    """Each model that is trained -> the models that are trained before it, and itself."""
    return {
        f"{name}-{variant}": [f"{start}-{variant}" for start in configs.chain(config, name)]
        for name in configs.needed(config)
        for variant in config["variants"]
    }


def tell(found: pd.DataFrame, hours: pd.DataFrame) -> None:
    """Print both tables."""
    with pd.option_context("display.width", 200, "display.max_rows", None):
        print(found.round({"memory_gb": 1, "hours": 2}).to_string(index=False))
        print(hours.round(1).to_string(index=False))


if __name__ == "__main__":
    main()
