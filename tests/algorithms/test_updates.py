"""Two updates of DPO, a reward model, supervised and rejection fine-tuning, against the same ones by hand.

A second run of the same seed gives the data and the model; its weights follow the formula, a plain softmax and
torch's AdamW.
"""

import copy
import math

import pytest
import torch

from rlhflab import recipes
from rlhflab.algorithms.reward_modelling import ranking_scalars
from rlhflab.data.batches import ShuffledBatches
from rlhflab.models.reward import answer_scores

CLIP = (
    1e-6  # so small beside Adam's ε that the clip matters, and the rounding of gradients that are 0 does not
)
COMMON = {
    "device": "cpu", "progress": False, "evaluate_every": 1000, "schedule": "linear", "warmup": 1, "steps": 3,
    "learning_rate": 0.01, "max_grad_norm": CLIP, "seed": 3,
}  # fmt: skip
FACTORS = (1 / 2, 1.0)  # of a linear schedule over three updates, the first of them a warm-up


def compare(run, model, loss_of, decay=0.0):
    """Compare two updates of a run with those of `model`, each on the scalar `loss_of()`."""
    adam = torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=decay)
    records = []
    for factor in FACTORS:
        record, loss = next(run), loss_of()
        adam.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        adam.param_groups[0]["lr"] = 0.01 * factor
        adam.step()
        expected = {"loss": float(loss.detach()), "grad_norm": float(norm), "learning_rate": 0.01 * factor}
        records.append(record)
        assert {name: record.scalars[name] for name in expected} == pytest.approx(expected, rel=1e-3)
    weights = getattr(run, run.fitted).named_parameters()
    for (name, ours), theirs in zip(weights, model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5, msg=name)
    return records


def answer_logps(policy, rows):
    """log π(y|x) of each row, from the logits of all positions."""
    logps = policy(rows.input_ids).logits.log_softmax(-1)[:, :-1]
    return (logps.gather(-1, rows.input_ids[:, 1:, None])[..., 0] * rows.mask[:, 1:]).sum(1)


def twins(recipe):
    """A run and its copy."""
    run = recipe.build()
    return run, copy.deepcopy(run)


def test_dpo():
    run, twin = twins(recipes.DPO(**COMMON, pairs=40, batch_size=8, beta=0.7))
    policy, reference = twin.policy, copy.deepcopy(twin.policy)

    def loss():
        rows = twin.pairs.next().answers
        with torch.no_grad():
            ref_chosen, ref_rejected = answer_logps(reference, rows).chunk(2)
        chosen, rejected = answer_logps(policy, rows).chunk(2)
        margins = 0.7 * ((chosen - ref_chosen) - (rejected - ref_rejected))
        return (1 + (-margins).exp()).log().mean()

    compare(run, policy, loss)


@pytest.mark.parametrize("ranked", [2, 3])
def test_reward_modelling(ranked):
    settings = {"pairs": 40, "held_out": 10, "test_every": 1000, "batch_size": 8, "weight_decay": 0.3}
    run, twin = twins(recipes.Reward(**COMMON, evaluate=False, **settings, ranked=ranked, label_noise=0.2))
    draw = torch.Generator().manual_seed(3)

    def loss():
        rows = twin.rankings.take(torch.randint(40, (8,), generator=draw), 0.2)
        scores = answer_scores(twin.reward_model, rows.answers).view(ranked, 8)
        likelihood = torch.ones(8)
        for place in range(ranked - 1):  # of those that are left, the best is taken
            likelihood = likelihood * scores[place:].softmax(0)[0]
        return -likelihood.log().mean()

    compare(run, twin.reward_model, loss, decay=0.3)


def test_supervised():
    run, twin = twins(recipes.SFT(**COMMON, texts=40, batch_size=8, weight_decay=0.3))
    order = ShuffledBatches(40, 8, 3)

    def loss():
        rows = twin.data.rows(order.next())
        return -answer_logps(twin.policy, rows).sum() / rows.mask.sum()

    compare(run, twin.policy, loss, decay=0.3)


def test_rejection():
    """A round of one update: the second draws from a policy that has left the reference."""
    settings = {"best_of": 3, "batch_size": 27, "draws": 5, "updates": 1}
    run, twin = twins(recipes.Rejection(**COMMON, **settings))
    seen = []

    def loss():
        kept, scores, best_scores = [], [], []
        for _ in range(5):
            rollout = twin.task.collect({**twin.knobs.snapshot(), "beta": 0.0}).rollout
            rewards = rollout.rewards.sum(1).tolist()
            best = [max(range(at, at + 3), key=rewards.__getitem__) for at in range(0, 27, 3)]
            kept.append(rollout.rows(torch.tensor(best)))
            scores += rewards
            best_scores += [rewards[at] for at in best]
        seen.append((sum(scores) / len(scores), sum(best_scores) / len(best_scores)))
        chosen = int(ShuffledBatches(5, 1, 3 + len(seen) - 1).next())
        return -answer_logps(twin.policy, kept[chosen].inputs).mean()

    for record, means in zip(compare(run, twin.policy, loss), seen, strict=True):
        assert [
            record.scalars[name] for name in ("objective/scores", "rejection/kept_scores")
        ] == pytest.approx(means, rel=1e-5)


def test_what_a_record_says_of_rankings():
    scores = torch.tensor([[3.0, 1.0, 2.0], [0.0, 0.5, -1.0]])
    found = ranking_scalars(scores, torch.tensor([0.25, 0.75]))
    assert found == {
        "loss": 0.5, "accuracy": pytest.approx(4 / 6), "margin": 1.0, "min_reward": -1.0,
        "mean_reward": pytest.approx(5.5 / 6), "max_reward": 3.0,
    }  # fmt: skip
    assert (
        ranking_scalars(torch.zeros(1, 2), torch.tensor([math.log(2)]))["accuracy"] == 0
    )  # a tie is not right
