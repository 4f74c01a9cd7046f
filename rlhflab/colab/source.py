"""Where a Colab notebook gets the package from: an address on GitHub, or an embedded wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+")
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_ORIGIN = re.compile(r"(?:https://|ssh://git@|git@)github\.com[:/](?P<repo>[^/]+/[^/]+?)(?:\.git)?/?")


@dataclass(frozen=True)
class Address:
    """A public repository on GitHub.

    Attributes:
        repo: OWNER/NAME.
        ref: branch, tag or commit.
    """

    repo: str
    ref: str

    def __post_init__(self) -> None:
        if not _REPO.fullmatch(self.repo):
            raise ValueError(f"repo must be OWNER/NAME, got {self.repo!r}")
        if not _REF.fullmatch(self.ref) or ".." in self.ref:
            raise ValueError(f"ref must be a branch, tag or commit, got {self.ref!r}")

    def archive(self) -> str:
        """What pip installs."""
        return f"https://github.com/{self.repo}/archive/{self.ref}.zip"

    def in_colab(self, path: str) -> str:
        """Where Colab opens the notebook at `path` of the repository."""
        return f"https://colab.research.google.com/github/{self.repo}/blob/{self.ref}/{path}"

    def badge(self, path: str) -> str:
        """Markdown of the badge that opens the notebook at `path` of the repository in Colab."""
        image = "https://colab.research.google.com/assets/colab-badge.svg"
        return f"[![Open in Colab]({image})]({self.in_colab(path)})"


def origin(root: Path) -> Address | None:
    """The address of the git remote named origin at its current branch; None if it is not on GitHub."""
    match = _ORIGIN.fullmatch(_git(root, "remote", "get-url", "origin"))
    branch = _git(root, "symbolic-ref", "--short", "HEAD") or _git(root, "rev-parse", "HEAD")
    return Address(match["repo"], branch) if match and branch else None


def _git(root: Path, *arguments: str) -> str:
    if shutil.which("git") is None:
        return ""
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def build_wheel(root: Path) -> tuple[str, bytes]:
    """Build the package's wheel from a clone; returns its file name and content.

    It is built from a copy, so that nothing old in build/ gets into it.

    Raises:
        ValueError: `root` is not a clone, or the build failed.
    """
    needed = ("pyproject.toml", "README.md", "LICENSE", "rlhflab")
    lacking = [name for name in needed if not (root / name).exists()]
    if lacking:
        raise ValueError(f"{root} is not a clone of the project: it lacks {', '.join(lacking)}")
    with tempfile.TemporaryDirectory() as folder:
        copy, out = Path(folder) / "source", Path(folder) / "wheel"
        copy.mkdir()
        for name in needed:
            if (root / name).is_dir():
                shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(root / name, copy / name)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out)]
        if find_spec("setuptools"):
            command.append("--no-build-isolation")  # needs no network
        done = subprocess.run([*command, str(copy)], capture_output=True, text=True)
        wheels = sorted(out.glob("*.whl"))
        if done.returncode or not wheels:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
            raise ValueError(f"the wheel could not be built: {lines[-1]}")
        return wheels[0].name, wheels[0].read_bytes()
