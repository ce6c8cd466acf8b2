"""The steps whose memory and operations are measured: what a batch of each kind of work does, by the project's code."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from peft import get_peft_model
from torch import Tensor
from trl.trainer.utils import add_fused_lm_head

from safemed.attacks.losses import feature_distance, features_away, loss_and_gradient, loss_only, words_away
from safemed.models.geometry import patchify
from safemed.models.packing import pack, packed_hidden
from safemed.models.vlm import VLM, Encoded, frozen, tower_features
from safemed.training.token_losses import token_losses
from safemed.utils.noise import gaussian


class Batch:
    """Images of a side, and prompts of a number of tokens with completions of `tokens` more, on its device."""

    def __init__(self, vlm: VLM, rows: int, side: int, prompt: int, tokens: int):
        image = (side // vlm.geometry.patch // vlm.geometry.merge) ** 2
        if prompt <= image:
            raise ValueError(f"a prompt of {prompt} tokens has no room for an image of {image}")
        ids = torch.full((rows, prompt), vlm.tokenizer.pad_token_id, device=vlm.device)
        ids[:, :image] = vlm.image_token_id
        words = torch.full((rows, tokens), vlm.tokenizer.pad_token_id, device=vlm.device)
        noise = gaussian((3, side, side), [str(row) for row in range(rows)]).to(vlm.device)
        self.images = noise.mul(0.1).add(0.5).clamp(0, 1)
        self.encoded = Encoded(ids, torch.ones_like(ids), words, torch.ones_like(words))
        self.rows = torch.arange(rows, device=vlm.device)


Step = Callable[[VLM, Batch], object]


def query(vlm: VLM, batch: Batch) -> None:
    """A forward pass, as an attack without gradients or a certificate of the choice has it."""
    loss_only(words_away(vlm, batch.encoded), batch.images, batch.rows)


def attack(vlm: VLM, batch: Batch) -> None:
    """A step of an attack on a model that is evaluated."""
    loss_and_gradient(words_away(vlm, batch.encoded), batch.images, batch.rows)


def training_attack(vlm: VLM, batch: Batch) -> None:
    """A step of the attack that a training makes: weights in fp32, computed in bf16."""
    with frozen(vlm.model):
        loss_and_gradient(words_away(vlm, batch.encoded), batch.images, batch.rows, amp=True)


def tower_attack(vlm: VLM, batch: Batch) -> None:
    """A step of the attack of FARE, and of other trainings of the tower alone."""
    wanted = _features(vlm, batch.images)
    with frozen(vlm.model):
        loss_and_gradient(features_away(vlm, wanted), batch.images, batch.rows, amp=True)


def sft(vlm: VLM, batch: Batch) -> None:
    """A step of SFT, with TRL's loss of all tokens. vlm: of `trained`."""
    encoded = batch.encoded
    pixel_values, grid = patchify(batch.images, vlm.geometry)
    ids = torch.cat([encoded.prompt_ids, encoded.completion_ids], 1)
    with _autocast(vlm):
        found = vlm.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == vlm.image_token_id).long(),
            pixel_values=pixel_values,
            image_grid_thw=grid,
            labels=ids,
            use_cache=False,
            fused_lm_head=True,
        )
    found.log_probs.sum().backward()


def tower(vlm: VLM, batch: Batch) -> None:
    """A step of a training of the tower alone, after its attack, as FARE has it: the tower and its reference."""
    wanted = _features(vlm, batch.images)
    with _autocast(vlm):
        seen = tower_features(vlm.visual, *patchify(batch.images, vlm.geometry))
    feature_distance(seen, wanted).mean().backward()


def grpo(vlm: VLM, batch: Batch) -> None:
    """A step of GRPO after its rollouts, up to the hidden states: the policy, and the reference on the clean image."""
    encoded = batch.encoded
    asked = Encoded(
        encoded.prompt_ids, encoded.prompt_mask, encoded.completion_ids[:, :0], encoded.completion_mask[:, :0]
    )
    packed = pack(vlm, asked, batch.images, batch.rows.tolist(), encoded.completion_ids.tolist())
    with _autocast(vlm):
        hidden = packed_hidden(vlm.model, vlm, batch.images, packed)
        with torch.no_grad():
            packed_hidden(vlm.model, vlm, batch.images, packed)
    hidden.float().square().sum().backward()


def head(vlm: VLM, tokens: int) -> None:
    """The losses of so many tokens of GRPO, from hidden states on."""
    width = vlm.head.in_features
    hidden = torch.zeros(tokens, width, requires_grad=True, device=vlm.device)
    words = torch.zeros(tokens, dtype=torch.long, device=vlm.device)
    with _autocast(vlm):
        chosen, kl = token_losses(vlm.head, hidden, words, 1.0, (vlm.head, hidden.detach()))
    (chosen + kl).sum().backward()


def trained(vlm: VLM, adapter) -> VLM:
    """A model as trainings on a GPU have it: with adapters or all weights trained, and layers computed twice."""
    model = vlm.model.requires_grad_(adapter is None)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    model = get_peft_model(model, adapter) if adapter else model
    model.gradient_checkpointing_enable({"use_reentrant": False})
    if adapter:
        model.enable_input_require_grads()
    return VLM(model.train(), vlm.processor)


def _autocast(vlm: VLM) -> AbstractContextManager:
    return torch.autocast(vlm.device.type, torch.bfloat16)


@torch.no_grad()
def _features(vlm: VLM, images: Tensor) -> Tensor:
    """As many features as a frozen copy of the tower has of the images, none of them 0, which distances divide by."""
    with _autocast(vlm):
        return torch.ones_like(tower_features(vlm.visual, *patchify(images, vlm.geometry)))
