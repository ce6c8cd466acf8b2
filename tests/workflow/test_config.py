"""The config: every study is accepted, and what is wrong is refused in a line that has the whole path of its key."""

import json
import math
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from snakemake.cli import parse_config
from snakemake.utils import update_config

from safemed.models.model_type import INDEX
from safemed.workflow import checks, config_files, schema
from safemed.workflow import config as configuration
from support.hub import REVISION
from support.paths import ROOT, SMALLEST_STUDY, STUDIES
from support.rules import rules
from support.snakemake_runs import checkout, snakemake

SMOOTHING, WORDS, RETRIEVAL, ABLATION, OMNIMEDVQA, FULL = (
    STUDIES[name] for name in ("smoothing", "words", "retrieval", "ablation", "omnimedvqa", "full")
)
OVER_OMNIMEDVQA = [ABLATION, *(STUDIES[name] for name in ("after", "cross-modality", "cross-task", "medvlm-r1"))]


def merged(change: str, *studies: Path) -> dict:
    """The default study's config with studies and then a change, written in YAML, laid over it."""
    config = config_files.read(*studies)
    update_config(config, yaml.safe_load(change))
    return config


@pytest.mark.parametrize(
    "studies",
    [[], *([path] for path in STUDIES.values()), [SMALLEST_STUDY], *([OMNIMEDVQA, path] for path in OVER_OMNIMEDVQA)],
    ids=lambda paths: " and ".join(path.stem for path in paths) or "phantoms",
)
def test_every_study_is_accepted(studies):
    assert checks.faults(merged("data: {source: null}", *studies)) == []  # a user's images may not be here


def test_a_method_may_learn_from_a_modality_that_the_config_names():
    change = "{data: {modalities: {PET scan: PET}}, methods: {sft: {train_on: {modality: PET}}}}"
    assert checks.faults(merged(change)) == []


