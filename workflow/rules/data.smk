# Source images and questions -> one Arrow dataset, image-disjoint splits, and an audit of what they give away.
rule make_phantoms:
    input:
        code=sources("make_phantoms.py"),
    output:
        folder=directory(f"{DATA}/source"),
    log:
        f"{RESULTS}/logs/make_phantoms.log",
    benchmark:
        f"{RESULTS}/benchmarks/make_phantoms.tsv"
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=30,
    params:
        images=config["data"]["phantoms"]["images"],
        side=config["data"]["image_size"],
        seed=config["seed"],
    shell:
        "python scripts/make_phantoms.py --out {output.folder} --images {params.images} --side {params.side} "
        "--seed {params.seed} > {log} 2>&1"


rule prepare:
    input:
        code=sources("prepare.py"),
        source=config["data"]["source"] or f"{DATA}/source",
    output:
        questions=directory(f"{DATA}/questions"),
        drops=f"{DATA}/drops.csv",
    log:
        f"{RESULTS}/logs/prepare.log",
    benchmark:
        f"{RESULTS}/benchmarks/prepare.tsv"
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=grown(2000),
        runtime=240,
    params:
        settings=settings({"image_size": config["data"]["image_size"]}),
    shell:
        "python scripts/prepare.py --source {input.source:q} --questions {output.questions} --drops {output.drops} "
        "--settings {params.settings:q} > {log} 2>&1"


rule split_questions:
    input:
        code=sources("split.py"),
        questions=f"{DATA}/questions",
    output:
        splits=f"{DATA}/splits.csv",
    log:
        f"{RESULTS}/logs/split_questions.log",
    benchmark:
        f"{RESULTS}/benchmarks/split_questions.tsv"
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=grown(2000),
        runtime=60,
    params:
        settings=settings(config["data"]["split"]),
        seed=config["seed"],
    shell:
        "python scripts/split.py --questions {input.questions} --out {output.splits} --seed {params.seed} "
        "--settings {params.settings:q} > {log} 2>&1"


# Everything that trains or evaluates waits for the audit: it fails where an image stands in two splits.
rule audit_questions:
    input:
        **PREPARED,
        code=sources("audit.py"),
    output:
        folder=directory(AUDIT),
    log:
        f"{RESULTS}/logs/audit_questions.log",
    benchmark:
        f"{RESULTS}/benchmarks/audit_questions.tsv"
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=grown(2000),
        runtime=60,
    params:
        data=data_folder,
    shell:
        "python scripts/audit.py --data {params.data} --out {output.folder} > {log} 2>&1"
