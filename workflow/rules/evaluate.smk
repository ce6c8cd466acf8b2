# One row a question: the answer generated from the stored adversarial image, or the certificate. All rules here are
# attack_model with another script, other inputs and other arguments.
rule attack_model:
    input:
        **AUDITED,
        weights=evaluations.weights,
        before=evaluations.before,
        templates=evaluations.templates,
    output:
        folder=directory(f"{RESULTS}/attacks/{MODEL}/{{attack}}"),
    log:
        f"{RESULTS}/logs/attack_model-{MODEL}-{{attack}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/attack_model-{MODEL}-{{attack}}.tsv"
    conda:
        "../../envs/attack.yaml"
    resources:
        mem_mb=grown(config["resources"]["attack_mem_mb"]),
        runtime=grown(config["resources"]["attack_minutes"]),
        gpu=config["resources"]["gpus"],
    params:
        code=fingerprint("attack.py"),
        script="attack.py",
        data=data_folder,
        weights=lambda wildcards, input: input.weights,
        model=evaluations.model,
        settings=evaluations.attack_settings,
        arguments=evaluations.attack_arguments,
        seed=config["seed"],
    shell:
        "python scripts/{params.script} --data {params.data} --weights {params.weights:q} --model {params.model} "
        "--method {wildcards.method} --variant {wildcards.variant} {params.arguments} --out {output.folder} "
        "--seed {params.seed} --settings {params.settings:q} > {log} 2>&1"


# Direct attacks, nothing carried over: what the sanity table is made of.
use rule attack_model as probe_attacks with:
    input:
        **AUDITED,
        weights=evaluations.weights,
    output:
        folder=directory(f"{RESULTS}/sanity/{MODEL}"),
    log:
        f"{RESULTS}/logs/probe_attacks-{MODEL}.log",
    benchmark:
        f"{RESULTS}/benchmarks/probe_attacks-{MODEL}.tsv"
    params:
        code=fingerprint("sanity.py"),
        script="sanity.py",
        settings=evaluations.sanity_settings(),
        arguments="",


# What the nearest training images tell of test images, by the vision tower alone, clean and attacked.
use rule attack_model as probe_towers with:
    input:
        **AUDITED,
        weights=evaluations.weights,
    output:
        folder=directory(f"{RESULTS}/towers/{MODEL}"),
    log:
        f"{RESULTS}/logs/probe_towers-{MODEL}.log",
    benchmark:
        f"{RESULTS}/benchmarks/probe_towers-{MODEL}.tsv"
    params:
        code=fingerprint("probe_towers.py"),
        script="probe_towers.py",
        settings=evaluations.towers_settings(),
        arguments="",


# Stored adversarial images of every model of a seed, shown to one of them: no attack, only answers.
use rule attack_model as transfer_images with:
    input:
        **AUDITED,
        weights=evaluations.weights,
        attacks=evaluations.transferred,
    output:
        folder=directory(f"{RESULTS}/transfer/{MODEL}"),
    log:
        f"{RESULTS}/logs/transfer_images-{MODEL}.log",
    benchmark:
        f"{RESULTS}/benchmarks/transfer_images-{MODEL}.tsv"
    params:
        code=fingerprint("replay.py"),
        script="replay.py",
        settings=evaluations.transfer_settings(),
        arguments=evaluations.transfer_arguments,


# All stored images of a model's attacks, scored again: on the same model in fp32, the rows must be the same.
use rule attack_model as replay_attacks with:
    input:
        **AUDITED,
        weights=evaluations.weights,
        attacks=evaluations.stored,
        templates=config["templates"],
    output:
        folder=directory(f"{RESULTS}/{evaluations.replay}/{MODEL}"),
    log:
        f"{RESULTS}/logs/{evaluations.replay}_attacks-{MODEL}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{evaluations.replay}_attacks-{MODEL}.tsv"
    params:
        code=fingerprint("replay.py"),
        script="replay.py",
        weights=lambda wildcards, input: evaluations.replayed_on or input.weights,
        model=evaluations.replay_model,
        settings=evaluations.replay_settings(),
        arguments=evaluations.replay_arguments,


# Words and cues as the attack: every hint, changed option and altered image, and the chains of evidence.
use rule attack_model as stress_model with:
    input:
        **AUDITED,
        weights=evaluations.weights,
        templates=config["templates"],
        attack=f"{RESULTS}/attacks/{MODEL}/{config['stress']['attack']}",
    output:
        folder=directory(f"{RESULTS}/stress/{MODEL}"),
    log:
        f"{RESULTS}/logs/stress_model-{MODEL}.log",
    benchmark:
        f"{RESULTS}/benchmarks/stress_model-{MODEL}.tsv"
    params:
        code=fingerprint("stress.py"),
        script="stress.py",
        settings=evaluations.stress_settings(),
        arguments=evaluations.stress_arguments,


