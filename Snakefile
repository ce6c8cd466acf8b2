# SafeMed-R1: adversarial training inside GRPO for medical vision-language models, from raw data to report.
#
#   data -> base -> sft -> fare -> at-grpo -> attack, certify -> tables -> figures -> report
#
# The rules of each stage stand in workflow/rules/, a script a rule in scripts/; this file names what they make together.
from snakemake.utils import min_version, validate

min_version("9.27")


configfile: "workflow/defaults.yaml"
configfile: "config.yaml"


validate(config, "workflow/schemas/config.schema.yaml")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


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
    report,


# A driver that was killed leaves its Slurm jobs behind: no second writer beside them, nothing of theirs without a record.
onstart:
    cluster.refuse_leftovers(workflow, Path.cwd())


rule all:
    default_target: True
    input:
        TABLES,
        FIGURES,
        f"{RESULTS}/report.html",


rule data:
    input:
        AUDIT,


rule base:
    input:
        f"{RESULTS}/models/base",


# A target for each method, of the same name: its models in all variants.
for method in config["methods"]:

    rule:
        name:
            method
        input:
            trained(method),
        localrule: True


rule attack:
    input:
        sweep_rows(STUDY_MODELS),
        suite_rows(STUDY_MODELS),
        of_every("sanity", STUDY_MODELS),
        of_every("transfer", STUDY_MODELS),


# The stored images scored again, no attack run: fails where a row is not what it was.
rule replay:
    input:
        of_every(REPLAY, dict.fromkeys([*STUDY_MODELS, *CERTIFIED_MODELS])),


rule certify:
    input:
        certificate_rows(CERTIFIED_MODELS),
        smoothed_rows(CERTIFIED_MODELS),


# Words and cues as the attack, and an attack on the pixels that knows the words.
rule stress:
    input:
        of_every("stress", STUDY_MODELS),
        adaptive_rows(STUDY_MODELS),


rule tables:
    input:
        TABLES,


rule figures:
    input:
        FIGURES,


rule report:
    input:
        f"{RESULTS}/report.html",


onerror:
    print(failures.summarise(log), file=sys.stderr)
