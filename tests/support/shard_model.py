"""What FSDP2 makes of a model that is attacked and trained: run in two processes, over gloo.

shard_model.py START DATA OUT: both a whole and a sharded copy of START attack and learn the same rows, other ones in
each process; OUT/{process}.json says how far they are apart, OUT/wanted and OUT/model are the whole and the sharded one
after a step, gathered and saved.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from safemed.attacks.losses import words_away
from safemed.data import prompts
from safemed.data.dataset import as_arrays, load_questions
from safemed.models.geometry import to_float
from safemed.models.packing import pack, packed_hidden
from safemed.models.processor import load_processor
from safemed.models.vlm import VLM, load_weights, save_model
from safemed.training import common
from safemed.training.at_grpo import features_seen
from safemed.training.augmentation import Augmentation


def loaded(start: Path, sharded: bool) -> VLM:
    """The policy in training mode, sharded as accelerate does it from `training.sharding`."""
    model = load_weights(start).train()
    if sharded:
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        layers = [module for module in model.modules() if type(module).__name__ in common.SHARDED]
        assert len(layers) == len(model.model.visual.blocks) + len(model.model.language_model.layers)
        for module in [*layers, model]:
            fully_shard(module, mesh=mesh, reshard_after_forward=False)
    return VLM(model, load_processor(start))


def learn(vlm: VLM, rows: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
    """Attack the rows, and leave the gradients of a loss of packed completions and of the tower's features.

    Returns the attacked images [B, 3, H, W] and the loss.
    """
    clean = to_float(as_arrays(row["image"] for row in rows), torch.device("cpu"))
    targets = [prompts.target(row, "instruct") for row in rows]
    asked = [prompts.conversation(row, "instruct") for row in rows]
    names = [row["question_id"] for row in rows]
    attack = Augmentation("adversarial", eps=8, steps=3)
    attack_loss = words_away(vlm, vlm.encode(asked, targets, clean.shape[-1]))
    images, _ = attack.apply(vlm.model, attack_loss, clean, names, 1.0)
    words = [tuple(vlm.tokenizer.encode(target)) for target in targets]
    packed = pack(vlm, vlm.encode(asked, [""] * len(rows), clean.shape[-1]), images, range(len(rows)), words)
    with features_seen(vlm) as features:
        logits = vlm.head(packed_hidden(vlm.model, vlm, images, packed))
    loss = logits.logsumexp(-1).mean() + features[0].square().mean()
    loss.backward()
    return images, loss.detach()


def main() -> None:
    start, data, out = map(Path, sys.argv[1:])
    out.mkdir(exist_ok=True)
    process = common.joined().process_index
    rows = list(load_questions(data, "train").select(range(4 * process, 4 * process + 4)))
    whole, sharded = loaded(start, False), loaded(start, True)
    (images, loss), (images_too, loss_too) = learn(whole, rows), learn(sharded, rows)
    apart = scale = 0.0
    for (name, one), (name_too, part) in zip(
        whole.model.named_parameters(), sharded.model.named_parameters(), strict=True
    ):
        assert name == name_too and (one.grad is None) == (part.grad is None), name
        if one.grad is not None:
            dist.all_reduce(one.grad)
            one.grad /= dist.get_world_size()
            apart += (one.grad - part.grad.full_tensor()).square().sum().item()
            scale += one.grad.square().sum().item()
    clean = to_float(as_arrays(row["image"] for row in rows), images.device)
    found = {
        "moved": (images - clean).abs().max().item(), "images": (images - images_too).abs().max().item(),
        "loss": (loss - loss_too).abs().item(), "gradients": (apart / scale) ** 0.5,
    }  # fmt: skip
    (out / f"{process}.json").write_text(json.dumps(found))
    torch.optim.SGD(sharded.model.parameters(), lr=0.1).step()
    torch.optim.SGD(whole.model.parameters(), lr=0.1).step()
    saved = load_weights(start)
    common.gather(sharded.model, saved)
    if process == 0:
        save_model(saved, sharded.processor, out / "model")
        save_model(whole.model, whole.processor, out / "wanted")


main()
