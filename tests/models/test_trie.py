"""Beginnings that a batch shares: each stands once in a trie, and all numbers are those of the batch itself."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from rlhflab import recipes
from rlhflab.models import logps as logps_module
from rlhflab.models import reward as reward_module
from rlhflab.models.logps import join_answers, token_logps
from rlhflab.models.reward import answer_scores, reward_model_from
from rlhflab.models.tiny import TinyConfig, new_tiny_model
from rlhflab.models.trie import pick, share_beginnings


def batch_of(prompts, seed, words=4, longest=4, rows=40):
    """Random answers to some prompts of one length, token ids 10 and more; each ends with token 2."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(longest, (rows,), generator=generator).tolist()
    answers = [[*torch.randint(10, 10 + words, (n,), generator=generator).tolist(), 2] for n in lengths]
    return join_answers([prompts[row % len(prompts)] for row in range(rows)], answers)


PROMPTS = [[1, 5, 6], [1, 5, 7], [1, 8, 6]]
BATCH = batch_of(PROMPTS, 0)


@pytest.fixture
def plain(monkeypatch):
    """Call it, and batches are read as they are."""

    def read_rows():
        for module in (logps_module, reward_module):
            monkeypatch.setattr(module, "share_beginnings", lambda *_: None)

    return read_rows


@pytest.mark.parametrize("width", [10, 25, 150])
def test_a_node_sees_the_tokens_before_it_and_a_beginning_stands_once(sft, width):
    for seed in range(5):
        batch = batch_of(PROMPTS, seed)
        lowest = 10 * (seed % 2)  # ids 0 and 1 are tokens like others
        ids, lengths = (batch.input_ids[:, :-1] - lowest) % 21, batch.lengths - 1
        found = share_beginnings(sft, ids, lengths, width)
        tokens, sees = found.inputs["input_ids"], found.inputs["attention_mask"][:, 0]
        positions = found.inputs["position_ids"]
        for row, (trie, places, length) in enumerate(
            zip(found.rows.tolist(), found.places.tolist(), lengths.tolist(), strict=True)
        ):
            assert len(set(trie)) == 1
            for time in range(length):
                seen = sees[trie[0], places[time]].nonzero()[:, 0]
                ordered = seen[positions[trie[0], seen].argsort()]
                assert tokens[trie[0], ordered].tolist() == ids[row, : time + 1].tolist()
                assert positions[trie[0], places[time]] == time
        beginnings = {
            (trie[0], tuple(ids[row, : time + 1].tolist())): place[time]
            for row, (trie, place) in enumerate(zip(found.rows.tolist(), found.places.tolist(), strict=True))
            for time in range(int(lengths[row]))
        }
        assert len({(trie, place) for (trie, _), place in beginnings.items()}) == len(beginnings)
        used = [
            len({place for (of, _), place in beginnings.items() if of == trie}) for trie in range(len(tokens))
        ]
        assert tokens.shape[1] == max(used), "no column stands empty in every trie"
        assert len(tokens) == 1 or max(used) < 2 * width


@pytest.mark.parametrize("width", [25, 150])
def test_log_probabilities_rewards_and_gradients_are_those_of_the_batch(
    sharing_model, plain, width, monkeypatch
):
    for module in (logps_module, reward_module):
        monkeypatch.setattr(module, "share_beginnings", partial(share_beginnings, width=width))
    reward_model = None
    if sharing_model.config.model_type != "granite":  # transformers has no sequence classifier of it
        reward_model = reward_model_from(sharing_model)
        torch.nn.init.normal_(reward_model.score.weight, generator=torch.Generator().manual_seed(0))
    found = share_beginnings(sharing_model, BATCH.input_ids, BATCH.lengths, width)
    assert (len(found.inputs["input_ids"]) > 1) == (width == 25)

    def numbers():
        sharing_model.zero_grad()
        logps, mask = token_logps(sharing_model, BATCH, 3)
        logps.square().sum().backward()
        gradients = {n: w.grad.clone() for n, w in sharing_model.named_parameters() if w.grad is not None}
        scores = torch.zeros(()) if reward_model is None else answer_scores(reward_model, BATCH).detach()
        return logps.detach(), mask, scores, gradients

    shared = numbers()
    plain()
    for found, expected in zip(shared, numbers(), strict=True):
        assert_close(found, expected, rtol=1e-3, atol=1e-3 if isinstance(found, dict) else 1e-4)


