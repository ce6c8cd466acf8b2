# Rows -> tables -> figures -> one HTML file. Nothing here needs a model: figures are redrawn in seconds.
TABLE_NAMES = [
    "robustness",
    "robustness_by_part",
    "suite",
    "comparisons",
    "transfer",
    "sanity",
    "certified",
    "smoothing",
    "hints",
    "question_edits",
    "image_edits",
    "pixels_and_words",
    "adaptive",
    "calibration",
    "abstention",
    "chain",
    "chain_summary",
    "cost",
]
FIGURE_NAMES = [
    "accuracy_vs_eps",
    "success_vs_eps",
    "success_vs_steps",
    "transfer_matrix",
    "sanity",
    "thoughts",
    "certified_vs_radius",
    "smoothed_attack",
    "resistance",
    "pixels_and_words",
    "image_edits",
    "abstention",
    "chain",
    "modality_heatmap",
    "question_type_heatmap",
    "training_curves",
    "adversarial_examples",
]
TABLES = [f"{RESULTS}/tables/{name}.csv" for name in TABLE_NAMES]
FIGURES = [
    f"{RESULTS}/figures/{name}.{suffix}"
    for name in FIGURE_NAMES
    if name not in configuration.undrawn(config)
    for suffix in ("pdf", "png", "csv")
]
# The examples show the first and the last method of the study under the radius that the robust ones trained for.
SHOWN_MODELS = configuration.models(
    {"variants": config["variants"][:1]},
    [config["study_methods"][i] for i in (0, -1)],
)
# Their words are shown of the last variant, which thinks where one does.
TOLD_MODELS = configuration.models(
    {"variants": config["variants"][-1:]},
    [config["study_methods"][i] for i in (0, -1)],
)


# What the study's models cost, and how they were trained, takes in every model that they started from.
TRAINED_MODELS = configuration.models(
    config, configuration.lineage(config, configuration.studied(config))
)


def prefix(wildcards, output):
    """A figure's path without its suffix."""
    return Path(output.png).with_suffix("")


def costs(*folders):
    """The cost.json of folders, each once, however many tables they serve."""
    return files(dict.fromkeys(folders), "cost.json")


def files(folders, name):
    """A file in each of some folders that a rule makes."""
    return [f"{folder}/{name}" for folder in folders]


# The config but for what changes no result: a change of that makes no table again.
DECISIVE = {
    key: value
    for key, value in config.items()
    if key not in ("resources", "monitoring")
}


