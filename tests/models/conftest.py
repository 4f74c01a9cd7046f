"""Models that the tests of this folder share."""

import pytest
import torch

from rlhflab.models.trie import SHARING
from tests.models.test_lora import OF_THEIR_OWN, SHAPE


@pytest.fixture(params=SHARING)
def sharing_model(request):
    """A small model of each architecture that may share beginnings, with random weights, biases and positions."""
    from transformers import AutoConfig, AutoModelForCausalLM

    own = {"num_key_value_heads": 2} if request.param in ("mistral", "qwen2", "qwen3", "stablelm") else {}
    own |= {"sliding_window": None} if request.param == "mistral" else {}
    shape = {**SHAPE, **OF_THEIR_OWN.get(request.param, {}), **own}
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(request.param, **shape)).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))  # biases and positions are 0 at first
    return made
