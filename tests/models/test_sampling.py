"""Sampling draws from the whole distribution: frequencies against the exact tree."""

import types

import pytest
import torch

from rlhflab.models.heads import HiddenStates, ValueHead, hidden_size
from rlhflab.models.sampling import left_padded, sample_answers
from rlhflab.models.tiny import new_tiny_model


def test_frequencies_agree_with_exact_probabilities_and_stops_end_answers(world):
    model = new_tiny_model(world.tokenizer, seed=5).eval()
    size = 20_000
    prompts = world.prompt_ids[:1].repeat(size, 1)
    answers, mask, logps, _ = sample_answers(
        model, prompts, 4, world.stop_ids, 0, torch.Generator().manual_seed(0)
    )
    lengths = mask.sum(1)
    exact = world.logps(model)[0].exp()
    for length in range(1, 5):
        expected = exact[world.tree.lengths == length].sum().item()
        seen = (lengths == length).float().mean().item()
        assert abs(seen - expected) < 5 * (expected / size) ** 0.5
    stops = set(world.tree.stops.tolist())
    for row, length in zip(answers[:200].tolist(), lengths[:200].tolist(), strict=True):
        assert all(token not in stops for token in row[: length - 1])
        assert row[length - 1] in stops or length == 4

    assert (logps[~mask] == 0).all()
    positions = world.tree.positions(answers, mask)
    assert torch.allclose(logps.sum(1).double(), world.logps(model)[0][positions], atol=1e-4)


def test_every_single_answer_comes_as_often_as_its_probability(world):
    """χ² over the 40 likeliest first tokens and their followers, 30 degrees of freedom and more."""
    model = new_tiny_model(world.tokenizer, seed=5).eval()
    drawn = sample_answers(
        model, world.prompt_ids[:1].repeat(40_000, 1), 4, world.stop_ids, 0, torch.Generator().manual_seed(1)
    )
    exact = world.logps(model)[0].exp() * 40_000
    counts = torch.bincount(world.tree.positions(drawn.answers, drawn.mask), minlength=len(exact)).double()
    often = exact > 20
    assert often.sum() > 30
    chi2 = float(((counts - exact)[often].square() / exact[often]).sum())
    freedom = int(often.sum())
    assert abs(chi2 - freedom) < 5 * (2 * freedom) ** 0.5


def test_values_are_read_at_the_state_before_each_token(world):
    model = new_tiny_model(world.tokenizer, seed=5).eval()
    hidden, head = HiddenStates(model), ValueHead(hidden_size(model))
    torch.nn.init.normal_(head.weight)
    prompts = world.prompt_ids[
        torch.tensor([4, 1, 4, 8, 0, 1, 4])
    ]  # repeated and in no order: they share a pass
    drawn = sample_answers(
        model,
        prompts,
        4,
        world.stop_ids,
        0,
        torch.Generator().manual_seed(2),
        lambda: head(hidden.take()),
    )
    model(input_ids=torch.cat([prompts, drawn.answers], 1)[:, :-1], logits_to_keep=4)
    assert torch.allclose(head(hidden.take()) * drawn.mask, drawn.values, atol=1e-5)
    assert drawn.values.std() > 0


def test_the_same_seed_gives_the_same_answers_and_another_seed_others(world):
    model = new_tiny_model(world.tokenizer, seed=5).eval()
    first, same, other = (
        sample_answers(model, world.prompt_ids, 4, [1], 0, torch.Generator().manual_seed(seed))[0]
        for seed in (7, 7, 8)
    )
    assert torch.equal(first, same) and not torch.equal(first, other)


class Fixed(torch.nn.Module):
    """A model that gives every state the same logits."""

    device = torch.device("cpu")

    def __init__(self, logits):
        super().__init__()
        self.logits, self.head = logits, torch.nn.Linear(1, 1)

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, past_key_values, **_):
        cache = types.SimpleNamespace(batch_select_indices=lambda rows: None)
        return types.SimpleNamespace(logits=self.logits.expand(len(input_ids), 1, -1), past_key_values=cache)


def test_what_is_impossible_is_never_drawn_however_the_probabilities_round():
    """Probabilities in single precision sum to a little less or more than 1; the highest number is still a token."""
    totals = []
    for seed in range(40):
        logits = torch.randn(30, generator=torch.Generator().manual_seed(seed))
        logits[-1] = -torch.inf
        totals.append(float(logits.log_softmax(-1).double().exp().sum()))
        heights = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64).view(1, 2, 1)
        drawn = sample_answers(Fixed(logits), torch.zeros(2, 1).long(), 1, [99], 0, heights)
        assert drawn.answers.flatten().tolist() == [0, 28]
    assert min(totals) < 1 - 1e-9 and max(totals) > 1 + 1e-9  # or the test would show nothing


def real_model(kind):
    """A model of a real architecture in small, with random weights sharp enough for greedy answers to differ."""
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        OPTConfig,
        OPTForCausalLM,
    )

    torch.manual_seed(11)
    shape = {"vocab_size": 40, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    model = {
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=32, n_positions=64, **shape)),
        "llama": lambda: LlamaForCausalLM(
            LlamaConfig(
                hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                num_key_value_heads=1, **shape,
            )
        ),
        "opt": lambda: OPTForCausalLM(
            OPTConfig(
                hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=16,
                max_position_embeddings=64, do_layer_norm_before=False, **shape,
            )
        ),
    }[kind]()  # fmt: skip
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


PROMPTS = [[5], [5, 5, 7, 9, 30, 2, 8], [5, 7], [5, 5, 7], [12, 31, 6, 4]]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "opt"])
def test_prompts_of_several_lengths_get_the_answers_they_get_alone(kind):
    model = real_model(kind)
    order = [1, 0, 3, 3, 2, 4, 0, 1]
    ids, mask = left_padded([PROMPTS[at] for at in order])
    together = sample_answers(model, ids, 9, [1], 0, torch.Generator().manual_seed(3), prompt_mask=mask)
    for row, at in enumerate(order):  # the same luck, without padding
        alone = sample_answers(
            model, torch.tensor([PROMPTS[at]] * len(order)), 9, [1], 0, torch.Generator().manual_seed(3)
        )
        assert torch.equal(alone.answers[row], together.answers[row])
        assert torch.equal(alone.mask[row], together.mask[row])
        assert torch.allclose(alone.logps[row], together.logps[row], atol=1e-4)
    assert len({tuple(row) for row in together.answers.tolist()}) > 4


def test_a_prompt_without_tokens_is_refused_and_equal_lengths_need_no_mask():
    with pytest.raises(ValueError, match="a token in every prompt"):
        left_padded([[3], []])
    ids, mask = left_padded([[3, 4], [5, 6]])
    assert mask is None and ids.tolist() == [[3, 4], [5, 6]]