rule make_tables:
    input:
        attacks=evaluations.sweeps(evaluations.studied),
        suite=evaluations.suite(evaluations.studied),
        transfer=evaluations.of_every("transfer", evaluations.studied),
        sanity=evaluations.of_every("sanity", evaluations.studied),
        certificates=evaluations.certificates(evaluations.certified),
        smoothed=evaluations.smoothed(evaluations.certified),
        stress=evaluations.of_every("stress", evaluations.studied),
        adaptive=evaluations.adaptive(evaluations.studied),
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
        suite=report(
            f"{RESULTS}/tables/suite.csv", "../report/suite.rst", category="Tables"
        ),
        comparisons=report(
            f"{RESULTS}/tables/comparisons.csv",
            "../report/comparisons.rst",
            category="Tables",
        ),
        transfer_table=report(
            f"{RESULTS}/tables/transfer.csv",
            "../report/transfer.rst",
            category="Tables",
        ),
        sanity_table=report(
            f"{RESULTS}/tables/sanity.csv", "../report/sanity.rst", category="Tables"
        ),
        certified=report(
            f"{RESULTS}/tables/certified.csv",
            "../report/certified.rst",
            category="Tables",
        ),
        smoothing=report(
            f"{RESULTS}/tables/smoothing.csv",
            "../report/smoothing.rst",
            category="Tables",
        ),
        hints=report(
            f"{RESULTS}/tables/hints.csv", "../report/hints.rst", category="Tables"
        ),
        question_edits=report(
            f"{RESULTS}/tables/question_edits.csv",
            "../report/question_edits.rst",
            category="Tables",
        ),
        image_edits=report(
            f"{RESULTS}/tables/image_edits.csv",
            "../report/image_edits.rst",
            category="Tables",
        ),
        pixels_and_words=report(
            f"{RESULTS}/tables/pixels_and_words.csv",
            "../report/pixels_and_words.rst",
            category="Tables",
        ),
        adaptive_table=report(
            f"{RESULTS}/tables/adaptive.csv",
            "../report/adaptive.rst",
            category="Tables",
        ),
        calibration=report(
            f"{RESULTS}/tables/calibration.csv",
            "../report/calibration.rst",
            category="Tables",
        ),
        abstention=report(
            f"{RESULTS}/tables/abstention.csv",
            "../report/abstention.rst",
            category="Tables",
        ),
        chain=report(
            f"{RESULTS}/tables/chain.csv", "../report/chain.rst", category="Tables"
        ),
        chain_summary=report(
            f"{RESULTS}/tables/chain_summary.csv",
            "../report/chain.rst",
            category="Tables",
        ),
        cost=report(
            f"{RESULTS}/tables/cost.csv", "../report/cost.rst", category="Tables"
        ),
        provenance=f"{RESULTS}/tables/provenance.json",
    log:
        f"{RESULTS}/logs/make_tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/make_tables.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=grown(15),
    params:
        code=fingerprint("make_tables.py"),
        attacks=lambda wildcards, input: files(input.attacks, "rows.parquet"),
        suite=lambda wildcards, input: files(input.suite, "rows.parquet"),
        transfer=lambda wildcards, input: files(input.transfer, "rows.parquet"),
        sanity=lambda wildcards, input: files(input.sanity, "rows.parquet"),
        certificates=lambda wildcards, input: files(input.certificates, "rows.parquet"),
        smoothed=lambda wildcards, input: files(input.smoothed, "rows.parquet"),
        stress=lambda wildcards, input: files(input.stress, "rows.parquet"),
        adaptive=lambda wildcards, input: files(input.adaptive, "rows.parquet"),
        costs=lambda wildcards, input: costs(
            *input.models,
            *input.attacks,
            *input.suite,
            *input.transfer,
            *input.sanity,
            *input.certificates,
            *input.smoothed,
            *input.stress,
            *input.adaptive,
        ),
        eps=config["attack"]["headline_eps"],
        radii=config["certify"]["radii"],
        config=settings(DECISIVE),
        out=lambda wildcards, output: Path(output.cost).parent,
    shell:
        "python scripts/make_tables.py --attack-rows {params.attacks} --suite-rows {params.suite} --transfer-rows "
        "{params.transfer} --sanity-rows {params.sanity} --certificate-rows {params.certificates} --smoothed-rows "
        "{params.smoothed} --stress-rows {params.stress} --adaptive-rows {params.adaptive} --eps {params.eps} --costs {params.costs} "
        "--baselines {input.audit}/baselines.csv --radii {params.radii} --config {params.config:q} --out {params.out} > {log} 2>&1"


rule draw_accuracy_vs_eps:
    input:
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
        runtime=grown(15),
    params:
        code=fingerprint("make_figure.py"),
        prefix=prefix,
    shell:
        "python scripts/make_figure.py --figure accuracy_vs_eps --table {input.table} --out {params.prefix} "
        "> {log} 2>&1"


rule draw_success_vs_eps:
    input:
        table=f"{RESULTS}/tables/robustness.csv",
    output:
        multiext(f"{RESULTS}/figures/success_vs_eps", ".pdf", ".csv"),
        png=report(
            f"{RESULTS}/figures/success_vs_eps.png",
            "../report/success_vs_eps.rst",
            category="Figures",
        ),
    log:
        f"{RESULTS}/logs/draw_success_vs_eps.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_success_vs_eps.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=grown(15),
    params:
        code=fingerprint("make_figure.py"),
        prefix=prefix,
    shell:
        "python scripts/make_figure.py --figure success_vs_eps --table {input.table} --out {params.prefix} "
        "> {log} 2>&1"


rule draw_success_vs_steps:
    input:
        sanity=evaluations.of_every("sanity", evaluations.studied),
    output:
        multiext(f"{RESULTS}/figures/success_vs_steps", ".pdf", ".csv"),
        png=report(
            f"{RESULTS}/figures/success_vs_steps.png",
            "../report/success_vs_steps.rst",
            category="Figures",
        ),
    log:
        f"{RESULTS}/logs/draw_success_vs_steps.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_success_vs_steps.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=grown(15),
    params:
        code=fingerprint("make_figure.py"),
        prefix=prefix,
        rows=lambda wildcards, input: files(input.sanity, "rows.parquet"),
    shell:
        "python scripts/make_figure.py --figure success_vs_steps --sanity-rows {params.rows} --out {params.prefix} "
        "> {log} 2>&1"


