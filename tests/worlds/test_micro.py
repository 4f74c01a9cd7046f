"""The enumerable world: its tree against plain forward passes and sampling, its identities, its pairs."""

import pytest
import torch

from rlhflab.models.logps import frozen_sequence_logps, join_answers, sequence_logps
from rlhflab.models.tiny import TinyConfig, new_tiny_model
from rlhflab.objectives.optimum import log_partition, optimal_logps
from rlhflab.worlds import grammar
from rlhflab.worlds.tree import PrefixTree


def llama(vocab_size):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **shape)).eval()


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request, world):
    if request.param == "llama":
        return llama(len(world.tokenizer))
    return new_tiny_model(world.tokenizer, TinyConfig(hidden_size=32), seed=3).eval()


def test_size_of_the_world(world):
    assert len(world.prompts) == 9 and 11 <= len(grammar.WORDS) <= 16
    assert len(world.answers) == len(set(world.answers)) == 37_701
    assert int(world.is_grammatical.sum()) == 8 + 16 + 136 + 512  # counted by hand from the grammar


def test_probabilities_of_all_answers_sum_to_one_without_renormalising(world, model):
    total = world.logps(model).exp().sum(-1)
    torch.testing.assert_close(total, torch.ones(9, dtype=torch.float64), rtol=0, atol=1e-12)


def test_tree_agrees_with_plain_forward_passes(world, model):
    logps = world.logps(model)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(9, (300,), generator=generator)
    columns = torch.cat([torch.arange(100), torch.randint(len(world.answers), (200,), generator=generator)])
    answers = [world.encode_answer(world.answers[index]) for index in columns]
    plain = frozen_sequence_logps(model, join_answers(world.prompt_ids[rows].tolist(), answers))
    torch.testing.assert_close(logps[rows, columns].float(), plain, rtol=0, atol=3e-5)


def test_text_and_tokens_of_an_answer_are_inverse(world):
    for index in (0, 1, 5, 100, 20_000, len(world.answers) - 1):
        assert (
            world.encode_answer(world.answers[index])
            == world.tree.answers[index, : world.tree.lengths[index]].tolist()
        )
    assert world.encode_answer("not very good")[-1] == world.tokenizer.eos_token_id
    assert len(world.encode_answer("not good but funny")) == 4


def test_rewards_of_texts(world):
    assert world.true_reward("the plot felt", "not very good") == -0.75
    assert world.true_reward("the plot felt", "good the") == grammar.UNGRAMMATICAL
    with pytest.raises(ValueError, match="unknown answer 'good good good good good'"):
        world.true_reward("the plot felt", "good " * 4 + "good")
    with pytest.raises(ValueError, match="unknown prompt 'the cat was'"):
        world.true_reward("the cat was", "good")


def test_soft_values_give_z_at_the_root_and_the_optimal_policy_at_every_node(world, reference):
    beta = 0.7
    model = new_tiny_model(world.tokenizer, seed=1).eval()
    levels = world.tree.step_logps(model, world.prompt_ids)
    values, q_values = world.tree.soft_values(levels, world.rewards, beta)
    ref_logps = world.tree.leaf_logps(levels)
    torch.testing.assert_close(values[0][:, 0], beta * log_partition(ref_logps, world.rewards, beta))
    # A*(s, a) = Q* − V* = β·log π*(a|s)/π_ref(a|s): the tokens' optimal policy multiplies up to the answers'.
    best_steps = [
        ref + (q - v.unsqueeze(-1)) / beta for ref, q, v in zip(levels, q_values, values, strict=True)
    ]
    torch.testing.assert_close(
        world.tree.leaf_logps(best_steps), optimal_logps(ref_logps, world.rewards, beta)
    )


def test_policy_values_give_j_at_the_root_and_reduce_to_the_soft_ones_at_the_optimum(world, reference):
    beta = 0.7
    ref, model = (
        world.tree.step_logps(new_tiny_model(world.tokenizer, seed=seed).eval(), world.prompt_ids)
        for seed in (1, 2)
    )
    values, _ = world.tree.policy_values(model, ref, world.rewards, beta)
    logps, ref_logps = world.tree.leaf_logps(model), world.tree.leaf_logps(ref)
    objective = (logps.exp() * (world.rewards - beta * (logps - ref_logps))).sum(-1)
    torch.testing.assert_close(values[0][:, 0], objective)
    soft, q_values = world.tree.soft_values(ref, world.rewards, beta)
    best = [r + (q - v.unsqueeze(-1)) / beta for r, q, v in zip(ref, q_values, soft, strict=True)]
    at_best, _ = world.tree.policy_values(best, ref, world.rewards, beta)
    for level, wanted in zip(at_best, soft, strict=True):
        torch.testing.assert_close(level, wanted)


