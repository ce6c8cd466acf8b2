# One row a question: the answer generated from the stored adversarial image, or the certificate.
rule attack_model:
    input:
        AUDIT,
        **PREPARED,
        before=earlier_attacks,
        templates=attack_templates,
        weights=f"{RESULTS}/models/{{method}}-{{variant}}",
    output:
        folder=directory(f"{RESULTS}/attacks/{{method}}-{{variant}}/{{attack}}"),
    log:
        f"{RESULTS}/logs/attack_model-{{method}}-{{variant}}-{{attack}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/attack_model-{{method}}-{{variant}}-{{attack}}.tsv"
    conda:
        "../../envs/attack.yaml"
    resources:
        mem_mb=grown(config["resources"]["attack_mem_mb"]),
        runtime=grown(config["resources"]["attack_minutes"]),
        gpu=config["resources"]["gpus"],
    params:
        code=fingerprint("attack.py"),
        data=data_folder,
        settings=attack_settings,
        eps=attacked_radii,
        seed=config["seed"],
    shell:
        "python scripts/attack.py --data {params.data} --weights {input.weights} --model "
        "{wildcards.method}-{wildcards.variant} --method {wildcards.method} --variant {wildcards.variant} "
        "--attack {wildcards.attack} --eps {params.eps} --before {input.before} --templates {input.templates} "
        "--out {output.folder} --seed {params.seed} --settings {params.settings:q} > {log} 2>&1"


# Direct attacks, nothing carried over: what the sanity table is made of.
rule probe_attacks:
    input:
        AUDIT,
        **PREPARED,
        weights=f"{RESULTS}/models/{{method}}-{{variant}}",
    output:
        folder=directory(f"{RESULTS}/sanity/{{method}}-{{variant}}"),
    log:
        f"{RESULTS}/logs/probe_attacks-{{method}}-{{variant}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/probe_attacks-{{method}}-{{variant}}.tsv"
    conda:
        "../../envs/attack.yaml"
    resources:
        mem_mb=grown(config["resources"]["attack_mem_mb"]),
        runtime=grown(config["resources"]["attack_minutes"]),
        gpu=config["resources"]["gpus"],
    params:
        code=fingerprint("sanity.py"),
        data=data_folder,
        settings=settings(
            {
                **config["attack"]["sanity"],
                "batch_size": config["attack"]["batch_size"],
                "max_new_tokens": config["max_new_tokens"],
            }
        ),
        seed=config["seed"],
    shell:
        "python scripts/sanity.py --data {params.data} --weights {input.weights} --model "
        "{wildcards.method}-{wildcards.variant} --method {wildcards.method} --variant {wildcards.variant} "
        "--out {output.folder} --seed {params.seed} --settings {params.settings:q} > {log} 2>&1"


# Stored adversarial images of every model of the study, shown to one model: no attack, only answers.
rule transfer_images:
    input:
        AUDIT,
        **PREPARED,
        attacks=[
            f"{RESULTS}/attacks/{model}/{config['attack']['transfer']}"
            for model in STUDY_MODELS
        ],
        weights=f"{RESULTS}/models/{{method}}-{{variant}}",
    output:
        folder=directory(f"{RESULTS}/transfer/{{method}}-{{variant}}"),
    log:
        f"{RESULTS}/logs/transfer_images-{{method}}-{{variant}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/transfer_images-{{method}}-{{variant}}.tsv"
    conda:
        "../../envs/attack.yaml"
    resources:
        mem_mb=grown(config["resources"]["attack_mem_mb"]),
        runtime=grown(config["resources"]["attack_minutes"]),
        gpu=config["resources"]["gpus"],
    params:
        code=fingerprint("replay.py"),
        data=data_folder,
        settings=settings(
            replay_settings(
                config["attack"]["headline_eps"], [config["attack"]["transfer"]]
            )
        ),
        seed=config["seed"],
    shell:
        "python scripts/replay.py --attacks {input.attacks} --data {params.data} --weights {input.weights} --model "
        "{wildcards.method}-{wildcards.variant} --method {wildcards.method} --variant {wildcards.variant} "
        "--out {output.folder} --seed {params.seed} --settings {params.settings:q} > {log} 2>&1"


