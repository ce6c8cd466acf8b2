# Paths, and the few functions that say what the rules need. Nothing here runs anything.
import json
import os
import sys
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from safemed.utils.dependencies import fingerprint
from safemed.workflow import cluster, failures
from safemed.workflow import config as configuration

configuration.check(config)

# Packages that users install for themselves go before those of a conda environment, and pip takes them for installed.
if workflow.deployment_settings.deployment_method:
    os.environ.update(PYTHONNOUSERSITE="1")

RESULTS = f"results/{config['study']}"
DATA = f"{RESULTS}/data"
AUDIT = f"{DATA}/audit"
PREPARED = {"questions": f"{DATA}/questions", "splits": f"{DATA}/splits.csv"}
# Where the records come from: phantoms, the hub's zip or a local one (unpacked once for all studies), or a folder.
NAMED = config["data"]["source"]
HUB = config["data"]["hub"]
ARCHIVE = NAMED if str(NAMED).endswith(".zip") else f"resources/{HUB['file']}"
# Zips of one name, or revisions of the hub's, are unpacked side by side.
WHICH = sha256(json.dumps(HUB if NAMED == "hub" else NAMED).encode()).hexdigest()[:8]
UNPACKED = f"resources/unpacked/{Path(ARCHIVE).stem}-{WHICH}"
PHANTOMS = f"{DATA}/source"
SOURCE = {None: PHANTOMS, "hub": UNPACKED, ARCHIVE: UNPACKED}.get(NAMED, NAMED)
# A model of the hub is fetched once for all studies; the tiny one and a local folder need no network.
MODEL = config["model"]["name"]
FETCHED = (
    []
    if MODEL == "tiny" or Path(MODEL).is_dir()
    else [
        f"resources/models/{'--'.join(Path(MODEL).parts)}-{config['model']['revision']}.json"
    ]
)
# A replay on another model says so in its folder and in its rows.
REPLAY_ON = config["attack"]["replay_on"]
REPLAY = "replay" + (f"-on-{Path(REPLAY_ON).name}" if REPLAY_ON else "")
STUDY_MODELS = configuration.models(config, config["study_methods"])
CERTIFIED_MODELS = configuration.models(config, configuration.certified_methods(config))
# What the study's models cost, and how they were trained, takes in every model that they started from.
TRAINED_MODELS = configuration.models(
    config, configuration.lineage(config, configuration.studied(config))
)


wildcard_constraints:
    variant="|".join(config["variants"]),
    method="|".join(config["methods"]),
    attack="|".join(["clean", *config["attack"]["attacks"]]),
    function="|".join(config["certify"]["functions"]),
    sigma=r"[\d.]+",


# The questions of a certificate table are shared among jobs; make_tables gathers them, and refuses to lack one.
scattergather:
    certify=config["certify"]["shards"],


def settings(section):
    """A part of the config as a script's --settings: a change of it, and of nothing else, re-runs the rule."""
    return json.dumps(section, sort_keys=True)


def record_files(source):
    """The records of a folder of the user's: an edit inside it does not change the time of the folder."""
    made = source in (PHANTOMS, UNPACKED)
    return [] if made else listed(source, "QA_information/Open-access/*.json")


def published_files():
    """The files of a published split, where the scheme reads them."""
    split = config["data"]["split"]
    if split["scheme"] != "med-r1":
        return []
    return [
        file
        for kind in ("train", "test")
        for file in listed(split["published"], f"{kind}/*.json")
    ]


def listed(folder, pattern):
    """The files below a folder of the user's, by name."""
    return sorted(map(str, Path(folder).glob(pattern)))


def data_folder(wildcards, input):
    """The folder of the prepared questions and their splits."""
    return Path(input.splits).parent


def prefix(wildcards, output):
    """A figure's path without its suffix."""
    return Path(output.png).with_suffix("")


def trained(method):
    """The model folders of a method, one a variant."""
    return [
        f"{RESULTS}/models/{model}" for model in configuration.models(config, [method])
    ]


def start_model(wildcards):
    """The folder that a method's training starts from."""
    start = config["methods"][wildcards.method]["start"]
    return f"{RESULTS}/models/" + (
        start if start == configuration.BASE else f"{start}-{wildcards.variant}"
    )


def trainer_script(wildcards):
    """The script of a method's trainer."""
    return f"scripts/train_{config['methods'][wildcards.method]['trainer']}.py"


def trainer_code(wildcards):
    """What the result of a method's training depends on."""
    return fingerprint(Path(trainer_script(wildcards)).name)


def taught_templates(wildcards):
    """The file of templates, where a method's training draws hints or offers to abstain."""
    augmentation = configuration.training_settings(config, wildcards.method)[
        "augmentation"
    ]
    return (
        [config["templates"]]
        if augmentation.get("hints") or augmentation.get("erased")
        else []
    )


def grown(amount):
    """Memory in MB, or minutes, that grow with each attempt."""
    return lambda wildcards, attempt: amount * attempt


NODES = config["resources"]["train_nodes"]
PROCESSES = config["resources"]["train_processes"]


