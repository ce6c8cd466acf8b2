"""The vision-language model: loading it, and the differentiable path from pixels in [0, 1] to logits and text.

Everything here takes images as float tensors [B, 3, H, W] in [0, 1]; resizing happened once, in `prepare`, and
normalisation happens inside, so that attacks and smoothing noise live in pixel space.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, GenerationConfig, LogitsProcessorList, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from safemed.data.prompts import LETTERS, with_letter
from safemed.models.chat import Chat
from safemed.models.geometry import Geometry, patchify, rope_positions
from safemed.models.model_type import MODEL_TYPE
from safemed.models.processor import IMAGE_TOKEN, load_processor, placeholder_ids
from safemed.models.tower import quicken
from safemed.models.untrusted import check_folder
from safemed.utils import gpus

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def save_model(model, processor, folder: Path) -> None:
    """Save a model and its processor in the Hugging Face layout; adapters are merged into the weights first.

    Raises FloatingPointError for weights that are not finite: such a model still writes text, and would be scored.
    """
    model = _merged(model)
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise FloatingPointError(
                f"{folder}: {name} is not finite, no model is written; lower the learning_rate and delete the "
                "checkpoint folder, or fetch the model again"
            )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    # AutoProcessor wants a video processor's settings for Qwen3-VL, though no video is ever seen.
    settings = {"video_processor_type": "Qwen3VLVideoProcessor", "processor_class": "Qwen3VLProcessor"}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def load_weights(path: Path | str) -> Qwen3VLForConditionalGeneration:
    """A saved Qwen3-VL in fp32, every tensor of it from the checkpoint.

    In bf16 weights, small steps and merged adapters would round to nothing: what is evaluated must be what was trained.
    A training step on a GPU computes in bf16 by autocast.

    Raises ValueError where it is another model, or lacks tensors: those would be random, and the model would be scored;
    and as `untrusted.check_folder` does. No code that the folder holds is run.
    """
    check_folder(Path(path))
    kind = AutoConfig.from_pretrained(path, trust_remote_code=False).model_type
    if kind != MODEL_TYPE:
        raise ValueError(f"{path}: a model of type {kind}; only {MODEL_TYPE} is supported")
    model, found = Qwen3VLForConditionalGeneration.from_pretrained(
        path, dtype=torch.float32, output_loading_info=True, use_safetensors=True
    )
    if absent := sorted(found["missing_keys"]):
        raise ValueError(
            f"{path}: the checkpoint lacks {len(absent)} of the model's tensors, such as {absent[0]}; fetch or save it "
            "again"
        )
    return model


def _merged(model):
    """The model without adapters: its own, or those of its vision tower alone, are part of the weights then."""
    if hasattr(model, "merge_and_unload"):
        return model.merge_and_unload()
    if hasattr(model.model.visual, "merge_and_unload"):
        model.model.visual = model.model.visual.merge_and_unload()
    return model


@dataclass
class Encoded:
    """Tokenised prompts, left-padded, and completions, right-padded, of B questions.

    prompt_ids, prompt_mask: [B, P]. completion_ids, completion_mask: [B, C] (C = 0 where there are none).
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    completion_ids: Tensor
    completion_mask: Tensor

    def __getitem__(self, rows: Tensor) -> Encoded:
        """The given rows; columns that are padding in all of them are dropped."""
        prompt, completion = self.prompt_mask[rows], self.completion_mask[rows]
        first = prompt.shape[1] - int(prompt.sum(1).max())
        last = int(completion.sum(1).max()) if completion.shape[1] else 0
        return Encoded(
            self.prompt_ids[rows][:, first:],
            prompt[:, first:],
            self.completion_ids[rows][:, :last],
            completion[:, :last],
        )

    def joined(self) -> Encoded:
        """The completions as the ends of the prompts: what comes next is predicted by the last position of all rows."""
        ids = torch.cat([self.prompt_ids, self.completion_ids], 1)
        mask = torch.cat([self.prompt_mask, self.completion_mask], 1)
        order = mask.sort(dim=1, stable=True).indices  # padding first
        ids, mask = ids.gather(1, order), mask.gather(1, order)
        return Encoded(ids, mask, ids[:, :0], mask[:, :0])[torch.arange(len(ids), device=ids.device)]


