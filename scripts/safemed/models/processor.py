"""Qwen3-VL's processor for images and text, without its video part."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

IMAGE_TOKEN = "<|image_pad|>"
# A sampled placeholder makes the next forward pass fail for want of its image.
PLACEHOLDERS = (IMAGE_TOKEN, "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")


class _ImageTextProcessor(Qwen3VLProcessor):
    """Qwen3-VL's processor for images and text alone: its video part would need torchvision."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template, **kwargs)


# The saved folder names its processor class, and must name the one that every installation knows.
_ImageTextProcessor.__name__ = Qwen3VLProcessor.__name__


def build_processor(image_processor, tokenizer, chat_template: str) -> Qwen3VLProcessor:
    """A processor for images and text; padding is on the left, as generation needs."""
    tokenizer.padding_side = "left"
    return _ImageTextProcessor(image_processor=image_processor, tokenizer=tokenizer, chat_template=chat_template)


def load_processor(path: Path | str, revision: str | None = None) -> Qwen3VLProcessor:
    """The processor of a saved Qwen3-VL model, images and text only.

    Raises ValueError where neither its tokenizer nor its processor has a chat template.
    """
    tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    image_processor = Qwen2VLImageProcessorPil.from_pretrained(path, revision=revision)
    # Older checkpoints have their template in chat_template.json, which tokenizers do not read.
    template = tokenizer.chat_template or Qwen3VLProcessor.get_processor_dict(path, revision=revision)[0].get(
        "chat_template"
    )
    if not template:
        raise ValueError(f"{path}: no chat template, neither the tokenizer's nor the processor's; fetch it again")
    return build_processor(image_processor, tokenizer, template)


def placeholder_ids(tokenizer) -> list[int]:
    """Token ids that stand for pixels and must never be sampled."""
    return tokenizer.convert_tokens_to_ids(list(PLACEHOLDERS))