@pytest.mark.parametrize("value", ["shared", "own"])
def test_policies_and_values_are_those_of_the_batch(value, monkeypatch):
    run = recipes.PPO(steps=3, batch_size=64, value=value, progress=False).build()
    next(run)  # heads are 0 before the first update
    task, read = run.task, []
    rollout = task.collect(run.knobs.snapshot()).rollout
    policy, every = task.policy_parameters(), [*task.policy_parameters(), *task.value_parameters()]

    def watched(*args):
        read.append(share_beginnings(*args))
        return read[-1]

    def numbers():
        distribution, values = task.outputs(rollout)
        mask = rollout.mask
        logps, values = distribution.log_prob(rollout.actions)[mask], values[mask]
        first = torch.autograd.grad(logps.square().sum() + values.square().sum(), every)
        twice = task.distribution(rollout, twice=True).log_prob(rollout.actions)[mask]
        gradient = torch.autograd.grad(twice.square().sum(), policy, create_graph=True)
        second = torch.autograd.grad(sum(part.square().sum() for part in gradient), policy)
        return [logps.detach(), values.detach(), *first, *second]

    monkeypatch.setattr("rlhflab.tasks.language.share_beginnings", watched)
    shared = numbers()
    assert len(read) == (2 if value == "shared" else 3) and all(found is not None for found in read)
    monkeypatch.setattr("rlhflab.tasks.language.share_beginnings", lambda *_: None)
    for found, expected in zip(shared, numbers(), strict=True):
        assert (found - expected).norm() <= 1e-3 * expected.norm()
        assert expected.norm() > 0


def test_what_is_picked_often_has_the_same_gradient_every_time():
    """Also with several threads; a plain index adds in any order there."""
    threads, generator = torch.get_num_threads(), torch.Generator().manual_seed(0)
    states = torch.randn(4, 150, 64, generator=generator, requires_grad=True)
    rows, places = (torch.randint(most, (252, 4), generator=generator) for most in (4, 150))
    weights = torch.randn(252, 4, 64, generator=generator)
    assert torch.equal(pick(states, rows, places), states[rows, places])
    torch.set_num_threads(4)
    try:
        found = [
            torch.autograd.grad((pick(states, rows, places) * weights).sum(), states)[0] for _ in range(50)
        ]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(gradient, found[0]) for gradient in found)


def test_batches_that_gain_nothing_are_read_as_they_are(sft, world):
    ids, lengths = BATCH.input_ids % 21, BATCH.lengths
    assert share_beginnings(sft, ids, lengths) is not None
    apart = torch.arange(10).unsqueeze(1).expand(-1, 6) + torch.arange(6)
    assert share_beginnings(sft, apart, torch.full((10,), 6)) is None, "nothing is shared"
    long = new_tiny_model(world.tokenizer, TinyConfig(positions=64)).eval()
    wide = torch.zeros(10, 20, dtype=torch.long)
    assert share_beginnings(long, wide, torch.full((10,), 20)) is None, "22^20 is no 64-bit number"
    assert share_beginnings(long.train(), ids, lengths) is None, "dropout would be shared too"
    long.eval().config._attn_implementation = "eager"
    assert share_beginnings(long, ids, lengths) is None


def test_a_beginning_is_never_taken_for_another(sft, monkeypatch):
    """Tokens are digits: that of a row's end is none, and the last token of the vocabulary carries into no other."""
    monkeypatch.setattr(sft.config, "vocab_size", 7)
    ids = torch.tensor([[0, 6, 2], [1, 0, 0], [0, 6, 2], [1, 0, 0], [0, 6, 2], [1, 5, 5]])
    found = share_beginnings(sft, ids, torch.tensor([3, 1, 3, 1, 3, 3]))
    assert found.inputs["input_ids"].numel() == 6  # 0, 06, 062, 1, 15, 155
    tokens = found.inputs["input_ids"][found.rows, found.places]
    assert tokens[[0, 5]].tolist() == [[0, 6, 2], [1, 5, 5]] and found.places[1].unique().numel() == 1
    assert share_beginnings(sft, torch.zeros(9, 20).long(), torch.full((9,), 20)) is not None  # 8^20 = 2^60
    assert share_beginnings(sft, torch.zeros(9, 21).long(), torch.full((9,), 21)) is None  # 2^63 is too large
