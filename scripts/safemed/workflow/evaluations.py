"""How each model is evaluated: the folders of rows that a study has, and what the scripts that write them are given."""

import json
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from safemed.workflow import config as configs


class Evaluations:
    """What the rules of the evaluations need to know of a study.

    Methods that take wildcards (method, variant and, of an attack, attack) serve the rules; those that take models
    return the folders that an evaluation writes, one or more a model.
    """

    def __init__(self, config: dict, results: str):
        """config: the study's; results: its folder."""
        self.config, self.results = config, results
        self.attack, self.stress, self.certify = config["attack"], config["stress"], config["certify"]
        self.turns = config["turns"]
        self.studied = configs.models(config, config["study_methods"])
        self.certified = configs.models(config, configs.certified_methods(config))
        self.made = config["evaluations"]  # those that the study makes
        self.replayed_on = self.attack["replay_on"]
        # A replay on another model says so in its folder and in its rows.
        self.replay = "replay" + (f"-on-{_named(self.replayed_on)}" if self.replayed_on else "")
        self.shards = [f"{number + 1}-of-{self.certify['shards']}" for number in range(self.certify["shards"])]

    # The folders of rows.

    def of_every(self, kind: str, models: list[str]) -> list[str]:
        """The folders of an evaluation that each model has one of, such as transfer, stress or reveal."""
        return [f"{self.results}/{kind}/{model}" for model in models if kind in self.made]

    def replays(self) -> list[str]:
        """The replays of all models that are attacked."""
        return [f"{self.results}/{self.replay}/{model}" for model in dict.fromkeys([*self.studied, *self.certified])]

    def sweeps(self, models: list[str]) -> list[str]:
        """The clean images, and the attacks at all radii."""
        return self._attacks("attack", models, lambda variant: ["clean", *configs.sweeps(self.attack, variant)])

    def suite(self, models: list[str]) -> list[str]:
        """The attacks at one radius of their own."""
        swept = configs.sweeps(self.attack)

        def unswept(variant: str) -> list[str]:
            return [name for name in configs.suite(self.attack, variant) if name not in swept]

        return self._attacks("attack", models, unswept)

    def smoothed(self, models: list[str], norm: str | None = None) -> list[str]:
        """The attacks on smoothed models: all, or those in a norm, linf or l2."""
        return self._attacks("certify", models, lambda variant: configs.smoothed_attacks(self.config, variant, norm))

    def unsmoothed(self, models: list[str]) -> list[str]:
        """Clean images and pgd on the models themselves, which attacks on smoothed models are compared with."""
        return self._attacks("certify", models, lambda variant: ["clean", "pgd"])

    def adaptive(self, kind: str, models: list[str]) -> list[str]:
        """The attack that knows the hint (kind stress) or the second turn (turns), if the study makes it."""
        name = self.config[kind]["adaptive"]
        return self._attacks(kind, models, lambda variant: [name] if name else [])

    def certificates(self, models: list[str]) -> list[str]:
        """The certificates: a folder a function, sigma and shard of the questions."""
        return [
            f"{self.results}/certificates/{model}/{function}-sigma{sigma}/{shard}"
            for model in models
            for function in self.certify["functions"]
            for sigma in self.certify["sigma"]
            for shard in self.shards
        ]

    def stored(self, wildcards) -> list[str]:
        """All attacks on a studied or certified model, whose images a replay scores again."""
        model = self.model(wildcards)
        found = []
        if model in self.studied:
            found += self.sweeps([model]) + self.suite([model])
            found += self.adaptive("stress", [model]) + self.adaptive("turns", [model])
        if model in self.certified:
            found += self.unsmoothed([model]) + self.smoothed([model])
        return list(dict.fromkeys(found))

    def before(self, wildcards) -> list[str]:
        """The attacks whose survivors alone an attack is run on."""
        names = configs.before(self.attack, wildcards.variant, wildcards.attack)
        return [f"{self.results}/attacks/{self.model(wildcards)}/{name}" for name in names]

    def transferred(self, wildcards) -> list[str]:
        """The attack whose images a model is shown, on each studied model of its seed."""
        own = configs.models(self.config, self.config["study_methods"], wildcards.seed)
        return self._attacks("transfer", own, lambda variant: [self.attack["transfer"]])

    # What the scripts are given.

    def model(self, wildcards) -> str:
        """The model's name."""
        return f"{wildcards.method}-{wildcards.variant}{wildcards.seed}"

    def weights(self, wildcards) -> str:
        """The folder of the model; the base as it is, where that is the method, has one for all variants it serves."""
        base = configs.trained_base(self.config, wildcards.variant, wildcards.seed)
        name = base if wildcards.method == configs.BASE else self.model(wildcards)
        return f"{self.results}/models/{name}"

    def templates(self, wildcards) -> list[str]:
        """The file of templates, where an attack knows a hint or a second turn."""
        return [self.config["templates"]] if {"hint", "turn"} & self._attack(wildcards).keys() else []

    def attack_settings(self, wildcards) -> str:
        """An attack's settings.

        A smoothed model is attacked on the questions that are certified, one under a hint on those of the stress tests,
        one in a second turn on those that are pushed.
        """
        attack = self._attack(wildcards)
        asked = self.config[configs.asked_by(attack)]
        return _json(
            {
                "batch_size": self.attack["batch_size"],
                "amp": self.attack["amp"],
                "questions": asked["questions"],
                wildcards.attack: attack or None,
                **self._model(),
            }
        )

    def attack_arguments(self, wildcards, input) -> str:
        """An attack's own arguments."""
        radii = configs.radii(self.attack, wildcards.attack)
        return _line(attack=wildcards.attack, eps=radii, before=input.before, templates=input.templates)

    def transfer_settings(self) -> str:
        """The settings of a replay of the attack that is transferred, at the headline radius."""
        return _json(self._replay_settings(self.attack["headline_eps"], [self.attack["transfer"]]))

    def transfer_arguments(self, wildcards, input) -> str:
        """The arguments of a replay of other models' images."""
        return _line(attacks=input.attacks)

    def replay_settings(self) -> str:
        """The settings of a replay of all attacks at all radii."""
        return _json(self._replay_settings(None, self.attack["attacks"]))

    def replay_arguments(self, wildcards, input) -> str:
        """The arguments of a replay; on the model that was attacked, the rows must be the same.

        In bf16 an answer may depend on the batch that it is in.
        """
        same = "" if self.replayed_on or self.config["evaluation_precision"] == "bf16" else " --same"
        return _line(attacks=input.attacks, templates=input.templates) + same

    def replay_model(self, wildcards) -> str:
        """The name of the model that stored images are scored on."""
        return _named(self.replayed_on) if self.replayed_on else self.model(wildcards)

    def sanity_settings(self) -> str:
        """The settings of the direct attacks that check the attack."""
        return _json(self.attack["sanity"] | self._shared())

    def towers_settings(self) -> str:
        """The settings of the probe of vision towers, at the headline radius."""
        return _json(self.config["towers"] | self._shared() | {"eps": self.attack["headline_eps"]})

    def stress_settings(self) -> str:
        """The settings of the stress tests."""
        own = {key: self.stress[key] for key in ("questions", "severities", "chains", "published")}
        return _json(own | self._shared() | {"eps": self.attack["headline_eps"]})

    def turns_settings(self) -> str:
        """The settings of second turns."""
        return _json({"questions": self.turns["questions"], "eps": self.attack["headline_eps"]} | self._shared())

    def stress_arguments(self, wildcards, input) -> str:
        """The own arguments of stress tests, of second turns and of defences."""
        return _line(templates=input.templates, attack=input.attack)

    def redteam_settings(self) -> str:
        """The settings of the red team."""
        return _json(self.config["redteam"] | self._shared())

    def redteam_arguments(self, wildcards, input) -> str:
        """The red team's own arguments."""
        return _line(templates=input.templates)

    def reveal_settings(self) -> str:
        """The settings of revealed evidence."""
        own = {key: value for key, value in self.config["reveal"].items() if key != "attack"}
        shown = {"eps": self.attack["headline_eps"], "draws_at_once": self.certify["batch_size"]}
        return _json(own | self._shared() | shown)

    def reveal_arguments(self, wildcards, input) -> str:
        """Revealed evidence's own arguments."""
        return _line(attack=input.attack)

    def retrieving(self, wildcards) -> list[str]:
        """The folders of the models whose towers retrieve for a model, each once."""
        found = configs.retrievers(self.config, wildcards.method, wildcards.variant, wildcards.seed)
        return [f"{self.results}/models/{name}" for name in found.values()]

    def corpora(self, wildcards) -> list[str]:
        """The corpora that these search, in their order."""
        found = configs.retrievers(self.config, wildcards.method, wildcards.variant, wildcards.seed)
        return [f"{self.results}/corpora/{name}" for name in found]

    def every_corpus(self) -> list[str]:
        """The corpora of the studied models' retrievers, and those that trainings read, each once."""
        return [f"{self.results}/corpora/{name}" for name in configs.corpora(self.config)]

    def corpus_settings(self, wildcards) -> str:
        """The settings of a corpus; each training question's neighbours in it, where a training reads those."""
        neighbours = wildcards.method in configs.teaching_towers(self.config)
        words = {"words": self.config["retrieve"]["words"]} if neighbours else {}
        return _json({"precision": self.config["evaluation_precision"], "neighbours": neighbours} | words)

    def retrieve_settings(self) -> str:
        """The settings of retrieved reports."""
        own = {key: value for key, value in self.config["retrieve"].items() if key not in ("attack", "retrievers")}
        return _json(own | self._shared() | {"eps": self.attack["headline_eps"]})

    def retrieve_arguments(self, wildcards, input) -> str:
        """The own arguments of retrieved reports."""
        return _line(templates=input.templates, attack=input.attack, towers=input.towers, corpora=input.corpora)

    def defend_settings(self) -> str:
        """The settings of defences, and the attack that is made through them."""
        own = {key: value for key, value in self.config["defend"].items() if key != "attack"}
        budget = self.attack["attacks"][self.config["defend"]["attack"]]
        shared = self._shared() | {"eps": self.attack["headline_eps"], "amp": self.attack["amp"]}
        return _json(own | shared | {"budget": budget})

    def certify_settings(self) -> str:
        """The settings of certificates."""
        keys = ("questions", "mode", "randomised", "n0", "n", "alpha", "radii", "batch_size")
        return _json({key: self.certify[key] for key in keys} | self._model())

    def certify_arguments(self, wildcards, input) -> str:
        """A certificate table's own arguments."""
        return _line(function=wildcards.function, sigma=wildcards.sigma, shard=wildcards.shard)

    def _attack(self, wildcards) -> dict:
        """The configuration of an attack; empty for clean images."""
        return self.attack["attacks"].get(wildcards.attack, {})

    def _attacks(self, evaluation: str, models: list[str], names: Callable[[str], list[str]]) -> list[str]:
        """The folders of attacks, if the study makes their evaluation. names: variant -> names of attacks."""
        return [
            f"{self.results}/attacks/{model}/{name}"
            for model in models
            if evaluation in self.made
            for name in names(configs.variant_of(model))
        ]

    def _replay_settings(self, eps: int | None, attacks) -> dict:
        """eps: the radius that is shown, or None for all."""
        return self._shared() | {"eps": eps, "attacks": {name: self.attack["attacks"][name] for name in attacks}}

    def _shared(self) -> dict:
        return {"batch_size": self.attack["batch_size"]} | self._model()

    def _model(self) -> dict:
        """How a model is loaded and asked."""
        return {"max_new_tokens": self.config["max_new_tokens"], "precision": self.config["evaluation_precision"]}


def _named(folder: str) -> str:
    """The name of a model folder in letters, digits, dots, hyphens and underscores."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(os.path.abspath(folder)).name)


def _json(section: dict) -> str:
    """A script's --settings: a change of them, and of nothing else in the config, re-runs its rule."""
    return json.dumps(section, sort_keys=True)


def _line(**arguments) -> str:
    """Arguments of a script; a list becomes several words, and none where it is empty."""
    words: list[str] = []
    for name, value in arguments.items():
        values = [value] if isinstance(value, str | int | float) else list(value)
        words += [f"--{name}", *map(str, values)] if values else []
    return shlex.join(words)