def launcher():
    """How a training's script is started: once, or in every process that shares the training."""
    if NODES > 1:
        # One torchrun a node; they meet where this line is run, at a port that no other job has.
        return (
            f"srun --kill-on-bad-exit --cpu-bind none --nodes {NODES} --ntasks {NODES} --ntasks-per-node 1 "
            f"torchrun --nnodes {NODES} --nproc-per-node {PROCESSES} --rdzv-backend c10d --rdzv-id $SLURM_JOB_ID "
            "--rdzv-endpoint $(hostname):$((20000 + SLURM_JOB_ID % 10000)) --"
        )
    return (
        f"torchrun --standalone --nproc-per-node {PROCESSES} --"
        if PROCESSES > 1
        else "python"
    )


def shares():
    """The resources of a training's processes, on one node or on several."""
    gpus = {"gpu": config["resources"]["gpus"] * NODES * PROCESSES}
    if NODES == 1:
        return gpus
    # Tasks a node keep Slurm from putting three of four GPUs on one of two nodes. `mpi` keeps Snakemake's own srun, which
    # would take one node of the job, from around the launcher's.
    tasks = {"tasks_per_node": PROCESSES} if PROCESSES > 1 else {"tasks": NODES}
    return {**gpus, **tasks, "tasks_per_gpu": 0, "nodes": NODES, "mpi": "srun"}


def attacked_radii(wildcards):
    """The radii of an attack."""
    return configuration.radii(config["attack"], wildcards.attack)


def attack_settings(wildcards):
    """What an attack's script is given; a smoothed model is attacked on the questions that are certified, and one under
    a hint on those that hints are put to.
    """
    attack, plan = config["attack"], config["attack"]["attacks"].get(wildcards.attack)
    asked = attack
    if plan and "sigma" in plan:
        asked = config["certify"]
    elif plan and "hint" in plan:
        asked = config["stress"]
    return settings(
        {
            **{key: attack[key] for key in ("batch_size", "amp")},
            "questions": asked["questions"],
            wildcards.attack: plan,
            "max_new_tokens": config["max_new_tokens"],
        }
    )


def attack_templates(wildcards):
    """The file of hints, where an attack knows one."""
    plan = config["attack"]["attacks"].get(wildcards.attack, {})
    return [config["templates"]] if "hint" in plan else []


def earlier_attacks(wildcards):
    """The folders of the attacks whose survivors alone are attacked."""
    names = configuration.before(config["attack"], wildcards.variant, wildcards.attack)
    model = f"{wildcards.method}-{wildcards.variant}"
    return [f"{RESULTS}/attacks/{model}/{name}" for name in names]


def attack_folders(evaluation, models, names):
    """The folders of some attacks on some models, if the study makes their evaluation; `names` gives those of a variant."""
    return [
        f"{RESULTS}/attacks/{model}/{name}"
        for model in models
        if evaluation in config["evaluations"]
        for name in names(model.rpartition("-")[2])
    ]


def sweep_rows(models):
    """The folders of the clean images and of the attacks at all radii."""
    return attack_folders(
        "attack",
        models,
        lambda variant: ["clean", *configuration.sweeps(config["attack"], variant)],
    )


def suite_rows(models):
    """The folders of the attacks at one radius of their own."""
    swept = configuration.sweeps(config["attack"])
    return attack_folders(
        "attack",
        models,
        lambda variant: [
            name
            for name in configuration.suite(config["attack"], variant)
            if name not in swept
        ],
    )


def smoothed_rows(models):
    """The folders of the attacks on smoothed models, and of those on the models themselves that they are held against."""
    return attack_folders(
        "certify",
        models,
        lambda variant: [
            "clean",
            "pgd",
            *configuration.smoothed_attacks(config, variant),
        ],
    )


def adaptive_rows(models):
    """The folders of the attack that knows the hint."""
    return attack_folders(
        "stress", models, lambda variant: [config["stress"]["adaptive"]]
    )


def stored_images(wildcards):
    """The folders of all attacks on a studied or certified model."""
    model = f"{wildcards.method}-{wildcards.variant}"
    found = []
    if model in STUDY_MODELS:
        found += sweep_rows([model]) + suite_rows([model]) + adaptive_rows([model])
    if model in CERTIFIED_MODELS:
        found += smoothed_rows([model])
    return list(dict.fromkeys(found))


def of_every(kind, models):
    """The folders of an evaluation that each model has one of, if the study makes it; a replay is made when asked for."""
    made = kind in (*config["evaluations"], REPLAY)
    return [f"{RESULTS}/{kind}/{model}" for model in models if made]


def replay_settings(eps, attacks):
    """What a replay of some attacks is given; eps: the radius that is shown, or none for all."""
    return {
        "batch_size": config["attack"]["batch_size"],
        "eps": eps,
        "attacks": {name: config["attack"]["attacks"][name] for name in attacks},
        "max_new_tokens": config["max_new_tokens"],
    }


def certificate_rows(models):
    """The certificate folders of some models: a folder a function, sigma and shard."""
    return [
        folder
        for model in models
        for function in config["certify"]["functions"]
        for sigma in config["certify"]["sigma"]
        for folder in gather.certify(
            f"{RESULTS}/certificates/{model}/{function}-sigma{sigma}/{{scatteritem}}"
        )
    ]


def costs(*folders):
    """The cost.json of folders, each once, however many tables they serve."""
    return files(dict.fromkeys(folders), "cost.json")


def files(folders, name):
    """A file in each of some folders that a rule makes."""
    return [f"{folder}/{name}" for folder in folders]
