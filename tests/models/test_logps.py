"""Log-probabilities of answers against transformers' own loss, and their invariances."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhflab.models.logps import AnswerBatch, frozen_sequence_logps, join_answers, sequence_logps, token_logps
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
    assert long < short
    logps, mask = token_logps(model, join_answers([[2, 3, 6], [2, 3]], [[9], [9, 10, 1]]))
    assert mask.sum(1).tolist() == [1, 3] and (logps[~mask] == 0).all()


def test_chunks_do_not_matter_and_leave_no_gradient(model):
    batch = join_answers([[2, 3, 6]] * 7, [[9, n] for n in range(7)])
    whole = frozen_sequence_logps(model, batch)
    torch.testing.assert_close(frozen_sequence_logps(model, batch, chunk=2), whole)
    assert not whole.requires_grad


def test_bad_batches_are_named():
    with pytest.raises(ValueError, match="as many prompts as answers and at least one, got 2 and 1"):
        join_answers([[1], [2]], [[1]])
    with pytest.raises(ValueError, match="at least one token"):
        join_answers([[1]], [[]])
