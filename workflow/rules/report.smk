# Rows -> tables -> figures -> one HTML file. Nothing here needs a model: figures are redrawn in seconds.
TABLE_NAMES = ["robustness", "robustness_by_part", "certified", "cost"]
FIGURE_NAMES = [
    "accuracy_vs_eps",
    "certified_vs_radius",
    "modality_heatmap",
    "question_type_heatmap",
    "training_curves",
    "adversarial_examples",
]
TABLES = [f"{RESULTS}/tables/{name}.csv" for name in TABLE_NAMES]
FIGURES = [
    f"{RESULTS}/figures/{name}.{suffix}"
    for name in FIGURE_NAMES
    for suffix in ("pdf", "png", "csv")
]
# The examples show the first and the last method of the study under the radius that the robust ones trained for.
SHOWN_MODELS = configuration.models(
    {"variants": config["variants"][:1]},
    [config["study_methods"][i] for i in (0, -1)],
)


rule make_tables:
    input:
        code=sources("make_tables.py"),
        attacks=attack_rows(STUDY_MODELS),
        certificates=certificate_rows(STUDY_MODELS),
        models=[f"{RESULTS}/models/{name}" for name in ["base", *TRAINED_MODELS]],
        audit=AUDIT,
    output:
        robustness=report(
            f"{RESULTS}/tables/robustness.csv",
            "../report/robustness.rst",
            category="Tables",
        ),
        by_part=report(
            f"{RESULTS}/tables/robustness_by_part.csv",
            "../report/robustness.rst",
            category="Tables",
        ),
        certified=report(
            f"{RESULTS}/tables/certified.csv",
            "../report/certified.rst",
            category="Tables",
        ),
        cost=report(
            f"{RESULTS}/tables/cost.csv", "../report/cost.rst", category="Tables"
        ),
    log:
        f"{RESULTS}/logs/make_tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/make_tables.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=15,
    params:
        attacks=lambda wildcards, input: files(input.attacks, "rows.parquet"),
        certificates=lambda wildcards, input: files(input.certificates, "rows.parquet"),
        costs=lambda wildcards, input: files(
            [*input.models, *input.attacks, *input.certificates], "cost.json"
        ),
        radii=config["certify"]["radii"],
        out=lambda wildcards, output: Path(output.cost).parent,
    shell:
        "python scripts/make_tables.py --attack-rows {params.attacks} --certificate-rows {params.certificates} "
        "--costs {params.costs} --baselines {input.audit}/baselines.csv --radii {params.radii} "
        "--out {params.out} > {log} 2>&1"


rule draw_accuracy_vs_eps:
    input:
        code=sources("make_figure.py"),
        table=f"{RESULTS}/tables/robustness.csv",
    output:
        multiext(f"{RESULTS}/figures/accuracy_vs_eps", ".pdf", ".csv"),
        png=report(
            f"{RESULTS}/figures/accuracy_vs_eps.png",
            "../report/accuracy_vs_eps.rst",
            category="Figures",
        ),
    log:
        f"{RESULTS}/logs/draw_accuracy_vs_eps.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_accuracy_vs_eps.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=15,
    params:
        prefix=prefix,
    shell:
        "python scripts/make_figure.py --figure accuracy_vs_eps --table {input.table} --out {params.prefix} "
        "> {log} 2>&1"


rule draw_certified_vs_radius:
    input:
        code=sources("make_figure.py"),
        table=f"{RESULTS}/tables/certified.csv",
    output:
        multiext(f"{RESULTS}/figures/certified_vs_radius", ".pdf", ".csv"),
        png=report(
            f"{RESULTS}/figures/certified_vs_radius.png",
            "../report/certified_vs_radius.rst",
            category="Figures",
        ),
    log:
        f"{RESULTS}/logs/draw_certified_vs_radius.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_certified_vs_radius.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=15,
    params:
        prefix=prefix,
    shell:
        "python scripts/make_figure.py --figure certified_vs_radius --table {input.table} --out {params.prefix} "
        "> {log} 2>&1"