rule draw_transfer_matrix:
    input:
        table=f"{RESULTS}/tables/transfer.csv",
    output:
        multiext(f"{RESULTS}/figures/transfer_matrix", ".pdf", ".csv"),
        png=report(
            f"{RESULTS}/figures/transfer_matrix.png",
            "../report/transfer.rst",
            category="Figures",
        ),
    log:
        f"{RESULTS}/logs/draw_transfer_matrix.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_transfer_matrix.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=grown(15),
    params:
        code=fingerprint("make_figure.py"),
        prefix=prefix,
    shell:
        "python scripts/make_figure.py --figure transfer_matrix --table {input.table} --out {params.prefix} "
        "> {log} 2>&1"


rule draw_sanity:
    input:
        table=f"{RESULTS}/tables/sanity.csv",
    output:
        multiext(f"{RESULTS}/figures/sanity", ".pdf", ".csv"),
        png=report(
            f"{RESULTS}/figures/sanity.png",
            "../report/sanity.rst",
            category="Figures",
        ),
    log:
        f"{RESULTS}/logs/draw_sanity.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_sanity.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=grown(15),
    params:
        code=fingerprint("make_figure.py"),
        prefix=prefix,
    shell:
        "python scripts/make_figure.py --figure sanity --table {input.table} --out {params.prefix} "
        "> {log} 2>&1"


rule draw_thoughts:
    input:
        clean=[f"{RESULTS}/attacks/{model}/clean" for model in TOLD_MODELS],
        attacked=[f"{RESULTS}/attacks/{model}/pgd" for model in TOLD_MODELS],
    output:
        multiext(f"{RESULTS}/figures/thoughts", ".pdf", ".csv"),
        png=report(
            f"{RESULTS}/figures/thoughts.png",
            "../report/thoughts.rst",
            category="Figures",
        ),
    log:
        f"{RESULTS}/logs/draw_thoughts.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_thoughts.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=grown(15),
    params:
        code=fingerprint("make_figure.py"),
        prefix=prefix,
        clean=lambda wildcards, input: files(input.clean, "rows.parquet"),
        attacked=lambda wildcards, input: files(input.attacked, "rows.parquet"),
        eps=config["attack"]["headline_eps"],
    shell:
        "python scripts/make_figure.py --figure thoughts --clean-rows {params.clean} --attack-rows {params.attacked} "
        "--eps {params.eps} --out {params.prefix} > {log} 2>&1"


rule draw_certified_vs_radius:
    input:
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
        runtime=grown(15),
    params:
        code=fingerprint("make_figure.py"),
        prefix=prefix,
    shell:
        "python scripts/make_figure.py --figure certified_vs_radius --table {input.table} --out {params.prefix} "
        "> {log} 2>&1"


rule draw_smoothed_attack:
    input:
        table=f"{RESULTS}/tables/smoothing.csv",
    output:
        multiext(f"{RESULTS}/figures/smoothed_attack", ".pdf", ".csv"),
        png=report(
            f"{RESULTS}/figures/smoothed_attack.png",
            "../report/smoothing.rst",
            category="Figures",
        ),
    log:
        f"{RESULTS}/logs/draw_smoothed_attack.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_smoothed_attack.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=grown(15),
    params:
        code=fingerprint("make_figure.py"),
        prefix=prefix,
    shell:
        "python scripts/make_figure.py --figure smoothed_attack --table {input.table} --out {params.prefix} "
        "> {log} 2>&1"


rule draw_resistance:
    input:
        table=f"{RESULTS}/tables/hints.csv",
    output:
        multiext(f"{RESULTS}/figures/resistance", ".pdf", ".csv"),
        png=report(
            f"{RESULTS}/figures/resistance.png",
            "../report/hints.rst",
            category="Figures",
        ),
    log:
        f"{RESULTS}/logs/draw_resistance.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_resistance.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=grown(15),
    params:
        code=fingerprint("make_figure.py"),
        prefix=prefix,
    shell:
        "python scripts/make_figure.py --figure resistance --table {input.table} --out {params.prefix} "
        "> {log} 2>&1"


