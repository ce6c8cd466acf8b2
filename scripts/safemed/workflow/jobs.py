"""What the jobs of a study do on a GPU, counted from its config: how often each kind of step, on how many questions.

Counts are as if every question were right and no attack broke it, and as if every completion were as long as
max_new_tokens allows; how often an attack on all of a thinking model's words asks it in vain is assumed
(`preflight.asked`). Kinds of steps are those of safemed.preflight.
"""

import math
from collections.abc import Iterator

from safemed.data.prompts import of_variant
from safemed.evaluation.torchattacks_names import NAMES
from safemed.workflow import config as configs

CW_SEARCHES, CW_DRAWN_BACK = 4, 6  # of attacks.cw: searches of c, and bisections of what broke
ASK_EVERY = 2  # steps, of attacks.engine
LETTER = 8  # tokens of an answer without a thought
SAMPLED_THOUGHTS = 3
CHAIN = 21  # questions of a chain of all seven stages, asked plainly and after a silent and a misleading hint
SECOND_TURNS = 16  # of a question: four pushes in two wordings each, on two kinds of images
LEVELS = 3  # that a probe of a tower votes on
SOUND_REPORTS = 5  # ways in which reports of a sound corpus are given
DEFENDED = 36  # of a question through a defence: plain, attacked, seventeen claims and as many silent sentences
SHOWN = ("stress", "turns", "defend", "reveal", "retrieve")  # evaluations that show images which an attack stored
CORPUS = 128  # images of a corpus that a tower sees at once, and that are moved at once
GROUPED = 1.05  # a split's images over its share of all
ALONE = 50  # operators of a red team that are tried alone on a question, and the question as it is


def jobs(config: dict) -> list[dict]:
    """Each kind of job: rule, model, what it is of, how many `jobs` share it, its trainer, how many models it holds
    where it has none, and its passes.

    A pass has a step, the rows (questions, prompts or draws) that it is made on in all jobs together, the tokens of
    each row's completion, and how many rows go `at_once`.
    """
    return [*_trainings(config), *_corpora(config), *_evaluations(config)]


def _trainings(config: dict) -> Iterator[dict]:
    for name in configs.needed(config):
        trainer, settings = config["methods"][name]["trainer"], configs.training_settings(config, name)
        for model in configs.models(config, [name]):
            variant = configs.variant_of(model)
            limit = config["max_new_tokens"][variant]
            if configs.teaches_own(config, name, variant) and config["data"]["published_counts"]:
                yield _job("sample_targets", model, "", [_own_answers(config, settings, limit)])
            passes = [*PASSES[trainer](config, settings, variant, limit)]
            yield _job(f"train_{trainer}", model, "", passes, trainer=trainer)


def _corpora(config: dict) -> Iterator[dict]:
    """The features of the training images, as if the language model were run."""
    for name in configs.corpora(config):
        yield _job("build_corpus", name, "", [_pass("query", _training_images(config), 0, CORPUS)])


def _own_answers(config: dict, settings: dict, limit: int) -> dict:
    """All tries of all training questions, whose number the published counts tell."""
    questions = round(config["data"]["published_counts"]["questions"] * config["data"]["split"]["train"])
    return _pass("answer", questions * settings["target_samples"], limit, config["certify"]["batch_size"])


def _sft(config: dict, settings: dict, variant: str, limit: int) -> Iterator[dict]:
    rows, at_once = _trained_rows(config, settings)
    yield from _attacked(settings, rows, limit, at_once, "training_attack")
    yield _pass("sft", rows, limit, at_once)


def _tower(config: dict, settings: dict, variant: str, limit: int) -> Iterator[dict]:
    rows, at_once = _trained_rows(config, settings)
    objective = settings["objective"]
    if objective == "tecoa":  # a step of SFT takes more: it makes the gradients of the language model's weights, too
        yield from _attacked(settings, rows, limit, at_once, "training_attack")
        yield _pass("sft", rows, limit, at_once)
        return
    views = 2 if objective in ("acl", "hsat") else 1
    yield from _attacked(settings, views * rows, 0, views * at_once, "tower_attack")
    trained = 2 * views if objective == "acl" else views  # clean views, too
    yield _pass("tower", trained * rows, 0, trained * at_once)


