"""Would the tests notice? A seeded sample of one-line faults, each tried by the tests that run its line.

    python -m tests.mutants.run [--sample 400] [--seed 0] [--minutes 90] [--jobs 2] [--only objectives,models]

First the tests are run once to see which lines each of them runs. Then every fault gets the tests of its own line, up
to the first failure: those of its file's own test module first, and the quickest of them first; after them the others
of these files. All is done in copies of the tree. What was found is kept in runs/mutants: a second call goes on, and
tries again what no test noticed where there are other tests now and no reason. Tests that work in other processes or in
a browser are not tried.

`survivors.json` has a reason for each fault of the sample that no test need catch; without one it fails the run, as
does a folder below its share.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.mutants.operators import Mutant, sample

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "runs" / "mutants"
REASONS = Path(__file__).with_name("survivors.json")
# Nine of ten are to be caught there, four of five elsewhere.
FIRST = ("objectives", "algorithms", "models", "data", "evaluation", "tasks", "engines", "recipes")
LEFT_OUT = ("browser/", "cuda/", "mutants/", "colab/test_stack.py", "test_labs.py", "live/test_comms.py")
AT_MOST = 60.0  # seconds of tests a fault


class Worker:
    """`worker.py` in a copy of the tree."""

    def __init__(self, tree: Path, warm: Iterable[str]) -> None:
        self.tree = tree
        (tree / ".tmp").mkdir(exist_ok=True)
        env = {
            **os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TMPDIR": str(tree / ".tmp"),
        }  # fmt: skip
        command = [sys.executable, "-m", "tests.mutants.worker"]
        self._process = subprocess.Popen(
            command, cwd=tree, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._tell(sorted(warm))
        self._answer()

    def _tell(self, what: Any) -> None:
        assert self._process.stdin is not None
        print(json.dumps(what), file=self._process.stdin, flush=True)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a worker ended; its message is above")
        return dict(json.loads(line))

    def run(self, tests: list[str], limit: float, trace: bool = False) -> dict[str, Any]:
        """Answer a job; see `worker.py`."""
        self._tell({"tests": tests, "limit": limit, "trace": trace})
        found = self._answer()
        shutil.rmtree(self.tree / ".tmp", ignore_errors=True)
        (self.tree / ".tmp").mkdir()
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def copy_tree(into: Path) -> None:
    """Copy what git would: the files it knows, and new ones that it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, into / name)
    hashed = ["-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "rlhflab", "tests"]
    subprocess.run([sys.executable, *hashed], cwd=into, check=True)


def in_parallel(workers: list[Worker], jobs: Iterable[Any], work: Callable[[Worker, Any], None]) -> None:
    """Let every worker take one job after the other; the first error is raised."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    errors: list[BaseException] = []

    def go(worker: Worker) -> None:
        while not errors:
            try:
                work(worker, waiting.get_nowait())
            except queue.Empty:
                return
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=go, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def digest(*texts: str) -> str:
    """A short name for texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


class Lines:
    """Which tests run a line, how long they take, and which of them may be believed.

    Args:
        sources: path → code of the package; what was traced with other code is traced again.
        only: folders of tests; all where empty.
    """

    def __init__(self, sources: dict[str, str], only: tuple[str, ...]) -> None:
        shared = "".join(
            path.read_text() for path in sorted((ROOT / "tests").glob("*.py")) if "test_" not in path.name
        )
        package = digest(*sources, *sources.values(), shared)
        self._sources, self._files = sources, {}
        for path in sorted((ROOT / "tests").rglob("test_*.py")):
            name = path.relative_to(ROOT / "tests").as_posix()
            if not name.startswith(LEFT_OUT) and (
                not only or name.startswith(tuple(f"{each}/" for each in only))
            ):
                self._files[f"tests/{name}"] = (
                    KEPT / "lines" / f"{digest(name, package, path.read_text())}.json"
                )
        self.tests: dict[str, dict[str, Any]] = {}
        self.believed: set[str] = set()

    def trace(self, workers: list[Worker]) -> set[str]:
        """Run what was not run before; returns the modules of others that the tests import."""
        (KEPT / "lines").mkdir(parents=True, exist_ok=True)

        def work(worker: Worker, name: str) -> None:
            found = worker.run([name], limit=1200, trace=True)
            if found["outcome"] == "timeout":  # not kept: the next call tries again
                say(f"{name}: not used, no end in {found['seconds']:.0f} s")
                return
            self._files[name].write_text(json.dumps(found))
            failed = [test for test, seen in found["tests"].items() if not seen["passed"]]
            say(
                f"{name}: {len(found['tests'])} tests in {found['seconds']:.0f} s"
                + f", not used: {failed}" * bool(failed)
            )

        todo = [name for name, path in self._files.items() if not path.exists()]
        todo.sort(key=lambda name: not name.startswith(tuple(f"tests/{each}/" for each in FIRST)))
        in_parallel(workers, todo, work)
        modules: set[str] = set()
        for path in filter(Path.exists, self._files.values()):
            found = json.loads(path.read_text())
            modules.update(found.get("modules", ()))
            self.tests |= {test: seen for test, seen in found["tests"].items() if seen["passed"]}
        return {
            name
            for name in modules
            if not name.startswith(("rlhflab", "tests", "test_", "coverage", "conftest"))
        }

    def of(self, mutant: Mutant) -> list[str]:
        """The tests for a fault, in the order in which they are to run.

        Those that run a line of its statement. Of a constant, a default or a decorator, which are run by the import:
        those that run anything of its file, or of a file that imports it, first those that run the function it is of.
        """
        paths, lines = {mutant.path}, set(range(mutant.first, mutant.last + 1))
        package, _, module = mutant.path.removesuffix(".py").rpartition("/")
        dotted = package.replace("/", ".")
        if mutant.at_import:
            names = f"from {dotted}.{module} import", f"from {dotted} import {module}"
            paths |= {path for path, code in self._sources.items() if any(name in code for name in names)}
        own = f"{package.replace('rlhflab', 'tests', 1)}/test_{module}.py::"
        chosen, in_file = [], Counter[str]()
        for test, seen in sorted(self.tests.items(), key=lambda each: each[1]["seconds"]):
            ran = seen.get("lines", {})
            runs_it = not lines.isdisjoint(ran.get(mutant.path, ()))
            if runs_it or (mutant.at_import and any(ran.get(path) for path in paths)):
                file = test.split("::")[0]
                turn = 0 if runs_it else in_file[file]  # so that every file gets its turn
                in_file[file] += 1
                chosen.append((not runs_it, not test.startswith(own), turn, seen["seconds"], test))
        spent, kept = 0.0, []
        for *_, seconds, test in sorted(chosen):
            spent += seconds
            if kept and spent > AT_MOST:
                break
            kept.append(test)
        return kept

    def beside(self, tests: list[str]) -> list[str]:
        """The other tests of the same files, the quickest first: what a shared fixture ran is traced to one of them."""
        files = {test.split("::")[0] for test in tests}
        others = [test for test in self.tests if test.split("::")[0] in files and test not in tests]
        others.sort(key=lambda test: self.tests[test]["seconds"])
        spent, kept = 0.0, []
        for test in others:
            spent += self.tests[test]["seconds"]
            if spent > AT_MOST:
                break
            kept.append(test)
        return kept

    def limit(self, tests: list[str]) -> float:
        """Seconds after which tests count as stuck."""
        return 30 + 5 * sum(self.tests[test]["seconds"] for test in tests)


def try_out(mutant: Mutant, worker: Worker, lines: Lines) -> dict[str, Any]:
    """Run the tests of a fault, and where all of them pass the others of their files."""
    first = lines.of(mutant)
    found = _try_on(mutant, worker, lines, lambda: lines.of(mutant))
    if found["outcome"] == "survived" and first:
        wide = _try_on(mutant, worker, lines, lambda: lines.beside(first))
        found = {
            **wide,
            "tests": found["tests"] + wide["tests"],
            "seconds": round(found["seconds"] + wide["seconds"], 1),
        }
    return found


def _try_on(mutant: Mutant, worker: Worker, lines: Lines, choose: Callable[[], list[str]]) -> dict[str, Any]:
    """Run tests on a fault; what fails must pass without the fault, or it is left out from then on."""
    path = worker.tree / mutant.path
    whole = path.read_text()
    while tests := choose():
        path.write_text(mutant.code)
        try:
            found = worker.run(tests, lines.limit(tests))
        finally:
            path.write_text(whole)
        by = [test for test, seen in found["tests"].items() if not seen["passed"]]
        if found["outcome"] == "failed" and by and by[0] not in lines.believed:
            if worker.run(by[:1], lines.limit(by[:1]))["outcome"] != "passed":
                say(f"not used: {by[0]}")
                lines.tests.pop(by[0], None)
                continue
            lines.believed.add(by[0])
        outcome = "survived" if found["outcome"] == "passed" else "caught"
        killer = "" if outcome == "survived" else by[0] if by else found["outcome"]
        seconds = round(found["seconds"], 1)
        return {
            "name": mutant.name,
            "outcome": outcome,
            "by": killer,
            "tests": len(tests),
            "seconds": seconds,
        }
    return {"name": mutant.name, "outcome": "survived", "by": "", "tests": 0, "seconds": 0.0}


def folder(path: str) -> str:
    """objectives, models, …; "rlhflab" for its own files."""
    parts = path.split("/")
    return parts[1] if len(parts) > 2 else parts[0]


def report(chosen: list[Mutant], results: dict[str, dict[str, Any]]) -> bool:
    """Print the score of each folder and what survived; whether all is well."""
    reasons = json.loads(REASONS.read_text())
    tried = [mutant for mutant in chosen if mutant.name in results]
    caught = [mutant for mutant in tried if results[mutant.name]["outcome"] == "caught"]
    missed = [mutant for mutant in tried if results[mutant.name]["outcome"] != "caught"]
    say(f"\n{len(caught)} of {len(tried)} faults caught ({len(chosen)} in the sample)")
    everywhere, fine = (Counter(folder(mutant.path) for mutant in part) for part in (tried, caught))
    well = len(tried) == len(chosen)
    for wanted, names in (
        (0.9, [n for n in everywhere if n in FIRST]),
        (0.8, [n for n in everywhere if n not in FIRST]),
    ):
        total, good = (sum(counts[name] for name in names) for counts in (everywhere, fine))
        for name in sorted(names):
            say(f"  {name:<12}{fine[name]:>4} of {everywhere[name]}")
        if total:
            say(f"  together    {good:>4} of {total}: {good / total:.0%}, wanted {wanted:.0%}")
            well = well and good >= wanted * total
    for mutant in sorted(missed):
        seen = results[mutant.name]
        reason = reasons.get(mutant.name, "NO REASON GIVEN")
        well = well and mutant.name in reasons
        say(
            f"{mutant.path}:{mutant.first}, {seen['tests']} tests: {reason}\n  - {mutant.before}\n  + {mutant.after}"
        )
    return well


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser()
    for name, default in (("sample", 400), ("seed", 0), ("minutes", 90), ("jobs", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", default="", help="folders of the package and of the tests")
    parser.add_argument("--report", action="store_true", help="run nothing")
    given, begun = parser.parse_args(), time.monotonic()
    only = tuple(filter(None, given.only.split(",")))
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for path in sorted((ROOT / "rlhflab").rglob("*.py"))
    }
    chosen = list(sample(sources, given.sample, given.seed))
    chosen = [mutant for mutant in chosen if not only or folder(mutant.path) in only]
    lines, kept = Lines(sources, only), KEPT / "results.jsonl"
    results, reasons = {}, json.loads(REASONS.read_text())
    if kept.exists():
        for line in kept.read_text().splitlines():
            results[json.loads(line)["name"]] = json.loads(line)
    chosen.sort(key=lambda mutant: (mutant.name in results, folder(mutant.path) not in FIRST))
    if given.report:
        sys.exit(not report(chosen, results))
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        trees = [Path(place, str(number), "rlhflab") for number in range(given.jobs)]
        for tree in trees:
            tree.mkdir(parents=True)
            copy_tree(tree)
        workers = [Worker(tree, ()) for tree in trees]
        warm = lines.trace(workers)
        for worker in workers:
            worker.close()
        say(f"{len(lines.tests)} tests traced after {(time.monotonic() - begun) / 60:.0f} minutes")
        workers = [Worker(tree, warm) for tree in trees]
        writing = threading.Lock()

        def work(worker: Worker, mutant: Mutant) -> None:
            own = lines.of(mutant)
            basis = digest(
                mutant.code, *(f"{test} {lines.tests[test]}" for test in (*own, *lines.beside(own)))
            )
            before = results.get(mutant.name)
            late = time.monotonic() - begun > 60 * given.minutes
            known = before and (
                before["outcome"] == "caught" or before["basis"] == basis or mutant.name in reasons
            )
            if late or known:
                return
            found = try_out(mutant, worker, lines) | {"basis": basis}
            with writing, kept.open("a") as file:
                results[mutant.name] = found
                file.write(json.dumps(found) + "\n")
            say(
                f"{found['outcome']} in {found['seconds']} s by {found['by'] or found['tests']}: {mutant.name}"
            )

        in_parallel(workers, chosen, work)
        for worker in workers:
            worker.close()
    say(f"{(time.monotonic() - begun) / 60:.0f} minutes")
    sys.exit(not report(chosen, results))


if __name__ == "__main__":
    main()
