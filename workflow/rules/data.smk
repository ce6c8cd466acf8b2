# Source images and questions -> one Arrow dataset, disjoint splits, and an audit of what they give away.
# Downloads run where Snakemake does: a cluster's nodes may have no network. Their code is no input: an edit of it must
# not fetch ten gigabytes again, nor a file that was put there by hand. (With conda, an edit of envs/data.yaml does.)
rule download_archive:
    output:
        archive=f"resources/{sources.hub['file']}",
    log:
        f"{RESULTS}/logs/download_archive.log",
    benchmark:
        f"{RESULTS}/benchmarks/download_archive.tsv"
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=1000,
        runtime=grown(600),
    params:
        hub={key: sources.hub[key] for key in ("repo", "revision", "file")},
    shell:
        "python scripts/download.py --repo {params.hub[repo]} --revision {params.hub[revision]} "
        "--file {params.hub[file]:q} --out {output.archive:q} > {log} 2>&1"


rule unpack_archive:
    input:
        archive=sources.archive,
    output:
        folder=directory(sources.unpacked),
    log:
        f"{RESULTS}/logs/unpack_archive.log",
    benchmark:
        f"{RESULTS}/benchmarks/unpack_archive.tsv"
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=grown(240),
    params:
        settings=settings(sources.expected()),
    shell:
        "python scripts/unpack.py --archive {input.archive:q} --out {output.folder:q} "
        "--settings {params.settings:q} > {log} 2>&1"


rule make_phantoms:
    output:
        folder=directory(sources.phantoms),
    log:
        f"{RESULTS}/logs/make_phantoms.log",
    benchmark:
        f"{RESULTS}/benchmarks/make_phantoms.tsv"
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=grown(30),
    params:
        code=fingerprint("make_phantoms.py"),
        images=config["data"]["phantoms"]["images"],
        side=config["data"]["image_size"],
        questions=config["data"]["phantoms"]["questions"],
        seed=config["seed"],
    shell:
        "python scripts/make_phantoms.py --out {output.folder} --images {params.images} --side {params.side} "
        "--questions {params.questions} --seed {params.seed} > {log} 2>&1"


rule prepare:
    input:
        source=sources.folder,
        records=sources.records(),
    output:
        questions=directory(f"{DATA}/questions"),
        texts=f"{DATA}/texts.parquet",
        drops=f"{DATA}/drops.csv",
        counts=f"{DATA}/counts.csv",
    log:
        f"{RESULTS}/logs/prepare.log",
    benchmark:
        f"{RESULTS}/benchmarks/prepare.tsv"
    conda:
        "../../envs/data.yaml"
    threads: config["resources"]["data_threads"]
    resources:
        mem_mb=grown(2000),
        runtime=grown(240),
    params:
        code=fingerprint("prepare.py", *sources.hardening),
        stamp=sources.stamp,
        hardening=sources.hardening,
        settings=settings(
            {key: config["data"][key] for key in ("image_size", "modalities")}
        ),
        seed=config["seed"],
    shell:
        "python scripts/prepare.py --source {input.source:q} --questions {output.questions} --texts {output.texts} "
        "--drops {output.drops} --counts {output.counts} --hardening {params.hardening} --workers {threads} --seed {params.seed} "
        "--settings {params.settings:q} > {log} 2>&1"


rule split_questions:
    input:
        questions=f"{DATA}/questions",
        published=sources.published(),
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
        runtime=grown(60),
    params:
        code=fingerprint("split.py"),
        settings=settings(config["data"]["split"]),
        seed=config["seed"],
    shell:
        "python scripts/split.py --questions {input.questions} --out {output.splits} --seed {params.seed} "
        "--settings {params.settings:q} > {log} 2>&1"


rule audit_questions:
    input:
        **PREPARED,
        texts=f"{DATA}/texts.parquet",
        drops=f"{DATA}/drops.csv",
        counts=f"{DATA}/counts.csv",
    output:
        folder=directory(AUDIT),
        page=report(
            f"{DATA}/audit.html", caption="../report/audit.rst", category="Data"
        ),
    log:
        f"{RESULTS}/logs/audit_questions.log",
    benchmark:
        f"{RESULTS}/benchmarks/audit_questions.tsv"
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=grown(2000),
        runtime=grown(60),
    params:
        code=fingerprint("audit.py"),
        data=data_folder,
        settings=settings(
            {
                "scheme": config["data"]["split"]["scheme"],
                "questions": config["data"]["questions"],
                "published_counts": config["data"]["published_counts"],
                "train_on": configuration.parts(config),
            }
        ),
        seed=config["seed"],
    shell:
        "python scripts/audit.py --data {params.data} --out {output.folder} --page {output.page} --seed {params.seed} "
        "--settings {params.settings:q} > {log} 2>&1"
