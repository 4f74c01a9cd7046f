"""No matrix of time × time where a fused kernel can do without: keys repeated, masks left alone, two derivatives."""

import pytest
import torch
from torch.nn import functional

from rlhflab.models import attention
from rlhflab.models.attention import has_fused, shares_keys, twice_differentiable
from rlhflab.models.loading import LoadSettings, load_policy
from rlhflab.models.logps import answer_reads, join_answers, sequence_logps
from rlhflab.models.sampling import sample_answers
from rlhflab.models.shared import shared_reads

BATCH = join_answers([[5, 6, 7]] * 2, [[10, 11, 2], [12, 2]])


@pytest.mark.parametrize(
    ("device", "capability", "dtype", "shares", "fused"),
    [
        ("cuda", (7, 5), torch.float16, False, True),  # a T4
        ("cuda", (7, 5), torch.bfloat16, False, False),
        ("cuda", (7, 5), torch.float32, False, True),
        ("cuda", (8, 0), torch.bfloat16, True, True),
        ("cuda", (9, 0), torch.float32, False, True),  # weights that are trained, on any GPU
        ("cpu", None, torch.float32, True, True),
        ("cpu", None, torch.bfloat16, True, True),
    ],
)
def test_which_kernels_there_are(monkeypatch, device, capability, dtype, shares, fused):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert shares_keys(torch.device(device), dtype) is shares
    assert has_fused(torch.device(device), dtype) is fused


@pytest.fixture
def heads(monkeypatch):
    """Query heads, key heads and whether they may differ, call by call."""
    calls, real = [], functional.scaled_dot_product_attention

    def watch(query, key, value, **named):
        calls.append((query.shape[1], key.shape[1], named.get("enable_gqa", False)))
        return real(query, key, value, **named)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watch)
    return calls


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_keys_are_repeated_where_no_kernel_shares_them(model_folder, monkeypatch, heads, kind):
    model = load_policy(str(model_folder(kind)), LoadSettings(device="cpu")).model
    results = []
    for shares in (True, False):
        monkeypatch.setattr(attention, "shares_keys", lambda *_, shares=shares: shares)
        heads.clear()
        model.zero_grad()
        whole = sequence_logps(model, answer_reads(BATCH))
        assert set(heads) == ({(4, 2, True)} if shares else {(4, 4, False)})
        whole.sum().backward()
        drawn = sample_answers(model, torch.tensor([[5, 6, 7]]), 5, [2], 2, torch.Generator().manual_seed(0))
        assert shares or all(queries == keys for queries, keys, _ in heads)
        heads.clear()
        masked = sequence_logps(model, shared_reads(BATCH))
        assert set(heads) == {(4, 4, False)}
        results.append([whole, masked, drawn.logps, *(w.grad.clone() for w in model.parameters())])
    for shared, repeated in zip(*results, strict=True):
        torch.testing.assert_close(repeated, shared, rtol=1e-4, atol=1e-5)


def test_a_model_without_shared_keys_gets_what_it_got(model_folder, monkeypatch, heads):
    monkeypatch.setattr(attention, "shares_keys", lambda *_: False)
    model = load_policy(str(model_folder("opt")), LoadSettings(device="cpu")).model
    sequence_logps(model, answer_reads(BATCH))
    assert set(heads) == {(4, 4, False)}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_graph_can_be_differentiated_twice_with_gradient_checkpointing_too(
    model_folder, kind, checkpointing
):
    settings = LoadSettings(device="cpu", lora=True, gradient_checkpointing=checkpointing)
    model = load_policy(str(model_folder(kind)), settings).model
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in weights:
        torch.nn.init.normal_(weight, std=0.1)
    was_training = model.training
    with twice_differentiable(model):
        logps = sequence_logps(model, answer_reads(BATCH))
    assert model.training is was_training

    def products(logps):
        gradient = torch.autograd.grad(logps.sum(), weights, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in gradient), weights)

    model.eval()  # no checkpointing, and attention written out
    model.set_attn_implementation("eager")
    expected = products(sequence_logps(model, answer_reads(BATCH)))
    for found, wanted in zip(products(logps), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
        assert wanted.any()