# A change of the config of the default study with all evaluations; the key that is refused; what is said of it.
REFUSED = [
    ("sedd: 1", "sedd", "unknown key; did you mean seed?"),
    ("data: {imagesize: 64}", "data.imagesize", "unknown key; did you mean image_size?"),
    ("training: {grpo: {learning_rat: 0.1}}", "training.grpo.learning_rat", "unknown key; did you mean learning_rate?"),
    (
        "methods: {at-grpo: {augmentation: {kind: clean, stepz: 3}}}",
        "methods.at-grpo.augmentation.stepz",
        "unknown key; did you mean steps?",
    ),
    ("report_to: [wandb]", "report_to", "unknown key; did you mean monitoring.report_to?"),
    ("attack: {qqq: 1}", "attack.qqq", "unknown key; known: questions, batch_size, amp, eps, "),
    ("attack: {questions: five}", "attack.questions", "'five' is not an integer"),
    ("attack: {questions: 5.0}", "attack.questions", "5.0 is not an integer"),
    ("attack: {questions: true}", "attack.questions", "true is not an integer"),
    ("attack: {amp: 1}", "attack.amp", "1 is not true or false"),
    ("data: null", "data", "null is not a section of keys"),
    ("variants: think", "variants", "'think' is not a list"),
    ("study: 5", "study", '5 is not text: write "5", in quotes'),
    ("study: my study", "study", "'my study' does not match"),
    ("training: {sft: {learning_rate: 1e-3}}", "training.sft.learning_rate", "but text: write 0.001"),
    ("training: {sft: {learning_rate: .nan}}", "training.sft.learning_rate", "nan is not a number"),
    ("peft: 16", "peft", "16 is neither null nor a section of keys"),
    ("peft: {r: 16, alpha: 32}", "peft.dropout", "missing"),
    ("methods: {mine: {trainer: sft}}", "methods.mine.start", "missing"),
    ("methods: {Mine: {trainer: sft, start: base}}", "methods.Mine", "a name is made of lower-case letters"),
    ("methods: {data: {trainer: sft, start: base}}", "methods.data", "a rule of the workflow has this name"),
    ("methods: {prepare: {trainer: sft, start: base}}", "methods.prepare", "a rule of the workflow has this name"),
    (f"methods: {{{'a' * 61}: {{trainer: sft, start: base}}}}", f"methods.{'a' * 61}", "61 characters; at most 60"),
    ("study_methods: [no]", "study_methods", "false is not text: write the word in quotes"),
    ("study: 2024-01-01", "study", '2024-01-01 is not text: write "2024-01-01", in quotes'),
    ("study: ..", "study", "'..' does not match"),
    ("study: -x", "study", "'-x' does not match"),
    (f"study: {'x' * 101}", "study", "101 characters; at most 100"),
    ("seed: 2147483648", "seed", "greater than the maximum of 2147483647"),
    ("seed: 08", "seed", "'08' is not an integer, but text: write 8"),
    ("templates: 'a{b}.yaml'", "templates", "a path without braces"),
    ("data: {source: -x}", "data.source", "does not begin with a hyphen"),
    ("data: {source: nowhere}", "data.source", "there is no folder nowhere; null renders phantoms"),
    ("data: {source: nowhere.zip}", "data.source", "there is no file nowhere.zip"),
    ("data: {source: docs}", "data.source", "docs holds no QA_information/Open-access/.*; give the folder"),
    (
        "data: {split: {scheme: med-r1, published: docs}}",
        "data.split.published",
        "docs does not hold them: .* needs the folder",
    ),
    ("attack: {attacks: {clean: {kind: pgd, steps: 2}}}", "attack.attacks.clean", "the images without an attack have"),
    ("attack: {eps: [8, -1]}", "attack.eps", "-1 is less than the minimum of 1"),
    ("attack: {eps: [8, 8]}", "attack.eps", "names something twice"),
    (
        "methods: {at-grpo: {augmentation: {kind: adversarial, eps: -1, steps: 3}}}",
        "methods.at-grpo.augmentation.eps",
        "-1 is less than or equal to the minimum of 0",
    ),
    ("methods: {at-grpo: {num_generations: 1}}", "methods.at-grpo.num_generations", "less than the minimum of 2"),
    ("variants: [instruct, think, aftr]", "variants", "'aftr' is not one of .*; did you mean after?"),
    ("max_new_tokens: {after: 0}", "max_new_tokens.after", "less than the minimum of 1"),
    *(
        (
            f"attack: {{attacks: {{pgd: {{losses: {{after: [{loss}, answer]}}}}}}}}",
            "attack.attacks.pgd.losses.after",
            said,
        )
        for loss in ("empty", "sampled", "thought", "stop")
        for said in [f"{loss}; that is on the thought before the letter, where after has none"]
    ),
    ("study_methods: [sft, sftt]", "study_methods", "unknown method 'sftt'; did you mean sft?"),
    ("study_methods: [grpo]", "study_methods", "'grpo' is defined in workflow/studies/ablation.yaml: add that file"),
    ("evaluations: [attak]", "evaluations", "'attak' is not one of attack, .*; did you mean attack?"),
    ("variants: [instruct, thinking]", "variants", "'thinking' is not one of .*think, after; did you mean think?"),
    ("data: {split: {train: 0.5}}", "data.split", "train, val and test sum to 0.62, not 1"),
    ("data: {image_size: 60}", "data.image_size", "60 is no multiple of .* = 16"),
    ("certify: {alpha: 0.7}", "certify.alpha", "0.7 is greater than or equal to the maximum of 0.5"),
    ("certify: {n: 5}", "certify.n", "5 draws certify nothing with alpha = 0.001 .*; at least "),
    ("certify: {sigma: [0]}", "certify.sigma", "0 is less than or equal to the minimum of 0"),
    ("certify: {mode: adaptive}", "certify.mode", "'adaptive' is not one of sequential, fixed"),
    ("certify: {functions: [logits]}", "certify.functions", "'logits' is not one of choice, generate"),
    ("certify: {shards: 41}", "certify.shards", "41 jobs cannot share 40 questions"),
    ("certify: {methods: [sftt]}", "certify.methods", "unknown method 'sftt'; did you mean sft?"),
    ("certify: {methods: []}", "certify.methods", "fewer entries than 1"),
    ("certify: {methods: sft}", "certify.methods", "'sft' is neither null nor a list"),
    ("certify: {attacks: [pgd]}", "certify.attacks", "'pgd'; attacks on smoothed models .* go to certify.attacks"),
    ("certify: {radii: [0.0, 0.1, 0.2, 0.4, 0.12345]}", "certify.radii", "certified to 4 decimals"),
    ("attack: {attacks: {smoothed-l2: {eps: [0.3]}}}", "attack.attacks.smoothed-l2.eps", "not all in certify.radii"),
    (
        "attack: {attacks: {smoothed-l2: {function: choice}}}",
        "attack.attacks.smoothed-l2-choice",
        "smoothed-l2 does that already",
    ),
    (
        "attack: {attacks: {smoothed-linf: {steps: 10}}}",
        "attack.attacks.smoothed-linf.steps",
        "compared with attack.attacks.pgd .*give both the same steps",
    ),
    (
        "{certify: {sigma: [0.5], attacks: [smoothed-l2]}}",
        "attack.attacks.smoothed-l2.sigma",
        r"0.25 is not in certify.sigma \[0.5\]",
    ),
    (
        "{certify: {functions: [choice], attacks: [smoothed-l2]}}",
        "attack.attacks.smoothed-l2.function",
        "generate is not in certify.functions",
    ),
    ("attack: {suite: [pgd, smoothed-l2]}", "attack.suite", "'smoothed-l2'; attacks on smoothed models"),
    (
        "{certify: {attacks: [a]}, attack: {attacks: {a: {kind: torchattacks, attack: Square, steps: 2, sigma: 0.25, "
        "function: generate, draws: 4, votes: 16}}}}",
        "attack.attacks.a.kind",
        "torchattacks; a smoothed model is attacked by pgd or apgd",
    ),
    (
        "attack: {attacks: {smoothed-linf: {survivors: true}}}",
        "attack.attacks.smoothed-linf.kind",
        "by pgd or apgd, on every question",
    ),
    ("attack: {attacks: {pgd-100: {restarts: {think: 0}}}}", "attack.attacks.pgd-100.restarts.think", "0 is less than"),
    (
        "attack: {attacks: {apgd-t: {restarts: many}}}",
        "attack.attacks.apgd-t.restarts",
        "neither an integer nor a section",
    ),
    (
        "attack: {suite: [pgd, a], attacks: {a: {kind: pgd, steps: 2, losses: {think: [ce]}, restarts: {}}}}",
        "attack.attacks.a.restarts.think",
        "missing; give one value for all variants, or one for each",
    ),
    (
        "attack: {suite: [pgd, two], attacks: {two: {kind: apgd, steps: 2}}}",
        "attack.attacks.two.losses",
        "missing; apgd climbs losses, such as",
    ),
    ("attack: {sanity: {restarts: 1}}", "attack.sanity.restarts", "1; at least 2 for instruct"),
    ("stress: {adaptive: hint}", "stress.adaptive", "unknown attack 'hint'; did you mean pgd-hint?"),
    ("turns: {adaptive: pgd-hint}", "turns.adaptive", "'pgd-hint'.*with turn. to turns.adaptive"),
    ("stress: {adaptive: pgd-turn}", "stress.adaptive", "'pgd-turn'.*with turn. to turns.adaptive"),
    ("attack: {suite: [pgd, pgd-turn]}", "attack.suite", "'pgd-turn'.*turns.adaptive"),
    ("turns: {attack: pdg}", "turns.attack", "unknown attack 'pdg'; did you mean pgd?"),
    ("turns: {attack: pgd-100, adaptive: null}", "turns.attack", "'pgd-100' is not among the attacks of attack.suite"),
    ("turns: {questions: 900}", "turns.questions", "900 is more than attack.questions = 100"),
    ("attack: {attacks: {pgd-turn: {turn: right}}}", "attack.attacks.pgd-turn.turn", "'right' is not one of wrong"),
    ("attack: {attacks: {pgd-turn: {hint: negative}}}", "turns.adaptive", "'pgd-turn'.*with hint. to stress.adaptive"),
    ("attack: {attacks: {pgd-hint: {turn: wrong}}}", "attack.attacks.pgd-hint.turn", "leave one of them out"),
    (
        "attack: {attacks: {pgd-turn: {steps: 10}}}",
        "attack.attacks.pgd-turn.steps",
        "to see what knowing the turn changes: give both the same steps",
    ),
    (
        "methods: {f: {trainer: tower, start: base, augmentation: {kind: noisy, sigma: 0.1, turns: 0.5}}}",
        "methods.f.augmentation.turns",
        "the trainer is tower, which alters no question",
    ),
    ("stress: {adaptive: pgd-100}", "stress.adaptive", "'pgd-100'.*with hint"),
    ("attack: {suite: [pgd, pgd-hint]}", "attack.suite", "'pgd-hint'.*stress.adaptive"),
    ("certify: {attacks: [pgd-hint]}", "certify.attacks", "'pgd-hint'.*stress.adaptive"),
    ("attack: {attacks: {pgd-hint: {hint: positive}}}", "attack.attacks.pgd-hint.hint", "'positive' is not one of"),
    (
        "attack: {attacks: {pgd-hint: {steps: 10}}}",
        "attack.attacks.pgd-hint.steps",
        "compared with attack.attacks.pgd .*give both the same steps",
    ),
    (
        "attack: {attacks: {pgd-hint: {losses: {think: [answer]}}}}",
        "attack.attacks.pgd-hint.losses",
        "give both the same losses",
    ),
    (
        "attack: {attacks: {pgd-hint: {survivors: true}}}",
        "attack.attacks.pgd-hint.survivors",
        "give both the same survivors",
    ),
    ("attack: {attacks: {pgd-hint: {norm: l2}}}", "attack.attacks.pgd-hint.eps", "an L2 attack has an eps of its own"),
    (
        "attack: {attacks: {pgd-hint: {sigma: 0.25}}}",
        "attack.attacks.pgd-hint.sigma",
        "also needs draws, function, votes",
    ),
    (
        "{stress: {attack: fgsm}, attack: {attacks: {fgsm: {restarts: {instruct: 3, think: 1, after: 2}}}}}",
        "attack.attacks.pgd-hint.steps",
        "compared with attack.attacks.fgsm .*give both the same steps",
    ),
    ("certify: {questions: 200}", "certify.questions", "200 is more than attack.questions = 100: .* with pgd"),
    ("stress: {questions: 200}", "stress.questions", "200 is more than attack.questions = 100"),
    ("{evaluations: [attack, defend], defend: {questions: 101}}", "defend.questions", "101 is more than .* = 100"),
    ("{evaluations: [attack, defend], defend: {attack: apgd-ce}}", "defend.attack", "'apgd-ce' is not among"),
    (
        "{evaluations: [attack, defend], attack: {suite: [noise, fgsm, pgd]}, defend: {attack: noise}}",
        "defend.attack",
        "'noise' is of kind noise; one of pgd, apgd, mi-fgsm goes through",
    ),
    ("defend: {attack: pdg}", "defend.attack", "unknown attack 'pdg'"),
    ("defend: {defences: [strip]}", "defend.defences", "lacks none"),
    ("defend: {vote: {wordings: 9}}", "defend.vote.wordings", "9, and the templates have 5 with the plain one"),
    ("{data: {image_size: 16}, defend: {blur: 6}}", "defend.blur", "as wide as an image: data.image_size = 16"),
    ("redteam: {budget: 4}", "redteam.budget", "4 queries are not one for each of redteam.rounds = 5"),
    (
        "{evaluations: [attack, defend], attack: {suite: [fgsm, pgd]}, defend: {attack: fgsm}}",
        "defend.attack",
        "'fgsm' has one step, of which there are no restarts",
    ),
    (
        "{evaluations: [attack, defend], defend: {attack: x}, attack: {suite: [pgd, x], attacks: {x: {kind: apgd, "
        "steps: 9, patience: 8, losses: {instruct: [answer], think: [answer], after: [answer]}}}}}",
        "defend.attack",
        "'x' has patience",
    ),
    ("defend: {restarts: {instruct: 2}}", "defend.restarts", "2 for instruct; at least 3"),
    ("defend: {restarts: {think: 1}}", "defend.restarts", "1 for think; at least 3"),
    (
        "{evaluations: [attack, reveal], reveal: {attack: pdg}}",
        "reveal.attack",
        "unknown attack 'pdg'; did you mean pgd?",
    ),
    (
        "{evaluations: [attack, reveal], reveal: {attack: pgd-100}}",
        "reveal.attack",
        "'pgd-100' is not among the attacks of attack.suite",
    ),
    (
        "{evaluations: [attack, reveal], reveal: {questions: 900}}",
        "reveal.questions",
        "900 is more than attack.questions = 100",
    ),
    (
        "{evaluations: [attack, reveal], reveal: {cells: 7}}",
        "reveal.cells",
        "7 a side do not divide data.image_size = 64",
    ),
    ("{evaluations: [attack, reveal], reveal: {shares: [0.5, 0.2, 1.0]}}", "reveal.shares", "do not ascend to 1"),
    ("{evaluations: [attack, reveal], reveal: {shares: [0.2, 0.8]}}", "reveal.shares", "do not ascend to 1"),
    ("{evaluations: [attack, reveal], reveal: {cells: 2}}", "reveal.shares", r"of 4 cells are \[1, 2, 2, 3, 4\] cells"),
    (
        "{evaluations: [attack, reveal], reveal: {shares: [0.001, 1.0]}}",
        "reveal.shares",
        r"\[0, 64\] cells; each must show more",
    ),
    (
        "{evaluations: [attack, reveal], reveal: {shares: [0.0, 1.0]}}",
        "reveal.shares",
        "0.0 is less than or equal to the minimum of 0",
    ),
    ("retrieve: {retrievers: [own, fair]}", "retrieve.retrievers", "unknown method 'fair'; did you mean fare"),
    ("retrieve: {attack: pdg}", "retrieve.attack", "unknown attack 'pdg'"),
    ("retrieve: {k: 0}", "retrieve.k", "0 is less than"),
    ("retrieve: {poisons: [arsenic]}", "retrieve.poisons", "'arsenic' is not one of text, "),
    ("{evaluations: [attack, retrieve], retrieve: {questions: 200}}", "retrieve.questions", "200 is more than attack"),
    ("redteam: {strategies: [adaptive]}", "redteam.strategies", "lacks silent"),
    ("redteam: {strategies: [greedy, silent]}", "redteam.strategies", "'greedy' is not one of adaptive, "),
    (
        "methods: {sft: {augmentation: {kind: clean, sigma: 0.1}}}",
        "methods.sft.augmentation.sigma",
        "a clean augmentation has no noise",
    ),
    ("attack: {headline_eps: 3}", "attack.headline_eps", "3 is not in attack.eps"),
    ("{evaluation_precision: bf16, attack: {amp: true}}", "attack.amp", "true is for models in fp32"),
    ("attack: {suite: [pgd, bim]}", "attack.suite", "unknown attack 'bim'; known: noise, fgsm, pgd, "),
    ("attack: {suite: [pgd, fgsmm]}", "attack.suite", "unknown attack 'fgsmm'; did you mean fgsm?"),
    ("attack: {suite: [fgsm]}", "attack.suite", "lacks pgd"),
    ("attack: {transfer: cw}", "attack.transfer", "'cw' is not among the attacks of attack.suite at all eps"),
    ("attack: {transfer: pdg}", "attack.transfer", "unknown attack 'pdg'; did you mean pgd?"),
    ("attack: {sanity: {steps: [20, 5]}}", "attack.sanity.steps", "not ascending"),
    ("attack: {attacks: {pgd: {norm: l2}}}", "attack.attacks.pgd.eps", "an L2 attack has an eps of its own"),
    ("attack: {attacks: {pgd: {survivors: true}}}", "attack.attacks.pgd.survivors", "it must attack every question"),
    ("attack: {attacks: {pgd-l2: {norm: linf}}}", "attack.attacks.pgd-l2.eps", "an L_inf attack those of attack.eps"),
    (
        "attack: {attacks: {square: {attack: MIFGSM, norm: l2, eps: 1, survivors: false}}}",
        "attack.attacks.square.norm",
        "MIFGSM has no L2; write norm: linf",
    ),
    ("attack: {attacks: {square: {kind: square}}}", "attack.attacks.square.kind", "'square' is not one of noise, pgd"),
    ("attack: {attacks: {square: {attack: Squere}}}", "attack.attacks.square.attack", "did you mean Square?"),
    ("attack: {attacks: {square: {attack: bim}}}", "attack.attacks.square.attack", "'bim'; did you mean BIM?"),
    ("attack: {attacks: {square: {attack: zoo}}}", "attack.attacks.square.attack", "'zoo'; docs/threat-model.md lists"),
    (
        "attack: {attacks: {square: {attack: AutoAttack}}}",
        "attack.attacks.square.attack",
        "AutoAttack of torchattacks cannot be used: it fails on questions with two or three options",
    ),
    ("attack: {attacks: {square: {attack: CW}}}", "attack.attacks.square.attack", "negative.*write kind: cw"),
    (
        "attack: {suite: [pgd, a], attacks: {a: {kind: torchattacks, steps: 2}}}",
        "attack.attacks.a.attack",
        "missing; the kind torchattacks needs the name of an attack",
    ),
    (
        "attack: {attacks: {square: {losses: {instruct: [answer]}}}}",
        "attack.attacks.square.losses",
        "torchattacks climbs a loss of its own",
    ),
    ("attack: {attacks: {noise: {losses: {think: [ce]}}}}", "attack.attacks.noise.losses", "noise climbs none"),
    ("attack: {attacks: {noise: {restarts: 3}}}", "attack.attacks.noise.restarts", "noise has none; give more steps"),
    (
        "attack: {attacks: {square: {attack: VMIFGSM, restarts: 2}}}",
        "attack.attacks.square.restarts",
        "VMIFGSM has none",
    ),
    (
        "attack: {attacks: {square: {restarts: {instruct: 2}}}}",
        "attack.attacks.square.restarts.think",
        "missing; give one value for all variants",
    ),
    ("attack: {attacks: {square: {attack: FGSM}}}", "attack.attacks.square.steps", "takes one; write steps: 1"),
    (
        "attack: {attacks: {square: {attack: Pixle, survivors: false}}}",
        "attack.attacks.square.norm",
        "Pixle has no L_inf; write norm: l0",
    ),
    (
        "attack: {attacks: {square: {attack: Pixle, norm: l0}}}",
        "attack.attacks.square.survivors",
        "says nothing of an L0 ball",
    ),
    (
        "attack: {attacks: {square: {attack: Pixle, norm: l0, eps: 3, survivors: false}}}",
        "attack.attacks.square.eps",
        "an L0 attack none",
    ),
    (
        "attack: {attacks: {square: {attack: PGDL2, norm: l2, survivors: false}}}",
        "attack.attacks.square.eps",
        "an L2 attack has an eps of its own",
    ),
    ("attack: {attacks: {pgd: {norm: l0}}}", "attack.attacks.pgd.norm", "pgd has no L0; write norm: linf or l2"),
    ("attack: {attacks: {pgd: {attack: PGD}}}", "attack.attacks.pgd.attack", "the kind is pgd, and only torchattacks"),
    (
        "attack: {attacks: {square: {patience: 3}}}",
        "attack.attacks.square.patience",
        "only for losses that are margins",
    ),
    (
        "attack: {attacks: {mi-fgsm: {norm: l2, eps: 1, survivors: false}}}",
        "attack.attacks.mi-fgsm.norm",
        "mi-fgsm has no L2",
    ),
    ("attack: {attacks: {cw: {norm: linf}}}", "attack.attacks.cw.norm", "write norm: l2"),
    ("attack: {attacks: {pgd-l2: {eps: []}}}", "attack.attacks.pgd-l2.eps", "fewer entries than 1"),
    ("attack: {attacks: {pgd-l2: {eps: wide}}}", "attack.attacks.pgd-l2.eps", "'wide' is neither a number nor a list"),
    ("attack: {sanity: {l2: 0}}", "attack.sanity.l2", "0 is less than or equal to the minimum of 0"),
    ("attack: {attacks: {cw: {survivors: true}}}", "attack.attacks.cw.survivors", "says nothing of an L2 ball"),
    ("attack: {attacks: {pgd: {sigma: 0.1}}}", "attack.suite", "'pgd'; attacks on smoothed models .with sigma."),
    (
        "{attack: {attacks: {a: {kind: pgd, steps: 1, losses: {think: [ce]}, sigma: 1}}}, certify: {attacks: [a]}}",
        "attack.attacks.a.sigma",
        "also needs draws, function, votes",
    ),
    (
        "attack: {attacks: {pgd-100: {patience: 3}}}",
        "attack.attacks.pgd-100.patience",
        "only for losses that are margins",
    ),
    ("attack: {attacks: {noise: {patience: 3}}}", "attack.attacks.noise.patience", "only for losses that are margins"),
    (
        "attack: {attacks: {pgd: {losses: {think: [first-token]}}}}",
        "attack.attacks.pgd.losses.think",
        "'first-token' is not one of",
    ),
    ("methods: {at-grpo: {start: at-grpo}}", "methods.at-grpo.start", "the starts lead back to 'at-grpo'"),
    ("methods: {sft: {start: fare}, fare: {start: sft}}", "methods.sft.start", "back to 'sft': sft <- fare <- sft"),
    ("methods: {sft: {start: bass}}", "methods.sft.start", "unknown method 'bass'"),
    ("methods: {fare: {anchor: 1.0}}", "methods.fare.anchor", "the trainer is tower, which does not read it"),
    (
        "methods: {sft: {augmentation: {kind: clean, hints: 2}}}",
        "methods.sft.augmentation.hints",
        "the trainer is sft, which does not draw any",
    ),
    ("methods: {sft: {targets: stepwise}}", "methods.sft.targets", "the variant instruct has none"),
    ("methods: {at-grpo: {targets: plain}}", "methods.at-grpo.targets", "the trainer is grpo, which does not read it"),
    (
        "methods: {fare: {augmentation: {kind: noisy, sigma: 0.1, erased: 0.5}}}",
        "methods.fare.augmentation.erased",
        "the trainer is tower, which alters no question",
    ),
    ("templates: no-such-file.yaml", "templates", "there is no file no-such-file.yaml"),
    ("templates: config.yaml", "templates", "config.yaml: a key is missing or unknown"),
    ("methods: {fare: {augmentation: {kind: clean}}}", "methods.fare.augmentation", "FARE on clean images"),
    ("methods: {sft: {objective: fare}}", "methods.sft.objective", "the trainer is sft, which does not read it"),
    ("methods: {fare: {objective: simclr}}", "methods.fare.objective", "'simclr' is not one of fare, tecoa, acl, hsat"),
    (
        "methods: {fare: {objective: hsat, augmentation: {kind: noisy, sigma: 0.1}}}",
        "methods.fare.augmentation",
        "hsat contrasts the attacked images of a batch",
    ),
    (
        "methods: {fare: {objective: acl, augmentation: {kind: adversarial, eps: 8, steps: 1, share: 0.5}}}",
        "methods.fare.augmentation",
        "acl contrasts the attacked images of a batch",
    ),
    ("methods: {fare: {objective: fare-hsat, batch_size: 1}}", "methods.fare.batch_size", "a process needs two"),
    (
        "methods: {fare: {augmentation: {kind: adversarial, eps: 8, steps: 2, alpha: 0}}}",
        "methods.fare.augmentation.alpha",
        "0 is less than or equal to the minimum of 0",
    ),
    ("further_seeds: [1, 0]", "further_seeds", "0 is the study's own seed already; name others"),
    ("further_seeds: [1, 1]", "further_seeds", "names something twice"),
    ("towers: {neighbours: 0}", "towers.neighbours", "0 is less than the minimum of 1"),
    ("methods: {fare: {augmentation: {kind: noisy}}}", "methods.fare.augmentation.sigma", "missing; a noisy"),
    ("monitoring: {probe: {times: 0}}", "monitoring.probe.times", "0 is less than the minimum of 1"),
    ("monitoring: {report_to: [paper]}", "monitoring.report_to", "'paper' is not one of tensorboard, wandb"),
    ("data: {split: {scheme: med-r1}}", "data.split.published", "the scheme med-r1 needs the folder"),
    ("data: {source: LICENSE}", "data.source", "LICENSE is a file, and no .zip; give a folder or a .zip"),
    ("data: {modalities: {PET scan: 'PET,CT'}}", "data.modalities.PET scan", "'PET,CT' does not match"),
    ("data: {modalities: {PET scan: 5}}", "data.modalities.PET scan", '5 is not text: write "5"'),
    ("data: {hub: {revision: main}}", "data.hub.revision", "'main' does not match"),
    (
        "methods: {sft: {train_on: {modality: PET}}}",
        "methods.sft.train_on.modality",
        "unknown modality 'PET'; known: CT",
    ),
    ("methods: {sft: {train_on: {}}}", "methods.sft.train_on", "fewer entries than 1"),
    (
        "{resources: {shard_training: true}, training: {grpo: {vision_optimizer: adamw}}}",
        "resources.shard_training",
        "only for several processes, each with a GPU",
    ),
    (
        "{peft: {r: 4, alpha: 8, dropout: 0.0}, training: {tower: {vision_optimizer: adamw}}}",
        "methods.at-grpo.vision_optimizer",
        "muon is for whole matrices",
    ),
    (
        "resources: {train_nodes: 5}",
        "resources.train_nodes * resources.train_processes",
        r"5 processes cannot share the batch_size of sft \(32\), fare \(32\), at-grpo \(32\) evenly",
    ),
    ("attack: {replay_on: docs}", "attack.replay_on", "docs holds no config.json that names its model_type"),
    ("model: {name: {think: tiny}}", "model.name.instruct", "missing; give one value for all variants"),
    ("model: {name: {instruct: tiny, think: someone/Model}}", "model.revision", "someone/Model is no local folder"),
    (f"model: {{revision: {{instruct: {REVISION}, think: {REVISION}}}}}", "model.revision", "one model.name for all"),
    ("model: {name: someone/Model, revision: main}", "model.revision", "all 40 digits of a commit, for a branch moves"),
    ("model: {name: someone/Model, revision: abc1234}", "model.revision", "all 40 digits of a commit"),
    (
        f"model: {{name: someone/Model, revision: {'1' * 40}}}",
        "model.revision",
        f'neither text nor null nor a section of keys: write "{"1" * 40}", in quotes',
    ),
    (f"model: {{name: /no/such/folder, revision: {REVISION}}}", "model.name", "neither tiny, nor a local folder, nor"),
    (f"model: {{name: a--b/c, revision: {REVISION}}}", "model.name", "neither tiny, nor a local folder, nor the id"),
    ("model: {name: README.md}", "model.name", "neither tiny, nor a local folder, nor the id of a model on the hub"),
    ("attack: {replay_on: someone/Model}", "attack.replay_on", "no folder of a model; `hf download` fetches one"),
    ("base: {steps: 469}", "base.steps", "469 steps have no room for 400 binding_steps and 70 guessing_steps"),
    ("methods: {at-grpo: {completions: targets, temperature: 0.5}}", "methods.at-grpo.temperature", "nothing is drawn"),
    ("model: {name: someone/Model}", "model.revision", "someone/Model is no local folder"),
    (
        "methods: {at-grpo: {rewards: {accuracy: 0, format: 0}, anchor: 0, features: 0}}",
        "methods.at-grpo.rewards",
        "nothing to learn",
    ),
    (
        "methods: {at-grpo: {rewards: {accuracy: 0, format: 0}, augmentation: {kind: clean}}}",
        "methods.at-grpo.rewards",
        "its own reference",
    ),
    (
        "methods: {at-grpo: {batch_size: 4, augmentation: {kind: noisy, sigma: 0.1, share: 0.1}}}",
        "methods.at-grpo.augmentation.share",
        "0.1 of the 4 rows .* none",
    ),
]
# The same of a study that is laid over the default one, and below the key methods.
REFUSED_OF_STUDIES = [
    (SMOOTHING, "noisy-grpo: {augmentation: {kind: adversarial}}", "noisy-grpo.augmentation", "needs eps > 0"),
    (WORDS, "grpo-hints: {augmentation: {hints: -1}}", "grpo-hints.augmentation.hints", "-1 is less than"),
    (WORDS, "grpo-hints: {augmentation: {hints: 8}}", "grpo-hints.augmentation.hints", "8; .* has 7 to train on"),
    (WORDS, "grpo-hints: {augmentation: {told: 0.5}}", "grpo-hints.augmentation.told", "the trainer is grpo"),
    (WORDS, "sft-tells: {augmentation: {told: 1.5}}", "sft-tells.augmentation.told", "1.5"),
    (
        RETRIEVAL,
        "sft-rag: {augmentation: {poisoned: 0.5, retrieved: 0}}",
        "sft-rag.augmentation.poisoned",
        "no report is",
    ),
    (RETRIEVAL, "sft-rag: {augmentation: {erased: 0.5}}", "sft-rag.augmentation.retrieved", "reports would tell what"),
    (
        RETRIEVAL,
        "fare: {trainer: tower, start: base, augmentation: {kind: adversarial, eps: 8, steps: 1, retrieved: 2}}",
        "fare.augmentation.retrieved",
        "alters no question",
    ),
    (WORDS, "grpo-abstain: {start: sft}", "grpo-abstain.augmentation.erased", "anchor > 0 anchors it to its start"),
]


