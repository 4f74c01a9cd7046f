"""The worlds are those that README's figures, the labs and the cached models were made with.

A deliberate change raises CACHE_VERSION in `recipes/reference.py` and updates the fingerprint here.
"""

import hashlib

from rlhflab.worlds import reviews_grammar


def fingerprint(lines):
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def corpus(world, p_noise):
    return fingerprint(f"{prompt} {answer}" for prompt, answer in world.corpus(1500, 7, p_noise))


def test_the_micro_worlds_language_and_rewards(world):
    rewards = [f"{value:.6f}" for value in world.rewards.flatten().tolist()]
    assert (corpus(world, 0.0), corpus(world, 0.3), fingerprint([*world.answers, *rewards])) == (
        "77f5021fe14a", "51980b79ba22", "c1d347b48fcf",
    )  # fmt: skip


def test_the_reviews_worlds_language_and_rewards(reviews):
    rewards = [f"{reviews.true_reward(*text):.6f}" for text in reviews.corpus(1500, 7, 0.3)]
    words = [
        f"{reviews_grammar.review_reward(prompt, f'the {noun} was {adjective}'.split()):.6f}"
        for prompt in reviews.prompts
        for noun, *_ in reviews_grammar.ASPECTS.values()
        for adjectives in reviews_grammar.ADJECTIVES.values()
        for adjective in adjectives
    ]
    assert (corpus(reviews, 0.0), corpus(reviews, 0.3), fingerprint(rewards), fingerprint(words)) == (
        "68bdfa269e07", "e4043ccbbcb9", "cf1d1067b494", "f7e8d38e0cfa",
    )  # fmt: skip
