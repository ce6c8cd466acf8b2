# Rows -> tables -> figures and pages -> one HTML file, without a model. safemed/report/products.py declares every table,
# figure and page; each gets a rule of its own below.
from safemed.report import products
from safemed.workflow.report_inputs import report_inputs

INPUTS = report_inputs(config, evaluations, AUDIT)
PRODUCTS = products.made(INPUTS)
PROVENANCE = f"{RESULTS}/tables/provenance.json"
TABLES, FIGURES, PAGES = (
    [
        path
        for product in PRODUCTS
        if isinstance(product, kind)
        for path in product.outputs(RESULTS)
    ]
    for kind in (products.Table, products.Figure, products.Page)
)
# The config but for what changes no result: a change of that makes neither provenance nor report again.
DECISIVE = {
    key: value
    for key, value in config.items()
    if key not in ("resources", "monitoring", "preflight")
}

CODE = {
    product.place: fingerprint(product.script, product.module) for product in PRODUCTS
}

for product in PRODUCTS:

    # All of these are values: a function would find the loop at its last product.
    rule:
        name:
            product.rule
        input:
            product.needs(INPUTS),
        output:
            *product.outputs(RESULTS)[1:],
            shown=report(
                product.outputs(RESULTS)[0],
                f"../report/{product.caption}.rst",
                category=product.category,
            ),
        log:
            f"{RESULTS}/logs/{product.rule}.log",
        benchmark:
            f"{RESULTS}/benchmarks/{product.rule}.tsv"
        conda:
            "../../envs/report.yaml"
        resources:
            mem_mb=grown(product.mem_mb),
            runtime=grown(15),
        params:
            code=CODE[product.place],
            script=product.script,
            function=product.dotted,
            inputs=product.options(INPUTS),
            settings=settings(products.parameters(product, config)),
        shell:
            "python scripts/{params.script} --function {params.function} {params.inputs} --settings {params.settings:q} "
            "--out {output.shown} > {log} 2>&1"


# What each result of the study came from, and the code of what PRODUCTS makes, when all of it is there.
rule collect_provenance:
    input:
        TABLES,
        FIGURES,
        PAGES,
        [str(Path(path).parent) for path in INPUTS["costs"]],
    output:
        PROVENANCE,
    log:
        f"{RESULTS}/logs/collect_provenance.log",
    benchmark:
        f"{RESULTS}/benchmarks/collect_provenance.tsv"
    conda:
        "../../envs/report.yaml"
    resources:
        mem_mb=grown(1000),
        runtime=grown(15),
    params:
        code=fingerprint("collect_provenance.py"),
        costs=INPUTS["costs"],
        config=settings(DECISIVE),
        products=settings(CODE),
    shell:
        "python scripts/collect_provenance.py --costs {params.costs} --config {params.config:q} "
        "--products {params.products:q} --out {output} > {log} 2>&1"


# Snakemake's own report of the tables, figures and pages, with their captions. It reads the finished run's records, so it is
# made by a second Snakemake that runs nothing.
rule write_report:
    input:
        TABLES,
        FIGURES,
        PAGES,
        PROVENANCE,
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
        "snakemake tables figures pages --report {output.html} --nolock --configfile {log}.config.json > {log} 2>&1"