def _grpo(config: dict, settings: dict, variant: str, limit: int) -> Iterator[dict]:
    prompts, at_once = _trained_rows(config, settings)
    yield from _attacked(settings, prompts, limit, at_once, "training_attack")
    drawn = of_variant(settings["num_generations"], variant) if settings["completions"] == "rollouts" else 1
    if settings["completions"] == "rollouts":
        yield _pass("rollout", prompts * drawn, limit, at_once * drawn, prompts=prompts)
    yield _pass("grpo", prompts, drawn * limit, at_once)


PASSES = {"sft": _sft, "tower": _tower, "grpo": _grpo}


def _trained_rows(config: dict, settings: dict) -> tuple[int, int]:
    """The rows of a training, and how many a process has at once."""
    processes = config["resources"]["train_nodes"] * config["resources"]["train_processes"]
    rows = settings["steps"] * settings["batch_size"] * settings["gradient_accumulation"]
    return rows, settings["batch_size"] // processes


def _attacked(settings: dict, rows: int, tokens: int, at_once: int, step: str) -> Iterator[dict]:
    augmentation = settings["augmentation"]
    if augmentation["kind"] == "adversarial":
        share = augmentation.get("share", 1.0)
        yield _pass(step, round(rows * share) * augmentation["steps"], tokens, max(1, round(at_once * share)))


def _evaluations(config: dict) -> Iterator[dict]:
    made = config["evaluations"]
    studied = configs.models(config, config["study_methods"])
    certified = configs.models(config, configs.certified_methods(config))
    for model in dict.fromkeys([*studied, *certified]):
        variant = configs.variant_of(model)
        limit = config["max_new_tokens"][variant]
        names = _attacks_made(config, model in studied, model in certified, variant)
        smoothed = configs.smoothed_attacks(config, variant) if model in certified and "certify" in made else []
        knowing = [config[kind]["adaptive"] for kind in ("stress", "turns") if model in studied and kind in made]
        for name in [*names, *smoothed, *filter(None, knowing)]:
            yield _job("attack_model", model, name, [*_attack(config, variant, name, limit)])
        if model in studied:
            yield from _other_evaluations(config, model, len(studied))
        if model in certified:
            yield from _certificates(config, model, limit)


def _attacks_made(config: dict, studied: bool, certified: bool, variant: str) -> list[str]:
    """The attacks on a model itself: the suite, and those that other evaluations need."""
    attack, made, names = config["attack"], config["evaluations"], []
    if studied and "attack" in made:
        names += ["clean", *configs.suite(attack, variant)]
    if studied and "transfer" in made:
        names.append(attack["transfer"])
    names += [config[kind]["attack"] for kind in SHOWN if studied and kind in made]
    if certified and "certify" in made:
        names += ["clean", "pgd"]
    return list(dict.fromkeys(names))


def _attack(config: dict, variant: str, name: str, limit: int) -> Iterator[dict]:
    attack, own = config["attack"], config["attack"]["attacks"].get(name, {})
    asked = config[configs.asked_by(own)]
    questions, votes, at_once = asked["questions"], own.get("votes", 1), attack["batch_size"]
    rows = questions * len([radius for radius in configs.radii(attack, name) if radius])
    tries = _tries(own, variant)
    losses = own.get("losses", {}).get(variant, [])
    thoughts = SAMPLED_THOUGHTS * tries.count(SAMPLED_THOUGHTS)
    answers = questions * (2 if "turn" in own else 1) + rows * (1 + max(1, len(tries)) + thoughts)
    if "sequence" in losses:
        answers += round(rows * len(tries) / len(losses) * own["steps"] / ASK_EVERY * config["preflight"]["asked"])
    if own.get("kind") == "cw":
        answers += rows * CW_DRAWN_BACK
    if own.get("kind") == "noise":
        answers += rows * own["steps"]
    if own.get("kind") == "torchattacks":
        yield from _torchattacks(own, variant, rows, limit, at_once)
    elif tries:
        searches = CW_SEARCHES if own["kind"] == "cw" else 1
        precisions = 2 if attack["amp"] else 1
        steps = sum(tries) * own["steps"] * searches * precisions * own.get("draws", 1)
        yield _pass("attack", rows * steps, limit, at_once * own.get("draws", 1))
    if "turn" in own:  # how sure each first answer is
        yield _pass("query", questions, limit, at_once)
    step = "query" if own.get("function") == "choice" else "answer"
    yield _pass(step, answers * votes, limit, at_once)