# All stored images of a model's attacks, scored again: on the same model, the rows must be the same.
rule replay_attacks:
    input:
        AUDIT,
        **PREPARED,
        templates=config["templates"],
        attacks=stored_images,
        weights=f"{RESULTS}/models/{{method}}-{{variant}}",
    output:
        folder=directory(f"{RESULTS}/{REPLAY}/{{method}}-{{variant}}"),
    log:
        f"{RESULTS}/logs/{REPLAY}_attacks-{{method}}-{{variant}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{REPLAY}_attacks-{{method}}-{{variant}}.tsv"
    conda:
        "../../envs/attack.yaml"
    resources:
        mem_mb=grown(config["resources"]["attack_mem_mb"]),
        runtime=grown(config["resources"]["attack_minutes"]),
        gpu=config["resources"]["gpus"],
    params:
        code=fingerprint("replay.py"),
        data=data_folder,
        weights=lambda wildcards, input: REPLAY_ON or input.weights,
        model=lambda wildcards: (
            Path(REPLAY_ON).name
            if REPLAY_ON
            else f"{wildcards.method}-{wildcards.variant}"
        ),
        compare="" if REPLAY_ON else "--same",
        settings=settings(replay_settings(None, config["attack"]["attacks"])),
        seed=config["seed"],
    shell:
        "python scripts/replay.py --attacks {input.attacks} --data {params.data} --weights {params.weights} --model "
        "{params.model} --method {wildcards.method} --variant {wildcards.variant} --templates {input.templates} "
        "--out {output.folder} {params.compare} --seed {params.seed} --settings {params.settings:q} > {log} 2>&1"


# Words and cues as the attack: every hint, changed option and altered image, and the chains of evidence.
rule stress_model:
    input:
        AUDIT,
        **PREPARED,
        templates=config["templates"],
        attack=f"{RESULTS}/attacks/{{method}}-{{variant}}/{config['stress']['attack']}",
        weights=f"{RESULTS}/models/{{method}}-{{variant}}",
    output:
        folder=directory(f"{RESULTS}/stress/{{method}}-{{variant}}"),
    log:
        f"{RESULTS}/logs/stress_model-{{method}}-{{variant}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/stress_model-{{method}}-{{variant}}.tsv"
    conda:
        "../../envs/attack.yaml"
    resources:
        mem_mb=grown(config["resources"]["attack_mem_mb"]),
        runtime=grown(config["resources"]["attack_minutes"]),
        gpu=config["resources"]["gpus"],
    params:
        code=fingerprint("stress.py"),
        data=data_folder,
        settings=settings(
            {
                **{
                    key: config["stress"][key]
                    for key in ("questions", "severities", "chains")
                },
                "batch_size": config["attack"]["batch_size"],
                "eps": config["attack"]["headline_eps"],
                "max_new_tokens": config["max_new_tokens"],
            }
        ),
        seed=config["seed"],
    shell:
        "python scripts/stress.py --data {params.data} --weights {input.weights} --model "
        "{wildcards.method}-{wildcards.variant} --method {wildcards.method} --variant {wildcards.variant} "
        "--templates {input.templates} --attack {input.attack} --out {output.folder} --seed {params.seed} "
        "--settings {params.settings:q} > {log} 2>&1"


# Certificates of one function of a model at one sigma, of a shard of the questions.
rule certify_model:
    input:
        AUDIT,
        **PREPARED,
        weights=f"{RESULTS}/models/{{method}}-{{variant}}",
    output:
        folder=directory(
            f"{RESULTS}/certificates/{{method}}-{{variant}}/{{function}}-sigma{{sigma}}/{{scatteritem}}"
        ),
    log:
        f"{RESULTS}/logs/certify_model-{{method}}-{{variant}}-{{function}}-sigma{{sigma}}-{{scatteritem}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/certify_model-{{method}}-{{variant}}-{{function}}-sigma{{sigma}}-{{scatteritem}}.tsv"
    conda:
        "../../envs/certify.yaml"
    resources:
        mem_mb=grown(config["resources"]["attack_mem_mb"]),
        runtime=grown(config["resources"]["attack_minutes"]),
        gpu=config["resources"]["gpus"],
    params:
        code=fingerprint("certify.py"),
        data=data_folder,
        settings=settings(
            {
                **{
                    key: config["certify"][key]
                    for key in (
                        "questions",
                        "mode",
                        "randomised",
                        "n0",
                        "n",
                        "alpha",
                        "radii",
                        "batch_size",
                    )
                },
                "max_new_tokens": config["max_new_tokens"],
            }
        ),
        seed=config["seed"],
    shell:
        "python scripts/certify.py --data {params.data} --weights {input.weights} --model "
        "{wildcards.method}-{wildcards.variant} --method {wildcards.method} --variant {wildcards.variant} "
        "--function {wildcards.function} --sigma {wildcards.sigma} --shard {wildcards.scatteritem} "
        "--out {output.folder} --seed {params.seed} --settings {params.settings:q} > {log} 2>&1"