# A second turn as the attack: what the user says to the model's own answer.
use rule attack_model as turns_model with:
    input:
        **AUDITED,
        weights=evaluations.weights,
        templates=config["templates"],
        attack=f"{RESULTS}/attacks/{MODEL}/{config['turns']['attack']}",
    output:
        folder=directory(f"{RESULTS}/turns/{MODEL}"),
    log:
        f"{RESULTS}/logs/turns_model-{MODEL}.log",
    benchmark:
        f"{RESULTS}/benchmarks/turns_model-{MODEL}.tsv"
    params:
        code=fingerprint("turns.py"),
        script="turns.py",
        settings=evaluations.turns_settings(),
        arguments=evaluations.stress_arguments,


# A red team that puts changes of a question together until the model's answer is not right.
use rule attack_model as redteam_model with:
    input:
        **AUDITED,
        weights=evaluations.weights,
        templates=config["templates"],
    output:
        folder=directory(f"{RESULTS}/redteam/{MODEL}"),
    log:
        f"{RESULTS}/logs/redteam_model-{MODEL}.log",
    benchmark:
        f"{RESULTS}/benchmarks/redteam_model-{MODEL}.tsv"
    params:
        code=fingerprint("redteam.py"),
        script="redteam.py",
        settings=evaluations.redteam_settings(),
        arguments=evaluations.redteam_arguments,


# Images uncovered cell by cell: how accurate the model is, and how sure, at each share of the evidence.
use rule attack_model as reveal_model with:
    input:
        **AUDITED,
        weights=evaluations.weights,
        attack=f"{RESULTS}/attacks/{MODEL}/{config['reveal']['attack']}",
    output:
        folder=directory(f"{RESULTS}/reveal/{MODEL}"),
    log:
        f"{RESULTS}/logs/reveal_model-{MODEL}.log",
    benchmark:
        f"{RESULTS}/benchmarks/reveal_model-{MODEL}.tsv"
    params:
        code=fingerprint("reveal.py"),
        script="reveal.py",
        settings=evaluations.reveal_settings(),
        arguments=evaluations.reveal_arguments,


# What reports are retrieved from: the training images as one tower sees them, each with its right answers.
use rule attack_model as build_corpus with:
    input:
        **AUDITED,
        weights=evaluations.weights,
    output:
        folder=directory(f"{RESULTS}/corpora/{MODEL}"),
    log:
        f"{RESULTS}/logs/build_corpus-{MODEL}.log",
    benchmark:
        f"{RESULTS}/benchmarks/build_corpus-{MODEL}.tsv"
    params:
        code=fingerprint("build_corpus.py"),
        script="build_corpus.py",
        settings=evaluations.corpus_settings,
        arguments="",


# Questions beside reports that are retrieved, from a sound corpus and from poisoned ones.
use rule attack_model as retrieve_model with:
    input:
        **AUDITED,
        weights=evaluations.weights,
        templates=config["templates"],
        attack=f"{RESULTS}/attacks/{MODEL}/{config['retrieve']['attack']}",
        towers=evaluations.retrieving,
        corpora=evaluations.corpora,
    output:
        folder=directory(f"{RESULTS}/retrieve/{MODEL}"),
    log:
        f"{RESULTS}/logs/retrieve_model-{MODEL}.log",
    benchmark:
        f"{RESULTS}/benchmarks/retrieve_model-{MODEL}.tsv"
    params:
        code=fingerprint("retrieve.py"),
        script="retrieve.py",
        settings=evaluations.retrieve_settings(),
        arguments=evaluations.retrieve_arguments,


# Defences at inference, against attacks that do not know them and against those made for them.
use rule attack_model as defend_model with:
    input:
        **AUDITED,
        weights=evaluations.weights,
        templates=config["templates"],
        attack=f"{RESULTS}/attacks/{MODEL}/{config['defend']['attack']}",
    output:
        folder=directory(f"{RESULTS}/defend/{MODEL}"),
    log:
        f"{RESULTS}/logs/defend_model-{MODEL}.log",
    benchmark:
        f"{RESULTS}/benchmarks/defend_model-{MODEL}.tsv"
    params:
        code=fingerprint("defend.py"),
        script="defend.py",
        settings=evaluations.defend_settings(),
        arguments=evaluations.stress_arguments,


# Certificates of one function of a model at one sigma, of a shard of the questions.
use rule attack_model as certify_model with:
    input:
        **AUDITED,
        weights=evaluations.weights,
    output:
        folder=directory(
            f"{RESULTS}/certificates/{MODEL}/{{function}}-sigma{{sigma}}/{{shard}}"
        ),
    log:
        f"{RESULTS}/logs/certify_model-{MODEL}-{{function}}-sigma{{sigma}}-{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/certify_model-{MODEL}-{{function}}-sigma{{sigma}}-{{shard}}.tsv"
    conda:
        "../../envs/certify.yaml"
    params:
        code=fingerprint("certify.py"),
        script="certify.py",
        settings=evaluations.certify_settings(),
        arguments=evaluations.certify_arguments,
