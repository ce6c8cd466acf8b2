# SafeMed-R1: adversarial training inside GRPO for medical vision-language models, from raw data to report.
#
#   data -> base -> sft | at-grpo -> attack, certify, stress -> tables -> figures -> report
#
# The rules of each stage stand in workflow/rules/, a script a rule in scripts/; this file names what they make together.
import sys
from pathlib import Path

from snakemake.utils import min_version, update_config

min_version("9.27")
sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from safemed.workflow import checks, config_files, machine, schema

checks.refuse(machine.faults(workflow))
GPUS_HERE = machine.share_gpus(workflow)

# What the command line adds is in `configfiles` before what is added here.
for path in ["workflow/defaults.yaml", "config.yaml", *workflow.configfiles]:
    checks.refuse(config_files.faults(Path(path)))


configfile: "workflow/defaults.yaml"
configfile: "config.yaml"


# Numbers inside --config 'section={...}' arrive as text.
update_config(config, schema.typed(workflow.config_settings.config))
checks.refuse(checks.faults(config))


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/preflight.smk"


localrules:
    download_archive,
    download_model,
    all,
    data,
    base,
    attack,
    replay,
    certify,
    stress,
    tables,
    figures,
    pages,
    report,


# No second writer beside the jobs of a killed driver, and no output of which nobody knows how it was made.
onstart:
    leftovers.refuse(workflow, Path.cwd())


rule all:
    default_target: True
    input:
        TABLES,
        PROVENANCE,
        FIGURES,
        PAGES,
        f"{RESULTS}/report.html",


rule data:
    input:
        AUDIT,


rule base:
    input:
        trainings.bases(),


# A target for each method, of the same name: its models in all variants.
for method in config["methods"]:

    rule:
        name:
            method
        input:
            trainings.models(method),
        localrule: True


rule attack:
    input:
        evaluations.sweeps(evaluations.studied),
        evaluations.suite(evaluations.studied),
        evaluations.of_every("sanity", evaluations.studied),
        evaluations.of_every("transfer", evaluations.studied),
        evaluations.of_every("towers", evaluations.studied),


# The stored images scored again, no attack run: fails where a row is not what it was, in fp32.
rule replay:
    input:
        evaluations.replays(),


rule certify:
    input:
        evaluations.certificates(evaluations.certified),
        evaluations.unsmoothed(evaluations.certified),
        evaluations.smoothed(evaluations.certified),


# Words and cues as the attack, second turns, attacks on the pixels that know the words, a red team that seeks worse, and
# defences at inference, images that are revealed step by step, and retrieved reports that may be poisoned.
rule stress:
    input:
        evaluations.of_every("stress", evaluations.studied),
        evaluations.adaptive("stress", evaluations.studied),
        evaluations.of_every("turns", evaluations.studied),
        evaluations.adaptive("turns", evaluations.studied),
        evaluations.of_every("redteam", evaluations.studied),
        evaluations.of_every("defend", evaluations.studied),
        evaluations.of_every("reveal", evaluations.studied),
        evaluations.of_every("retrieve", evaluations.studied),


rule tables:
    input:
        TABLES,


rule figures:
    input:
        FIGURES,


# Adversarial images to page through, and tables to sort.
rule pages:
    input:
        PAGES,


rule report:
    input:
        f"{RESULTS}/report.html",


onerror:
    print(failures.summarise(log), file=sys.stderr)


# A folder of results that was renamed or copied here: nobody knows how it was made.
leftovers.refuse_moved(workflow, RESULTS)
