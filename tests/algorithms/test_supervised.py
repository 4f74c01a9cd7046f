"""Maximum likelihood reaches a known optimum; shuffled batches cover the data."""

import math
from dataclasses import replace

import pytest
import torch

from rlhflab import recipes
from rlhflab.algorithms.optimiser import Optimiser, schedule_factor
from rlhflab.algorithms.supervised import Supervised
from rlhflab.data.batches import ShuffledBatches
from rlhflab.models.logps import frozen_sequence_logps
from rlhflab.models.tiny import TinyConfig, new_tiny_model
from rlhflab.recipes.reference import ReferenceConfig, encode_texts, finetune, pretrain, tiny_reference
from rlhflab.settings.supervised import SupervisedSettings


def test_it_learns_the_frequencies_of_its_data(world):
    texts = [("the plot was", "good")] * 3 + [("the plot was", "bad")]
    model = new_tiny_model(world.tokenizer, TinyConfig(hidden_size=32))
    for _ in Supervised(model, encode_texts(world, texts), SupervisedSettings(steps=150, batch_size=4)):
        pass
    row, index = world.prompts.index("the plot was"), world.answer_index
    probs = world.logps(model)[row].exp()
    assert probs[index["good"]].item() == pytest.approx(0.75, abs=0.03)
    assert probs[index["bad"]].item() == pytest.approx(0.25, abs=0.03)


def test_the_default_reference_speaks_mostly_clean_language(world, reference):
    clean = (reference.logps.exp() * world.is_grammatical).sum(-1)
    assert clean.min() > 0.95
    assert (
        reference.evaluate_logps(reference.optimal_logps(1.0), 1.0).reward
        > reference.evaluate_logps(reference.logps, 1.0).reward + 1.0
    )


def test_fine_tuning_moves_mass_onto_the_clean_language(world):
    small = ReferenceConfig(model=TinyConfig(hidden_size=32), pretrain_steps=150, sft_steps=60)
    first = pretrain(world, small)
    for _ in first:
        pass

    def clean():
        return (world.logps(first.policy).exp() * world.is_grammatical).sum(-1).mean().item()

    before = clean()
    for _ in finetune(world, first.policy, small):
        pass
    assert clean() > before + 0.05


def test_the_reference_is_cached_by_its_settings(world, tmp_path, monkeypatch):
    monkeypatch.setenv("RLHFLAB_CACHE", str(tmp_path))
    small = ReferenceConfig(TinyConfig(hidden_size=32), 200, 2, 1e-3, 0.3, 200, 2, 1e-3)
    first = tiny_reference(world, "sft", small, progress=False)
    (folder,) = tmp_path.iterdir()
    stamp = (folder / "sft" / "model.safetensors").stat().st_mtime_ns
    again = tiny_reference(world, "sft", small, progress=False)
    assert (folder / "sft" / "model.safetensors").stat().st_mtime_ns == stamp
    assert torch.equal(first.lm_head.weight, again.lm_head.weight)
    tiny_reference(world, "pretrained", replace(small, pretrain_steps=3), progress=False)
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(ValueError, match="stage must be one of pretrained, sft, got 'dpo'"):
        tiny_reference(world, "dpo")


def test_a_stopped_run_continues_bit_for_bit(world):
    data = encode_texts(world, world.corpus(50, 0))

    def start():
        return Supervised(new_tiny_model(world.tokenizer), data, SupervisedSettings(steps=8, batch_size=16))

    whole = list(start())
    stopped, fresh = start(), start()
    for _ in range(5):
        next(stopped)
    fresh.load_state_dict(stopped.state_dict())
    assert list(fresh) == whole[5:]


def test_every_row_comes_once_an_epoch():
    batches = ShuffledBatches(rows=10, batch_size=4, seed=0)
    drawn = torch.cat([batches.next() for _ in range(5)])
    assert sorted(drawn[:10].tolist()) == sorted(drawn[10:].tolist()) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()
    with pytest.raises(ValueError, match="the data set is empty"):
        ShuffledBatches(0, 4, 0)


