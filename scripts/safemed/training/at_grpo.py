"""AT-GRPO: adversarial training inside Group Relative Policy Optimization, on TRL's GRPOTrainer.

For a prompt q with image x and gold answer a: x_adv is one perturbation of x against the current policy, shared by the
G rollouts of the prompt; rollouts, old log-probabilities and the policy loss all see x_adv, because TRL processes the
one image object of the row for all three. Added to the loss is the clean-anchored KL,

    beta * KL( pi_ref(. | x, q) || pi_theta(. | x_adv, q) ),

forward, over the full vocabulary, at the tokens of the rollouts: the reference sees the CLEAN image. Without it a
confident policy is wrong in all rollouts of a group, the advantages are zero and the clean skill is lost.

Words may be adversarial, too: of K misleading hints q is replaced by q_hinted, q after the one under which the target
completion has the greatest loss on x. x_adv is sought under q_hinted, which rollouts, old log-probabilities and policy
loss see; the anchor is KL( pi_ref(. | x, q) || pi_theta(. | x_adv, q_hinted) ).

Or the images of a share of the questions are erased: every question then offers to abstain as its last option, which
the accuracy reward pays for where the image does not show what is asked for, and nowhere else. x and q are then the
erased image and the question with this option, for the anchor too: it is for a start that has learned to abstain.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from accelerate.utils import gather_object, reduce
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl.trainer.utils import use_adapter

from safemed.attacks.losses import AttackLoss, words_away
from safemed.data import prompts
from safemed.data.dataset import as_arrays
from safemed.models.geometry import patchify, to_float, to_uint8
from safemed.models.vlm import VLM, frozen
from safemed.stress.hints import Hint, hinted
from safemed.training import abstention
from safemed.training.augmentation import Augmentation, augment_step
from safemed.utils.draws import drawn

Made = TypeVar("Made")


class ATGRPOTrainer(GRPOTrainer):
    """GRPOTrainer whose rollouts, log-probabilities and loss see an augmentation of each image, anchored to the clean one.

    augmentation: what replaces the image (clean: plain GRPO; noisy: Gaussian; adversarial: AT-GRPO), how many hints a question
    draws, and the share of the questions whose image is erased.
    beta: weight of the clean-anchored KL; TRL's own `beta`, whose reference would see the augmentation, must be 0.
    hints: those that are drawn from; ValueError where they are fewer than the augmentation draws. abstain: the text of the
    option to abstain, where the augmentation erases.

    Rows are those of `training.training_rows`: what other prompts and targets are made of stands beside TRL's columns.
    Two private methods of TRL are overridden, so TRL is pinned exactly and tests hold what each pass saw.
    """

    def __init__(
        self, *args, augmentation: Augmentation, beta: float, hints: Sequence[Hint] = (), abstain: str = "", **kwargs
    ):
        super().__init__(*args, **kwargs)
        if self.beta:
            raise ValueError("TRL's beta must be 0: the anchor's own beta is given to ATGRPOTrainer")
        if augmentation.hints > len(hints):
            raise ValueError(
                f"augmentation.hints: {augmentation.hints} cannot be drawn from {len(hints)} hints that are to train on"
            )
        self.augmentation, self.anchor_beta, self.hints, self.abstain = augmentation, beta, hints, abstain
        unwrapped = self.accelerator.unwrap_model(self.model)
        self.vlm = VLM(unwrapped, self.processing_class)
        self.has_adapter = hasattr(unwrapped, "peft_config")
        self.anchor = None
        if beta and self.has_adapter:  # without its adapter the policy is the reference
            self.anchor = unwrapped
        elif beta:
            self.anchor = _frozen_copy(unwrapped)
            self.vlm.count(self.anchor.model.visual)

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict:
        """Replace each row's prompt and image by those that the step sees; keep the clean ones for the anchor."""
        offered = [self._offered(row) for row in inputs] if self.augmentation.erased else inputs
        clean = torch.from_numpy(as_arrays(row["image"] for row in offered))  # [B, H, W, 3]
        asked = self._hinted(offered, clean) if self.augmentation.hints else offered
        seen = self._augmented(asked, clean)
        rows = [
            {**row, "image": Image.fromarray(augmentation.numpy())}
            for row, augmentation in zip(asked, seen, strict=True)
        ]
        if self.use_vllm:  # whose tower no hook counts
            self.vlm.passes.forward += len(rows)
        output = super()._generate_and_score_completions(rows)
        kept = self.vlm.encode([row["prompt"] for row in offered], [""] * len(inputs), clean.shape[1])
        clean_prompts = {"clean_prompt_ids": kept.prompt_ids, "clean_prompt_mask": kept.prompt_mask}
        return {**output, **clean_prompts, "clean_images": clean.to(self.accelerator.device)}

    def _offered(self, row: dict) -> dict:
        """The row with abstention offered, and erased where the step does so."""
        return abstention.offered(
            row, self.abstain, self.augmentation.erased, self.args.seed, f"step {self.state.global_step}"
        )

    def _hinted(self, inputs: list[dict], clean: Tensor) -> list[dict]:
        """The rows with the worst of the step's wordings for prompts, one a question; clean images [B, H, W, 3]."""
        first = first_rows(inputs)
        questions = [inputs[i] for i in first]
        wordings = [step_wordings(self, question) for question in questions]
        losses, which = wording_losses(self.vlm, questions, wordings, to_float(clean[first], self.vlm.device)).max(1)
        self._metrics["train"]["hint_loss"].append(reduce(losses.mean(), "mean").item())
        worst = [several[place] for several, place in zip(wordings, which.tolist(), strict=True)]
        asked = agreed(dict(zip([question["question_id"] for question in questions], worst, strict=True)))
        return [{**row, "prompt": asked[row["question_id"]]} for row in inputs]

    def _augmented(self, inputs: list[dict], clean: Tensor) -> Tensor:
        """8-bit augmentations [B, H, W, 3], noise cut off at 0 and 1 (TRL takes images); rows of one question share one."""
        first = first_rows(inputs)
        ids = [inputs[i]["question_id"] for i in first]
        images, attack_loss = to_float(clean[first], self.vlm.device), target_loss(self.vlm, [inputs[i] for i in first])
        made = to_uint8(augment_step(self, attack_loss, images, ids))
        augmentations = agreed(dict(zip(ids, made, strict=True)))
        return torch.stack([augmentations[row["question_id"]] for row in inputs])

    def _compute_loss(self, model, inputs: dict) -> Tensor:
        """TRL's policy loss, plus beta times the clean-anchored KL on the same forward pass."""
        if self.anchor is None:
            return super()._compute_loss(model, inputs)
        with self._last_hidden() as captured:
            loss = super()._compute_loss(model, inputs)
        kept = inputs["completion_ids"].shape[1]
        policy = self.vlm.model.get_output_embeddings()(captured[0][:, -kept - 1 : -1])  # [B, C, V]
        kl = forward_kl(self._reference_logits(inputs, kept), policy, inputs["completion_mask"])
        self._metrics["train"]["anchor_kl"].append(reduce(kl.detach(), "mean").item())
        return loss + self.anchor_beta * kl / self.current_gradient_accumulation_steps

    @torch.no_grad()
    def _reference_logits(self, inputs: dict, kept: int) -> Tensor:
        """Logits [B, C, V] of the reference policy at the rollouts' tokens, after clean prompts and on clean images."""
        pixel_values, grid = patchify(to_float(inputs["clean_images"], self.vlm.device), self.vlm.geometry)
        ids = torch.cat([inputs["clean_prompt_ids"], inputs["completion_ids"]], 1)  # [B, P + C]
        arguments = {
            "input_ids": ids,
            "attention_mask": torch.cat([inputs["clean_prompt_mask"], inputs["completion_mask"]], 1),
            "mm_token_type_ids": (ids == self.vlm.image_token_id).long(),
            "pixel_values": pixel_values,
            "image_grid_thw": grid,
            "logits_to_keep": kept + 1,
        }
        adapter_off = use_adapter(self.anchor, None) if self.has_adapter else contextlib.nullcontext()
        with adapter_off:
            return self.anchor(**arguments).logits[:, :-1]

    @contextlib.contextmanager
    def _last_hidden(self) -> Iterator[list[Tensor]]:
        """Collects the backbone's last hidden states [B, P + C, D] of the forward passes made inside the block."""
        captured: list[Tensor] = []
        backbone = self.vlm.backbone
        handle = backbone.register_forward_hook(lambda module, args, output: captured.append(output.last_hidden_state))
        try:
            yield captured
        finally:
            handle.remove()


