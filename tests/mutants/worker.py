"""A warm process that runs tests: what is not ours is imported once, and each run is a fork of it.

    python -m tests.mutants.worker        in a copy of the tree

The first line on stdin is a JSON list of the modules to import; each further one is a job, whose answer is a line on
stdout.

A job has `tests` (files or node ids, in order), `limit` in seconds, and `trace`: whether to tell which lines of the
package each test runs; without it the run stops at the first failure. The answer has `outcome` ("passed", "failed" or
"timeout"), `seconds`, and `found`: of each test what is in `Watch.tests`.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

WARM = ("torch", "numpy", "transformers", "hypothesis", "plotly.graph_objects", "ipywidgets")
OURS = ("rlhflab", "tests", "coverage", "__main__")


class Watch:
    """A pytest plugin: how long each test took, whether it passed, and the lines it ran.

    Attributes:
        tests: node id → {"seconds", "passed", "lines": path → line numbers, where traced}.
        broken: files that could not be collected.
    """

    def __init__(self, tracer: Any) -> None:
        self.tests: dict[str, dict[str, Any]] = {}
        self.broken: list[str] = []
        self._tracer = tracer

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        if self._tracer is not None:
            self._tracer.switch_context(item.nodeid)
        begun, here = time.monotonic(), self.tests.setdefault(item.nodeid, {"passed": True})
        try:
            return (yield)
        finally:
            here["seconds"] = round(time.monotonic() - begun, 3)
            if self._tracer is not None:
                self._tracer.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed or report.skipped:
            self.tests[report.nodeid]["passed"] = False

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken.append(report.nodeid)


def run(job: dict[str, Any], answer: Path) -> None:
    """In the fork: run the tests and write what was found."""
    from hypothesis import settings

    settings.register_profile("mutants", deadline=None, derandomize=True)
    settings.load_profile("mutants")
    tracer = None
    if job["trace"]:
        import coverage

        tracer = coverage.Coverage(source=["rlhflab"], data_file=None, config_file=False)
        tracer.start()
    watch = Watch(tracer)
    stop = [] if job["trace"] else ["-x"]
    code = pytest.main([*stop, "-q", "-p", "no:cacheprovider", "--tb=no", *job["tests"]], [watch])
    found: dict[str, Any] = {"tests": watch.tests, "modules": sorted(sys.modules)}
    if tracer is not None:
        tracer.stop()
        data = tracer.get_data()
        for path in data.measured_files():
            short = Path(path).relative_to(Path.cwd()).as_posix()
            for line, tests in data.contexts_by_lineno(path).items():
                for test in filter(None, tests):
                    watch.tests[test].setdefault("lines", {}).setdefault(short, []).append(line)
    failed = watch.broken or code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    found["outcome"] = "failed" if failed else "passed"
    answer.write_text(json.dumps(found))


def serve() -> None:
    """Answer jobs until stdin ends."""
    for name in (*WARM, *json.loads(sys.stdin.readline())):
        if not name.startswith(OURS):
            with suppress(Exception):
                importlib.import_module(name)
    answers, silent = os.fdopen(os.dup(1), "w"), os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1), os.dup2(silent, 2)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        job, begun = json.loads(line), time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "answer")
            child = os.fork()
            if child == 0:
                os.setsid()
                try:
                    run(job, path)
                finally:
                    os._exit(0)
            ended = False
            try:
                while not ended and time.monotonic() - begun < job["limit"]:
                    ended = os.waitpid(child, os.WNOHANG) != (0, 0)
                    time.sleep(0.02)
            finally:  # Ctrl-C too; with it go the processes that the tests have started
                with suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
            if not ended:
                os.waitpid(child, 0)
            crashed = "failed" if ended else "timeout"  # such as a process that killed itself
            found = json.loads(path.read_text()) if path.exists() else {"outcome": crashed, "tests": {}}
        print(json.dumps({**found, "seconds": time.monotonic() - begun}), file=answers, flush=True)


if __name__ == "__main__":
    serve()
