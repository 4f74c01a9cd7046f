"""A real JupyterLab server and pages on it, for the browser tests, the benchmarks and the README's screenshot.

The same server gives Notebook 7 at /notebooks/NAME.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def find_chromium() -> str | None:
    """Return Debian's Chromium, or whichever is on the path."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for path in map(shutil.which, names) if path), None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def lab_server(folder: Path, **environment: str) -> Iterator[str]:
    """Run JupyterLab in `folder`; yields its address and ends it, kernels included."""
    settings = folder / ".jupyter-home" / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True, exist_ok=True)
    quiet = '{"fetchNews": "false", "checkForUpdates": false}'
    (settings / "notification.jupyterlab-settings").write_text(quiet, encoding="utf-8")
    options = {
        "ServerApp.token": "",
        "ServerApp.password": "",
        "ServerApp.disable_check_xsrf": "True",
        "ServerApp.root_dir": str(folder),
        "LabApp.expose_app_in_browser": "True",
        "JupyterNotebookApp.expose_app_in_browser": "True",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]
    with serve(command, folder, PYTHONPATH=str(ROOT), **environment) as url:
        yield url


@contextlib.contextmanager
def serve(command: list[str], folder: Path, **environment: str) -> Iterator[str]:
    """Run a Jupyter server in `folder` with settings of its own; yields its address and ends it, kernels included."""
    port = free_port()
    log = (folder / ".server.log").open("w")
    home = folder / ".jupyter-home"
    variables = {
        "JUPYTER_CONFIG_DIR": str(home),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [*command, "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"],
        cwd=folder,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **variables, **environment},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            if process.poll() is not None:
                raise RuntimeError((folder / ".server.log").read_text()[-2000:])
            with contextlib.suppress(OSError):
                urllib.request.urlopen(url + "/api", timeout=2).read()
                break
            time.sleep(0.25)
        yield url
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        log.close()


def notebook(*cells: str) -> dict[str, Any]:
    """Return a notebook of code cells, ready for json.dumps."""
    import nbformat.v4 as v4

    return dict(
        v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells], metadata={"kernelspec": KERNEL})
    )


KERNEL_READY = """() => {
  const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
  const kernel = context?.session?.kernel;
  return Boolean(context?.isReady && kernel?.connectionStatus === "connected" && kernel.status === "idle");
}"""
RUN_IN_KERNEL = """async (code) => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const future = kernel.requestExecute({ code, silent: false, store_history: false });
  let text = "";
  future.onIOPub = (message) => {
    if (message.header.msg_type === "stream") text += message.content.text;
    if (message.header.msg_type === "error") text += message.content.traceback.join("\\n");
  };
  await future.done;
  return text;
}"""
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


@dataclass
class Lab:
    """A page on a JupyterLab server.

    Attributes:
        url: the server's address.
        folder: its root.
        page: playwright's page.
        errors: console errors and uncaught exceptions so far.
    """

    url: str
    folder: Path
    page: Any
    errors: list[str] = field(default_factory=list)

    def write(self, name: str, *cells: str) -> None:
        """Write a notebook of code cells into the server's folder."""
        (self.folder / name).write_text(json.dumps(notebook(*cells)), encoding="utf-8")

    def open(self, name: str, route: str = "lab/tree") -> None:
        """Open a notebook and wait for its kernel; the route "notebooks" opens it in Notebook 7."""
        self.page.goto(f"{self.url}/{route}/{name}?reset")
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
        self.poll(lambda: self.page.evaluate(KERNEL_READY), 60)

    def run_all(self) -> None:
        """Run all cells, top to bottom; does not wait for their end."""
        self.page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells'), null")

    def end_kernels(self) -> None:
        """Shut down every kernel of the server."""
        for kernel in json.loads(urllib.request.urlopen(self.url + "/api/kernels", timeout=20).read()):
            request = urllib.request.Request(f"{self.url}/api/kernels/{kernel['id']}", method="DELETE")
            urllib.request.urlopen(request, timeout=20).close()

    def in_kernel(self, expression: str) -> Any:
        """Return the value of a JSON-able expression in the notebook's kernel."""
        text = self.page.evaluate(RUN_IN_KERNEL, f"import json; print(json.dumps({expression}))")
        return json.loads(text.strip().splitlines()[-1])

    def board(self, title: str) -> Any:
        """Return the newest board of that title, as playwright's locator."""
        return self.page.locator(".rlhf", has=self.page.locator(f".rlhf-title:text-is('{title}')")).last

    def show_cell(self, text: str) -> None:
        """Scroll to the first cell with `text` in its source: a board out of sight is not drawn."""
        self.page.evaluate(
            """(text) => {
              const { content } = window.jupyterapp.shell.currentWidget;
              return content.scrollToItem(content.widgets.findIndex((c) => c.model.sharedModel.source.includes(text)));
            }""",
            text,
        )

    def drag(self, slider: Any, share: float) -> None:
        """Drag a slider's thumb with the mouse to a share of its width, 0 to 1."""
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        value = slider.evaluate("s => (s.value - s.min) / (s.max - s.min)")
        y = box["y"] + box["height"] / 2
        self.page.mouse.move(box["x"] + 8 + value * (box["width"] - 16), y)
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + share * box["width"], y, steps=8)
        self.page.mouse.up()

    def settled(self, expression: str, before: Any) -> Any:
        """Return the expression's value once it is not `before` and stays: a drag's values arrive one by one."""
        value = self.poll(lambda: (now := self.in_kernel(expression)) != before and [now], 60)[0]
        while True:
            self.page.wait_for_timeout(500)
            last, value = value, self.in_kernel(expression)
            if value == last:
                return value

    def poll(self, condition: Callable[[], Any], seconds: float = 30.0) -> Any:
        """Wait until `condition()` is true and return its value; plots appear late."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            self.page.wait_for_timeout(100)
        raise AssertionError(f"not within {seconds} s: {condition}")


def points(view: Any, panel: str) -> int:
    """Return how many points the longest curve of a board's panel has on the page."""
    found: int = view.locator(f"[data-panel='{panel}'] .rlhf-plot").evaluate(
        "plot => Math.max(0, ...(plot.data || []).map((trace) => (trace.x || []).length))"
    )
    return found


def open_page(browser: Any, width: int = 1400, height: int = 1000) -> tuple[Any, list[str]]:
    """Return a fresh page and the list into which its errors go."""
    page = browser.new_context(viewport={"width": width, "height": height}).new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    return page, errors
