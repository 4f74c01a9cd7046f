"""Log-probabilities of answers against transformers' own loss, and their invariances."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhflab.models.logps import (
    AnswerBatch,
    compare_policies,
    evaluating,
    frozen_sequence_logps,
    join_answers,
    sequence_logps,
    token_logps,
)
from rlhflab.models.tiny import new_tiny_model


@pytest.fixture(scope="module")
def model(world):
    return new_tiny_model(world.tokenizer, seed=2).eval()


def test_agrees_with_the_models_own_cross_entropy(model):
    prompt, answer = [2, 3, 6], [9, 10, 14, 1]
    ids = torch.tensor([prompt + answer])
    labels = torch.tensor([[-100] * len(prompt) + answer])
    mean_nll = model(input_ids=ids, labels=labels).loss
    ours = sequence_logps(model, join_answers([prompt], [answer]))
    torch.testing.assert_close(ours[0], -mean_nll * len(answer))


@given(padding=st.integers(0, 6), fill=st.integers(0, 20))
@settings(max_examples=25, deadline=None)
def test_padding_never_changes_anything(model, padding, fill):
    prompts, answers = [[2, 3], [2, 4, 6]], [[9, 1], [13, 14, 1]]
    batch = join_answers(prompts, answers)
    wide = AnswerBatch(
        torch.nn.functional.pad(batch.input_ids, (0, padding), value=fill),
        torch.nn.functional.pad(batch.mask, (0, padding)),
    )
    torch.testing.assert_close(sequence_logps(model, wide), sequence_logps(model, batch))


def test_sum_not_mean_and_ending_counts(model):
    short, long = [sequence_logps(model, join_answers([[2, 3, 6]], [a])) for a in ([9, 10], [9, 10, 1])]
    end = model(input_ids=torch.tensor([[2, 3, 6, 9, 10]])).logits[0, -1].log_softmax(-1)[1]
    torch.testing.assert_close(long[0], short[0] + end)
    logps, mask = token_logps(model, join_answers([[2, 3, 6], [2, 3]], [[9], [9, 10, 1]]))
    assert mask.sum(1).tolist() == [1, 3] and (logps[~mask] == 0).all()


def test_chunks_do_not_matter_and_leave_no_gradient(model):
    batch = join_answers([[2, 3, 6]] * 7, [[9, n] for n in range(7)])
    whole = frozen_sequence_logps(model, batch)
    torch.testing.assert_close(frozen_sequence_logps(model, batch, chunk=2), whole)
    assert not whole.requires_grad


def test_two_policies_are_compared_token_by_token(world, model):
    """Σ_t KL of the next token's distributions, from the plain logits; nothing for prompts and padding."""
    other = new_tiny_model(world.tokenizer, seed=9).eval()
    batch = join_answers([[4, 5], [4, 5], [6]], [[7, 8, 9], [10], [11, 12]])
    found = compare_policies(model, other, batch, chunk=2)
    with torch.no_grad():
        p, q = (m(input_ids=batch.input_ids).logits.double().log_softmax(-1) for m in (model, other))
    by_token = (p.exp() * (p - q)).sum(-1)
    kl = [sum(by_token[row, at] for at in before) for row, before in enumerate(([1, 2, 3], [1], [0, 1]))]
    torch.testing.assert_close(found.kl, torch.stack(kl), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.logps, frozen_sequence_logps(model, batch).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        found.ref_logps, frozen_sequence_logps(other, batch).double(), rtol=0, atol=1e-5
    )
    assert (found.kl > 0).all() and compare_policies(model, model, batch).kl.eq(0).all()


def test_bad_batches_are_named():
    with pytest.raises(ValueError, match="as many prompts as answers and at least one, got 2 and 1"):
        join_answers([[1], [2]], [[1]])
    with pytest.raises(ValueError, match="at least one token"):
        join_answers([[1]], [[]])


# ---- real architectures ------------------------------------------------------------------------------------------