@pytest.mark.parametrize("change, key, said", REFUSED, ids=[change for change, *_ in REFUSED])
def test_what_is_wrong_is_refused_in_one_line_by_the_path_of_its_key(change, key, said):
    (line,) = checks.faults(merged(change, FULL))
    assert line.startswith(f"config: {key}: ") and re.search(said, line), line
    assert "\n" not in line and len(line) < 250


@pytest.fixture
def model_folder(tiny_model, tmp_path) -> Path:
    """A whole saved model, to be broken; nothing in it is read but JSON."""
    folder = tmp_path / "my model's"
    folder.mkdir()
    for path in tiny_model.iterdir():
        shutil.copy(path, folder)
    return folder


def broken(folder: Path, name: str, text: str | None) -> None:
    """Remove a file, or write another text in its place."""
    (folder / name).unlink(missing_ok=True)
    if text is not None:
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    "files, said",
    [
        ({"config.json": None}, "holds no config.json that names its model_type; only qwen3_vl"),
        ({"config.json": '{"model_type": "llama"}'}, "holds a model of type llama; only qwen3_vl"),
        ({"config.json": '{"model_type":'}, r"holds a file that is no JSON \(config.json: Expecting value"),
        ({"config.json": "[]"}, r"no JSON \(config.json: not an object\)"),
        ({"model.safetensors": None}, "holds no weights, neither model.safetensors nor"),
        (
            {"model.safetensors": None, INDEX: '{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}'},
            "lacks 2 of its files of weights, such as 1.safetensors",
        ),
        ({"model.safetensors": None, INDEX: '{"weight_map": {}}'}, "names no weights"),
        ({"tokenizer.json": None}, "holds no tokenizer, neither tokenizer.json nor vocab.json with merges.txt"),
        ({"processor_config.json": None}, "holds no image processor, neither processor_config.json nor"),
    ],
    ids=str,
)
@pytest.mark.parametrize("key", ["model.name", "attack.replay_on"])
def test_a_model_folder_that_cannot_be_loaded_is_refused_in_one_line(key, files, said, model_folder):
    section, name = key.split(".")
    change = yaml.safe_dump({section: {name: str(model_folder)}})
    assert checks.faults(merged(change, FULL)) == []
    for file, text in files.items():
        broken(model_folder, file, text)
    (line,) = checks.faults(merged(change, FULL))
    assert line.startswith(f"config: {key}: {model_folder} ") and re.search(said, line), line


