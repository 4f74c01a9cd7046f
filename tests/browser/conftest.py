"""A real JupyterLab and a real Chromium, for tests that need both.

Without Chromium these tests are skipped; with RLHFLAB_REQUIRE_BROWSER=1 they fail instead, so that CI cannot skip them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.jupyter import FLAGS, Lab, find_chromium, lab_server, open_page

NOT_OURS = (  # what the servers' own pages say, with an empty notebook too
    "favicon",
    "Cannot read properties of undefined (reading 'schema')",  # Notebook 7.6: shortcuts of plugins not loaded
    "Command 'filebrowser:open-path' not registered",  # Notebook 7.6: asked for before its plugin is there
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, headless."""
    path = find_chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if path is None or sync_playwright is None:
        missing = "Chromium (apt install chromium)" if path is None else "playwright (pip install playwright)"
        if os.environ.get("RLHFLAB_REQUIRE_BROWSER") == "1":
            pytest.fail(f"browser tests are required here and need {missing}")
        pytest.skip(f"browser tests need {missing}")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture(scope="session")
def lab_address(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """One JupyterLab server for all browser tests: its address and folder."""
    folder = tmp_path_factory.mktemp("lab")
    with lab_server(folder) as url:
        yield url, folder


@pytest.fixture
def lab(browser: Any, lab_address: tuple[str, Path]) -> Iterator[Lab]:
    """A fresh page on the server; its kernel, which may still be training, ends with it."""
    page, errors = open_page(browser)
    url, folder = lab_address
    lab = Lab(url, folder, page, errors)
    yield lab
    page.context.close()
    lab.end_kernels()


@pytest.fixture
def steady(lab: Lab) -> Iterator[Lab]:
    """A page that must end without a console error."""
    yield lab
    assert [error for error in lab.errors if not any(known in error for known in NOT_OURS)] == []
