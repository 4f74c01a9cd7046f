"""Which errors mean that memory ran out, what the line says, and that nothing of the error is kept."""

from __future__ import annotations

import errno
import pickle
import weakref

import numpy as np
import pytest
import torch

from rlhflab.oom import OutOfMemory, Way, amounts, is_out_of_memory, out_of_memory
from tests.memory import CPU, CUBLAS, CUDA, CUDA_1, MPS


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(CUDA), torch.cuda.OutOfMemoryError(CUDA_1), RuntimeError(CPU), RuntimeError(MPS),
        RuntimeError(CUBLAS), RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronous"),
        RuntimeError("not enough memory: you tried to allocate 12 bytes."), MemoryError(), OutOfMemory("short"),
        RuntimeError("Invalid buffer size: 12.00 GB"), OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)  # fmt: skip
def test_all_that_means_out_of_memory(error):
    assert is_out_of_memory(error)
    wrapped = ValueError("cannot load")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"), OSError(errno.ENOSPC, "No space left on device"),
        ValueError("a film about running out of memory"), KeyError("memory"), None,
    ],
)  # fmt: skip
def test_nothing_else_does(error):
    assert not is_out_of_memory(error)
    assert error is None or out_of_memory(error, "here") is None


def test_what_torch_and_numpy_raise_of_themselves_is_known():
    for allocate in (lambda: torch.empty(2**55, dtype=torch.uint8), lambda: np.empty(2**55, dtype=np.uint8)):
        with pytest.raises((RuntimeError, MemoryError)) as raised:
            allocate()
        assert is_out_of_memory(raised.value)
        assert amounts(raised.value).startswith("33554432.00 GiB asked for, ")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (CUDA, "2.00 GiB asked for, 1.06 GiB free of 14.74 GiB on GPU 0, 962.56 MiB too little"),
        (CUDA_1, "20.00 MiB asked for, 10.06 MiB free of 14.75 GiB on GPU 0, 9.94 MiB too little"),
        (MPS, "500.39 MiB asked for, 10.24 MiB free of 9.07 GiB, 490.15 MiB too little"),
        (
            CUDA.replace("12.90 GiB", "2.90 GiB"),
            "2.00 GiB asked for, 1.06 GiB free of 14.74 GiB on GPU 0, 962.56 MiB too little; other programs hold "
            "about 10.29 GiB",
        ),
        (
            CUDA.replace("500.00 MiB", "3.00 GiB").replace("1.06", "2.06"),
            "2.00 GiB asked for, 2.06 GiB free of 14.74 GiB on GPU 0 but in pieces "
            "(PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True joins them)",
        ),
    ],
)
def test_how_much_was_asked_for_and_how_much_was_free(text, line):
    assert amounts(RuntimeError(text)) == line


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("512 bytes", "512 bytes"), ("3 KiB", "3.00 KiB"), ("5.5 MB", "5.50 MiB"), ("1.5 TiB", "1536.00 GiB"),
        ("2 PiB", "2097152.00 GiB"), ("7 B", "7 bytes"),
    ],
)  # fmt: skip
def test_every_unit_is_understood(told, said):
    assert amounts(RuntimeError(f"Tried to allocate {told}. 0 bytes is free")).startswith(
        f"{said} asked for, "
    )


def test_where_the_error_does_not_tell_the_machine_is_asked(monkeypatch):
    assert " GiB free of " in (said := amounts(MemoryError())) and said.endswith(" in this machine")
    for name, value in (
        ("is_available", True),
        ("mem_get_info", (3 * 2**30, 8 * 2**30)),
        ("current_device", 1),
    ):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda value=value: value)
    assert amounts(RuntimeError(CUBLAS)) == "3.00 GiB free of 8.00 GiB on GPU 1"


def test_the_line_names_settings_in_the_words_of_its_place_and_survives_another_process():
    ways = [Way({"batch_size": 4}), Way({"max_length": None}), Way({"lora": True, "four_bit": True}, 3e9)]
    error = pickle.loads(pickle.dumps(OutOfMemory("out of memory", ways)))
    for said in (str(error), error.line):
        assert said.endswith(": batch_size=4, half the max_length, lora=True with four_bit=True (3 GB)")
    assert error.words(True).endswith(": --batch-size 4, half the --max-length, --lora --four-bit (3 GB)")


def test_neither_the_error_nor_what_it_came_from_keeps_a_frame():
    class Activation:
        pass

    seen = []

    def step():
        activation = Activation()
        seen.append(weakref.ref(activation))
        try:
            raise torch.OutOfMemoryError(CUDA)
        except RuntimeError as error:
            again = Activation()
            seen.append(weakref.ref(again))
            raise RuntimeError("the step failed") from error

    try:
        step()
    except RuntimeError as error:
        kept = error  # as sys.last_exc does
        found = out_of_memory(error, "in step 1")
    assert "2.00 GiB asked for" in str(found) and found.__context__ is None and found.__cause__ is None
    assert kept.__cause__ is not None and [reference() for reference in seen] == [None, None]
