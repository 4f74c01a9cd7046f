"""The doctor names what is missing and the command that mends it."""

from __future__ import annotations

from importlib import metadata

import pytest

from rlhflab import doctor
from rlhflab.files import cache_folder


@pytest.fixture
def installed(monkeypatch):
    """Versions as the doctor sees them: everything is there in version 99, except what a test changes."""
    versions = {}

    def version(package):
        found = versions.get(package, None if package == "torchao" else "99.0")
        if found is None:
            raise metadata.PackageNotFoundError(package)
        return found

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(doctor, "_device", lambda: [doctor.Check("device", "cpu")])
    return versions


def by_name():
    return {check.name: check for check in doctor.report()}


def test_nothing_to_mend_when_all_is_there(installed, capsys):
    assert not any(check.fix for check in doctor.report())
    assert doctor.doctor() is True
    assert "Ready to train." in capsys.readouterr().out


def test_a_missing_core_package_is_a_problem(installed, capsys):
    installed["peft"] = None
    check = by_name()["peft"]
    assert (check.problem, check.fix) == (True, "python -m pip install peft")
    assert doctor.doctor() is False
    out = capsys.readouterr().out
    assert "python -m pip install peft" in out and "1 to fix" in out


def test_a_missing_extra_is_no_problem(installed):
    installed["bitsandbytes"] = None
    check = by_name()["bitsandbytes"]
    assert (check.problem, check.fix) == (False, "python -m pip install bitsandbytes")
    assert "4-bit" in check.found
    assert doctor.doctor() is True


@pytest.mark.parametrize(
    ("version", "peft", "trap"),
    [
        ("0.10.0", "99.0", True),
        ("0.15.1+cu128", "0.19.0", True),
        ("0.16.0", "99.0", False),
        ("0.18.0", "0.19.0", False),
        ("1.0", "99.0", False),
        ("0.18.0+cpu", "0.18.1", True),
        ("1.0", "0.18.0", True),
        ("0.17.0", "0.18.1", False),
        ("0.10.0", "0.18.1", False),
        ("0.10.0", None, True),
    ],
)
def test_a_torchao_that_peft_cannot_use_is_a_trap(installed, version, peft, trap):
    installed["torchao"], installed["peft"] = version, peft
    checks = by_name()
    assert ("torchao" in checks) == trap
    if trap:
        assert checks["torchao"].fix == "python -m pip uninstall -y torchao"


def test_a_broken_device_is_reported_not_raised(monkeypatch):
    import torch

    def broken():
        raise RuntimeError("driver\ntoo old")

    monkeypatch.setattr(torch.cuda, "is_available", broken)
    check = by_name()["device"]
    assert check.problem and check.found == "RuntimeError: driver too old"


def test_device_and_precision_are_named():
    checks = by_name()
    assert checks["device"].found.startswith(("cpu (", "cuda (", "mps ("))
    assert checks["precision"].found in ("float32", "bfloat16", "float16")


def test_a_folder_without_write_permission_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    check = by_name()["working folder"]
    assert check.problem and "not writable" in check.found
    assert check.fix == f"make {tmp_path} writable"


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("RLHFLAB_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "rlhflab"
    monkeypatch.setenv("RLHFLAB_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"


def test_what_mps_cannot_do_has_its_own_advice(monkeypatch):
    from rlhflab.recipes import trials

    failed = [trials.Outcome("one", 0.0, "NotImplementedError: aten::x is not implemented for MPS")]
    monkeypatch.setattr(trials, "try_on", lambda device, *_: failed)
    advice = {
        device: next(check.fix for check in doctor._trials(device) if check.name == "one")
        for device in ("mps", "cpu")
    }
    assert advice["mps"] == doctor.FALLBACK and advice["cpu"].startswith("paste this whole report")
