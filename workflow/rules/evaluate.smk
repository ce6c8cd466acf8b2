# One row a question: the answer generated from the stored adversarial image, or the certificate.
rule attack_model:
    input:
        AUDIT,
        **PREPARED,
        code=sources("attack.py"),
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
        runtime=config["resources"]["attack_minutes"],
        gpu=config["resources"]["gpus"],
    params:
        data=data_folder,
        settings=lambda wildcards: settings(
            {
                **{key: config["attack"][key] for key in ("questions", "batch_size")},
                wildcards.attack: config["attack"]["suite"].get(wildcards.attack),
                "max_new_tokens": config["max_new_tokens"],
            }
        ),
        eps=attacked_radii,
        seed=config["seed"],
    shell:
        "python scripts/attack.py --data {params.data} --weights {input.weights} --model "
        "{wildcards.method}-{wildcards.variant} --method {wildcards.method} --variant {wildcards.variant} "
        "--attack {wildcards.attack} --eps {params.eps} --out {output.folder} --seed {params.seed} "
        "--settings {params.settings:q} > {log} 2>&1"


rule certify_model:
    input:
        AUDIT,
        **PREPARED,
        code=sources("certify.py"),
        weights=f"{RESULTS}/models/{{method}}-{{variant}}",
    output:
        folder=directory(
            f"{RESULTS}/certificates/{{method}}-{{variant}}/sigma{{sigma}}"
        ),
    log:
        f"{RESULTS}/logs/certify_model-{{method}}-{{variant}}-sigma{{sigma}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/certify_model-{{method}}-{{variant}}-sigma{{sigma}}.tsv"
    conda:
        "../../envs/certify.yaml"
    resources:
        mem_mb=grown(config["resources"]["attack_mem_mb"]),
        runtime=config["resources"]["attack_minutes"],
        gpu=config["resources"]["gpus"],
    params:
        data=data_folder,
        settings=settings(
            {
                **{
                    key: config["certify"][key]
                    for key in ("questions", "n0", "n", "alpha", "batch_size")
                },
                "max_new_tokens": config["max_new_tokens"],
            }
        ),
        seed=config["seed"],
    shell:
        "python scripts/certify.py --data {params.data} --weights {input.weights} --model "
        "{wildcards.method}-{wildcards.variant} --method {wildcards.method} --variant {wildcards.variant} "
        "--sigma {wildcards.sigma} --out {output.folder} --seed {params.seed} "
        "--settings {params.settings:q} > {log} 2>&1"
