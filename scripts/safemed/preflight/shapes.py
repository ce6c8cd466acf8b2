"""The shape of a Qwen3-VL: its sizes, and models of the same widths with few layers, of random weights."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from safemed.models import tiny
from safemed.models.processor import PLACEHOLDERS, build_processor
from safemed.models.vlm import PRECISIONS, VLM


@dataclass(frozen=True)
class Sizes:
    """Numbers of a model of some shape.

    parameters: of all, with tied embeddings once; tower: of the vision tower; matrices: of all matrices that are not
    the embedding, which LoRA adapts: (in, out) of each; cache: bytes that a token leaves in a cache of bf16.
    """

    parameters: int
    tower: int
    matrices: tuple[tuple[int, int], ...]
    cache: int
    text_layers: int
    vision_layers: int
    patch: int
    merge: int


def read_shape(model: dict, side: int) -> Qwen3VLConfig:
    """The shape that the config's section `model` names: the tiny one's, or a folder's or a hub's config.json.

    Raises OSError where neither folder nor hub can be read.
    """
    if model["name"] == "tiny":
        return tiny.shape(tiny.train_tokenizer(["a"], 0), model["tiny"], side, model["tiny"]["vocab_size"])
    revision = None if Path(model["name"]).is_dir() else model["revision"]
    return Qwen3VLConfig.from_pretrained(model["name"], revision=revision)


def sizes(shape: Qwen3VLConfig) -> Sizes:
    """Counted on a model without memory."""
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(shape)
    text, vision = shape.text_config, shape.vision_config
    linear = [m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and name != "lm_head"]
    return Sizes(
        parameters=sum(p.numel() for p in model.parameters()),
        tower=sum(p.numel() for p in model.model.visual.parameters()),
        matrices=tuple((m.in_features, m.out_features) for m in linear),
        cache=2 * 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim,
        text_layers=text.num_hidden_layers,
        vision_layers=vision.depth,
        patch=vision.patch_size,
        merge=vision.spatial_merge_size,
    )


def shallow(shape: Qwen3VLConfig, text_layers: int, vision_layers: int, precision: str, device: str = "cpu") -> VLM:
    """A model of the shape's widths with so many layers, all of whose weights are one small number.

    vision_layers: at least as many as the shape has deepstack layers, which all are kept.
    """
    tokenizer = tiny.train_tokenizer(["a"], 0)
    named = dict(zip(PLACEHOLDERS, tokenizer.convert_tokens_to_ids(list(PLACEHOLDERS)), strict=True))
    told = shape.to_dict()
    text = {**told["text_config"], "num_hidden_layers": text_layers}
    text.pop("layer_types", None)  # one a layer
    deepstack = list(range(len(shape.vision_config.deepstack_visual_indexes)))
    vision = {**told["vision_config"], "depth": vision_layers, "deepstack_visual_indexes": deepstack}
    made = Qwen3VLConfig(**told | {"text_config": text, "vision_config": vision})
    made.image_token_id, made.video_token_id = named["<|image_pad|>"], named["<|video_pad|>"]
    made.vision_start_token_id, made.vision_end_token_id = named["<|vision_start|>"], named["<|vision_end|>"]
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(made)
    model = model.to_empty(device=device).to(PRECISIONS[precision])
    model.tie_weights()
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(0.01)  # random numbers would take longer, and no value matters
    cut = {"patch_size": "patch_size", "merge_size": "spatial_merge_size", "temporal_patch_size": "temporal_patch_size"}
    images = Qwen2VLImageProcessorPil(**{ours: vision[theirs] for ours, theirs in cut.items()})
    return VLM(model.eval().requires_grad_(False), build_processor(images, tokenizer, tokenizer.chat_template))
