"""What all tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported: no test needs the network
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Before torch is imported, and for every process started from here: where other programs use the cores, two threads
# that wait for each other are up to ten times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent


LONGEST = ("tests/test_labs.py", "tests/cuda/test_algorithms.py")
IN_TURN = ("tests/colab/test_stack.py",)  # its tests wait for each other


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the longest tests out to the workers, as the first that each has to run.

    A worker's share is a part of the list; when it is done, it takes over tests from the end of another's.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    shares: list[list[pytest.Item]] = [[] for _ in range(workers)]
    short = []
    for item in items:
        if item.nodeid.startswith(LONGEST):
            min(reversed(shares), key=len).append(item)
        elif item.nodeid.startswith(IN_TURN):
            shares[0].append(item)
        else:
            short.append(item)
    size = -(-len(items) // workers)
    items.clear()
    for share in shares:
        fill = max(0, size - len(share))
        items += share + short[:fill]
        del short[:fill]
    items += short


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def hh_rlhf(root: Path) -> Path:
    """Anthropic's harmless-base test pairs, which lie beside the repository where they may be used."""
    path = root.parent / "shared" / "data" / "hh-rlhf" / "harmless-base-test.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    return path


@pytest.fixture(scope="session")
def world():
    """The micro world."""
    from rlhflab.recipes.worlds import world_named

    return world_named("micro")


@pytest.fixture(scope="session")
def sft(world):
    """The tiny SFT model; tests that train take a copy."""
    from rlhflab.recipes.reference import tiny_reference

    return tiny_reference(world, progress=False)


@pytest.fixture(scope="session")
def reference(world, sft):
    """The micro world seen from the SFT model."""
    from rlhflab.worlds.micro import ReferencePoint

    return ReferencePoint(world, sft)


@pytest.fixture(scope="session")
def reviews():
    """The reviews world."""
    from rlhflab.worlds.reviews import ReviewsWorld

    return ReviewsWorld()


@pytest.fixture(scope="session")
def reviews_sft(reviews):
    """The reviews world's tiny SFT model; tests that train take a copy."""
    from rlhflab.recipes.reference import tiny_reference

    return tiny_reference(reviews, progress=False)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A call: kind of model → the folder of a small random one, written once; see `tests.real_models`."""
    from tests.real_models import write_model

    made = {}

    def folder(kind: str, **shape):
        key = (kind, tuple(sorted(shape.items())))
        if key not in made:
            made[key] = write_model(tmp_path_factory.mktemp(kind), kind, **shape)
        return made[key]

    return folder


@pytest.fixture
def rlhflab(monkeypatch, capsys, tmp_path):
    """Call the command line in an empty folder; returns exit code, stdout, stderr."""
    from rlhflab import cli

    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["rlhflab", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def colab_python():
    """The Python of an environment with Colab's versions of the widget stack, without rlhflab; this test's alone."""
    from filelock import FileLock

    from rlhflab.files import cache_folder
    from tests.colab_stack import make

    with FileLock(cache_folder() / "colab-stack.lock"):
        try:
            python = make()
        except RuntimeError as error:  # no package index: on a train, but not in CI
            if os.environ.get("RLHFLAB_REQUIRE_BROWSER") == "1":
                pytest.fail(str(error))
            pytest.skip(str(error))
        yield python
