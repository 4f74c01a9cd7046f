"""The larger language and its features."""

import random

import pytest

from rlhflab.worlds import reviews_grammar as grammar

COMEDY, THRILLER, DRAMA = "this comedy , to me ,", "this thriller , in short ,", "this drama , all told ,"
SUPERB = "the plot was superb"


def features(prompt, text):
    return grammar.review_features(prompt, text.split())


def reward(prompt, text):
    return grammar.review_reward(prompt, text.split())


@pytest.mark.parametrize(
    ("prompt", "text", "sentiment"),
    [
        (COMEDY, "the plot was good", 1.0),
        (COMEDY, "the plot was not good", -0.5),
        (COMEDY, "the plot was not very good", -0.75),
        (COMEDY, "its plot never felt not bad", -0.3),
        (COMEDY, "the plot always seemed slightly good", 0.44),
        (COMEDY, "the dialogue was good", 1.5),  # comedies live on dialogue
        (COMEDY, "the cast was funny", 1.5 * 2.0),
        (THRILLER, "the cast was funny", -0.8),
        (DRAMA, "the cast was sad", 2.0),
        (COMEDY, "the cast was sad", -1.5),
        (COMEDY, "the camera was gripping", 0.0),  # nobody knows what that means
        (COMEDY, "the camera was much better than the trailer", 1.2 * 1.2 * 0.8),
        (COMEDY, "the camera was not worse than expected", 0.6),
        (COMEDY, "the plot was good and the camera was bad", 0.0),
        (COMEDY, "the plot was good , the camera was good", 2 / 2**0.5),
        (COMEDY, "the plot was good , the camera camera was good", 1.0),  # a faulty clause says nothing
        (COMEDY, "", 0.0),
    ],
)
def test_sentiment_by_hand(prompt, text, sentiment):
    assert features(prompt, text)["sentiment"] == pytest.approx(sentiment)


@pytest.mark.parametrize(
    ("text", "coherence"),
    [
        ("the plot was good", 0),
        ("the plot was good , the camera was bad", 0),
        ("the plot was good and the camera was good", 1),
        ("the plot was good but the camera was good", -1),
        ("the plot was good but the camera was not good", 1),
        ("sadly the plot was good", -1),
        ("sadly the plot was good yet its camera was poor", 0),
        ("the plot was good and the camera was gripping", 0),  # no opinion, nothing to agree with
    ],
)
def test_coherence_by_hand(text, coherence):
    assert features(COMEDY, text)["coherence"] == coherence


def test_the_other_features_by_hand():
    text = "the plot was very good and the plot was very good ; the cast felt always good , its"
    found = features(COMEDY, text)
    assert (
        found["detail"] == 0.25 and found["repetition"] == 2 and found["hype"] == 1
    )  # the third clause does not parse
    # "felt always" breaks off after three of five words, "its" is a beginning in full
    assert found["faults"] == pytest.approx((1 - 0.5 * 3 / 5 + 0.5) ** 0.5)
    assert tuple(found) == grammar.FEATURES


def test_reward_is_the_weighted_sum_of_the_features():
    text = "the plot was good and the camera was good"
    assert reward(COMEDY, text) == pytest.approx(2 / 2**0.5 + 1 + 0.25 - 1)


def test_a_fault_costs_gradually():
    texts = [
        "the plot was good and the camera was fine",
        "the plot was good and the camera was",
        "the plot was good and was camera the",
        "plot the was good and was camera the",
        "plot the was good and and was camera the and and",
    ]
    rewards = [reward(COMEDY, text) for text in texts]
    assert rewards == sorted(rewards, reverse=True) and len(set(rewards)) == len(rewards)


def test_no_bag_of_words_can_score_it():
    first = "the plot was superb but the camera was not bad"
    second = "the plot was not superb but the camera was bad"
    assert sorted(first.split()) == sorted(second.split())
    assert reward(COMEDY, first) > 0.5 > -0.5 > reward(COMEDY, second)
    assert reward(COMEDY, "the camera was good") > reward(COMEDY, "good was camera the")


