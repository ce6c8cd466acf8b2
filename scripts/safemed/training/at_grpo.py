"""AT-GRPO: adversarial training inside Group Relative Policy Optimization.

For a prompt q with image x, a step makes one perturbation x_adv of x against the current policy, draws G rollouts o on
x_adv, rewards them, and descends

    - E[ A log pi_theta(o | x_adv, q) ]                                                      (policy)
    + anchor   * KL( pi_ref(. | x, q) || pi_theta(. | x_adv, q) )                            (anchor)
    + features * || phi_theta(x_adv) - phi_ref(x) ||^2 / || phi_ref(x) ||^2                  (features)

policy: GRPO's (Shao et al. 2024), A relative to the group. With one update a batch the ratio of new to old policy is 1,
so nothing is clipped. Tokens are summed, not averaged over a completion's length (Liu et al. 2025). anchor: forward KL
over the whole vocabulary, summed over the tokens of the rollouts. features: what the language model is given by the
vision tower phi, as in FARE (Schlarmann et al. 2024), the mean over its layers where it has a deepstack. The reference,
as the model was at the start, sees the CLEAN image: an attacked policy that is confident is wrong in all rollouts of a
group, and the reference alone knows better.

On transformers' Trainer: TRL's GRPOTrainer renders, generates and evaluates each of a group's repetitions anew, and all
of that would be overridden.
"""

import contextlib
from collections.abc import Iterator

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel, set_seed

from safemed.attacks.losses import feature_distance
from safemed.data.dataset import as_arrays
from safemed.models.geometry import to_float, to_uint8
from safemed.models.packing import Packed, pack, packed_hidden
from safemed.models.vlm import VLM, Encoded, frozen, stacked
from safemed.training import optimizers
from safemed.training.augmentation import Augmentation, augment_step
from safemed.training.logging_trainer import LoggingTrainer
from safemed.training.rollouts import Rollouts, Unanswered, roll_out, taught
from safemed.training.step_rows import Alter, target_loss, unaltered
from safemed.training.token_losses import Head, token_losses
from safemed.utils.draws import draw


