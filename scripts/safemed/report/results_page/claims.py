"""What the papers claim, and what became of each here: a number, a verdict, and what would settle it."""

from collections.abc import Callable, Iterator, Sequence
from math import isnan
from typing import NamedTuple

from safemed.report.results_page import findings, markdown
from safemed.report.results_page.findings import Finding
from safemed.report.results_page.markdown import NONE, link, percent
from safemed.report.results_page.study import Study

SAFEMED, MEDR2 = "SafeMed-R1 (arXiv 2512.19317)", "Med-R2 Bench (arXiv 2605.24492)"
ECHO, DAS = "EchoBench (arXiv 2509.20146)", "DAS (arXiv 2508.00923)"
THREAT, AGENTS = "MedThreatRAG (arXiv 2508.17215)", "multi-agent evaluation (arXiv 2601.13268)"
HSAT, MEDCONF = "HSAT (arXiv 2503.10629)", "MedConf (arXiv 2601.15645)"


class Claim(NamedTuple):
    """source: the paper; says: the claim; found: what a study says of it, if anything; settles: what would."""

    source: str
    says: str
    found: Callable[[Study], Iterator[Finding]]
    settles: str


def claims(studies: Sequence[Study]) -> str:
    """The table of all CLAIMS, each by the first study that has a number of it. Those that none has one of say so."""
    rows = []
    for claim in CLAIMS:
        shown = next(filter(None, (_shown(claim, study) for study in studies)), [(NONE, NONE, "not measured")])
        rows += [[claim.source, claim.says, *one, claim.settles] for one in shown]
    said = (
        "Each claim is held against the first study of the table above that has measured it. Its number is in points, "
        "and above 0 if the claim holds. A claim is confirmed where the whole 95 % interval is above 0, contradicted "
        "here where it is below, and else not confirmed. Differences of accuracy between methods, the collapse, and "
        "what misled answers are beyond drift are over all seeds of a study: their intervals allow for other questions "
        "and other seeds, and are the widest that two numbers allow where their difference has none. All else (chains, "
        "towers, certificates, EchoBench's rates) is of the first seed. Verdicts are not adjusted for their number. "
        "Here means the study's models and images: a verdict is not one on the models of a paper."
    )
    return markdown.text(said, ["paper", "claim", "measured here", "study", "verdict", "what would settle it"], rows)


def _shown(claim: Claim, study: Study) -> list[tuple[str, str, str]]:
    """The numbers that a study has of a claim, the study, and the verdicts."""
    found = [finding for finding in claim.found(study) if not isnan(finding.value)]
    return [(_number(finding), link(study.name, study.page), finding.verdict) for finding in found]


def _number(finding: Finding) -> str:
    return f"{finding.of}: {percent(finding.value, finding.low, finding.high, sign='+')}"


MORE_SEEDS = "the paper's models, with several seeds each"
CLAIMS = (
    Claim(
        SAFEMED,
        "Standard fine-tuning collapses under PGD: more than half of the accuracy is lost.",
        findings.collapse,
        MORE_SEEDS,
    ),
    Claim(SAFEMED, "AT-GRPO holds what fine-tuning loses.", findings.holds, MORE_SEEDS),
    Claim(
        SAFEMED,
        "The rewards add to the accuracy (this project's question).",
        findings.rewards,
        "an ablation on the paper's models",
    ),
    Claim(
        SAFEMED,
        "They add more under attack than on clean images (this project's question).",
        findings.robust_rewards,
        "an ablation on the paper's models",
    ),
    Claim(
        SAFEMED, "Thinking is more robust than answering at once.", findings.thinking, "thoughts of hundreds of tokens"
    ),
    Claim(
        SAFEMED,
        "Smoothing certifies more than guessing, at the smallest radius.",
        findings.certificate,
        "certificates at radii that an attack reaches",
    ),
    Claim(
        SAFEMED,
        "Smoothing adds robustness at inference.",
        findings.smoothing,
        "smoothed 4B models, attacked adaptively",
    ),
    Claim(
        SAFEMED,
        "Robust training adds to the quality of reasoning.",
        findings.reasoning,
        "expert ratings of thoughts",
    ),
    Claim(MEDR2, "Accuracy falls along the stages of the workflow.", findings.degrades, "real evidence chains"),
    Claim(MEDR2, "Answers rely on what the prompt suggests.", findings.relies, "the benchmark's own prompts"),
    Claim(
        MEDR2,
        "Answers follow visual cues that are not aligned with the image.",
        findings.cues,
        "the benchmark's own cues",
    ),
    Claim(MEDR2, "Training step by step helps.", findings.stepwise, "stepwise targets for real chains"),
    Claim(
        ECHO, "Medical models echo what the user suggests.", findings.sycophantic, "the benchmark's data and wordings"
    ),
    Claim(DAS, "Adaptive red teams fool more than random ones.", findings.fooled, "a language model as the red team"),
    Claim(DAS, "What fools is what is claimed.", findings.misled, "a language model as the red team"),
    Claim(
        HSAT,
        "Hierarchical contrastive training makes towers more robust than they are without it.",
        findings.towers,
        "whole slides, trained from scratch",
    ),
    Claim(
        HSAT,
        "It makes them more robust than contrast without levels.",
        findings.hierarchy,
        "whole slides, trained from scratch",
    ),
    Claim(
        MEDCONF,
        "Confidence should follow the evidence; agreement under noise does so better (this project's).",
        findings.vote_share,
        "dialogues",
    ),
    Claim(THREAT, "Retrieved reports add to accuracy.", findings.retrieved, "real reports, and their retrievers"),
    Claim(
        THREAT,
        "Poisoned reports take away what retrieval adds.",
        findings.poisoned,
        "real reports, and their retrievers",
    ),
    Claim(AGENTS, "A loop of checks makes answers safer.", findings.loop, "the paper's agents, attacked adaptively"),
)
