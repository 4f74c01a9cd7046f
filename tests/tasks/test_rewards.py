"""What a reward function is given, and what is made of a learned model's scores."""

import copy

import torch

from rlhflab.data.sampled import draw_answers, joined
from rlhflab.evaluation.reward_judge import all_scores, reference_offsets
from rlhflab.models.logps import AnswerBatch
from rlhflab.models.reward import reward_model_from
from rlhflab.tasks.rewards import Answers, ModelReward, TextReward


def test_a_learned_reward_is_taken_off_its_mean_under_the_reference(world, sft, reference):
    model = reward_model_from(sft)
    torch.nn.init.normal_(model.score.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    prompts = torch.arange(len(world.prompts)).repeat(2)
    drawn = draw_answers(world, sft, prompts, torch.Generator().manual_seed(1))
    answers = Answers(*drawn, joined(world, drawn))
    with torch.no_grad():
        raw = ModelReward(model)(answers)
        offsets = torch.linspace(-2, 2, len(world.prompts))
        torch.testing.assert_close(ModelReward(model, offsets)(answers), raw - offsets[prompts])
        shifted = copy.deepcopy(model)
        shifted.score.bias.add_(10.0)
        torch.testing.assert_close(ModelReward(shifted)(answers), raw + 10, atol=1e-4, rtol=0)
    centred = ModelReward(model, reference_offsets(world, sft, model, 0))(answers).detach()
    exact = all_scores(reference, model)
    at = [world.answers.index(world.decode_answer(ids)) for ids in answers.token_lists()]
    spread = float(exact.std(1).max())
    torch.testing.assert_close(centred, exact[prompts, at].float(), atol=5 * spread / 512**0.5, rtol=0)


def test_a_function_is_given_each_answers_text_beside_its_prompt():
    seen = []

    def score(prompts, answers):
        seen.extend(zip(prompts, answers, strict=True))
        return [float(len(answer)) for answer in answers]

    reward = TextReward(score, ["a", "b", "c"], lambda ids: "-".join(map(str, ids)))
    tokens = torch.tensor([[5, 6, 7], [8, 9, 9]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    answers = Answers(torch.tensor([2, 0]), tokens, mask, AnswerBatch(tokens, mask))
    assert reward(answers).tolist() == [5.0, 1.0] and seen == [("c", "5-6-7"), ("a", "8")]
