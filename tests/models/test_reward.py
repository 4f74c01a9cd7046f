"""The reward model reads the last real token, keeps its bias on disk, and scores every answer as it scores one."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from rlhflab.boundary import Fault
from rlhflab.models.loading import load_policy
from rlhflab.models.logps import join_answers
from rlhflab.models.reward import (
    HEAD_FILE,
    answer_scores,
    position_scores,
    read_reward_model,
    reward_model_from,
    save_reward_model,
)


def policies(vocab):
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": vocab}
    torch.manual_seed(0)
    yield LlamaForCausalLM(LlamaConfig(intermediate_size=32, **shape)).eval()
    yield OPTForCausalLM(
        OPTConfig(ffn_dim=32, word_embed_proj_dim=8, max_position_embeddings=32, **shape)
    ).eval()


def some_reward_model(policy, seed=0):
    model = reward_model_from(policy)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.score.weight.copy_(torch.randn(model.score.weight.shape, generator=generator))
        model.score.bias.fill_(0.7)
    return model


def test_a_new_reward_model_is_the_policys_trunk_with_a_head_of_zeros(sft):
    model = reward_model_from(sft)
    assert model.score.bias is not None and model.score.out_features == 1
    batch = join_answers([[2, 3, 4]], [[5, 6]])
    assert answer_scores(model, batch).tolist() == [0.0]
    ids = batch.input_ids
    assert torch.equal(model.base_model(ids).last_hidden_state, sft.base_model(ids).last_hidden_state)


def test_the_score_is_the_head_on_the_last_real_token_whatever_the_padding(sft):
    for policy in (sft, *policies(21)):
        model = some_reward_model(policy)
        answers = [[5, 6, 7], [8], [9, 10]]
        together = answer_scores(model, join_answers([[2, 3]] * 3, answers))
        for answer, score in zip(answers, together.tolist(), strict=True):
            ids = torch.tensor([[2, 3, *answer]])
            by_hand = model.score(model.base_model(ids).last_hidden_state[0, -1])
            assert score == pytest.approx(float(by_hand), abs=1e-5)


def test_it_is_transformers_own_classifier_where_that_knows_the_last_token(sft):
    model = some_reward_model(sft)
    batch = join_answers([[2, 3]] * 2, [[5, 6], [7, 8]])
    model.config.pad_token_id = 0
    assert torch.allclose(
        answer_scores(model, batch), model(input_ids=batch.input_ids).logits[:, 0], atol=1e-5
    )


def test_saved_and_loaded_it_scores_the_same_bias_included(sft, tmp_path):
    model = some_reward_model(sft)
    save_reward_model(model, tmp_path)
    loaded = read_reward_model(tmp_path, torch.device("cpu"))
    batch = join_answers([[2, 3]], [[5, 6]])
    assert torch.equal(answer_scores(loaded, batch), answer_scores(model, batch))
    with pytest.raises(ValueError, match="holds no reward model"):
        read_reward_model(tmp_path / "nothing", torch.device("cpu"))


def test_a_folder_without_its_head_or_with_anothers_is_refused(sft, tmp_path):
    save_reward_model(some_reward_model(sft), tmp_path)
    head = tmp_path / HEAD_FILE
    for weights, says in (
        (
            {"weight": torch.zeros(1, 5), "bias": torch.zeros(1)},
            r"1 has another shape \(weight \[1, 5\], expected",
        ),
        ({"weight": torch.zeros(1, sft.config.n_embd)}, r"1 is missing \(bias\)"),
    ):
        save_file(weights, head)
        with pytest.raises(Fault, match=f"is not the head of this model: {says}"):
            read_reward_model(tmp_path, torch.device("cpu"))
    with pytest.raises(Fault, match="holds a reward model"):
        load_policy(str(tmp_path))
    head.unlink()
    with pytest.raises(Fault, match=f"holds no reward model: there is no {HEAD_FILE}"):
        read_reward_model(tmp_path, torch.device("cpu"))


def test_a_trunk_that_is_not_whole_is_refused(sft, tmp_path):
    save_reward_model(some_reward_model(sft), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {k: w for k, w in weights.items() if "wpe" not in k}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(
        Fault, match=r"the reward model in .* do not fit .*1 is missing \(transformer.wpe.weight\)"
    ):
        read_reward_model(tmp_path, torch.device("cpu"))


def test_all_answers_in_the_tree_score_as_they_do_one_by_one(world, sft):
    model = some_reward_model(sft)
    scores = world.tree.leaf_scores(lambda *row: position_scores(model, *row), world.prompt_ids[:2])
    rows = torch.randint(len(world.answers), (300,), generator=torch.Generator().manual_seed(0))
    answers = [world.tree.answers[i, : world.tree.lengths[i]].tolist() for i in rows.tolist()]
    for prompt in range(2):
        plain = answer_scores(model, join_answers([world.prompt_ids[prompt].tolist()] * 300, answers))
        assert torch.allclose(scores[prompt, rows].float(), plain, atol=1e-4)
    assert scores.shape == (2, len(world.answers)) and scores.std() > 0.1
    assert scores.dtype == torch.float64 and scores.device.type == "cpu"
