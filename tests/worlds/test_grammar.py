"""The language and its true reward."""

import random

import pytest

from rlhflab.worlds import grammar


@pytest.mark.parametrize(
    ("prompt", "answer", "reward"),
    [
        ("the plot was", "good", 1.0),
        ("the plot was", "very good", 1.5),
        ("the plot was", "not good", -0.5),
        ("the plot was", "not very good", -0.75),
        ("the plot was", "not bad", 0.5),
        ("the plot was", "good and great", 0.75 * 2.6),
        ("the plot was", "good and bad", -1.0),  # ¾·0, and the clash
        ("the plot was", "slow but great", 0.5 * -0.6 + 1.6),
        ("the plot was", "good but great", 0.5 + 1.6 - 1.0),
        ("the comedy was", "funny", 1.4),
        ("the thriller was", "funny", -0.8),
        ("the plot was", "good and", -2.0),
        ("the plot was", "very not good", -2.0),
        ("the plot was", "good good", -2.0),
        ("the plot was", "", -2.0),
    ],
)
def test_hand_computed_rewards(prompt, answer, reward):
    assert grammar.remark_reward(prompt, answer.split()) == pytest.approx(reward)


def test_no_bag_of_words_can_score_it():
    swapped = [
        grammar.remark_reward("the plot was", words.split()) for words in ("bad but great", "great but bad")
    ]
    assert swapped[0] > 0 > swapped[1]


def test_sampled_remarks_parse_and_noise_breaks_some():
    rng = random.Random(0)
    assert all(grammar.parse(grammar.sample_remark(rng)) for _ in range(2000))
    noisy = [grammar.parse(grammar.sample_noisy_remark(rng, 1.0)) is None for _ in range(2000)]
    assert 0.4 < sum(noisy) / len(noisy) < 0.95


def test_faults_are_named_and_everything_else_parses():
    for words, fault in {
        "not very good": "",
        "": "nothing said",
        "good the": "foreign word",
        "very very good": "word doubled",
        "good and": "breaks off",
        "very not good": "words out of place",
        "good bad": "words out of place",
    }.items():
        assert grammar.fault(words.split()) == fault
        assert fault in ("", *grammar.FAULTS)


@pytest.mark.parametrize("p_noise", [0.0, 0.3, 1.0])
def test_probabilities_are_those_of_the_sampler(p_noise):
    exact = grammar.remark_probabilities(p_noise)
    assert sum(exact.values()) == pytest.approx(1.0)
    rng = random.Random(1)
    drawn = [" ".join(grammar.sample_noisy_remark(rng, p_noise)) for _ in range(20_000)]
    assert set(drawn) <= set(exact)
    for text in ("good", "good good", "not bad", "very", "slow and bad", "good bad"):
        assert drawn.count(text) / 20_000 == pytest.approx(exact.get(text, 0.0), abs=0.006)
    clean = sum(p for text, p in exact.items() if grammar.parse(text.split()))
    drawn_clean = sum(grammar.parse(text.split()) is not None for text in drawn) / 20_000
    assert drawn_clean == pytest.approx(clean, abs=0.015)
