"""What a loss takes of the logits at each token: sums over the whole vocabulary, in chunks of tokens.

Their intermediate values are as large as the logits, several times over and in fp32. They are made anew in the backward
pass, a chunk at a time: with 152 thousand words, a thousand tokens are 0.6 GB.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK = 512  # tokens


def token_losses(logits: Tensor, tokens: Tensor, temperature: float, reference: Tensor | None) -> tuple[Tensor, Tensor]:
    """Each token's log-probability at a temperature, [N], and KL(reference || policy) at its place, [N], both in fp32.

    logits, reference: [N, V], of policy and reference, in any precision; without a reference the KL is 0. tokens [N].
    """
    references = [None] * len(logits.split(CHUNK)) if reference is None else reference.split(CHUNK)
    found = [
        checkpoint(_of_chunk, *chunk, temperature, use_reentrant=False)
        for chunk in zip(logits.split(CHUNK), tokens.split(CHUNK), references, strict=True)
    ]
    chosen, kl = (torch.cat(parts) for parts in zip(*found, strict=True))
    return chosen, kl


def _of_chunk(logits: Tensor, tokens: Tensor, reference: Tensor | None, temperature: float) -> tuple[Tensor, Tensor]:
    logits = logits.float()
    chosen = (logits / temperature).log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    if reference is None:
        return chosen, torch.zeros_like(chosen)
    return chosen, forward_kl(reference.float().log_softmax(-1), logits.log_softmax(-1))


def forward_kl(reference: Tensor, policy: Tensor) -> Tensor:
    """KL(reference || policy) [N] of log-probabilities [N, V]; zero exactly where the two agree."""
    return (reference.exp() * (reference - policy)).sum(-1)
