"""Prompts that two answers share: the same numbers as for each answer by itself, in every architecture that may."""

import torch
from torch.testing import assert_close

from rlhflab.models.logps import answer_reads, frozen_sequence_logps, join_answers, sequence_logps
from rlhflab.models.reward import answer_scores, reward_model_from
from rlhflab.models.shared import shared_ends, shared_reads
from rlhflab.models.trie import can_share

PROMPTS = [[5, 6, 7, 8, 9], [11, 12], [13, 14, 15]]
CHOSEN = [[20, 21, 2], [22, 2], [23, 24, 25, 26, 2]]
REJECTED = [[30, 2], [31, 32, 33, 34, 2], [2]]
PAIRS = join_answers(PROMPTS * 2, CHOSEN + REJECTED)


def test_log_probabilities_are_those_of_each_answer_by_itself(sharing_model):
    assert can_share(sharing_model)
    alone = [
        frozen_sequence_logps(sharing_model, join_answers([prompt], [answer]))
        for prompt, answer in zip(PROMPTS * 2, CHOSEN + REJECTED, strict=True)
    ]
    reads = shared_reads(PAIRS)
    assert reads.inputs["input_ids"].shape == (3, 10)
    with torch.no_grad():
        assert_close(sequence_logps(sharing_model, reads), torch.cat(alone), rtol=0, atol=1e-4)
        assert_close(sequence_logps(sharing_model, answer_reads(PAIRS)), torch.cat(alone), rtol=0, atol=1e-4)
        wrong = {**reads.inputs, "position_ids": torch.arange(10).expand(3, -1)}
        assert (
            sequence_logps(sharing_model, reads._replace(inputs=wrong)) - torch.cat(alone)
        ).abs().max() > 1e-3
        seen = {
            **reads.inputs,
            "attention_mask": torch.ones(10, 10, dtype=torch.bool).tril().expand(3, 1, -1, -1),
        }
        assert (
            sequence_logps(sharing_model, reads._replace(inputs=seen)) - torch.cat(alone)
        ).abs().max() > 1e-3


def test_gradients_and_rewards_are_the_same_too(sharing_model):
    sharing_model.zero_grad()
    sequence_logps(sharing_model, answer_reads(PAIRS)).square().sum().backward()
    expected = {
        name: weight.grad.clone()
        for name, weight in sharing_model.named_parameters()
        if weight.grad is not None
    }
    sharing_model.zero_grad()
    sequence_logps(sharing_model, shared_reads(PAIRS)).square().sum().backward()
    for name, weight in sharing_model.named_parameters():
        if name in expected:
            assert_close(weight.grad, expected[name], rtol=1e-3, atol=1e-3, msg=name)
    if sharing_model.config.model_type == "granite":  # transformers has no sequence classifier of it
        return
    reward_model = reward_model_from(sharing_model)
    torch.nn.init.normal_(reward_model.score.weight, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = (answer_scores(reward_model, batch) for batch in (shared_ends(PAIRS), PAIRS))
    assert_close(found, expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.1


def test_models_that_look_back_a_window_do_not_share(sharing_model):
    sharing_model.config.sliding_window = 4
    looks_back = getattr(sharing_model.config, "use_sliding_window", True)  # Qwen's are told not to
    assert can_share(sharing_model) is not looks_back
    sharing_model.config.sliding_window = None
    sharing_model.config._attn_implementation = "eager"
    assert not can_share(sharing_model)
