"""Bad configs are refused by name before any job."""

import re
from pathlib import Path

import pytest

from support.snakemake_runs import checkout, snakemake


@pytest.fixture(scope="module")
def untouched(tmp_path_factory) -> Path:
    """A copy in which nothing has run."""
    return checkout(tmp_path_factory.mktemp("plans") / "repository")


REFUSED = [
    ("sedd: 1", "sedd"),
    ("data: {imagesize: 64}", "imagesize"),
    ("training: {grpo: {learning_rat: 0.1}}", "learning_rat"),
    ("methods: {at-grpo: {augmentation: {stepz: 3}}}", "stepz"),
    ("attack: {eps: [-1]}", "eps"),
    ("methods: {at-grpo: {augmentation: {kind: adversarial, eps: -1, steps: 3}}}", "eps"),
    ("methods: {at-grpo: {num_generations: 5}}", "num_generations"),
    ("study_methods: [sft, sftt]", "sftt"),
    ("variants: [instruct, thinking]", "variants|thinking"),
    ("data: {split: {train: 0.5}}", r"data\.split"),
    ("data: {image_size: 60}", r"data\.image_size"),
    ("certify: {alpha: 0.7}", "alpha"),
    ("certify: {n: 5}", r"certify\.n"),
    ("certify: {sigma: [0]}", "sigma"),
    ("certify: {mode: adaptive}", "mode|adaptive"),
    ("certify: {functions: [logits]}", "logits"),
    ("certify: {shards: 41}", r"certify\.shards"),
    ("certify: {methods: [sftt]}", r"certify\.methods.*sftt"),
    ("certify: {attacks: [pgd]}", r"certify\.attacks.*pgd"),
    ("certify: {radii: [0.0, 0.1, 0.2, 0.4, 0.12345]}", r"certify\.radii.*4 decimals"),
    ("attack: {attacks: {smoothed-l2: {eps: [0.3]}}}", r"attack\.attacks\.smoothed-l2\.eps.*certify\.radii"),
    ("attack: {attacks: {smoothed-l2: {function: choice}}}", r"smoothed-l2-choice.*smoothed-l2 does that already"),
    ("attack: {attacks: {smoothed-linf: {steps: 10}}}", r"attack\.attacks\.smoothed-linf\.steps.*attacks\.pgd"),
    ("certify: {sigma: [0.5]}", r"attack\.attacks\.smoothed-l2\.sigma"),
    ("certify: {functions: [choice]}", r"attack\.attacks\.smoothed-l2\.function"),
    ("attack: {suite: [pgd, smoothed-l2]}", r"attack\.suite.*smoothed-l2"),
    ("attack: {attacks: {smoothed-linf: {kind: square}}}", r"attack\.attacks\.smoothed-linf\.kind"),
    ("attack: {attacks: {smoothed-linf: {survivors: true}}}", r"attack\.attacks\.smoothed-linf\.kind"),
    ("attack: {attacks: {pgd-100: {restarts: 1}}}", r"attack\.attacks\.pgd-100\.restarts"),
    ("stress: {adaptive: hint}", r"stress\.adaptive: unknown 'hint'"),
    ("stress: {adaptive: pgd-100}", r"stress\.adaptive: 'pgd-100'.*with hint"),
    ("attack: {suite: [pgd, pgd-hint]}", r"attack\.suite: 'pgd-hint'.*stress\.adaptive"),
    ("certify: {attacks: [pgd-hint]}", r"certify\.attacks: 'pgd-hint'.*stress\.adaptive"),
    ("attack: {attacks: {pgd-hint: {hint: positive}}}", "hint|positive"),
    ("attack: {attacks: {pgd-hint: {steps: 10}}}", r"attack\.attacks\.pgd-hint\.steps.*attacks\.pgd: give both"),
    ("attack: {attacks: {pgd-hint: {targets: {think: [answer]}}}}", r"attack\.attacks\.pgd-hint\.targets"),
    ("attack: {attacks: {pgd-hint: {survivors: true}}}", r"attack\.attacks\.pgd-hint\.survivors"),
    ("attack: {attacks: {pgd-hint: {norm: l2, eps: 1}}}", r"attack\.attacks\.pgd-hint\.(norm|eps)"),
    ("attack: {attacks: {pgd-hint: {sigma: 0.25}}}", r"attack\.attacks\.pgd-hint\.sigma"),
    ("stress: {attack: fgsm}", r"attack\.attacks\.pgd-hint\.steps.*attacks\.fgsm"),
    ("methods: {sft: {augmentation: {kind: clean, sigma: 0.1}}}", r"methods\.sft\.augmentation"),
    ("attack: {headline_eps: 3}", "headline_eps"),
    ("attack: {suite: [pgd, bim]}", "bim"),
    ("attack: {suite: [fgsm]}", "suite|pgd"),
    ("attack: {transfer: cw}", r"attack\.transfer"),
    ("attack: {sanity: {steps: [20, 5]}}", r"attack\.sanity\.steps"),
    ("attack: {attacks: {pgd: {norm: l2}}}", r"attack\.attacks\.pgd"),
    ("attack: {attacks: {pgd-l2: {norm: linf}}}", r"attack\.attacks\.pgd-l2\.eps"),
    ("attack: {attacks: {square: {norm: l2, eps: 1}}}", r"attack\.attacks\.square"),
    ("attack: {attacks: {mi-fgsm: {norm: l2, eps: 1, survivors: false}}}", r"attack\.attacks\.mi-fgsm\.norm"),
    ("attack: {attacks: {pgd-l2: {eps: []}}}", r"attack|pgd-l2"),
    ("attack: {sanity: {l2: 0}}", "l2"),
    ("attack: {attacks: {cw: {survivors: true}}}", r"attack\.attacks\.cw\.survivors"),
    ("attack: {attacks: {pgd: {sigma: 0.1}}}", r"attack\.suite.*pgd.*sigma"),
    (
        "{attack: {attacks: {half: {kind: pgd, steps: 1, sigma: 0.25}}}, certify: {attacks: [half]}}",
        r"half\.sigma.*draws",
    ),
    ("attack: {attacks: {pgd: {patience: 3}}}", r"attack\.attacks\.pgd\.patience"),
    ("attack: {attacks: {pgd: {targets: {think: [first-token]}}}}", "first-token"),
    ("methods: {at-grpo: {start: at-grpo}}", r"methods\.at-grpo\.start"),
    ("methods: {sft: {start: grpo}}", r"methods\.\S+\.start"),
    ("methods: {noisy-grpo: {augmentation: {kind: adversarial}}}", r"methods\.noisy-grpo\.augmentation"),
    ("methods: {fare: {beta: 1.0}}", r"methods\.fare\.beta"),
    ("methods: {sft: {augmentation: {kind: clean, hints: 2}}}", r"methods\.sft\.augmentation\.hints"),
    ("methods: {grpo-hints: {augmentation: {hints: -1}}}", "hints"),
    ("methods: {sft: {targets: stepwise}}", r"methods\.sft\.targets.*instruct"),
    ("methods: {grpo: {targets: plain}}", r"methods\.grpo\.targets"),
    ("methods: {grpo: {augmentation: {kind: clean, erased: 0.5}}}", r"methods\.grpo\.augmentation\.erased.*anchored"),
    ("methods: {fare: {augmentation: {kind: noisy, sigma: 0.1, erased: 0.5}}}", r"methods\.fare\.augmentation\.erased"),
    ("methods: {grpo-hints: {augmentation: {hints: 8}}}", r"methods\.grpo-hints\.augmentation\.hints.*7 to train on"),
    ("templates: no-such-file.yaml", r"no-such-file\.yaml"),
    ("methods: {fare: {augmentation: {kind: clean}}}", r"methods\.fare\.augmentation"),
    ("probe: {times: 0}", "times"),
    ("data: {split: {scheme: med-r1}}", r"data\.split\.published"),
    ("data: {hub: {revision: main}}", "revision|main"),
    ("methods: {sft: {train_on: {modality: PET}}}", "train_on|PET"),
    ("resources: {shard_training: true}", "resources.shard_training"),
    ("resources: {train_nodes: 5}", "batch_size: 32 cannot be shared"),
    ("{methods: {at-grpo: {vllm: true}}, resources: {gpus: 0}}", r"methods\.at-grpo\.vllm: vLLM needs"),
    ("report_to: [paper]", "paper"),
    ("model: {name: someone/Model}", r"model\.revision"),
]


@pytest.mark.parametrize("change, name", REFUSED, ids=[change for change, _ in REFUSED])
def test_a_bad_config_is_refused_by_the_name_of_its_key_before_any_job(change, name, untouched):
    (untouched / "changed.yaml").write_text(change + "\n")
    done = snakemake("data", "--cores", 1, "--configfile", "changed.yaml", cwd=untouched)
    said = done.stdout + done.stderr
    assert done.returncode != 0 and re.search(name, said), said
    assert "Job stats" not in said and not (untouched / "results").exists()