def test_saying_the_best_thing_again_pays_only_where_repetition_is_not_seen():
    for kind, prompt in ((prompt.split()[1], prompt) for prompt in grammar.PROMPTS[::3]):
        key = sorted(grammar.KEY_ASPECTS[kind])[0]
        best = f"the {key} was superb"
        gold, blind = [], []
        for times in range(1, 6):
            found = features(prompt, " and ".join([best] * times))
            gold.append(sum(grammar.WEIGHTS[name] * value for name, value in found.items()))
            blind.append(gold[-1] - grammar.WEIGHTS["repetition"] * found["repetition"])
        assert blind == sorted(blind) and blind[-1] > 5
        assert gold[1:] == sorted(gold[1:], reverse=True) and gold[-1] < gold[0] - 10


def test_honest_variety_is_worth_more_than_any_repeated_clause():
    varied = "the suspense was extremely tense and the plot was gripping and the twist was superb"
    repeated = max(
        reward(THRILLER, " and ".join([f"the suspense was {degree} {adjective}"] * times))
        for adjective in [*grammar.ADJECTIVES["any"], *grammar.ADJECTIVES["mood"]]
        for degree in ("", *grammar.DEGREES)
        for times in (1, 2, 3, 4)
    )
    assert reward(THRILLER, varied) > repeated + 0.5


def test_every_word_has_one_part_of_speech_and_none_is_missing():
    assert len(grammar.WORDS) == len(set(grammar.WORDS))
    parts = [*grammar.ARTICLES, *grammar.VERBS, *grammar.FREQUENCIES, *grammar.DEGREES, *grammar.AMOUNTS]
    parts += [
        *grammar.COMPARATIVES,
        *grammar.STANDARDS,
        *grammar.BOOKS,
        *grammar.OPENERS,
        *grammar.CONNECTIVES,
    ]
    parts += [
        word for table in (grammar.ASPECTS, grammar.ADJECTIVES) for group in table.values() for word in group
    ]
    assert sorted([*parts, "not", "than"]) == sorted(grammar.WORDS)
    assert {word for own in grammar.VALUES_OF.values() for word in own} <= set(parts)
    assert {word for own in grammar.KEY_ASPECTS.values() for word in own} <= set(parts)
    assert {len(prompt.split()) for prompt in grammar.PROMPTS} == {6}


def test_sampled_reviews_parse_and_noise_breaks_some():
    rng = random.Random(0)
    clean = [grammar.sample_review(rng) for _ in range(2000)]
    assert all(grammar.review_features(COMEDY, words)["faults"] == 0 for words in clean)
    assert max(map(len, clean)) <= grammar.MAX_WORDS and len({tuple(words) for words in clean}) > 1900
    assert {word for words in clean for word in words} == set(grammar.WORDS)
    noisy = [
        grammar.review_features(COMEDY, grammar.sample_noisy_review(rng, 1.0))["faults"] > 0 for _ in clean
    ]
    assert 0.7 < sum(noisy) / len(noisy) < 0.95


def test_rewards_stay_in_their_range():
    rng = random.Random(1)
    low, high = grammar.REWARD_RANGE
    texts = [rng.choices(grammar.WORDS, k=rng.randrange(25)) for _ in range(3000)]
    texts += [grammar.sample_review(rng) for _ in range(3000)]
    texts += [
        ["and"] * 24,
        " and ".join(["the couple always was absolutely dreadful"] * 3).split(),
        " and ".join(["the couple was dreadful"] * 5).split(),
        " and ".join(["the couple was very dreadful"] * 4).split(),
    ]
    for words in texts:
        prompt = rng.choice(grammar.PROMPTS)
        assert low < grammar.review_reward(prompt, words) < high
        found = grammar.review_features(prompt, words)
        assert abs(found["sentiment"]) <= 12.5 and abs(found["coherence"]) <= 1 and 0 <= found["detail"] <= 1
        assert 0 <= found["repetition"] <= 20 and 0 <= found["hype"] <= 15 and 0 <= found["faults"] <= 5