def first_rows(rows: list[dict]) -> list[int]:
    """The places of the rows that are the first of their question, ascending."""
    return sorted({row["question_id"]: i for i, row in reversed(list(enumerate(rows)))}.values())


def target_loss(vlm: VLM, rows: list[dict]) -> AttackLoss:
    """The loss of each row's target after its prompt, which an attack climbs."""
    side = rows[0]["image"].width
    return words_away(vlm, vlm.encode([row["prompt"] for row in rows], [row["target"] for row in rows], side))


def step_wordings(trainer, question: dict) -> list[list[dict]]:
    """A question's prompts after the augmentation's number of misleading hints, all different, that all claim one option.

    Hints and option are drawn by the training's seed, the step and the question: in every process the same.
    """
    seed = drawn(trainer.args.seed, question["question_id"], f"step {trainer.state.global_step}", 2**32)
    order = sorted(trainer.hints, key=lambda hint: drawn(seed, question["question_id"], f"hint {hint.name}", 2**32))
    altered = [hinted(question, hint, "negative", seed) for hint in order[: trainer.augmentation.hints]]
    return [prompts.conversation(row, question["variant"]) for row in altered]


@torch.no_grad()
def wording_losses(vlm: VLM, questions: list[dict], wordings: list[list[list[dict]]], images: Tensor) -> Tensor:
    """The loss [B, K] of each question's target under each of its K prompts; images [B, 3, H, W].

    One forward pass of all questions a prompt, by the model as it is in evaluation.
    """
    losses = []
    with frozen(vlm.model):
        for nth in zip(*wordings, strict=True):
            attack_loss = target_loss(
                vlm, [row | {"prompt": prompt} for row, prompt in zip(questions, nth, strict=True)]
            )
            losses.append(attack_loss(images, torch.arange(len(images)))[0])
    return torch.stack(losses, 1)


def agreed(made: dict[str, Made]) -> dict[str, Made]:
    """What was made of this process's questions, by the first process where several have made it of a question.

    The processes draw the same start for a question, but sums over other batches round differently.
    """
    everybodys = gather_object([made])
    return {name: next(others[name] for others in everybodys if name in others) for name in made}


def _frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    """The model as it is now, sharing nothing with it.

    Not a deepcopy: TRL has replaced the policy's `forward` by a closure over the policy, which a copy would carry.
    """
    copied = type(model)(model.config).to(model.device, model.dtype)
    copied.load_state_dict(model.state_dict())
    return copied.eval().requires_grad_(False)


def forward_kl(reference: Tensor, policy: Tensor, mask: Tensor) -> Tensor:
    """KL(reference || policy), summed over the vocabulary, averaged over the tokens under the mask, then over rows.

    reference, policy: logits [B, C, V]; mask [B, C]. Zero exactly when the two agree at every token under the mask.
    """
    p, q = reference.float().log_softmax(-1), policy.float().log_softmax(-1)  # a sum over the vocabulary needs fp32
    kl = (p.exp() * (p - q)).sum(-1) * mask  # [B, C]
    return (kl.sum(1) / mask.sum(1).clamp(min=1)).mean()
