"""A real Qwen3-VL of 1-2 M parameters with a tokenizer trained on the study's own text, for CPUs."""

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from safemed.data.prompts import LETTERS
from safemed.models.processor import PLACEHOLDERS, build_processor

# Qwen's pre-tokenisation in short: words with their leading blank, single digits, runs of punctuation.
SPLIT = Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *PLACEHOLDERS]
TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
# Qwen3-VL's own template for messages without tools and videos, but for its line breaks.
CHAT_TEMPLATE = (
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n"
    "{%- if message.content is string %}{{ message.content }}{%- else %}"
    "{%- for part in message.content %}{%- if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- else %}{{ part.text }}{%- endif %}{%- endfor %}{%- endif %}<|im_end|>\n{%- endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{%- endif %}"
)


def train_tokenizer(corpus: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with Qwen's special tokens; every option letter with its blank is one token."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(SPLIT, "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Merges are made by frequency: letters must win, however rare the fourth option is.
    letters = [f" {letter}" for letter in LETTERS] * (10 * len(corpus))
    tokenizer.train_from_iterator([*corpus, *letters], trainer)
    tokenizer.add_tokens(TAGS)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def build_tiny(corpus: list[str], settings: dict, side: int, seed: int):
    """A randomly initialised Qwen3-VL with a tokenizer of the corpus, and its processor; otherwise as `assemble`."""
    return assemble(train_tokenizer(corpus, settings["vocab_size"]), settings, side, seed)


def assemble(tokenizer: PreTrainedTokenizerFast, settings: dict, side: int, seed: int):
    """A randomly initialised Qwen3-VL with a tokenizer, whose chat template it is given, and its processor.

    settings: the config's `model.tiny` (hidden, layers, vision_hidden, vision_layers, heads, patch, merge, vocab_size,
    initializer_range). The initialisation is wider than the library's: with std 0.02 the binding of letters to options
    takes four times the steps. side: image side in pixels, a multiple of patch * merge.
    """
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(shape(tokenizer, settings, side, len(tokenizer)))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    image_processor = Qwen2VLImageProcessorPil(
        patch_size=settings["patch"],
        merge_size=settings["merge"],
        temporal_patch_size=1,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        size={"shortest_edge": side * side, "longest_edge": side * side},
    )
    return model, build_processor(image_processor, tokenizer, tokenizer.chat_template)


def shape(tokenizer: PreTrainedTokenizerFast, settings: dict, side: int, vocab_size: int) -> Qwen3VLConfig:
    """The tiny model's configuration; settings and side are `assemble`'s."""
    shared = {"initializer_range": settings["initializer_range"]}
    ids = dict(zip(PLACEHOLDERS, tokenizer.convert_tokens_to_ids(list(PLACEHOLDERS)), strict=True))
    return Qwen3VLConfig(
        text_config=_text_config(tokenizer, settings) | {"vocab_size": vocab_size} | shared,
        vision_config=_vision_config(settings, side) | shared,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
        **shared,
    )


def _text_config(tokenizer: PreTrainedTokenizerFast, settings: dict) -> dict:
    head = settings["hidden"] // settings["heads"]
    rope = head // 2 // 3  # the three axes share half a head's dimensions, time taking what is left over
    return {
        "hidden_size": settings["hidden"],
        "intermediate_size": 3 * settings["hidden"],
        "num_hidden_layers": settings["layers"],
        "num_attention_heads": settings["heads"],
        "num_key_value_heads": settings["heads"],
        "head_dim": head,
        "max_position_embeddings": 1024,
        "rope_parameters": {
            "rope_type": "default",
            "mrope_section": [head // 2 - 2 * rope, rope, rope],
            "mrope_interleaved": True,
            "rope_theta": 10000.0,
        },
        "tie_word_embeddings": True,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _vision_config(settings: dict, side: int) -> dict:
    return {
        "depth": settings["vision_layers"],
        "hidden_size": settings["vision_hidden"],
        "intermediate_size": 3 * settings["vision_hidden"],
        "num_heads": settings["heads"],
        "patch_size": settings["patch"],
        "spatial_merge_size": settings["merge"],
        "temporal_patch_size": 1,
        "out_hidden_size": settings["hidden"],
        "num_position_embeddings": (side // settings["patch"]) ** 2,
        "deepstack_visual_indexes": [],
    }