def _torchattacks(own: dict, variant: str, rows: int, limit: int, at_once: int) -> Iterator[dict]:
    named = NAMES[own["attack"]]
    costs = named.cost(own["steps"], of_variant(own.get("restarts", 1), variant))
    for step, spent in zip(("attack", "query"), costs, strict=True):
        if spent:
            yield _pass(step, rows * spent, limit, min(at_once, named.at_once or at_once))


def _tries(own: dict, variant: str) -> list[int]:
    """The climbs of an attack on a variant, each as the number of gradients in one of its steps."""
    losses = own.get("losses", {}).get(variant, [])
    restarts = 1 if own.get("steps") == 1 else of_variant(own.get("restarts", 1), variant)
    return [SAMPLED_THOUGHTS if loss == "sampled" else 1 for loss in losses for _ in range(restarts)]


def _other_evaluations(config: dict, model: str, models: int) -> Iterator[dict]:
    attack, stress, made = config["attack"], config["stress"], config["evaluations"]
    variant, at_once = configs.variant_of(model), attack["batch_size"]
    limit = config["max_new_tokens"][variant]
    if "transfer" in made:
        yield _job("transfer_images", model, "", [_pass("answer", attack["questions"] * models, limit, at_once)])
    if "sanity" in made:
        sanity = attack["sanity"]
        climbs = len(sanity["radii"]) + len(sanity["steps"]) + 4 + 3 * of_variant(sanity["restarts"], variant)
        rows = sanity["questions"] * climbs
        passes = [_pass("attack", rows * max(sanity["steps"]), limit, at_once), _pass("answer", rows, limit, at_once)]
        yield _job("probe_attacks", model, "", passes)
    if "towers" in made:
        yield _job("probe_towers", model, "", [*_probe(config, at_once)])
    if "stress" in made:
        rows = stress["questions"] * config["preflight"]["stress_tests"] + stress["chains"] * CHAIN
        passes = [_pass(step, rows, limit, at_once) for step in ("answer", "query")]
        yield _job("stress_model", model, "", passes)
    if "turns" in made:
        rows = config["turns"]["questions"] * (1 + SECOND_TURNS)
        yield _job("turns_model", model, "", [_pass(step, rows, limit, at_once) for step in ("answer", "query")])
    if "redteam" in made:
        redteam = config["redteam"]
        queries = 1 + len(redteam["strategies"]) * redteam["budget"]
        rows = redteam["questions"] * queries + redteam["prior_questions"] * ALONE
        passes = [_pass(step, rows, limit, at_once) for step in ("answer", "query")]
        yield _job("redteam_model", model, "", passes)
    if "defend" in made:
        yield _job("defend_model", model, "", [*_defended(config, variant, limit)])
    if "reveal" in made:
        yield _job("reveal_model", model, "", [*_revealed(config, limit)])
    if "retrieve" in made:
        yield _job("retrieve_model", model, "", [*_retrieved(config, limit, at_once)], held=2)  # a tower's, too


def _revealed(config: dict, limit: int) -> Iterator[dict]:
    """As if every image had a lesion of known place: two orders, of clean and of attacked images."""
    reveal, at_once = config["reveal"], config["attack"]["batch_size"]
    rows = reveal["questions"] * len(reveal["shares"]) * 4
    yield _pass("answer", rows * (1 + reveal["samples"]), limit, at_once)
    yield _pass("query", rows, limit, at_once)
    yield _pass("answer", rows * reveal["draws"], limit, config["certify"]["batch_size"])


def _probe(config: dict, at_once: int) -> Iterator[dict]:
    """A probe of a tower, as if the language model were run: the training images, and the attacks on the test images.

    One attack moves the features; two more, at each level, are on the vote, and are judged every second step.
    """
    towers = config["towers"]
    steps, images = towers["steps"], towers["images"]
    yield _pass("attack", images * steps * (1 + 2 * LEVELS), 0, at_once)
    asked = images * (2 + LEVELS * (steps + 9))
    yield _pass("query", _training_images(config) + asked, 0, at_once)