@dataclass
class LetterPlaces:
    """B prompts that end where the letter of an answer comes next.

    prompts: without completions. tokens [B, 8]: the token that each option letter would take there; after `>`, say, it
    may hold the bracket, too.
    """

    prompts: Encoded
    tokens: Tensor

    def __getitem__(self, rows: Tensor) -> LetterPlaces:
        return LetterPlaces(self.prompts[rows], self.tokens[rows])


@dataclass
class Passes:
    """Images that went forward, and backward, through the vision tower."""

    forward: int = 0
    backward: int = 0


class VLM:
    """A model with its processor: images [B, 3, H, W] in [0, 1] in, logits or text out.

    `passes` counts, by hooks, every image that goes through the vision tower in either direction.
    """

    def __init__(self, model, processor: Qwen3VLProcessor):
        self.model = model
        self.tokenizer = processor.tokenizer
        self.processor = processor
        self.geometry = Geometry.of(processor.image_processor)
        self.image_token_id = self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self.chat = Chat(processor)
        self.passes = Passes()
        quicken(self.visual)
        self.count(self.visual)

    @classmethod
    def load(cls, path: Path | str, precision: str = "fp32") -> VLM:
        """A saved model for evaluation: eval mode, frozen, on a GPU if there is one; raises as load_weights.

        precision: one of PRECISIONS, that of weights and arithmetic. What is evaluated is the model in this precision.
        """
        gpus.take_one()
        device, dtype = "cuda" if torch.cuda.is_available() else "cpu", PRECISIONS[precision]
        model = load_weights(path).eval().requires_grad_(False)
        for parameter in model.parameters():  # not the buffers: rotary frequencies in bf16 would turn far tokens
            parameter.data = parameter.data.to(dtype)
        return cls(model.to(device), load_processor(path))

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def visual(self) -> torch.nn.Module:
        """The vision tower."""
        return self.backbone.visual

    @property
    def backbone(self) -> torch.nn.Module:
        """Vision tower and language model without the output head, whatever adapters wrap the model."""
        return self._unwrapped.model

    @property
    def head(self) -> torch.nn.Linear:
        """The output head: hidden states [..., D] -> logits [..., V]."""
        return self._unwrapped.lm_head

    @property
    def _unwrapped(self) -> torch.nn.Module:
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    @contextlib.contextmanager
    def headless(self) -> Iterator[None]:
        """Inside the block, what the model calls logits are the hidden states that its head would be given."""
        head = self.head
        head.forward = lambda hidden: hidden
        try:
            yield
        finally:
            del head.forward

    def encode(self, prompts: list[list[dict]], completions: list[str], side: int) -> Encoded:
        """Chat prompts, each with one image of side x side, and the completions to teacher-force ('' for none)."""
        n = (side // self.geometry.patch // self.geometry.merge) ** 2
        texts = [self.chat.prompt(prompt).replace(IMAGE_TOKEN, IMAGE_TOKEN * n) for prompt in prompts]
        written = [self.chat.written(completion) for completion in completions]
        return Encoded(*self.tokenise(texts, "left"), *self.tokenise(written, "right"))

    def letter_places(self, asked: Encoded, completions: list[str]) -> LetterPlaces:
        """Where the letter of each completion's answer stands after its prompt; `asked` has no completions.

        Raises ValueError for a completion without an answer, and where all letters are one to the tokenizer. Two may
        share a token: no token of Qwen's is `>g` or `>h`, so that both go on with `>`.
        """
        places = [self._letter_place(completion) for completion in completions]
        before = self.encode_ids(asked, [ids for ids, _ in places])
        return LetterPlaces(before.joined(), torch.tensor([tokens for _, tokens in places], device=self.device))

    def _letter_place(self, completion: str) -> tuple[list[int], list[int]]:
        """The tokens of a completion that all letters would share, and the next one of each letter."""
        texts = [self.chat.written(with_letter(completion, letter)) for letter in LETTERS]
        ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        for place, tokens in enumerate(zip(*ids, strict=False)):
            if len(set(tokens)) > 1:
                return ids[0][:place], list(tokens)
        raise ValueError(f"the tokenizer cannot tell the letters of {completion!r} apart")

    def columns(self, images: Tensor) -> int:
        """Image tokens a side of images [B, 3, H, W]."""
        return images.shape[-1] // self.geometry.patch // self.geometry.merge

    def features(self, images: Tensor) -> Tensor:
        """All that the language model sees of the images: [B, L, n, D], the image tokens and the deepstack's layers."""
        pixel_values, grid = patchify(images, self.geometry)
        return tower_features(self.visual, pixel_values, grid)

    def completion_logits(self, images: Tensor, encoded: Encoded) -> Tensor:
        """Logits [B, C + 1, V]: position c predicts completion token c, the last one what would follow."""
        pixel_values, grid = patchify(images, self.geometry)
        kept = encoded.completion_ids.shape[1] + 1
        return self._teacher_forced(encoded, kept, pixel_values=pixel_values, image_grid_thw=grid)

    def logits_of(self, tokens: Tensor, encoded: Encoded) -> Tensor:
        """Logits [B, P + C, V] at every position, where the image tokens [B, n, D] are given and not seen."""
        everything = encoded.prompt_ids.shape[1] + encoded.completion_ids.shape[1]
        return self._given(tokens[:, None], encoded, everything)

    def logits_given(self, features: Tensor, encoded: Encoded) -> Tensor:
        """As `completion_logits`, where what is seen of the images, features [B, L, n, D], is given."""
        return self._given(features, encoded, encoded.completion_ids.shape[1] + 1)

    def _given(self, features: Tensor, encoded: Encoded, kept: int) -> Tensor:
        side = math.isqrt(features.shape[2]) * self.geometry.merge  # patches
        grid = torch.tensor([[1, side, side]] * len(features), device=self.device)
        tokens, *deeper = features.transpose(0, 1)  # each [B, n, D]
        seen = BaseModelOutputWithDeepstackFeatures(
            pooler_output=list(tokens), deepstack_features=[layer.flatten(0, 1) for layer in deeper]
        )
        return self._teacher_forced(encoded, kept, mm_encoder_outputs={"image": seen}, image_grid_thw=grid)

    def _teacher_forced(self, encoded: Encoded, kept: int, **image) -> Tensor:
        ids = torch.cat([encoded.prompt_ids, encoded.completion_ids], 1)  # [B, P + C]
        mask = torch.cat([encoded.prompt_mask, encoded.completion_mask], 1)
        columns = int(image["image_grid_thw"][0, 2]) // self.geometry.merge
        positions = rope_positions(ids == self.image_token_id, mask.bool(), columns)
        arguments = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "use_cache": False}
        return self.model(**arguments, **image, logits_to_keep=kept).logits

    @torch.no_grad()
    def generate(self, images: Tensor, encoded: Encoded, max_new_tokens: int) -> list[str]:
        """Greedy completions of the prompts, whole and without special tokens; placeholders are never produced.

        Raises FloatingPointError where the model's logits are not numbers: its words would be scored, and mean nothing.
        """
        return self._decode(images, encoded, max_new_tokens, do_sample=False)

    @torch.no_grad()
    def sample(self, images: Tensor, encoded: Encoded, max_new_tokens: int, seed: int) -> list[str]:
        """As `generate`, sampled at temperature 1; the seed and the batch decide what."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            return self._decode(images, encoded, max_new_tokens, do_sample=True, temperature=1.0, top_k=0, top_p=1.0)

    def _decode(self, images: Tensor, encoded: Encoded, max_new_tokens: int, **how) -> list[str]:
        pixel_values, grid = patchify(images, self.geometry)
        with undirected(self.model):
            ids = self.model.generate(
                input_ids=encoded.prompt_ids,
                attention_mask=encoded.prompt_mask,
                mm_token_type_ids=(encoded.prompt_ids == self.image_token_id).long(),
                pixel_values=pixel_values,
                image_grid_thw=grid,
                max_new_tokens=max_new_tokens,
                **how,
                logits_processor=LogitsProcessorList([_refuse_nan]),
                suppress_tokens=placeholder_ids(self.tokenizer),
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=self.tokenizer.eos_token_id,
            )
        return [self.text(row) for row in ids[:, encoded.prompt_ids.shape[1] :]]

    def text(self, ids: Sequence[int] | Tensor) -> str:
        """The completion that these tokens after a prompt make, without special tokens."""
        return self.chat.whole(self.tokenizer.decode(ids, skip_special_tokens=True))

    def encode_ids(self, prompts: Encoded, completions: Sequence[Sequence[int]]) -> Encoded:
        """Prompts with completions that are token ids already, one each."""
        rows = [torch.tensor(words, dtype=torch.long) for words in completions]
        pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
        ids, mask = pad(rows), pad([torch.ones_like(row) for row in rows])
        return Encoded(prompts.prompt_ids, prompts.prompt_mask, ids.to(self.device), mask.to(self.device))

    def tokenise(self, texts: list[str], side: str) -> tuple[Tensor, Tensor]:
        """Ids and mask [B, L] of texts, padded on the side given."""
        out = self.tokenizer(texts, add_special_tokens=False, padding=True, padding_side=side, return_tensors="pt")
        return out["input_ids"].long().to(self.device), out["attention_mask"].long().to(self.device)

    def count(self, visual: torch.nn.Module) -> None:
        """Count the images that pass through a vision tower, this model's or its reference's, in `passes`."""
        visual.register_forward_hook(self._count, with_kwargs=True)

    def _count(self, module, args, kwargs, output) -> None:
        """Forward hook of the vision tower; the gradient that comes back through its output is counted when it does."""
        images = len(args[1] if len(args) > 1 else kwargs["grid_thw"])
        self.passes.forward += images
        if output.pooler_output.requires_grad:
            output.pooler_output.register_hook(lambda grad: self._count_backward(images))

    def _count_backward(self, images: int) -> None:
        self.passes.backward += images


@contextlib.contextmanager
def undirected(model: torch.nn.Module) -> Iterator[None]:
    """Inside the block, what a checkpoint asks of generation, such as a penalty of repetitions, is not heeded.

    Rollouts, attacks and certificates are of the logits, and so is what they are compared with.
    """
    owners = [model, model.get_base_model()] if hasattr(model, "peft_config") else [model]
    asked = [owner.generation_config for owner in owners]
    for owner in owners:
        owner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for owner, config in zip(owners, asked, strict=True):
            owner.generation_config = config


def _refuse_nan(ids: Tensor, logits: Tensor) -> Tensor:
    """A logits processor that lets numbers pass; some models have -inf for tokens that they never write."""
    if logits.isnan().any() or (logits == torch.inf).any():
        raise FloatingPointError("the model's logits are not finite")
    return logits


def tower_features(visual: torch.nn.Module, pixel_values: Tensor, grid: Tensor) -> Tensor:
    """Features [B, L, n, D] of a vision tower: its image tokens, then each deepstack layer's."""
    return stacked(visual(pixel_values, grid_thw=grid), len(grid))


def stacked(seen: BaseModelOutputWithDeepstackFeatures, b: int) -> Tensor:
    """What a vision tower has said of b images, as features [B, L, n, D]."""
    layers = torch.stack([seen.pooler_output, *seen.deepstack_features])  # [L, B * n, D]
    return layers.unflatten(1, (b, -1)).transpose(0, 1)


@contextlib.contextmanager
def frozen(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode and no parameter gradients inside the block; mode and gradients as they were after it."""
    training, wanted = model.training, [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        model.train(training)
