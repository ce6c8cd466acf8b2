"""The losses of tokens in chunks are those of all at once, and keep a fraction of the memory."""

import pytest
import torch

from safemed.training import token_losses as module
from safemed.training.token_losses import forward_kl, token_losses

N, V = 70, 300


@pytest.fixture
def drawn():
    """Logits of a policy, which want a gradient, and of a reference, and tokens."""
    draws = torch.Generator().manual_seed(0)
    logits, reference = (3 * torch.randn(N, V, generator=draws) for _ in range(2))
    return logits.requires_grad_(True), reference, torch.randint(V, (N,), generator=draws)


def at_once(logits, tokens, temperature, reference):
    """The same over all tokens together."""
    chosen = (logits / temperature).log_softmax(-1)[torch.arange(N), tokens]
    kl = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=reference), torch.distributions.Categorical(logits=logits)
    )
    return chosen, kl


def saved_bytes(run) -> int:
    """What autograd keeps for the backward pass, but for what is there anyway."""
    kept: dict[int, int] = {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(kept.values())


@pytest.mark.parametrize("chunk", [1, 16, 69, 512])
def test_chunks_change_neither_losses_nor_gradients(drawn, monkeypatch, chunk):
    monkeypatch.setattr(module, "CHUNK", chunk)
    logits, reference, tokens = drawn
    weights = torch.linspace(-1, 1, N)
    gradients = []
    for losses in (token_losses, at_once):
        chosen, kl = losses(logits, tokens, 0.7, reference)
        (gradient,) = torch.autograd.grad((weights * chosen + kl).sum(), logits)
        gradients.append((chosen.detach(), kl.detach(), gradient))
    for found, wanted in zip(*gradients, strict=True):
        assert wanted.norm() > 0 and (found - wanted).norm() < 1e-6 * wanted.norm()


def test_chunks_keep_no_more_than_the_logits(drawn, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 16)
    logits, reference, tokens = drawn
    logits_bytes = logits.numel() * 4
    plain = saved_bytes(lambda: at_once(logits, tokens, 0.7, reference))
    ours = saved_bytes(lambda: token_losses(logits, tokens, 0.7, reference))
    assert plain > 3 * logits_bytes and ours <= 2 * logits_bytes + 8 * N


def test_without_a_reference_there_is_no_kl(drawn):
    logits, _, tokens = drawn
    chosen, kl = token_losses(logits, tokens, 1.0, None)
    assert (kl == 0).all() and torch.allclose(chosen, logits.log_softmax(-1)[torch.arange(N), tokens])


def test_halved_precision_is_undone_before_the_sums(drawn):
    logits, reference, tokens = (tensor.detach() for tensor in drawn)
    chosen, kl = token_losses(logits.bfloat16(), tokens, 1.0, reference.bfloat16())
    wanted = token_losses(logits.bfloat16().float(), tokens, 1.0, reference.bfloat16().float())
    assert chosen.dtype == kl.dtype == torch.float32 and torch.equal(chosen, wanted[0]) and torch.equal(kl, wanted[1])


def test_forward_kl_pulls_the_policy_to_the_reference(drawn):
    logits, reference, _ = drawn
    policy, reference = logits.log_softmax(-1), reference.log_softmax(-1)
    assert forward_kl(reference, reference.clone()).abs().max() == 0
    assert not torch.allclose(forward_kl(reference, policy), forward_kl(policy, reference), atol=1e-3)