def test_weights_in_several_files_are_found_by_their_index(model_folder):
    (model_folder / "model.safetensors").rename(model_folder / "1.safetensors")
    (model_folder / INDEX).write_text('{"weight_map": {"a": "1.safetensors"}}')
    assert checks.faults(merged(yaml.safe_dump({"model": {"name": str(model_folder)}}), FULL)) == []


@pytest.mark.parametrize(
    "study, change, key, said", REFUSED_OF_STUDIES, ids=[change for _, change, *_ in REFUSED_OF_STUDIES]
)
def test_what_is_wrong_in_a_study_is_refused_in_one_line(study, change, key, said):
    (line,) = checks.faults(merged(f"methods: {{{change}}}", study))
    assert line.startswith(f"config: methods.{key}: ") and re.search(said, line), line


@pytest.mark.parametrize(
    "change, keys",
    [
        (
            "{seed: x, data: {imagesize: 3}, attack: {question: 5, eps: [0]}, certify: {n: 0}}",
            ["attack.eps", "attack.question", "certify.n", "data.imagesize", "seed"],
        ),
        (
            "{data: {image_size: 60}, certify: {sigma: [0.5]}, study_methods: [sftt], methods: {fare: {anchor: 1.0}}}",
            [
                *(f"attack.attacks.smoothed-{name}.sigma" for name in ("l2", "l2-choice", "linf")),
                "data.image_size",
                "methods.fare.anchor",
                "study_methods",
            ],
        ),
        (
            "attack: {attacks: {pgd-hint: {norm: l2, eps: 1}}}",
            ["attack.attacks.pgd-hint.eps", "attack.attacks.pgd-hint.norm"],
        ),
    ],
    ids=["by the schema", "by the rules between keys", "in one attack"],
)
def test_all_faults_are_listed_a_line_each(change, keys):
    assert sorted(line.split(": ")[1] for line in checks.faults(merged(change, FULL))) == sorted(keys)