def _retrieved(config: dict, limit: int, at_once: int) -> Iterator[dict]:
    """Answers beside reports and about pictures of reports, images that are sought by, and images that are moved."""
    retrieve, k = config["retrieve"], config["retrieve"]["k"]
    n, towers = retrieve["questions"], len(retrieve["retrievers"])
    kinds, rates, numbers = (len(retrieve[key]) for key in ("poisons", "rates", "per_question"))
    answered = 2 + towers * (SOUND_REPORTS + kinds * (rates + 3 * numbers))
    checked = towers * k * (2 + kinds * numbers)
    yield _pass("answer", n * (answered + checked), limit, at_once)
    entries, restarts = _training_images(config), retrieve["restarts"]
    moved = n * sum(retrieve["per_question"]) + sum(max(1, round(rate * entries)) for rate in retrieve["rates"])
    moved *= "image" in retrieve["poisons"]
    judged = moved * (2 + restarts)  # as they are, after each climb, and once they are in the corpus
    yield _pass("query", towers * (2 * n + judged), 0, CORPUS)
    if moved:
        yield _pass("tower_attack", towers * moved * restarts * retrieve["steps"], 0, CORPUS)


def _training_images(config: dict) -> int:
    """The images of a study's training split, as far as its config tells, at most: it is made of whole groups."""
    data = config["data"]
    known = data["published_counts"] or data["phantoms"]
    return math.ceil(known["images"] * data["split"]["train"] * GROUPED)


def _defended(config: dict, variant: str, limit: int) -> Iterator[dict]:
    """All defences of a model: the questions under all conditions, and the attack through each."""
    defend, at_once = config["defend"], config["attack"]["batch_size"]
    own = config["attack"]["attacks"][defend["attack"]] | {"restarts": defend["restarts"]}
    tries, asked = _tries(own, variant), _asked_by_defences(defend)
    spent = sum(tries) * own["steps"] * (2 if config["attack"]["amp"] else 1)
    climbed = [
        min(defend["draws"], times) if name == "smooth" else times
        for name, times in zip(defend["defences"], asked, strict=True)
    ]
    rows = [defend["questions"] * times for times in asked]
    yield _pass("attack", defend["questions"] * sum(climbed) * spent, limit, at_once)
    judged = 4 + len(tries) * (1 + own["steps"] // ASK_EVERY)  # clean twice, stored, at last; and during each climb
    yield _pass("answer", sum(rows) * (DEFENDED + 1 + judged), limit, at_once)


def _asked_by_defences(defend: dict) -> list[int]:
    """How often a question is asked by each defence, at most."""
    several = {
        "vote": defend["vote"]["orders"] * defend["vote"]["wordings"],
        "smooth": defend["smooth"]["votes"],
        "loop": 1 + defend["rounds"],
    }
    return [several.get(name, 1) for name in defend["defences"]]


def _certificates(config: dict, model: str, limit: int) -> Iterator[dict]:
    certify = config["certify"]
    drawn = certify["n"] if certify["mode"] == "fixed" else round(certify["n"] * config["preflight"]["drawn"])
    draws = certify["questions"] * (certify["n0"] + drawn)
    for function in certify["functions"]:
        for sigma in certify["sigma"]:
            tokens = LETTER if function == "choice" else limit
            work = _pass("query" if function == "choice" else "answer", draws, tokens, certify["batch_size"])
            yield _job("certify_model", model, f"{function}, sigma {sigma}", [work], jobs=certify["shards"])


def _job(
    rule: str, model: str, what: str, passes: list[dict], jobs: int = 1, trainer: str | None = None, held: int = 1
) -> dict:
    told = {"rule": rule, "model": model, "what": what, "jobs": jobs, "trainer": trainer, "held": held}
    return told | {"passes": passes}


def _pass(step: str, rows: int, tokens: int, at_once: int, **more) -> dict:
    return {"step": step, "rows": rows, "tokens": tokens, "at_once": min(rows, at_once) or 1, **more}
