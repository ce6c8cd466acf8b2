# The base model and the methods trained from it. A killed training resumes from its folder below checkpoints/. Trainings
# go before evaluations: the longest chain of jobs decides when a study ends.
# The download runs where Snakemake itself does: a cluster's nodes may have no network.
rule download_model:
    output:
        snapshot="resources/models/{name}-{revision}.json",
    log:
        f"{RESULTS}/logs/download_model-{{name}}-{{revision}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/download_model-{{name}}-{{revision}}.tsv"
    wildcard_constraints:
        revision="[0-9a-f]{40}",
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=1000,
        runtime=grown(600),
    params:
        model=lambda wildcards: wildcards.name.replace("--", "/"),
    shell:
        "python scripts/download_model.py --model {params.model} --revision {wildcards.revision} "
        "--out {output.snapshot} > {log} 2>&1"


rule make_base:
    input:
        **AUDITED,
        fetched=trainings.fetched,
    output:
        folder=directory(f"{RESULTS}/models/{{base}}{{seed}}"),
    log:
        f"{RESULTS}/logs/make_{{base}}{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/make_{{base}}{{seed}}.tsv"
    priority: 10
    conda:
        "../../envs/train.yaml"
    threads: config["resources"]["base_threads"]
    resources:
        mem_mb=grown(config["resources"]["train_mem_mb"]),
        runtime=grown(config["resources"]["train_minutes"]),
        gpu=config["resources"]["gpus"],
    params:
        code=fingerprint("make_base.py"),
        data=data_folder,
        checkpoint=f"{RESULTS}/checkpoints/{{base}}{{seed}}",
        settings=trainings.base_settings,
        seed=trainings.seed,
    shell:
        "python scripts/make_base.py --data {params.data} --checkpoint {params.checkpoint} --out {output.folder} "
        "--name {wildcards.base}{wildcards.seed} --fetched {input.fetched} --seed {params.seed} --settings {params.settings:q} "
        "> {log} 2>&1"


# The start model's own answers to the training questions, of which methods with `targets: own` learn the right ones.
rule sample_targets:
    input:
        **AUDITED,
        weights=trainings.start,
    output:
        folder=directory(f"{RESULTS}/targets/{MODEL}"),
    log:
        f"{RESULTS}/logs/sample_targets-{MODEL}.log",
    benchmark:
        f"{RESULTS}/benchmarks/sample_targets-{MODEL}.tsv"
    priority: 10
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=grown(config["resources"]["attack_mem_mb"]),
        runtime=grown(config["resources"]["train_minutes"]),
        gpu=config["resources"]["gpus"],
    params:
        code=fingerprint("sample_targets.py"),
        data=data_folder,
        settings=trainings.sample_settings,
        seed=trainings.seed,
    shell:
        "python scripts/sample_targets.py --data {params.data} --weights {input.weights} "
        "--model {wildcards.method}-{wildcards.variant}{wildcards.seed} --method {wildcards.method} "
        "--variant {wildcards.variant} --out {output.folder} --seed {params.seed} --settings {params.settings:q} > {log} 2>&1"


# A method is a trainer (scripts/train_sft.py, train_tower.py or train_grpo.py), the model it starts from, and settings.
# What is monitored is a resource and no param: a change of it trains nothing again.
rule train_sft:
    input:
        **AUDITED,
        start=trainings.start,
        templates=trainings.templates,
        targets=trainings.targets,
        corpus=trainings.corpus,
    output:
        folder=directory(f"{RESULTS}/models/{MODEL}"),
    log:
        f"{RESULTS}/logs/train-{MODEL}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train-{MODEL}.tsv"
    wildcard_constraints:
        method="|".join(configuration.methods_of(config, "sft")),
    priority: 10
    conda:
        "../../envs/train.yaml"
    threads: trainings.threads()
    resources:
        **trainings.resources(),
        monitoring=trainings.monitoring,
        mem_mb=grown(config["resources"]["train_mem_mb"]),
        runtime=grown(config["resources"]["train_minutes"]),
    params:
        code=trainings.code,
        launch=trainings.launcher(),
        script=trainings.script,
        data=data_folder,
        checkpoint=f"{RESULTS}/checkpoints/{MODEL}",
        alterations=trainings.alterations,
        settings=trainings.settings,
        seed=trainings.seed,
    shell:
        "{params.launch} scripts/{params.script} --data {params.data} --start {input.start} --stage {wildcards.method} "
        "--name {wildcards.method}-{wildcards.variant}{wildcards.seed} --variant {wildcards.variant} "
        "--checkpoint {params.checkpoint} --out {output.folder} --templates {input.templates:q} "
        "--targets {input.targets} --corpus {input.corpus} --alterations {params.alterations} --seed {params.seed} --settings {params.settings:q} "
        "--monitoring {resources.monitoring:q} > {log} 2>&1"


use rule train_sft as train_tower with:
    wildcard_constraints:
        method="|".join(configuration.methods_of(config, "tower")),


use rule train_sft as train_grpo with:
    wildcard_constraints:
        method="|".join(configuration.methods_of(config, "grpo")),
