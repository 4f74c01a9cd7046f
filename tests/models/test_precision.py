"""What is read and computed in 16 bits: the LM head's product in float32, and weights as this device computes."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from rlhflab.models import precision
from rlhflab.models.logps import answer_reads, join_answers, sequence_logps, token_logps
from rlhflab.models.precision import float32_logits, reading_dtype
from rlhflab.models.sampling import sample_answers
from tests.models.test_lora import OF_THEIR_OWN, SHAPE

HALVES = (torch.bfloat16, torch.float16)
BATCH = join_answers([[5, 6, 7], [8, 9, 3]], [[10, 11, 2], [12, 2]])


def model_of(kind, dtype, vocab=50):
    """Its logits are about −40 ± 3, as GPT-2's are: bfloat16 knows them to 0.25 only."""
    torch.manual_seed(0)
    shape = {**SHAPE, **OF_THEIR_OWN.get(kind, {}), "vocab_size": vocab, "tie_word_embeddings": False}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape)).eval()
    head = model.get_output_embeddings()
    with torch.no_grad():
        head.weight.normal_(std=0.5)
        if head.bias is not None:
            head.bias.normal_(std=2)
        elif kind == "gpt2":
            model.transformer.ln_f.bias.fill_(1)
            head.weight.sub_(40 / 32)
    return model.to(dtype)


def exact_logps(model, batch):
    """[batch, time] with the head's product in float64, and what the model itself does to its logits after that."""
    head, config = model.get_output_embeddings(), model.config
    kept = []
    handle = head.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    with torch.no_grad():
        model(input_ids=batch.input_ids, use_cache=False)
    handle.remove()
    logits = kept[0].double() @ head.weight.double().T + (0 if head.bias is None else head.bias.double())
    cap = getattr(config, "final_logit_softcapping", None)
    logits = cap * (logits / cap).tanh() if cap else logits
    found = logits[:, :-1].log_softmax(-1).gather(-1, batch.input_ids[:, 1:, None])[..., 0]
    return torch.nn.functional.pad(found, (1, 0)) * batch.mask


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", ["gpt2", "llama", "phi", "gemma2"])
def test_every_reader_takes_logits_that_are_not_rounded(monkeypatch, kind, dtype):
    model = model_of(kind, dtype)
    exact = exact_logps(model, BATCH).sum(1)
    with torch.no_grad():
        rounded = model(input_ids=BATCH.input_ids, use_cache=False).logits
        found = [sequence_logps(model, batch) for batch in (BATCH, answer_reads(BATCH))]
        found.append(token_logps(model, BATCH, 3)[0].sum(1))
        monkeypatch.setattr("rlhflab.models.logps.LOGITS_AT_ONCE", 100)
        found.append(sequence_logps(model, BATCH))
    for logps in found:
        torch.testing.assert_close(logps.double(), exact, rtol=0, atol=2e-4)
    assert rounded.dtype == dtype
    logps = rounded[:, :-1].float().log_softmax(-1).gather(-1, BATCH.input_ids[:, 1:, None])[..., 0]
    assert ((logps * BATCH.mask[:, 1:]).sum(1) - exact).abs().max() > 5e-4


@pytest.mark.parametrize("dtype", HALVES)
def test_sampling_draws_from_the_same_logits(dtype):
    """One token after one prompt token: both passes are then the same pass."""
    model, prompts = model_of("gpt2", dtype), torch.arange(3, 40)[:, None]
    drawn = sample_answers(model, prompts, 1, [2], 2, torch.Generator().manual_seed(0))
    batch = join_answers(prompts.tolist(), drawn.answers.tolist())
    torch.testing.assert_close(
        drawn.logps[:, 0].double(), exact_logps(model, batch).sum(1), rtol=0, atol=1e-4
    )


def test_gradients_are_those_of_the_product_in_16_bits_and_have_gradients():
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 3, 8).bfloat16(), torch.randn(20, 8).bfloat16()
    results = []
    for exact in (True, False):
        h, head = hidden.clone().requires_grad_(), torch.nn.Linear(8, 20, bias=False).bfloat16()
        w = head.weight
        w.data.copy_(weight)
        model = SimpleNamespace(get_output_embeddings=lambda head=head: head)
        with float32_logits(model) if exact else nullcontext():
            logits = head(h)
        assert logits.dtype == (torch.float32 if exact else torch.bfloat16)
        loss = logits.float().log_softmax(-1)[..., 0].sum()
        first = torch.autograd.grad(loss, (h, w), create_graph=True)
        second = torch.autograd.grad(sum((g.float() ** 2).sum() for g in first), (h, w))
        results.append([*first, *second])
    for ours, rounded in zip(*results, strict=True):
        assert ours.dtype == torch.bfloat16
        apart = (ours - rounded).float().norm() / rounded.float().norm()
        assert apart < 0.02


def test_a_frozen_head_gets_no_gradient_and_a_trained_one_does():
    for trained in (False, True):
        model = model_of("llama", torch.bfloat16)
        model.lm_head.requires_grad_(trained)
        sequence_logps(model, BATCH).sum().backward()
        grad = model.lm_head.weight.grad
        assert (grad is not None and bool(grad.any())) is trained
        assert model.model.layers[0].mlp.up_proj.weight.grad.abs().max() > 0


def test_the_head_is_never_in_float32_as_a_whole(monkeypatch):
    class Largest(TorchDispatchMode):
        made = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for made in tree_leaves(out):
                if isinstance(made, torch.Tensor) and made.dtype == torch.float32:
                    self.made = max(self.made, made.untyped_storage().nbytes() // 4)
            return out

    monkeypatch.setattr(precision, "AT_ONCE", 4096)
    model = model_of("llama", torch.bfloat16, vocab=3000)
    with Largest() as watch:
        sequence_logps(model, BATCH).sum().backward()
    assert watch.made <= 5 * 3000  # the answers' logits; the head has 96,000 weights


def test_a_model_in_float32_is_left_alone_and_others_are_put_back():
    for dtype in (torch.float32, *HALVES):
        model = model_of("gpt2", dtype)
        head = model.get_output_embeddings()
        with pytest.raises(KeyError), float32_logits(model):
            assert ("forward" in head.__dict__) is (dtype != torch.float32)
            assert model(input_ids=BATCH.input_ids).logits.dtype == torch.float32
            raise KeyError
        assert "forward" not in head.__dict__ and model(input_ids=BATCH.input_ids).logits.dtype == dtype


def test_another_forward_of_the_head_is_put_back_too():
    """Accelerate puts its own there, where layers lie on several devices."""
    model = model_of("gpt2", torch.bfloat16)
    head = model.get_output_embeddings()
    own = head.forward = lambda hidden: torch.nn.functional.linear(hidden, head.weight)
    with float32_logits(model):
        assert model(input_ids=BATCH.input_ids).logits.dtype == torch.float32
    assert head.forward is own


@pytest.mark.parametrize(
    ("device", "capability", "expected"),
    [("cuda", (7, 5), torch.float16), ("cuda", (8, 0), torch.bfloat16), ("cpu", None, torch.float32)],
)
def test_stored_in_16_bits_is_read_as_the_device_computes_and_float32_stays(
    monkeypatch, device, capability, expected
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    for stored in (*HALVES, "bfloat16", "torch.float16"):
        assert reading_dtype(stored, torch.device(device)) == expected
    for stored in (torch.float32, "float32", None):
        assert reading_dtype(stored, torch.device(device)) == torch.float32