rule draw_pixels_and_words:
    input:
        table=f"{RESULTS}/tables/pixels_and_words.csv",
    output:
        multiext(f"{RESULTS}/figures/pixels_and_words", ".pdf", ".csv"),
        png=report(
            f"{RESULTS}/figures/pixels_and_words.png",
            "../report/pixels_and_words.rst",
            category="Figures",
        ),
    log:
        f"{RESULTS}/logs/draw_pixels_and_words.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_pixels_and_words.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=grown(15),
    params:
        code=fingerprint("make_figure.py"),
        prefix=prefix,
    shell:
        "python scripts/make_figure.py --figure pixels_and_words --table {input.table} --out {params.prefix} "
        "> {log} 2>&1"


rule draw_image_edits:
    input:
        table=f"{RESULTS}/tables/image_edits.csv",
    output:
        multiext(f"{RESULTS}/figures/image_edits", ".pdf", ".csv"),
        png=report(
            f"{RESULTS}/figures/image_edits.png",
            "../report/image_edits.rst",
            category="Figures",
        ),
    log:
        f"{RESULTS}/logs/draw_image_edits.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_image_edits.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=grown(15),
    params:
        code=fingerprint("make_figure.py"),
        prefix=prefix,
    shell:
        "python scripts/make_figure.py --figure image_edits --table {input.table} --out {params.prefix} "
        "> {log} 2>&1"


rule draw_abstention:
    input:
        table=f"{RESULTS}/tables/abstention.csv",
    output:
        multiext(f"{RESULTS}/figures/abstention", ".pdf", ".csv"),
        png=report(
            f"{RESULTS}/figures/abstention.png",
            "../report/abstention.rst",
            category="Figures",
        ),
    log:
        f"{RESULTS}/logs/draw_abstention.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_abstention.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=grown(15),
    params:
        code=fingerprint("make_figure.py"),
        prefix=prefix,
    shell:
        "python scripts/make_figure.py --figure abstention --table {input.table} --out {params.prefix} "
        "> {log} 2>&1"


rule draw_chain:
    input:
        table=f"{RESULTS}/tables/chain.csv",
    output:
        multiext(f"{RESULTS}/figures/chain", ".pdf", ".csv"),
        png=report(
            f"{RESULTS}/figures/chain.png",
            "../report/chain.rst",
            category="Figures",
        ),
    log:
        f"{RESULTS}/logs/draw_chain.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_chain.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=grown(15),
    params:
        code=fingerprint("make_figure.py"),
        prefix=prefix,
    shell:
        "python scripts/make_figure.py --figure chain --table {input.table} --out {params.prefix} "
        "> {log} 2>&1"


rule draw_modality_heatmap:
    input:
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
        runtime=grown(15),
    params:
        code=fingerprint("make_figure.py"),
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
        runtime=grown(15),
    params:
        code=fingerprint("make_figure.py"),
        prefix=prefix,
        models=TRAINED_MODELS,
        curves=lambda wildcards, input: files(input.models, "curves.csv"),
    shell:
        "python scripts/make_figure.py --figure training_curves --models {params.models} --curves {params.curves} "
        "--out {params.prefix} > {log} 2>&1"


rule draw_adversarial_examples:
    input:
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
        runtime=grown(15),
    params:
        code=fingerprint("make_figure.py"),
        prefix=prefix,
        clean=lambda wildcards, input: files(input.clean, "rows.parquet"),
        attacked=lambda wildcards, input: files(input.attacked, "rows.parquet"),
        images=lambda wildcards, input: files(input.attacked, "images.npz"),
        eps=config["attack"]["headline_eps"],
    shell:
        "python scripts/make_figure.py --figure adversarial_examples --clean-rows {params.clean} "
        "--attack-rows {params.attacked} --images {params.images} --eps {params.eps} --out {params.prefix} > {log} 2>&1"


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
        config=settings(DECISIVE),
    shell:
        "printf '%s' {params.config:q} > {log}.config.json && "
        "snakemake tables figures --report {output.html} --nolock --configfile {log}.config.json > {log} 2>&1"
