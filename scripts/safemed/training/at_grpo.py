"""AT-GRPO: adversarial training inside Group Relative Policy Optimization.

For a prompt q with image x and gold answer a: x_adv is one perturbation of x against the current policy, shared by the
G rollouts of the prompt.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor
from transformers import PreTrainedModel, Trainer

from safemed.attacks.losses import feature_distance
from safemed.data.dataset import as_arrays
from safemed.data.prompts import parse, well_formed
from safemed.models.geometry import to_float, to_uint8
from safemed.models.packing import pack, packed_logits
from safemed.models.vlm import VLM, frozen, stacked
from safemed.training.augmentation import Augmentation, augment_step
from safemed.training.rollouts import Rollouts, group_advantages, sample_groups, scored
from safemed.training.step_rows import Alter, target_loss, unaltered


@dataclass(frozen=True)
class Objective:
    """What a step minimises."""

    clean: float = 1.0
    adversarial: float = 1.0
    taught: float = 0.0
    beta: float = 1.0
    kl_on: str = "adversarial"
    features: float = 4.0
    group: int = 8
    pool: int = 2
    live: float = 0.7
    scale: str = "group"
    temperature: float = 1.0
    accuracy: float = 1.0
    format: float = 0.1
    rollouts: float = 1.0
    sup: float = 0.0
    limit: int = 8
    attack_features: float = 0.0


class ATGRPOTrainer(Trainer):
    def __init__(self, model, args, *, processing_class, augmentation: Augmentation, objective: Objective, tower_lr: float,
                 alter: Alter = unaltered, **kwargs):
        self.tower_lr = tower_lr
        super().__init__(model, args, processing_class=processing_class, data_collator=list, **kwargs)
        self.model_accepts_loss_kwargs = False
        self.augmentation, self.objective, self.alter = augmentation, objective, alter
        self._metrics = {"train": defaultdict(list)}
        self.vlm = VLM(model, processing_class)
        self.reference = VLM(_frozen_copy(model), processing_class)
        self.reference.passes = self.vlm.passes

    def create_optimizer(self, model=None):
        if getattr(self, "muon", None):
            t2 = [p for n, p in self.model.named_parameters() if "visual" in n and p.ndim == 2 and "pos_embed" not in n]
            rest = [p for n, p in self.model.named_parameters() if "visual" in n and not (p.ndim == 2 and "pos_embed" not in n)]
            lm = [p for n, p in self.model.named_parameters() if "visual" not in n]
            a = torch.optim.Muon([{"params": t2}], lr=self.muon, weight_decay=0.01, momentum=0.9)
            b = torch.optim.AdamW([{"params": rest, "lr": self.tower_lr}, {"params": lm}], lr=self.args.learning_rate, weight_decay=self.args.weight_decay)
            self.optimizer = Two(a, b)
            return self.optimizer
        names = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        towers = [{"params": [p for n, p in names if "visual" in n], "lr": self.tower_lr},
                  {"params": [p for n, p in names if "visual" not in n]}]
        self.optimizer = torch.optim.AdamW(towers, lr=self.args.learning_rate, weight_decay=self.args.weight_decay)
        return self.optimizer

    def log(self, logs: dict, *args, **kwargs) -> None:
        means = {name: fmean(values) for name, values in self._metrics["train"].items()}
        self._metrics["train"].clear()
        super().log({**logs, **means}, *args, **kwargs)

    def note(self, name, value):
        self._metrics["train"][name].append(float(value))

    def compute_loss(self, model, rows: list[dict], return_outputs=False, num_items_in_batch=None):
        o = self.objective
        draws = torch.Generator().manual_seed(hash((self.args.seed, self.state.global_step)) % 2**31)
        with frozen(self.vlm.model):
            images = to_float(torch.from_numpy(as_arrays(row["image"] for row in rows)), self.vlm.device)
            asked = self._asked(rows, images)
            if o.clean or o.taught or o.pool > 1 or o.kl_on == "clean":
                clean = self._rollouts(rows, asked, images, draws)
                picked = self._picked(clean[1], draws)
                rows = [rows[i] for i in picked]
                images, asked = images[picked], asked[torch.tensor(picked, device=images.device)]
                clean = self._advantages([clean[0][i] for i in picked], clean[1][picked])
                self.note("reward_clean", clean.rewards.mean()); self.note("dead_clean", (clean.rewards.std(1) < 1e-6).float().mean())
            else:
                clean = None
            seen = augment_step(self, self._attacked(rows, images), images, [row["question_id"] for row in rows])
            seen = to_float(to_uint8(seen), images.device)
            adv = None
            if o.adversarial or (o.beta and o.kl_on == "adversarial"):
                groups, rewards = self._rollouts(rows, asked, seen, draws)
                adv = self._advantages(groups, rewards)
                self.note("reward_adv", rewards.mean()); self.note("dead_adv", (rewards.std(1) < 1e-6).float().mean())
        return self._loss(model, rows, images, seen, asked, clean, adv)

    def _attacked(self, rows, images):
        loss, w = target_loss(self.vlm, rows), self.objective.attack_features
        if not w:
            return loss
        with torch.no_grad():
            wanted = self.reference.features(images)

        def both(x, part):
            with self._towers() as features:
                found, broken = loss(x, part)
            return found + w * feature_distance(features[0], wanted[part]), broken
        return both

    def _asked(self, rows, images):
        return self.vlm.encode([row["prompt"] for row in rows], [""] * len(rows), images.shape[-1])

    def _rollouts(self, rows, asked, images, draws):
        o = self.objective
        groups = sample_groups(self.vlm, images, asked, o.group, o.limit, o.temperature, draws)

        def reward(i, text):
            read = parse(text, rows[i]["n_options"])
            return o.accuracy * (read.answer == rows[i]["gold"]) + o.format * well_formed(read, rows[i]["variant"])

        return groups, scored(self.vlm, groups, reward)

    def _advantages(self, groups, rewards):
        return Rollouts.of(groups, rewards, group_advantages(rewards, self.objective.scale))

    def _picked(self, rewards, draws):
        n = len(rewards) // self.objective.pool
        if self.objective.pool == 1:
            return list(range(n))
        order = (rewards.std(1) + 1e-3 * torch.rand(len(rewards), generator=draws)).argsort(descending=True)
        k = int(n * self.objective.live)
        rest = order[k:][torch.randperm(len(order) - k, generator=draws)[: n - k]]
        return sorted(torch.cat([order[:k], rest]).tolist())

    def _loss(self, model, rows, images, seen, asked, clean, adv):
        o, p, dev = self.objective, len(images), images.device
        # pairs: (row in [0, 2p), completion, policy weight, kl weight)
        pairs = []
        if clean and o.clean:
            pairs += [(r, c, o.clean * a, 0.0) for r, c, a in zip(clean.row, clean.completions, clean.advantage.tolist(), strict=True) if abs(a) > 1e-6]
        if clean and (o.taught or o.kl_on == "clean"):
            kl = o.beta if o.kl_on == "clean" else 0.0
            pairs += [(p + r, c, o.taught * a, kl * n) for r, c, a, n in zip(clean.row, clean.completions, clean.advantage.tolist(), clean.count.tolist(), strict=True)]
        if adv:
            kl = o.beta if o.kl_on == "adversarial" else 0.0
            pairs += [(p + r, c, o.adversarial * a, kl * n) for r, c, a, n in zip(adv.row, adv.completions, adv.advantage.tolist(), adv.count.tolist(), strict=True)]
        if o.sup:
            for view in (0, p):
                pairs += [(view + i, tuple(self.vlm.tokenizer.encode(row["target"]) + [self.vlm.tokenizer.eos_token_id]), o.sup * o.group, 0.0) for i, row in enumerate(rows)]
        used = sorted({r for r, *_ in pairs} | ({*range(p, 2 * p)} if o.features else set()))
        at = {r: i for i, r in enumerate(used)}
        views = torch.cat([images, seen])[used]
        from_row = torch.tensor([r % p for r in used], device=dev)
        self.note("distinct", len(pairs) / (p * o.group))
        packed = pack(self.vlm, asked[from_row], views, [at[r] for r, *_ in pairs], [c for _, c, *_ in pairs])
        with self._towers() as features:
            logits = packed_logits(model, self.vlm, views, packed)
        logp = logits.log_softmax(-1)
        own = logp.gather(1, packed.token[:, None])[:, 0]
        weight = torch.tensor([w for *_, w, _ in pairs], device=dev)[packed.completion]
        loss = policy = -(weight * own).sum() / (p * o.group)
        self.note("policy_loss", policy.detach())
        klw = torch.tensor([w for *_, w in pairs], device=dev)[packed.completion]
        with torch.no_grad(), self._towers(self.reference) as wanted:
            keep = torch.nonzero(klw > 0)[:, 0]
            if len(keep):
                chosen = [i for i, (*_, w) in enumerate(pairs) if w > 0]
                ref = pack(self.vlm, asked, images, [pairs[i][0] - p for i in chosen], [pairs[i][1] for i in chosen])
                target = packed_logits(self.reference.model, self.vlm, images, ref).log_softmax(-1)
            elif o.features:
                wanted.append(self.reference.features(images))
        if len(keep):
            kl = (target.exp() * (target - logp[keep])).sum(-1)
            kl = (klw[keep] * kl).sum() / (p * o.group)
            self.note("anchor_kl", kl.detach())
            loss = loss + kl
        if o.features:
            distance = feature_distance(features[0][[at[r] for r in range(p, 2 * p)]], wanted[-1]).mean()
            self.note("feature_distance", distance.detach())
            loss = loss + o.features * distance
        return loss

    @contextlib.contextmanager
    def _towers(self, vlm=None) -> Iterator[list[Tensor]]:
        got: list[Tensor] = []
        handle = (vlm or self.vlm).visual.register_forward_hook(
            lambda module, args, kwargs, output: got.append(stacked(output, len(args[1] if len(args) > 1 else kwargs["grid_thw"]))), with_kwargs=True)
        try:
            yield got
        finally:
            handle.remove()


def _frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    copied = type(model)(model.config).to(model.device, model.dtype)
    copied.load_state_dict(model.state_dict())
    return copied.eval().requires_grad_(False)


class Two(torch.optim.Optimizer):
    def __init__(self, a, b):
        self.a, self.b = a, b
        self.defaults, self.state = {}, {}
        self.param_groups = a.param_groups + b.param_groups
        self._step_count = 0

    def step(self, closure=None):
        self.a.step(); self.b.step()

    def zero_grad(self, set_to_none=True):
        self.a.zero_grad(); self.b.zero_grad()

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass
