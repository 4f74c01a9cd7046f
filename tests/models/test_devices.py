"""What "auto" means: told, asked for by a variable, or measured; and every bad value in one line."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from rlhflab import processes
from rlhflab.models import devices
from rlhflab.models.devices import choose_device, known_speed, remember_speed, use_device

GPU = torch.device("cuda", 1)


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """Nothing told, nothing measured, no variable."""
    monkeypatch.delenv("RLHFLAB_DEVICE", raising=False)
    monkeypatch.setenv("RLHFLAB_CACHE", str(tmp_path))
    use_device("auto")
    yield
    monkeypatch.undo()
    use_device("auto")


@pytest.fixture
def gpu(monkeypatch):
    """Two GPUs, of which the second is this process's."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    properties = torch.nn.Module()
    properties.name, properties.total_memory, properties.major, properties.minor = "Tesla T4", 2**34, 7, 5
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


def test_a_gpu_has_its_number(gpu):
    assert choose_device("cuda") == choose_device() == GPU


def test_the_tiny_model_goes_where_it_was_measured_to_be_faster(gpu):
    assert choose_device("auto", "tiny") == torch.device("cpu")  # before that
    remember_speed(GPU, 0.8)
    assert choose_device("auto", "tiny") == torch.device("cpu")
    assert "cuda, 0.8 times the CPU" in use_device()
    remember_speed(GPU, 1.7)
    assert choose_device("auto", "tiny") == GPU and choose_device("auto", "control") == torch.device("cpu")
    assert use_device().startswith("trains on cuda (Tesla T4") and "cuda, 1.7 times the CPU" in use_device()


def test_a_speed_is_that_of_this_machine(gpu, monkeypatch):
    remember_speed(GPU, 1.7)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA L4")
    assert known_speed(GPU) is None
    (devices.cache_folder() / "devices.json").write_text("{damaged")
    assert known_speed(GPU) is None
    remember_speed(GPU, 2.0)
    assert known_speed(GPU) == 2.0


@pytest.mark.parametrize("use", ["real", "tiny"])
def test_several_processes_train_where_they_have_met(gpu, use, monkeypatch):
    """Their gradients are summed there: tensors on a CPU cannot be over NCCL."""
    for joined in (GPU, torch.device("cpu")):
        monkeypatch.setattr(processes, "_state", SimpleNamespace(device=joined, num_processes=2))
        assert choose_device("auto", use) == joined


@pytest.mark.parametrize("use", ["real", "tiny", "control"])
def test_one_line_is_for_everything_that_trains(gpu, use, monkeypatch):
    use_device("cuda")
    assert choose_device("auto", use) == GPU and choose_device("cpu", use) == torch.device("cpu")
    use_device("auto")
    monkeypatch.setenv("RLHFLAB_DEVICE", "cuda")
    assert choose_device("auto", use) == GPU and choose_device("cpu", use) == torch.device("cpu")
    use_device("cpu")
    assert choose_device("auto", use) == torch.device("cpu")


def test_a_variable_is_a_wish_and_a_name_an_order(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("RLHFLAB_DEVICE", "cuda")
    assert choose_device() == torch.device("cpu")
    assert use_device().endswith("torch sees no cuda device for RLHFLAB_DEVICE=cuda")
    with pytest.raises(
        ValueError, match="device cuda was requested, but torch sees no CUDA device; use auto or cpu"
    ):
        use_device("cuda")
    assert choose_device() == torch.device("cpu")  # what was refused is not told
    monkeypatch.setenv("RLHFLAB_DEVICE", "tpu")
    with pytest.raises(ValueError, match="RLHFLAB_DEVICE must be one of auto, cpu, cuda, mps, got 'tpu'"):
        choose_device()


def test_an_apple_gpu_is_taken_when_asked_for(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("mps") == torch.device("mps") and choose_device() == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch sees no Apple GPU"):
        choose_device("mps")
