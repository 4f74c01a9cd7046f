"""Prompts that two answers share: the same numbers as for each answer by itself, in every architecture that may."""

import pytest
import torch
from torch.testing import assert_close

from rlhflab.models.logps import answer_reads, frozen_sequence_logps, join_answers, sequence_logps
from rlhflab.models.reward import answer_scores, reward_model_from
from rlhflab.models.shared import SHARING, can_share, shared_ends, shared_reads
from tests.models.test_lora import OF_THEIR_OWN, SHAPE

PROMPTS = [[5, 6, 7, 8, 9], [11, 12], [13, 14, 15]]
CHOSEN = [[20, 21, 2], [22, 2], [23, 24, 25, 26, 2]]
REJECTED = [[30, 2], [31, 32, 33, 34, 2], [2]]
PAIRS = join_answers(PROMPTS * 2, CHOSEN + REJECTED)


@pytest.fixture(params=SHARING)
def model(request):
    from transformers import AutoConfig, AutoModelForCausalLM

    own = {"num_key_value_heads": 2} if request.param in ("mistral", "qwen2", "qwen3", "stablelm") else {}
    own |= {"sliding_window": None} if request.param == "mistral" else {}
    shape = {**SHAPE, **OF_THEIR_OWN.get(request.param, {}), **own}
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(request.param, **shape)).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))  # biases and positions are 0 at first
    return made


def test_log_probabilities_are_those_of_each_answer_by_itself(model):
    assert can_share(model)
    alone = [
        frozen_sequence_logps(model, join_answers([prompt], [answer]))
        for prompt, answer in zip(PROMPTS * 2, CHOSEN + REJECTED, strict=True)
    ]
    reads = shared_reads(PAIRS)
    assert reads.inputs["input_ids"].shape == (3, 10)
    with torch.no_grad():
        assert_close(sequence_logps(model, reads), torch.cat(alone), rtol=0, atol=1e-4)
        assert_close(sequence_logps(model, answer_reads(PAIRS)), torch.cat(alone), rtol=0, atol=1e-4)
        wrong = {**reads.inputs, "position_ids": torch.arange(10).expand(3, -1)}
        assert (sequence_logps(model, reads._replace(inputs=wrong)) - torch.cat(alone)).abs().max() > 1e-3
        seen = {
            **reads.inputs,
            "attention_mask": torch.ones(10, 10, dtype=torch.bool).tril().expand(3, 1, -1, -1),
        }
        assert (sequence_logps(model, reads._replace(inputs=seen)) - torch.cat(alone)).abs().max() > 1e-3


def test_gradients_and_rewards_are_the_same_too(model):
    model.zero_grad()
    sequence_logps(model, answer_reads(PAIRS)).square().sum().backward()
    expected = {
        name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
    }
    model.zero_grad()
    sequence_logps(model, shared_reads(PAIRS)).square().sum().backward()
    for name, weight in model.named_parameters():
        if name in expected:
            assert_close(weight.grad, expected[name], rtol=1e-3, atol=1e-3, msg=name)
    if model.config.model_type == "granite":  # transformers has no sequence classifier of it
        return
    reward_model = reward_model_from(model)
    torch.nn.init.normal_(reward_model.score.weight, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = (answer_scores(reward_model, batch) for batch in (shared_ends(PAIRS), PAIRS))
    assert_close(found, expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.1


def test_models_that_look_back_a_window_do_not_share(model):
    model.config.sliding_window = 4
    assert not can_share(model) or getattr(model.config, "use_sliding_window", True) is False
    model.config.sliding_window = None
    model.config._attn_implementation = "eager"
    assert not can_share(model)
