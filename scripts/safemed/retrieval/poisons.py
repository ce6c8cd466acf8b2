"""Poisons of a corpus: entries that claim a wrong answer to a question, and are made to be retrieved for it.

After MedThreatRAG (arXiv 2508.17215), which poisons the reports, the images, or the accord of both, and PoisonedRAG
(arXiv 2402.07867), whose texts repeat the question. The code of the first is not public: what follows is our own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from safemed.attacks.losses import AttackLoss, loss_only
from safemed.attacks.pgd import pgd
from safemed.attacks.threat_model import Ball, random_start
from safemed.models.geometry import to_float, to_uint8
from safemed.models.vlm import VLM
from safemed.retrieval.corpus import BATCH, Corpus, pooled
from safemed.retrieval.entries import Entry
from safemed.retrieval.retriever import query_text
from safemed.stress.hints import claimed
from safemed.utils.draws import draw

KINDS = ("text", "image", "conflict")


@dataclass(frozen=True)
class Poison:
    """An entry that is added, the number of the question it is aimed at, and of the true entry that its image is from.

    claim: the letter of the option, a wrong one, that its report gives for the question's type.
    """

    entry: Entry
    aim: int
    donor: int
    claim: str


def aims(names: Sequence[str], n_entries: int, rate: float, per_question: int, seed: int) -> list[int]:
    """The numbers of the questions, of these names, that poisons are aimed at, one a poison.

    rate: the number of poisons as a share of the entries, at least one, whose aims go round the questions in a random
    order; or, where that is 0, `per_question` for each question.
    """
    order = sorted(range(len(names)), key=lambda i: draw(seed, names[i], "poisoned"))
    wanted = max(1, round(rate * n_entries)) if rate else per_question * len(names)
    return [order[i % len(names)] for i in range(wanted)]


def poisons(
    kind: str, aimed: Sequence[int], questions: Sequence[dict], corpus: Corpus, alike: Tensor, seed: int
) -> list[Poison]:  # fmt: skip
    """A poison of a kind for each aim, several of one question being different while there are images.

    text: an image of the question's modality, drawn, under a report that opens with the words of the question and its
    options. image: such an image under a report without them, to be moved by `towards`. conflict: a true image like the
    question's, the most alike first. All reports are the image's own, but for the wrong answer to the question's type,
    which is the one that misleading hints of the seed claim.

    alike [Q, N]: the cosines of the questions' images to the entries'. Raises ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"a poison must be one of {', '.join(KINDS)}, got {kind!r}")
    made, counts = [], [0] * len(questions)
    drawn = cache(lambda aim: _drawn(questions[aim], corpus, seed))
    for aim in aimed:
        question, count = questions[aim], counts[aim]
        donor = _like(alike[aim], count) if kind == "conflict" else drawn(aim)[count % len(drawn(aim))]
        claim = claimed(question, "negative", seed)
        true = corpus.entries[donor]
        report = true.report.claiming(question, claim)
        if kind == "text":
            report = replace(report, opening=query_text(question))
        made.append(Poison(replace(true, report=report), aim, donor, claim))
        counts[aim] += 1
    return made


def _like(alike: Tensor, count: int) -> int:
    """The count-th of the entries with images most alike, the first being 0."""
    return int(alike.topk(count + 1).indices[count])


def _drawn(question: dict, corpus: Corpus, seed: int) -> list[int]:
    """The entries of the question's modality, or all where there is none, in a random order."""
    own = [i for i, entry in enumerate(corpus.entries) if entry.modality == question["modality"]]
    places = own or range(len(corpus.entries))
    names = {i: f"donor {corpus.entries[i].image_key}" for i in places}
    return sorted(places, key=lambda i: draw(seed, question["question_id"], names[i]))


def towards(
    vlm: VLM, images: Tensor, wanted: Tensor, mean: Tensor, eps: int, steps: int, restarts: int, names: Sequence[str]
) -> Tensor:  # fmt: skip
    """Images uint8 [P, H, W, 3], moved by PGD within L_inf eps / 255 until a tower sees in them what others show.

    What is climbed is the cosine of `Retriever` between an image's pooled features and `wanted` [P, D]; mean [D]: the
    corpus's. The first of the restarts climbs from the image itself, further ones from random starts, which `names`
    seed. The images returned are of 8 bits and within eps levels: of the last ones of all climbs, and the image itself,
    the one with the highest cosine.
    """
    moved = []
    for part in torch.arange(len(images)).split(BATCH):
        own = [names[i] for i in part.tolist()]
        moved.append(_moved(vlm, images[part], wanted[part], mean, eps, steps, restarts, own))
    return torch.cat(moved) if moved else images


def _moved(
    vlm: VLM, images: Tensor, wanted: Tensor, mean: Tensor, eps: int, steps: int, restarts: int, names: list[str]
) -> Tensor:  # fmt: skip
    """`towards` for the images of a batch."""
    clean, ball = to_float(images, vlm.device), Ball("linf", eps / 255)
    loss, everything = cosine_to(vlm, wanted.to(vlm.device), mean.to(vlm.device)), torch.arange(len(images))
    best, highest = images, loss_only(loss, clean, everything)[0]
    for restart in range(restarts):
        start = random_start(clean, ball.eps, [f"{name}:{restart}" for name in names]) if restart else clean
        found = to_uint8(pgd(loss, clean, ball, steps, start, 2.5 * ball.eps / steps)[0])
        reached = loss_only(loss, to_float(found, vlm.device), everything)[0]
        higher = reached > highest
        best = torch.where(higher.cpu()[:, None, None, None], found, best)
        highest = torch.where(higher, reached, highest)
    return best


def cosine_to(vlm: VLM, wanted: Tensor, mean: Tensor) -> AttackLoss:
    """The cosine between pooled features and `wanted` [B, D], of which the mean [D] is taken; no row is ever broken."""
    target = F.normalize(wanted - mean, dim=1)

    def attack_loss(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        seen = F.normalize(pooled(vlm, images) - mean, dim=1)
        return (seen * target[rows]).sum(1), torch.zeros(len(rows), dtype=torch.bool, device=images.device)

    return attack_loss