def test_schedules():
    linear = [schedule_factor("linear", step, 12, 2) for step in range(1, 13)]
    assert linear[:3] == pytest.approx([1 / 3, 2 / 3, 1.0]) and linear[-1] == pytest.approx(0.1)
    assert schedule_factor("constant", 50, 100, 0) == 1.0
    assert schedule_factor("cosine", 51, 100, 0) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="schedule must be one of constant, linear, cosine, got 'step'"):
        SupervisedSettings(schedule="step")


def test_the_optimiser_is_torch_adamw_with_clipping():
    weights = [torch.nn.Parameter(torch.tensor([3.0, -4.0])) for _ in range(2)]
    ours = Optimiser([weights[0]], max_grad_norm=1.0)
    peer = torch.optim.AdamW([weights[1]], lr=0.1, weight_decay=0.0)
    for _ in range(3):
        norm = ours.step(weights[0].square().sum(), 0.1)
        peer.zero_grad()
        weights[1].square().sum().backward()
        torch.testing.assert_close(norm, weights[1].grad.norm())
        torch.nn.utils.clip_grad_norm_([weights[1]], 1.0)
        peer.step()
    torch.testing.assert_close(*weights)
    with pytest.raises(ValueError, match="no trainable parameter"):
        Optimiser([torch.nn.Parameter(torch.zeros(1), requires_grad=False)])


def test_knobs_have_ranges():
    with pytest.raises(ValueError, match="learning_rate must be a number > 0, got 0"):
        SupervisedSettings(learning_rate=0)


def test_exact_loss_is_entropy_plus_kl_and_the_training_loss_estimates_it(world):
    run = recipes.SFT(p_noise=0.3, steps=1, texts=50, batch_size=50).build()
    language, logps = world.language(0.3), world.logps(run.policy)
    tokens = (language * world.tree.lengths).sum()
    record = next(run)
    exact = run.evaluator(run.policy, 1.0).exact
    assert set(exact) == set(record.exact)
    logps = world.logps(run.policy)
    kl = (torch.xlogy(language, language) - language * logps).sum(1).mean() / tokens
    assert exact["cross_entropy"] == pytest.approx(exact["entropy"] + float(kl))
    assert 0 < exact["entropy"] < exact["cross_entropy"] < exact["entropy"] + 0.05
    data = encode_texts(world, world.corpus(20_000, 5, 0.3))
    sampled = -frozen_sequence_logps(run.policy, data).sum() / data.mask.sum()
    assert float(sampled) == pytest.approx(exact["cross_entropy"], abs=0.01)
    assert world.kinds["clean"].equal(world.is_grammatical)
    assert torch.stack(list(world.kinds.values())).sum(0).eq(1).all()
    assert exact["grammatical_texts"] == pytest.approx(float(language[world.is_grammatical].sum()))


def test_in_the_reviews_world_the_loss_on_held_out_texts_stands_for_the_language(reviews):
    run = recipes.SFT(world="reviews", texts=400, steps=2, evaluate_every=2, progress=False).build()
    first, last = (record.estimated for record in run)
    assert last["cross_entropy"] == pytest.approx(math.log(last["perplexity"]))
    assert 0 < last["cross_entropy_se"] < 0.1 and last["cross_entropy"] < first["cross_entropy"] + 0.1
    assert 0.5 < first["grammatical"] < 1 and first["kl_rb"] < 0.5 and run.backdrop.reward_se
    fresh = recipes.Pretrain(world="reviews", texts=200, steps=1).build()
    (record,) = fresh
    assert record.exact is None
    assert record.estimated["perplexity"] == pytest.approx(len(reviews.tokenizer), rel=0.3)
    with pytest.raises(ValueError, match="unknown world 'nowhere'"):
        recipes.Pretrain(world="nowhere").build()
