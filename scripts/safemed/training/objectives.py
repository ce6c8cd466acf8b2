"""What the trainer `tower` descends, and what its attack climbs: one function for each objective.

Each is given a step, the clean images [B, 3, H, W] of a batch and its rows, and returns the loss. phi_theta is the
tower that is trained, phi_ref the one that it started from.

fare, tecoa and fare-hsat keep to what the language model reads. acl and hsat do not: a bare contrastive loss moves the
features freely, and fine-tuning has to come after it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from safemed.attacks.contrast import contrast_away, nt_xent, pooled, supervised_contrast
from safemed.attacks.losses import AttackLoss, feature_distance, features_away, words_away
from safemed.models.vlm import VLM, Encoded
from safemed.training.views import view

ACL_TAU = 0.5  # of ACL's code
HSAT_TAU = 0.07


@dataclass(frozen=True)
class Step:
    """What an objective has at hand. Images are [B, 3, H, W] in [0, 1], features [B, L, n, D].

    vlm: the model, whose tower is the one that is trained. features: of that tower, with a gradient at its weights.
    reference: those that the tower had at the start, without one. augmented: attack loss, clean images and names ->
    what the step sees of them. logits: features and encoded prompts -> logits [B, C + 1, V] as `completion_logits`
    says. name: what seeds a view of each row, beside a number.
    """

    vlm: VLM
    features: Callable[[Tensor], Tensor]
    reference: Callable[[Tensor], Tensor]
    augmented: Callable[[AttackLoss, Tensor, list[str]], Tensor]
    logits: Callable[[Tensor, Encoded], Tensor]
    name: str


def fare(step: Step, clean: Tensor, rows: Sequence[dict]) -> Tensor:
    """FARE: unsupervised adversarial fine-tuning (Schlarmann et al. 2024, "Robust CLIP", eq. 3).

        min_theta  E_x  max_{|delta|_inf <= eps}  || phi_theta(x + delta) - phi_ref(x) ||^2

    The tower keeps, under attack, the features that it had of the CLEAN image at its start, so that the language model,
    which is not trained, goes on understanding them. The distance is relative to the norm of the clean features, in
    each layer of a deepstack by itself. No label and no answer enters, and the language model is not run.
    """
    wanted = step.reference(clean)
    seen = step.augmented(features_away(step.vlm, wanted), clean, _ids(rows))
    return feature_distance(step.features(seen), wanted).mean()


def fare_hsat(step: Step, clean: Tensor, rows: Sequence[dict]) -> Tensor:
    """A hybrid of this project: FARE's loss on images whose attack climbs HSAT's hierarchical loss.

    An attacked image is contrasted, at every level, with the other attacked images and with phi_ref's features of all
    clean ones.
    """
    wanted = step.reference(clean)
    away = contrast_away(step.vlm, _levels(rows, clean), HSAT_TAU, others=pooled(wanted))
    seen = step.augmented(away, clean, _ids(rows))
    return feature_distance(step.features(seen), wanted).mean()


def acl(step: Step, clean: Tensor, rows: Sequence[dict]) -> Tensor:
    """ACL (Jiang et al. 2020, arXiv 2010.13812), dual stream: the mean of NT-Xent on two views of each image, and on
    the same views attacked against it.

    Its dual batch norms, one for clean and one for attacked images, are void here: the tower has layer norms, which
    know no batch. There is no projection head.
    """
    pair, names = _pair(step, clean, rows)
    images = torch.arange(len(rows), device=clean.device).repeat(2)
    seen = step.augmented(contrast_away(step.vlm, images[None], ACL_TAU), pair, names)
    both = pooled(step.features(torch.cat([pair, seen]))).split(len(pair))
    return sum(nt_xent(vectors, images, ACL_TAU).mean() for vectors in both) / 2


def hsat(step: Step, clean: Tensor, rows: Sequence[dict]) -> Tensor:
    """HSAT (arXiv 2503.10629): the supervised contrastive loss summed over a hierarchy, on attacked views alone, the
    attack climbing the same sum.

    There the levels are patch, slide and patient; here image, subject, anatomy and modality, those that are told. The
    last two are labels: unlike FARE and ACL, this objective is supervised. There is no projection head.
    """
    pair, names = _pair(step, clean, rows)
    levels = _levels(rows, clean).repeat(1, 2)
    seen = step.augmented(contrast_away(step.vlm, levels, HSAT_TAU), pair, names)
    return supervised_contrast(pooled(step.features(seen)), levels, HSAT_TAU).mean()


def tecoa(step: Step, clean: Tensor, rows: Sequence[dict]) -> Tensor:
    """TeCoA (Mao et al. 2023), the supervised baseline of FARE's paper, as it can be where there is no text tower.

    There it is the cross entropy of the right class under CLIP's text embeddings, on attacked images, which the attack
    climbs. Here the language model, which is frozen, takes their place: the cross entropy of the right answer to the
    row's question, summed over its tokens, and the attack climbs the same.
    """
    encoded = step.vlm.encode([row["prompt"] for row in rows], [row["target"] for row in rows], clean.shape[-1])
    seen = step.augmented(words_away(step.vlm, encoded), clean, _ids(rows))
    logits = step.logits(step.features(seen), encoded)[:, :-1].float()  # [B, C, V]
    loss = F.cross_entropy(logits.transpose(1, 2), encoded.completion_ids, reduction="none")
    return (loss * encoded.completion_mask).sum(1).mean()


Objective = Callable[[Step, Tensor, Sequence[dict]], Tensor]
OBJECTIVES: dict[str, Objective] = {"fare": fare, "tecoa": tecoa, "acl": acl, "hsat": hsat, "fare-hsat": fare_hsat}


def _ids(rows: Sequence[dict]) -> list[str]:
    return [row["question_id"] for row in rows]


def _levels(rows: Sequence[dict], images: Tensor) -> Tensor:
    """The labels of the rows' images, [levels, B]."""
    return torch.tensor([row["levels"] for row in rows], device=images.device).T


def _pair(step: Step, clean: Tensor, rows: Sequence[dict]) -> tuple[Tensor, list[str]]:
    """Two views of each image, [2 B, 3, H, W], the second ones after the first ones, and a name for each."""
    names = [f"{name}:view-{number}" for number in (1, 2) for name in _ids(rows)]
    return view(clean.repeat(2, 1, 1, 1), [f"{step.name}:{name}" for name in names]), names
