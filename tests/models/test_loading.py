"""Loading models and the rule for device and precision."""

import pytest
import torch

from rlhflab.models.loading import choose_device, choose_dtype, frozen_copy, load_policy
from rlhflab.models.tiny import TinyConfig, new_tiny_model


def test_device_and_precision(monkeypatch):
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_dtype(torch.device("cpu")) == torch.float32
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))  # a T4 has no real bf16
    assert choose_dtype(torch.device("cuda")) == torch.float16
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert choose_dtype(torch.device("cuda")) == torch.bfloat16
    with pytest.raises(ValueError, match="device must be one of auto, cpu, cuda, got 'tpu'"):
        choose_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch sees no CUDA device"):
        choose_device("cuda")


def test_a_saved_folder_gives_the_same_model(world, tmp_path):
    model = new_tiny_model(world.tokenizer)
    model.save_pretrained(tmp_path)
    world.tokenizer.save_pretrained(tmp_path)
    found = load_policy(str(tmp_path))
    loaded, tokenizer = found.model, found.tokenizer
    assert tokenizer("not very good")["input_ids"] == world.encode_answer("not very good")[:-1]
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name])


def test_a_folder_that_holds_no_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        load_policy(str(tmp_path))


def test_a_frozen_copy_is_apart(world):
    model = new_tiny_model(world.tokenizer)
    copy = frozen_copy(model)
    assert not any(p.requires_grad for p in copy.parameters())
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert not torch.equal(next(model.parameters()), next(copy.parameters()))


def test_tiny_models_are_reproducible_and_leave_the_random_state_alone(world):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second = (new_tiny_model(world.tokenizer, seed=4) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)
    with pytest.raises(ValueError, match="hidden_size must be a multiple of heads, got 30 and 4"):
        TinyConfig(hidden_size=30)
