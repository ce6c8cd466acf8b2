# Whether the study fits on the GPUs that it is for, and how long they take: measured here, on CPUs, before anything is
# submitted. Without an output or a benchmark it runs whenever it is asked for.
rule preflight:
    log:
        f"{RESULTS}/logs/preflight.log",
    localrule: True
    conda:
        "../../envs/train.yaml"
    params:
        settings=settings(config),
        out=f"{RESULTS}/preflight.csv",
    shell:
        "python scripts/preflight.py --settings {params.settings:q} --out {params.out} 2> {log}"
