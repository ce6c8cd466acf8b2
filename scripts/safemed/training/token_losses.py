"""What a loss takes of the logits at each token: sums over the whole vocabulary, in chunks of tokens.

Logits are made of hidden states a chunk at a time, and made anew in the backward pass: with 152 thousand words, those
of a thousand tokens are 0.6 GB in fp32, and what the sums are made of is as large several times over.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK = 512  # tokens

Head = Callable[[Tensor], Tensor]  # hidden states [N, D] -> logits [N, V]


def token_losses(
    head: Head, hidden: Tensor, tokens: Tensor, temperature: float, reference: tuple[Head, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Each token's log-probability at a temperature, [N], and KL(reference || policy) at its place, [N], both in fp32.

    hidden [N, D]: the policy's hidden states, in any precision, of which its head makes logits. tokens [N]. reference:
    its head and hidden states; without one the KL is 0.
    """
    chunks = hidden.split(CHUNK)
    known = [None] * len(chunks) if reference is None else [(reference[0], part) for part in reference[1].split(CHUNK)]
    found = [
        checkpoint(_of_chunk, head, *chunk, temperature, use_reentrant=False)
        for chunk in zip(chunks, tokens.split(CHUNK), known, strict=True)
    ]
    chosen, kl = (torch.cat(parts) for parts in zip(*found, strict=True))
    return chosen, kl


def _of_chunk(
    head: Head, hidden: Tensor, tokens: Tensor, reference: tuple[Head, Tensor] | None, temperature: float
) -> tuple[Tensor, Tensor]:
    logits = head(hidden).float()
    chosen = (logits / temperature).log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    if reference is None:
        return chosen, torch.zeros_like(chosen)
    with torch.no_grad():
        wanted = reference[0](reference[1]).float().log_softmax(-1)
    return chosen, forward_kl(wanted, logits.log_softmax(-1))


def forward_kl(reference: Tensor, policy: Tensor) -> Tensor:
    """KL(reference || policy) [N] of log-probabilities [N, V]; zero exactly where the two agree."""
    return (reference.exp() * (reference - policy)).sum(-1)