class ATGRPOTrainer(LoggingTrainer):
    """GRPO on augmented images, with a reference that sees the clean ones.

    augmentation: what replaces the image (clean: plain GRPO; noisy: Gaussian; adversarial: AT-GRPO). settings: the
    config's, of which completions, num_generations, temperature, rewards, scale_rewards, anchor, features,
    vision_optimizer and vision_learning_rate are read. limit: tokens of a completion. alter: what becomes of a step's
    rows before all else. Ends with one line where nothing can be learned, as `rollouts.Unanswered` says.

    A batch is of prompts, `common.training_rows`, each once; every process has whole groups.
    """

    def __init__(
        self, model, args, *, processing_class, augmentation: Augmentation, settings: dict, limit: int,
        alter: Alter = unaltered, peft_config: LoraConfig | None = None, **kwargs,
    ):  # fmt: skip
        if peft_config:
            set_seed(args.seed)  # the Trainer's own comes after the adapters are drawn
            model = get_peft_model(model, peft_config)
        super().__init__(model, args, processing_class=processing_class, data_collator=list, **kwargs)
        self.model_accepts_loss_kwargs = False  # the loss is a mean: accumulated gradients are to be averaged
        self.augmentation, self.settings, self.limit, self.alter = augmentation, settings, limit, alter
        self.unanswered = Unanswered()
        self.vlm = VLM(self.accelerator.unwrap_model(self.model), processing_class)
        self.reference = self.vlm
        if not hasattr(self.vlm.model, "peft_config"):  # with adapters, the policy without them is the reference
            self.reference = VLM(_frozen_copy(self.vlm.model), processing_class)
            self.reference.passes = self.vlm.passes

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """The settings' optimizer, with a learning rate of its own for the vision tower."""
        kind, rate = self.settings["vision_optimizer"], self.settings["vision_learning_rate"]
        self.optimizer = optimizers.make(kind, self.vlm.visual, rate, self.vlm.model, self.args.learning_rate)
        return self.optimizer

    def compute_loss(self, model, rows: list[dict], return_outputs: bool = False, num_items_in_batch=None) -> Tensor:
        altered = self.alter(rows, self.vlm, self.state.global_step)
        self.note(**altered.metrics)
        clean, asked = self._read(altered.policy)
        anchor = (clean, asked) if altered.anchor is altered.policy else self._read(altered.anchor)
        with frozen(self.vlm.model):
            seen = self._augmented(altered.policy, clean)
            found = self._completions(seen, asked, altered.policy)
        self.note(**found.metrics())
        return self._loss(model, found, (seen, asked), anchor)

    def _completions(self, images: Tensor, asked: Encoded, rows: list[dict]) -> Rollouts:
        """What the policy term is of: rollouts on the images, or the rows' targets."""
        if self.settings["completions"] == "targets":
            return taught(self.vlm, rows)
        found = roll_out(self.vlm, images, asked, rows, self.settings, self.limit, self._draws(rows))
        if any(self.settings["rewards"].values()):
            self.unanswered.check(found, self.limit, rows[0]["variant"], self.args.device)
        return found

    def _loss(self, model, found: Rollouts, policy: tuple[Tensor, Encoded], anchor: tuple[Tensor, Encoded]) -> Tensor:
        """The three terms; policy, anchor: the images and prompts that policy and reference see."""
        (seen, asked), (clean, _), draws = policy, anchor, found.total.numel()
        packed = pack(self.vlm, asked, seen, found.rows, found.completions)
        with features_seen(self.vlm) as features:
            hidden = packed_hidden(model, self.vlm, seen, packed)
        wanted, kept = None, None
        if self.settings["anchor"]:
            of_reference = pack(self.vlm, anchor[1], clean, found.rows, found.completions)
            wanted, kept = self._reference(of_reference, clean)
        elif self.settings["features"]:
            kept = self._features(clean)
        with self.accelerator.autocast():
            chosen, kl = token_losses(self.vlm.head, hidden, packed.token, self.settings["temperature"], wanted)
        loss = -(chosen * self._of_tokens(found.advantages, packed)).sum() / draws
        if self.settings["anchor"]:
            kl = (kl * self._of_tokens(found.counts, packed)).sum() / draws
            self.note(anchor_kl=kl)
            loss = loss + self.settings["anchor"] * kl
        if self.settings["features"]:
            distance = feature_distance(features[0], kept).mean()
            self.note(feature_distance=distance)
            loss = loss + self.settings["features"] * distance
        return loss

    def _of_tokens(self, values: Tensor, packed: Packed) -> Tensor:
        """Each completion's value [K], at its tokens [N]."""
        return values.to(packed.completion.device)[packed.completion]

    @torch.no_grad()
    def _reference(self, packed: Packed, images: Tensor) -> tuple[tuple[Head, Tensor], Tensor]:
        """The reference's head, its hidden states [N, D] at the rollouts' tokens, and its features of the images."""
        with self._as_at_the_start(), features_seen(self.reference) as features:
            hidden = packed_hidden(self.reference.model, self.reference, images, packed)
        return (self.reference.head, hidden), features[0]

    @torch.no_grad()
    def _features(self, images: Tensor) -> Tensor:
        """The reference's features [B, L, n, D]."""
        with self._as_at_the_start():
            return self.reference.features(images)

    @contextlib.contextmanager
    def _as_at_the_start(self) -> Iterator[None]:
        """Within the block the reference's model is without adapters, if any, and as precise as the policy's."""
        unadapted = getattr(self.reference.model, "disable_adapter", contextlib.nullcontext)
        with unadapted(), self.accelerator.autocast():
            yield

    def _read(self, rows: list[dict]) -> tuple[Tensor, Encoded]:
        """The rows' clean images [P, 3, H, W] and prompts."""
        images = to_float(torch.from_numpy(as_arrays(row["image"] for row in rows)), self.vlm.device)
        return images, self.vlm.encode([row["prompt"] for row in rows], [""] * len(rows), images.shape[-1])

    def _augmented(self, rows: list[dict], clean: Tensor) -> Tensor:
        """What the step sees of the rows' images, of 8 bits as those that are scored; noise is cut off at 0 and 1."""
        seen = augment_step(self, target_loss(self.vlm, rows), clean, [row["question_id"] for row in rows])
        return to_float(to_uint8(seen), self.vlm.device)

    def _draws(self, rows: list[dict]) -> torch.Generator:
        """What the rollouts of a batch are drawn by: another for each step, and for each part of its prompts."""
        name = f"step {self.state.global_step}, {rows[0]['question_id']}"
        return torch.Generator().manual_seed(draw(self.args.seed, name, "rollouts"))


@contextlib.contextmanager
def features_seen(vlm: VLM) -> Iterator[list[Tensor]]:
    """Collects the features [B, L, n, D] of all images that pass through a vision tower inside the block."""
    collected: list[Tensor] = []

    def hook(module, args, kwargs, output):
        collected.append(stacked(output, len(kwargs["grid_thw"])))

    handle = vlm.visual.register_forward_hook(hook, with_kwargs=True)
    try:
        yield collected
    finally:
        handle.remove()


def _frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    """The model as it is now, sharing nothing with it."""
    copied = type(model)(model.config).to(model.device, model.dtype)
    copied.load_state_dict(model.state_dict())
    return copied.eval().requires_grad_(False)