def test_an_attack_in_l0_has_no_radius_and_no_part_in_the_worst_case():
    change = (
        "attack: {suite: [pgd, pixle, square], attacks: "
        "{pixle: {kind: torchattacks, attack: Pixle, norm: l0, steps: 5, restarts: 2}}}"
    )
    config = merged(change, FULL)
    assert checks.faults(config) == []
    attack = config["attack"]
    assert configuration.radii(attack, "pixle") == [math.inf]
    assert configuration.sweeps(attack) == ["pgd"] and configuration.before(attack, "think", "square") == ["pgd"]


def test_rules_of_an_evaluation_that_is_not_made_do_not_bind():
    change = "{attack: {questions: 50, transfer: cw}, stress: {attack: fgsm}, certify: {sigma: [0.5], n: 1}}"
    assert checks.faults(merged(change, FULL))
    assert checks.faults(merged(f"{{evaluations: [attack], {change[1:]}", FULL)) == []


@pytest.mark.parametrize(
    "given, wanted",
    [
        ({"attack": {"questions": "5", "amp": "true"}}, {"attack": {"questions": 5, "amp": True}}),
        ({"attack": {"eps": ["4", "8"]}}, {"attack": {"eps": [4, 8]}}),
        ({"training": {"sft": {"learning_rate": "1e-3"}}}, {"training": {"sft": {"learning_rate": 0.001}}}),
        ({"methods": {"m": {"augmentation": {"eps": "8"}}}}, {"methods": {"m": {"augmentation": {"eps": 8}}}}),
        ({"attack": {"attacks": {"a": {"eps": ["0.5", "1"]}}}}, {"attack": {"attacks": {"a": {"eps": [0.5, 1]}}}}),
        ({"peft": {"r": "4"}, "data": {"source": "null"}}, {"peft": {"r": 4}, "data": {"source": None}}),
        ({"certify": {"methods": "null"}}, {"certify": {"methods": None}}),
        ({"data": {"source": "2024"}, "study": "5"}, {"data": {"source": "2024"}, "study": "5"}),
        ({"training": {"grpo": {"scale_rewards": "none"}}}, {"training": {"grpo": {"scale_rewards": "none"}}}),
        ({"attack": {"questions": "five", "suit": ["5"]}}, {"attack": {"questions": "five", "suit": ["5"]}}),
    ],
    ids=str,
)  # fmt: skip
def test_text_of_the_command_line_is_read_as_the_schema_wants_it(given, wanted):
    assert json.dumps(schema.typed(given)) == json.dumps(wanted)