def test_nodes_are_where_an_answer_stands(world):
    model = new_tiny_model(world.tokenizer, seed=1).eval()
    levels = world.tree.step_logps(model, world.prompt_ids)
    ids = [world.encode_answer(answer) for answer in ("not very good", "dull", "good but not bad")]
    mask = torch.tensor([[t < len(row) for t in range(4)] for row in ids])
    answers = torch.tensor([row + row[-1:] * (4 - len(row)) for row in ids])
    nodes = world.tree.nodes(answers, mask)
    steps = [levels[t][2, nodes[:, t]].gather(1, answers[:, t : t + 1])[:, 0] for t in range(4)]
    wanted = world.logps(model)[2, world.tree.positions(answers, mask)]
    torch.testing.assert_close((torch.stack(steps, 1) * mask).sum(1), wanted)


def test_step_logps_carry_the_gradient_of_the_model(world):
    model = new_tiny_model(world.tokenizer, seed=1).eval()
    logps = world.tree.leaf_logps(world.tree.step_logps(model, world.prompt_ids))
    weights = [model.lm_head.weight, model.transformer.h[0].attn.c_attn.weight]
    texts = ("not very good", "dull", "good but not bad")
    ids = [world.encode_answer(text) for text in texts]
    alone = sequence_logps(model, join_answers(world.prompt_ids[2:5].tolist(), ids)).sum()
    in_tree = sum(logps[row, world.answer_position(text)] for row, text in zip((2, 3, 4), texts, strict=True))
    expected = torch.autograd.grad(alone, weights)
    for found, wanted in zip(torch.autograd.grad(in_tree, weights), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
        assert wanted.abs().max() > 0.01
    assert not world.logps(model).requires_grad


def test_a_wrong_vocabulary_is_named(world):
    with pytest.raises(ValueError, match="the model's vocabulary is 30, the tree's is 21"):
        world.logps(llama(30))
    with pytest.raises(ValueError, match="depth must be ≥ 2, got 1"):
        PrefixTree([1, 2], 5, 1)


def test_samples_of_the_reference_follow_its_distribution(world, reference):
    generator = torch.Generator().manual_seed(0)
    size = 100_000
    draws = reference.sample(torch.full((size,), 4), generator)
    likely = reference.logps[4].topk(20)
    counts = torch.bincount(draws, minlength=len(world.answers))[likely.indices].double() / size
    probs = likely.values.exp()
    assert ((counts - probs).abs() < 5 * (probs / size).sqrt()).all()


def test_pairs_differ_prefer_better_answers_and_mark_the_noise(world, reference):
    pairs = reference.sample_pairs(5000, 0.2, torch.Generator().manual_seed(0))
    assert (pairs.chosen != pairs.rejected).all()
    assert pairs.flipped.float().mean().item() == pytest.approx(0.2, abs=0.03)
    margin = world.rewards[pairs.prompts, pairs.chosen] - world.rewards[pairs.prompts, pairs.rejected]
    assert margin[~pairs.flipped].mean() > 0.4 > -0.4 > margin[pairs.flipped].mean()
    text = reference.texts(pairs)[7]
    assert world.true_reward(text.prompt, text.chosen) - world.true_reward(
        text.prompt, text.rejected
    ) == pytest.approx(text.margin)
    with pytest.raises(ValueError, match="pairs must be ≥ 1, got 0"):
        reference.sample_pairs(0, 0.0, torch.Generator())


def test_no_model_exceeds_the_frontier(world, reference):
    for seed in range(3):
        found = reference.evaluate(new_tiny_model(world.tokenizer, seed=seed), beta=1.0)
        assert found.regret >= 0 and found.efficiency <= 1 + 1e-9


def test_evaluation_of_the_reference_itself(reference):
    found = reference.evaluate_logps(reference.logps, 1.0)
    assert found.kl == 0 and found.reward == pytest.approx(found.ref_reward) and found.efficiency == 0


def test_positions_find_every_answer_whatever_the_padding_says(world):
    tree = world.tree
    mask = torch.arange(tree.depth) < tree.lengths.unsqueeze(1)
    everything = torch.arange(len(tree.answers))
    assert torch.equal(tree.positions(tree.answers, mask), everything)
    other_padding = torch.where(mask, tree.answers, int(tree.words[0]))
    assert torch.equal(tree.positions(other_padding, mask), everything)


def test_answers_are_decoded_and_rewarded_as_their_texts(world):
    rows = torch.randint(len(world.answers), (50,), generator=torch.Generator().manual_seed(0))
    prompts = torch.arange(50) % len(world.prompts)
    answers, lengths = world.tree.answers[rows], world.tree.lengths[rows]
    rewards = world.answer_rewards(prompts, answers, torch.arange(4) < lengths.unsqueeze(1))
    for row, prompt, reward in zip(rows.tolist(), prompts.tolist(), rewards.tolist(), strict=True):
        text = world.answers[row]
        assert world.decode_answer(world.encode_answer(text)) == text
        assert world.true_reward(world.prompts[prompt], text) == reward


def test_of_all_answers_one_says_nothing(world):
    assert world.kinds["nothing said"].nonzero().tolist() == [[world.answers.index("<eos>")]]
