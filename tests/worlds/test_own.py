"""A world of one's own: listed exactly where it is small, sampled alike where it is not; what makes no world."""

import pytest
import torch

from rlhflab import OwnWorld, recipes
from rlhflab.boundary import Fault
from rlhflab.data.sampled import SampledReference
from rlhflab.recipes.worlds import view_from
from rlhflab.worlds.tokenizer import EOS

PROMPTS, CLEAN = ("today we see", "tonight we see"), ("the sun warms", "the rain wakes", "sun")


def reward(prompt, answer):
    return answer.split().count("sun") - 0.5 * len(answer.split()) + prompt.startswith("tonight")


@pytest.fixture
def world():
    return OwnWorld(PROMPTS, CLEAN, reward)


def test_every_answer_is_listed_with_its_reward(world):
    words, stops = 5, len(world.stop_ids)
    assert world.enumerable and world.max_tokens == 3
    assert len(world.answers) == stops * (1 + words + words**2) + words**3 == world.rewards.shape[1]
    for prompt, answer in ((0, "the sun warms"), (1, "sun"), (1, "wakes wakes"), (0, EOS)):
        text = "" if answer == EOS else answer
        assert world.rewards[prompt, world.answer_position(answer)] == reward(PROMPTS[prompt], text)
        assert world.true_reward(PROMPTS[prompt], answer) == reward(PROMPTS[prompt], text)
        assert world.decode_answer(world.encode_answer(answer)) == answer
    assert world.rewards[0, world.answer_position("sun today")] == -3.0  # ended by a word of the prompts
    assert (
        int(world.is_grammatical.sum()) == 3
        and world.fault(PROMPTS[0], "sun sun")
        and not world.fault(PROMPTS[0], "sun")
    )


def test_samples_are_rewarded_alike_whether_answers_are_listed_or_not(world, monkeypatch):
    monkeypatch.setattr("rlhflab.worlds.own.MOST_LISTED", 10)
    large = OwnWorld(PROMPTS, CLEAN, reward)
    assert not large.enumerable and large.digest == world.digest
    tokens, lengths = world.tree.answers, world.tree.lengths
    mask = torch.arange(world.max_tokens) < lengths[:, None]
    prompts = torch.zeros(len(tokens), dtype=torch.long)
    assert torch.equal(large.answer_rewards(prompts, tokens, mask), world.rewards[0])
    assert torch.equal(large.grammatical(tokens, mask), world.is_grammatical)
    assert isinstance(view_from(large, None), SampledReference)


def test_the_corpus_is_clean_or_has_its_share_of_faults(world):
    assert {answer for _, answer in world.corpus(200, 0)} == set(CLEAN)
    noisy = world.corpus(2000, 0, 0.5)
    faulty = sum(answer not in CLEAN for _, answer in noisy) / 2000
    assert 0.3 < faulty < 0.5 and noisy == world.corpus(2000, 0, 0.5)
    assert all(world.encode_answer(answer) for _, answer in noisy)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((PROMPTS, []), "at least one clean answer"),
        ((PROMPTS, [""]), "and no empty one"),
        ((["a b", "a"], CLEAN), r"prompts must all have the same number of words, got \[1, 2\]"),
        (([], CLEAN), "prompts must all have the same number of words, got no prompt"),
    ],
)
def test_what_makes_no_world_is_one_line(given, says):
    with pytest.raises(ValueError, match=says):
        OwnWorld(*given, reward)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (lambda p, a: float("nan"), "must be a finite number, got nan"),
        (lambda p, a: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_reward_that_fails_is_one_line(bad, says):
    with pytest.raises(Fault, match=says) as error:
        _ = OwnWorld(PROMPTS, CLEAN, bad).rewards
    assert "\n" not in str(error.value)


def test_a_recipe_names_it_and_refuses_what_is_no_world(world):
    assert (
        recipes.DPO(world=world).config()["world"] == "own"
        and recipes.DPO(world=world).title == "DPO · tiny · own"
    )
    with pytest.raises(ValueError, match="a world is a name or an object such as OwnWorld, got int"):
        recipes.DPO(world=3)
    with pytest.raises(ValueError, match="unknown world 'own'"):
        recipes.from_config(recipes.DPO(world=world).config())