@pytest.mark.parametrize(
    "text, lines",
    [
        ("seed: 1\nstudy: a\nseed: 2\n", ["config: seed: stands in lines 1 and 3; x.yaml must have it once"]),
        (
            "attack:\n  eps: [4]\n  attacks:\n    a: {kind: pgd, kind: apgd}\n  eps: [8]\n",
            [
                "config: attack.attacks.a.kind: stands in lines 4 and 4; x.yaml must have it once",
                "config: attack.eps: stands in lines 2 and 5; x.yaml must have it once",
            ],
        ),
        ("seed: [1\nstudy: x\n", ["config: x.yaml, line 2: not YAML: did not find expected ',' or ']'"]),
        (
            "methods:\n  no: {}\n",
            ['config: x.yaml, line 2: methods.no: the key no is not text to YAML; write "no", in quotes'],
        ),
        ("1: 2\n", ['config: x.yaml, line 1: 1: the key 1 is not text to YAML; write "1", in quotes']),
        ("seed: 010\n", ["config: x.yaml, line 1: seed: YAML reads 010 as 8; write it to base ten"]),
        (
            "attack:\n  eps: [1:30]\n",
            ["config: x.yaml, line 2: attack.eps: YAML reads 1:30 as 90; write it to base ten"],
        ),
        ("a: &a {b: 0}\nc: {<<: *a, d: 0.05, e: -0, f: 1_000, g: 08}\n", []),
        ("[1, 2]\n", ["config: x.yaml holds no keys: write key: value, a line each"]),
        ('{\n\t"seed": 1\n}', []),
        ("", []),
    ],
    ids=["twice", "twice in sections", "no YAML", "no", "1", "octal", "sixties", "as read", "list", "JSON", "empty"],
)
def test_what_yaml_would_pass_over_or_misread_is_refused_by_file_key_and_line(text, lines, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(text)
    assert sorted(config_files.faults(Path("x.yaml"))) == lines


def leaves(section: dict, path: str = "") -> set[str]:
    """The paths of all values in a config."""
    below = [
        leaves(value, f"{path}{key}.") if value and isinstance(value, dict) else {f"{path}{key}"}
        for key, value in section.items()
    ]
    return set().union(*below)


def test_every_key_is_described_in_a_sentence():
    lacking = [path for path, own in schema.keys().items() if len(own.get("description", "").split()) < 3]
    assert lacking == [] and {"seed", "methods.*.trainer", "attack.attacks.*.kind"} <= schema.keys().keys()


def test_a_key_stands_either_in_what_a_user_edits_or_in_the_defaults():
    defaults, own = (yaml.safe_load(path.read_text()) for path in config_files.FILES)
    assert leaves(own) & leaves(defaults) == set() and {"study", "attack.questions"} <= leaves(own)
    lines = config_files.FILES[1].read_text().splitlines()
    assert len(lines) < 80
    for line, before in zip(lines[1:], lines, strict=False):  # a key of a value has a sentence above it
        if re.match(r" *\w+: \S", line):
            assert re.match(r" *# [A-Z\w].*\.$", before) or re.match(r" *\w+: \S", before), line


@pytest.fixture(scope="module")
def untouched(tmp_path_factory) -> Path:
    """A copy in which nothing has run."""
    return checkout(tmp_path_factory.mktemp("config") / "repository")


def refusal(*arguments, cwd: Path) -> list[str]:
    """The lines of a start of Snakemake that must fail before any job."""
    done = snakemake(*arguments, "--cores", 1, cwd=cwd)
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "Job stats" not in said and not (cwd / "results").exists()
    assert "Traceback" not in said and "Error" not in said
    return [line for line in said.splitlines() if not line.startswith("Config file ")]


def test_snakemake_prints_a_line_a_fault_and_nothing_else(untouched):
    (untouched / "changed.yaml").write_text("{attack: {question: 5}, certify: {questions: many}}\n")
    given = ["--configfile", "changed.yaml", "--config", "attack={headline_eps: eight}", "seed=3"]
    assert sorted(refusal("data", *given, cwd=untouched)) == [
        "config: attack.headline_eps: 'eight' is not an integer",
        "config: attack.question: unknown key; did you mean questions?",
        "config: certify.questions: 'many' is not an integer",
    ]


def test_snakemake_refuses_a_key_that_stands_twice_in_any_config_file(untouched):
    (untouched / "twice.yaml").write_text("seed: 1\nseed: 2\n")
    line = "config: seed: stands in lines 1 and 2; twice.yaml must have it once"
    assert refusal("data", "--configfile", "twice.yaml", cwd=untouched) == [line]


def test_no_method_may_have_the_name_of_a_rule():
    targets = set(re.findall(r"^rule (\w+):", (ROOT / "Snakefile").read_text(), re.M))
    refused = set(schema.keys()["methods"]["propertyNames"]["not"]["enum"])
    assert targets | {name for name in rules() if "_" not in name} == refused and {"attack", "prepare"} <= refused


def make(*arguments) -> subprocess.CompletedProcess:
    """What make would run."""
    return subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["SOURCE=/images"], "SOURCE needs a STUDY with a name of its own"),
        (["SOURCE=/images", "STUDY=words"], "SOURCE needs a STUDY with a name of its own"),
        (["STUDY=ablatio"], "there is no workflow/studies/ablatio.yaml; STUDY is phantoms or one of ablation after "),
    ],
    ids=" ".join,
)
def test_make_refuses_a_study_that_would_spoil_another_in_one_line(arguments, said):
    done = make("study", *arguments)
    (line,) = done.stderr.splitlines()
    assert done.returncode and said in line and "snakemake" not in done.stdout


