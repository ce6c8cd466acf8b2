# Paths, and the few functions that say what the rules need. Nothing here runs anything.
import json
import sys
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from safemed import configuration
from safemed.dependencies import sources

configuration.check(config)

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
STUDY_MODELS = configuration.models(config, config["study_methods"])
# What the study's models cost, and how they were trained, takes in every model that they started from.
TRAINED_MODELS = configuration.models(
    config, configuration.lineage(config, config["study_methods"])
)
ABLATION_MODELS = configuration.models(
    config, [*config["study_methods"], *config["ablation_methods"]]
)


wildcard_constraints:
    variant="|".join(config["variants"]),
    method="|".join(config["methods"]),
    attack="|".join(["clean", *config["attack"]["attacks"]]),
    sigma=r"[\d.]+",


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
    return f"scripts/{config['methods'][wildcards.method]['trainer']}.py"


def trainer_sources(wildcards):
    """What the result of a method's training depends on."""
    return sources(Path(trainer_script(wildcards)).name)


def grown(mb):
    """Memory in MB that grows with each attempt."""
    return lambda wildcards, attempt: mb * attempt


def attacked_radii(wildcards):
    """The radii of an attack; up to the headline radius they are the same for the study and for the ablation."""
    studied = wildcards.method in config["study_methods"]
    return configuration.radii(config["attack"], wildcards.attack, studied)


def earlier_attacks(wildcards):
    """The folders of the attacks whose survivors alone are attacked."""
    names = configuration.before(config["attack"], wildcards.variant, wildcards.attack)
    model = f"{wildcards.method}-{wildcards.variant}"
    return [f"{RESULTS}/attacks/{model}/{name}" for name in names]


def attack_folders(models, names):
    """The folders of some attacks on some models; `names` tells those of a variant."""
    return [
        f"{RESULTS}/attacks/{model}/{name}"
        for model in models
        for name in names(model.rpartition("-")[2])
    ]


def sweep_rows(models):
    """The folders of the clean images and of the attacks at all radii."""
    swept = ["clean", *configuration.sweeps(config["attack"])]
    return attack_folders(models, lambda variant: swept)


def suite_rows(models):
    """The folders of the attacks at one radius of their own."""
    swept = configuration.sweeps(config["attack"])
    return attack_folders(
        models,
        lambda variant: [
            name
            for name in configuration.suite(config["attack"], variant)
            if name not in swept
        ],
    )


def of_every(kind, models):
    """The folders of an evaluation that each model has one of."""
    return [f"{RESULTS}/{kind}/{model}" for model in models]


def replay_settings(eps):
    """What a replay is given: eps, the radius that is shown, or none for all; and the smoothed attacks' settings."""
    plans = config["attack"]["attacks"]
    return {
        **{key: config["attack"][key] for key in ("questions", "batch_size")},
        "eps": eps,
        "smoothed": {name: plan for name, plan in plans.items() if "sigma" in plan},
        "max_new_tokens": config["max_new_tokens"],
    }


def certificate_rows(models):
    """The certificate folders of some models."""
    return [
        f"{RESULTS}/certificates/{model}/sigma{sigma}"
        for model in models
        for sigma in config["certify"]["sigma"]
    ]


def files(folders, name):
    """A file in each of some folders that a rule makes."""
    return [f"{folder}/{name}" for folder in folders]
