"""A refusal is one line in a notebook too; which torchao PEFT can use."""

from importlib import metadata

import pytest
from IPython.core.interactiveshell import InteractiveShell

from rlhflab.colab.setup_cell import torchao_clashes
from rlhflab.remedies import Refusal, plainly, require_lora, torchao_clash

# Tried with torch 2.13.0: `get_peft_model` of a GPT-2 and a Llama, a forward and backward pass, saving, merging.
TORCHAO = ("0.3.1", "0.5.0", "0.7.0", "0.10.0", "0.15.0", "0.16.0", "0.17.0", "0.18.0")
WORKS = {
    "0.18.0": ("0.5.0", "0.7.0", "0.10.0", "0.15.0", "0.16.0", "0.17.0"),
    "0.18.1": ("0.5.0", "0.7.0", "0.10.0", "0.15.0", "0.16.0", "0.17.0"),
    "0.19.0": ("0.16.0", "0.17.0", "0.18.0"),
    "0.19.1": ("0.16.0", "0.17.0", "0.18.0"),
    "0.20.0": ("0.16.0", "0.17.0", "0.18.0"),
    "0.21.0": ("0.16.0", "0.17.0", "0.18.0"),
    "0.21.2": ("0.16.0", "0.17.0", "0.18.0"),
}


def test_a_notebook_shows_a_refusal_without_a_traceback(capsys):
    shell = InteractiveShell()
    result = shell.run_cell(
        "from rlhflab.remedies import plainly\nwith plainly():\n    raise ValueError('no room: take --lora')"
    )
    assert isinstance(result.error_in_exec, Refusal)
    out = capsys.readouterr().out
    assert out.strip() == "✗ no room: take --lora"


def test_other_errors_stay_what_they_are():
    with pytest.raises(KeyError), plainly():
        raise KeyError("a mistake in the program")


@pytest.mark.parametrize("peft", WORKS)
def test_the_rule_says_what_was_tried(peft):
    assert tuple(version for version in TORCHAO if torchao_clash(version, peft) is None) == WORKS[peft]


@pytest.mark.parametrize("peft", [None, *WORKS, "0.18", "0.19.0.dev0", "1.0"])
def test_the_set_up_cell_has_the_same_rule(peft):
    for version in (
        *TORCHAO,
        "0.4",
        "0.16",
        "0.16.0+cu128",
        "0.17.1",
        "0.18.0.dev20260801",
        "0.18",
        "1.0",
        "12.0",
    ):
        assert torchao_clashes(version, peft) == (torchao_clash(version, peft) is not None), (version, peft)


@pytest.mark.parametrize("version", ["0.15.2", "0.16.0", "0.18.0"])
def test_the_installed_peft_agrees(version, monkeypatch):
    from peft import import_utils

    monkeypatch.setattr(import_utils.importlib.util, "find_spec", lambda name: name)
    peft, real = metadata.version("peft"), metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: version if name == "torchao" else real(name))
    if torchao_clash(version, peft):
        with pytest.raises(ImportError, match="incompatible version of torchao"):
            import_utils.is_torchao_available.__wrapped__()
    else:
        assert import_utils.is_torchao_available.__wrapped__()


def test_lora_is_refused_with_the_remedy(monkeypatch):
    versions = {"torchao": "0.18.0", "peft": "0.18.1"}
    monkeypatch.setattr(metadata, "version", versions.__getitem__)
    with pytest.raises(ValueError) as refusal:
        require_lora()
    assert str(refusal.value) == (
        "torchao 0.18.0 is installed, and PEFT 0.18.1 makes no LoRA model beside one newer than 0.17 "
        "(PEFT 0.19 does): python -m pip uninstall -y torchao"
    )