rule draw_modality_heatmap:
    input:
        code=sources("make_figure.py"),
        table=f"{RESULTS}/tables/robustness_by_part.csv",
    output:
        multiext(f"{RESULTS}/figures/modality_heatmap", ".pdf", ".csv"),
        png=report(
            f"{RESULTS}/figures/modality_heatmap.png",
            "../report/heatmap.rst",
            category="Figures",
        ),
    log:
        f"{RESULTS}/logs/draw_modality_heatmap.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_modality_heatmap.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=15,
    params:
        prefix=prefix,
        kind="modality",
        eps=config["attack"]["headline_eps"],
    shell:
        "python scripts/make_figure.py --figure heatmap --table {input.table} --kind {params.kind} --eps {params.eps} "
        "--out {params.prefix} > {log} 2>&1"


use rule draw_modality_heatmap as draw_question_type_heatmap with:
    output:
        multiext(f"{RESULTS}/figures/question_type_heatmap", ".pdf", ".csv"),
        png=report(
            f"{RESULTS}/figures/question_type_heatmap.png",
            "../report/heatmap.rst",
            category="Figures",
        ),
    log:
        f"{RESULTS}/logs/draw_question_type_heatmap.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_question_type_heatmap.tsv"
    params:
        prefix=prefix,
        kind="question_type",
        eps=config["attack"]["headline_eps"],


rule draw_training_curves:
    input:
        code=sources("make_figure.py"),
        models=[f"{RESULTS}/models/{model}" for model in TRAINED_MODELS],
    output:
        multiext(f"{RESULTS}/figures/training_curves", ".pdf", ".csv"),
        png=report(
            f"{RESULTS}/figures/training_curves.png",
            "../report/training_curves.rst",
            category="Figures",
        ),
    log:
        f"{RESULTS}/logs/draw_training_curves.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_training_curves.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=15,
    params:
        prefix=prefix,
        models=TRAINED_MODELS,
        curves=lambda wildcards, input: files(input.models, "curves.csv"),
    shell:
        "python scripts/make_figure.py --figure training_curves --models {params.models} --curves {params.curves} "
        "--out {params.prefix} > {log} 2>&1"


rule draw_adversarial_examples:
    input:
        code=sources("make_figure.py"),
        clean=[f"{RESULTS}/attacks/{model}/clean" for model in SHOWN_MODELS],
        attacked=[f"{RESULTS}/attacks/{model}/pgd" for model in SHOWN_MODELS],
    output:
        multiext(f"{RESULTS}/figures/adversarial_examples", ".pdf", ".csv"),
        png=report(
            f"{RESULTS}/figures/adversarial_examples.png",
            "../report/adversarial_examples.rst",
            category="Figures",
        ),
    log:
        f"{RESULTS}/logs/draw_adversarial_examples.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_adversarial_examples.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(2000),
        runtime=15,
    params:
        prefix=prefix,
        clean=lambda wildcards, input: files(input.clean, "rows.parquet"),
        attacked=lambda wildcards, input: files(input.attacked, "rows.parquet"),
        images=lambda wildcards, input: files(input.attacked, "images.npz"),
        eps=config["attack"]["headline_eps"],
    shell:
        "python scripts/make_figure.py --figure adversarial_examples --clean-rows {params.clean} "
        "--attack-rows {params.attacked} --images {params.images} --eps {params.eps} --out {params.prefix} > {log} 2>&1"


# The ablation's tables, on the same questions; what is not in the study is attacked up to the headline radius.
rule make_ablation_tables:
    input:
        code=sources("make_tables.py"),
        attacks=attack_rows(ABLATION_MODELS),
        models=[f"{RESULTS}/models/{model}" for model in ABLATION_MODELS],
        audit=AUDIT,
    output:
        folder=directory(f"{RESULTS}/ablation"),
    log:
        f"{RESULTS}/logs/make_ablation_tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/make_ablation_tables.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=15,
    params:
        attacks=lambda wildcards, input: files(input.attacks, "rows.parquet"),
        costs=lambda wildcards, input: files(
            [*input.models, *input.attacks], "cost.json"
        ),
    shell:
        "python scripts/make_tables.py --attack-rows {params.attacks} --costs {params.costs} --certificate-rows "
        "--baselines {input.audit}/baselines.csv --out {output.folder} > {log} 2>&1"


# Snakemake's own report of the tables and figures, with their captions. It reads the finished run's records, so it is
# made by a second Snakemake that runs nothing.
rule write_report:
    input:
        TABLES,
        FIGURES,
    output:
        html=f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/write_report.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        config=json.dumps(config),
    shell:
        "printf '%s' {params.config:q} > {log}.config.json && "
        "snakemake tables figures --report {output.html} --nolock --configfile {log}.config.json > {log} 2>&1"
