"""The losses of tokens in chunks are those of all at once, and keep their hidden states alone."""

import pytest
import torch

from safemed.training import token_losses as module
from safemed.training.token_losses import forward_kl, token_losses

N, D, V = 70, 20, 300


@pytest.fixture
def head():
    """An output head, whose weights want a gradient."""
    torch.manual_seed(0)
    return torch.nn.Linear(D, V, bias=False)


@pytest.fixture
def drawn():
    """Hidden states of a policy, which want a gradient, and of a reference, and tokens."""
    draws = torch.Generator().manual_seed(0)
    hidden, reference = (8 * torch.randn(N, D, generator=draws) for _ in range(2))
    return hidden.requires_grad_(True), reference, torch.randint(V, (N,), generator=draws)


def at_once(head, hidden, tokens, temperature, reference):
    """The same over all tokens together."""
    logits = head(hidden)
    chosen = (logits / temperature).log_softmax(-1)[torch.arange(N), tokens]
    kl = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=reference[0](reference[1]).detach()),
        torch.distributions.Categorical(logits=logits),
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
def test_chunks_change_neither_losses_nor_gradients(head, drawn, monkeypatch, chunk):
    monkeypatch.setattr(module, "CHUNK", chunk)
    hidden, reference, tokens = drawn
    weights = torch.linspace(-1, 1, N)
    gradients = []
    for losses in (token_losses, at_once):
        chosen, kl = losses(head, hidden, tokens, 0.7, (head, reference))
        of_hidden, of_head = torch.autograd.grad((weights * chosen + kl).sum(), (hidden, head.weight))
        gradients.append((chosen.detach(), kl.detach(), of_hidden, of_head))
    for found, wanted in zip(*gradients, strict=True):
        assert wanted.norm() > 0 and (found - wanted).norm() < 1e-6 * wanted.norm()


def test_no_logits_are_kept(head, drawn, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 16)
    hidden, reference, tokens = drawn
    plain = saved_bytes(lambda: at_once(head, hidden, tokens, 0.7, (head, reference)))
    ours = saved_bytes(lambda: token_losses(head, hidden, tokens, 0.7, (head, reference)))
    assert plain > 3 * N * V * 4 and ours <= 4 * (2 * N * D + V * D) + 8 * N < N * V * 4


def test_the_reference_has_a_head_of_its_own(head, drawn):
    hidden, reference, tokens = (tensor.detach() for tensor in drawn)
    other = torch.nn.Linear(D, V, bias=False)
    _, kl = token_losses(head, hidden, tokens, 1.0, (other, reference))
    wanted = forward_kl(other(reference).log_softmax(-1), head(hidden).log_softmax(-1))
    assert torch.allclose(kl, wanted, atol=1e-5) and (kl > 0.1).all()
    kl.sum().backward()
    assert other.weight.grad is None and head.weight.grad.norm() > 0


def test_without_a_reference_there_is_no_kl(head, drawn):
    hidden, _, tokens = drawn
    chosen, kl = token_losses(head, hidden, tokens, 1.0, None)
    assert (kl == 0).all() and torch.allclose(chosen, head(hidden).log_softmax(-1)[torch.arange(N), tokens])


def test_halved_precision_is_undone_before_the_sums(head, drawn):
    hidden, reference, tokens = (tensor.detach() for tensor in drawn)
    with torch.autocast("cpu", torch.bfloat16):
        chosen, kl = token_losses(head, hidden, tokens, 1.0, (head, reference))
        logits, wanted = head(hidden), head(reference)
    assert logits.dtype == torch.bfloat16 and chosen.dtype == kl.dtype == torch.float32
    assert torch.equal(chosen, logits.float().log_softmax(-1)[torch.arange(N), tokens])
    assert torch.equal(kl, forward_kl(wanted.float().log_softmax(-1), logits.float().log_softmax(-1)))


def test_forward_kl_pulls_the_policy_to_the_reference(head, drawn):
    policy, reference = (head(hidden).log_softmax(-1).detach() for hidden in drawn[:2])
    assert forward_kl(reference, reference.clone()).abs().max() == 0
    assert not torch.allclose(forward_kl(reference, policy), forward_kl(policy, reference), atol=1e-3)
