"""AT-GRPO: adversarial training inside Group Relative Policy Optimization, on TRL's GRPOTrainer.

For a prompt q with image x and gold answer a: x_adv is one perturbation of x against the current policy, shared by the
G rollouts of the prompt; rollouts, old log-probabilities and the policy loss all see x_adv, because TRL processes the
one image object of the row for all three. Added to the loss is the clean-anchored KL,

    beta * KL( pi_ref(. | x, q) || pi_theta(. | x_adv, q) ),

forward, over the full vocabulary, at the tokens of the rollouts: the reference sees the CLEAN image. Without it a
confident policy is wrong in all rollouts of a group, the advantages are zero and the clean skill is lost.

Before that, a function may alter x and q, for the policy alone or for the anchor as well: training.alterations puts
misleading hints before the question, and erases from the image what the question asks for.
"""

import contextlib
from collections.abc import Iterator

import torch
from accelerate.utils import reduce
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl.trainer.utils import use_adapter

from safemed.data.dataset import as_arrays
from safemed.models.geometry import patchify, to_float, to_uint8
from safemed.models.vlm import VLM
from safemed.training.augmentation import Augmentation, augment_step
from safemed.training.step_rows import Alter, agreed, first_rows, target_loss, unaltered


class ATGRPOTrainer(GRPOTrainer):
    """GRPOTrainer whose rollouts, log-probabilities and loss see augmented images, anchored to the clean ones.

    augmentation: what replaces the image (clean: plain GRPO; noisy: Gaussian; adversarial: AT-GRPO).
    beta: weight of the clean-anchored KL; TRL's own `beta`, whose reference would see the augmentation, must be 0.
    alter: what becomes of the rows of a step before anything else sees them.

    Rows are those of `common.training_rows`: what other prompts and targets are made of stands beside TRL's columns.
    Two private methods of TRL are overridden, so TRL is pinned exactly and tests hold what each pass saw.
    """

    def __init__(self, *args, augmentation: Augmentation, beta: float, alter: Alter = unaltered, **kwargs):
        super().__init__(*args, **kwargs)
        if self.beta:
            raise ValueError("TRL's beta must be 0: the anchor's own beta is given to ATGRPOTrainer")
        self.augmentation, self.anchor_beta, self.alter = augmentation, beta, alter
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
        altered = self.alter(inputs, self.vlm, self.state.global_step)
        for name, value in altered.metrics.items():
            self._metrics["train"][name].append(value)
        clean = torch.from_numpy(as_arrays(row["image"] for row in altered.anchor))  # [B, H, W, 3]
        seen = self._augmented(altered.policy, clean)
        rows = [{**row, "image": Image.fromarray(one.numpy())} for row, one in zip(altered.policy, seen, strict=True)]
        if self.use_vllm:  # whose tower no hook counts
            self.vlm.passes.forward += len(rows)
        output = super()._generate_and_score_completions(rows)
        kept = self.vlm.encode([row["prompt"] for row in altered.anchor], [""] * len(inputs), clean.shape[1])
        clean_prompts = {"clean_prompt_ids": kept.prompt_ids, "clean_prompt_mask": kept.prompt_mask}
        return {**output, **clean_prompts, "clean_images": clean.to(self.accelerator.device)}

    def _augmented(self, rows: list[dict], clean: Tensor) -> Tensor:
        """The 8-bit images [B, H, W, 3] that the step sees; rows of one question share one.

        Noise is cut off at 0 and 1: TRL takes images.
        """
        first = first_rows(rows)
        ids = [rows[i]["question_id"] for i in first]
        images, attack_loss = to_float(clean[first], self.vlm.device), target_loss(self.vlm, [rows[i] for i in first])
        made = to_uint8(augment_step(self, attack_loss, images, ids))
        augmented = agreed(dict(zip(ids, made, strict=True)))
        return torch.stack([augmented[row["question_id"]] for row in rows])

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