PROMPTS = [[5, 6, 7, 8, 9], [11, 12], [13, 14, 15]]
ANSWERS = [[20, 21, 2], [22, 23, 24, 25, 2], [2]]


@pytest.fixture(params=["opt", "gpt2", "llama", "qwen2"])
def real(request, model_folder):
    from rlhflab.models.loading import LoadSettings, load_policy

    return load_policy(str(model_folder(request.param)), LoadSettings(device="cpu")).model


def test_padding_changes_nothing_in_real_architectures(real):
    alone = [
        frozen_sequence_logps(real, join_answers([p], [a])) for p, a in zip(PROMPTS, ANSWERS, strict=True)
    ]
    batch = join_answers(PROMPTS, ANSWERS)
    for filler in (0, 2, 300):
        wide = torch.full((3, 20), filler)
        wide[:, : batch.mask.shape[1]] = torch.where(batch.input_ids.bool(), batch.input_ids, filler)
        for row, length in enumerate(batch.lengths.tolist()):
            wide[row, length:] = filler
        mask = torch.nn.functional.pad(batch.mask, (0, 20 - batch.mask.shape[1]))
        found = frozen_sequence_logps(real, AnswerBatch(wide, mask))
        torch.testing.assert_close(found, torch.cat(alone), rtol=0, atol=1e-5)


def test_sampling_behind_padding_gives_the_same_log_probabilities(real):
    from rlhflab.models.sampling import left_padded, sample_answers

    ids, mask = left_padded(PROMPTS)
    drawn = sample_answers(real, ids, 6, [2], 2, torch.Generator().manual_seed(0), prompt_mask=mask)
    answers = [row[kept].tolist() for row, kept in zip(drawn.answers, drawn.mask, strict=True)]
    found = frozen_sequence_logps(real, join_answers(PROMPTS, answers))
    torch.testing.assert_close(drawn.logps.sum(1), found, rtol=0, atol=1e-4)


def test_no_logits_are_made_for_prompts(real):
    made = []
    handle = real.get_output_embeddings().register_forward_hook(lambda *args: made.append(args[2].shape))
    sequence_logps(real, join_answers(PROMPTS, ANSWERS))
    handle.remove()
    assert made == [(sum(map(len, ANSWERS)), real.config.vocab_size)]


def test_logits_in_parts_give_the_same_values_and_gradients(real, monkeypatch):
    batch = join_answers(PROMPTS, ANSWERS)
    results = []
    for limit in (2**26, 4 * real.config.vocab_size):
        monkeypatch.setattr("rlhflab.models.logps.LOGITS_AT_ONCE", limit)
        real.zero_grad()
        logps = sequence_logps(real, batch)
        logps.square().sum().backward()
        results.append([logps, *(weight.grad.clone() for weight in real.parameters())])
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)


def test_logits_that_are_changed_after_the_head_are_read_as_they_are(monkeypatch):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "gemma2", hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        intermediate_size=64, vocab_size=50, final_logit_softcapping=0.5, initializer_range=0.5,
    )  # fmt: skip
    model, batch = AutoModelForCausalLM.from_config(config).eval(), join_answers([[5, 6]], [[7, 8, 1]])
    monkeypatch.setattr("rlhflab.models.logps.LOGITS_AT_ONCE", 50)
    with torch.no_grad():
        logits = model(input_ids=batch.input_ids).logits
        expected = logits[0, 1:4].log_softmax(-1).gather(-1, torch.tensor([[7], [8], [1]])).sum()
        assert logits.abs().max() <= 0.5
    torch.testing.assert_close(frozen_sequence_logps(model, batch)[0], expected)


def test_a_frozen_model_is_read_without_dropout_and_its_mode_comes_back():
    model = torch.nn.Dropout(0.5)
    with evaluating(model):
        assert not model.training and not torch.is_grad_enabled()
    assert model.training and torch.is_grad_enabled()
    with pytest.raises(KeyError), evaluating(model.eval()):
        raise KeyError
    assert not model.training