def test_make_names_the_target_before_the_config_files_that_would_swallow_it():
    done = make("study", "STUDY=mini ablation", "SOURCE=/my images", "TARGET=figures")
    assert (
        done.returncode == 0
        and (
            "snakemake figures --cores 2 --rerun-incomplete --configfile workflow/studies/mini.yaml "
            r"""workflow/studies/ablation.yaml --config 'data={source: '\''/my images'\''}'"""
        )
        in done.stdout
    )
    assert "--config" not in make("study").stdout


@pytest.mark.parametrize(
    "source", ["/my imag'es", '/a "b', "/$HOME", "$x", "`id`", "/a#b", "/a: b", "/a\\b", "/a(b),c"]
)
def test_make_gives_snakemake_the_source_as_it_was_typed(source):
    done = make("study", "STUDY=mini", f"SOURCE={source}")
    (line,) = [line for line in done.stdout.splitlines() if " --config " in line]
    (given,) = shlex.split(line.partition(" --config ")[2])
    assert parse_config([given]) == {"data": {"source": source}}


def test_make_runs_nothing_that_a_study_is_named_after(tmp_path):
    done = make("study", f"STUDY=x;>{tmp_path}/made;")
    assert done.returncode and not (tmp_path / "made").exists()


def test_make_clean_leaves_results_and_their_records():
    removed = make("clean").stdout
    assert ".venv" in removed and not re.search(r"results|\.snakemake|resources", removed)
