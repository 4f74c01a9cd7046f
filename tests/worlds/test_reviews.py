"""The world that cannot be enumerated: texts and tokens, rewards of samples, the blind proxy, speed."""

import time

import pytest
import torch

from rlhflab.worlds import reviews_grammar as grammar
from rlhflab.worlds.reviews import ReviewsWorld


def padded(world, texts):
    ids = [world.encode_answer(text) for text in texts]
    mask = torch.arange(world.max_tokens) < torch.tensor([len(row) for row in ids]).unsqueeze(1)
    return torch.tensor([row + [0] * (world.max_tokens - len(row)) for row in ids]), mask


def test_size_of_the_world(reviews):
    assert 190 <= len(reviews.tokenizer) <= 210 and reviews.prompt_ids.shape == (18, 6)
    assert reviews.encode_prompt(reviews.prompts[7]) == reviews.prompt_ids[7].tolist()
    assert reviews.tokenizer(reviews.prompts[7])["input_ids"] == reviews.prompt_ids[7].tolist()
    words = {*grammar.WORDS}
    assert {reviews.tokenizer.convert_ids_to_tokens(i) in words for i in reviews.stop_ids} == {False}
    assert len(reviews.stop_ids) + len(words) == len(reviews.tokenizer)


def test_text_and_tokens_of_an_answer_are_inverse(reviews):
    texts = [text for _, text in reviews.corpus(300, 0, p_noise=0.5)]
    texts += ["<eos>", "<pad>", "the plot was thriller", "the " * 22 + "the me", "the " * 23 + "the"]
    for text in texts:
        assert reviews.decode_answer(reviews.encode_answer(text)) == text
    assert reviews.encode_answer("the plot")[-1] == reviews.tokenizer.eos_token_id
    assert len(reviews.encode_answer("the " * 24)) == 24 and len(reviews.encode_answer("the me")) == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("", "'' is not an answer"),
        ("the thriller was good", "'thriller' is not a word of an answer"),
        ("the plot was splendiferous", "'the plot was splendiferous' is not an answer"),
        ("the plot <eos>", "'the plot <eos>' is not an answer"),
        ("the " * 25, "at most 24 words, got 25"),
    ],
)
def test_what_is_no_answer_is_named(reviews, answer, message):
    with pytest.raises(ValueError, match=message):
        reviews.true_reward(reviews.prompts[0], answer)
    with pytest.raises(ValueError, match="unknown prompt 'the cat was'"):
        reviews.true_reward("the cat was", "the plot was good")


def test_sampled_answers_are_rewarded_as_their_texts(reviews):
    texts = [text for _, text in reviews.corpus(60, 1, p_noise=0.5)] + ["<eos>", "the plot was good me"]
    prompts = torch.arange(len(texts)) % len(reviews.prompts)
    rewards = reviews.answer_rewards(prompts, *padded(reviews, texts))
    features = reviews.answer_features(prompts, *padded(reviews, texts))
    clean = reviews.grammatical(*padded(reviews, texts)).tolist()
    for row, text in enumerate(texts):
        prompt = reviews.prompts[prompts[row]]
        assert rewards[row].item() == pytest.approx(reviews.true_reward(prompt, text), abs=1e-12)
        assert features[row].tolist() == list(reviews.features(prompt, text).values())
        assert clean[row] == (reviews.features(prompt, text)["faults"] == 0)
    assert rewards.dtype == torch.float64 and clean[-2:] == [False, False]


def test_a_blind_world_leaves_its_feature_out_and_nothing_else(reviews):
    text = "the plot was superb and the plot was superb but the plot was not very dull"
    for name in grammar.FEATURES:
        blind = ReviewsWorld(blind_to=[name])
        unseen = grammar.WEIGHTS[name] * reviews.features(reviews.prompts[0], text)[name]
        seen = reviews.true_reward(reviews.prompts[0], text) - unseen
        assert blind.true_reward(reviews.prompts[0], text) == pytest.approx(seen)
        answers = padded(blind, [text])
        assert blind.answer_rewards(torch.tensor([0]), *answers).item() == pytest.approx(seen)
    with pytest.raises(ValueError, match="unknown feature 'wit'; known: sentiment, coherence"):
        ReviewsWorld(blind_to=["wit"])


def test_scoring_256_new_answers_is_quick(reviews):
    prompts = torch.arange(256) % len(reviews.prompts)
    seconds = []
    for seed in (5, 6, 7):  # answers never seen; this thread's own time, for other programs share the machine
        answers = padded(reviews, [text for _, text in reviews.corpus(256, seed, p_noise=0.1)])
        start = time.thread_time()
        reviews.answer_rewards(prompts, *answers)
        seconds.append(time.thread_time() - start)
    assert min(seconds) < 0.01
