# Names that the rules share: the study's folders, and what knows how it is made. Nothing here runs anything.
import json
import os
import re
from pathlib import Path

from safemed.utils.dependencies import fingerprint
from safemed.workflow import config as configuration
from safemed.workflow import failures, leftovers
from safemed.workflow.evaluations import Evaluations
from safemed.workflow.sources import Sources
from safemed.workflow.trainings import Trainings

# Packages that users install for themselves go before those of a conda environment, and pip takes them for installed.
if workflow.deployment_settings.deployment_method:
    os.environ.update(PYTHONNOUSERSITE="1")

RESULTS = f"results/{config['study']}"
DATA = f"{RESULTS}/data"
AUDIT = f"{DATA}/audit"
PREPARED = {"questions": f"{DATA}/questions", "splits": f"{DATA}/splits.csv"}
# Everything that trains or evaluates waits for the audit, which fails where an image stands in two splits, but does not
# depend on what it says: an audit made anew re-runs none of it.
AUDITED = {"audit": ancient(AUDIT), **PREPARED}
sources = Sources(config, DATA)
trainings = Trainings(config, RESULTS, GPUS_HERE)
evaluations = Evaluations(config, RESULTS)


# The name of a trained model. seed: "" for the study's own, else that of a further training, such as -seed1.
MODEL = "{method}-{variant}{seed}"


wildcard_constraints:
    seed=f"(?:{'|'.join(configuration.seeds(config))})",  # in a group: nothing at all would be no constraint
    variant="|".join(config["variants"]),
    method="|".join([configuration.BASE, *config["methods"]]),
    base="|".join(configuration.bases(config)),
    attack="|".join(["clean", *config["attack"]["attacks"]]),
    function="|".join(config["certify"]["functions"]),
    sigma="|".join(re.escape(str(sigma)) for sigma in config["certify"]["sigma"]),
    shard=r"\d+-of-\d+",


def settings(section):
    """A part of the config as a script's --settings: a change of it, and of nothing else, re-runs the rule."""
    return json.dumps(section, sort_keys=True)


def grown(amount):
    """Memory in MB, or minutes, that grow with each attempt."""
    return lambda wildcards, attempt: amount * attempt


def data_folder(wildcards, input):
    """The folder of the prepared questions and their splits."""
    return Path(input.splits).parent
