"""What all widgets share: the page's messages are answered where the page sends them, also while a cell runs."""

from __future__ import annotations

import anywidget


class PageWidget(anywidget.AnyWidget):
    """An anywidget whose messages stay in the subshell that JupyterLab chose for them.

    ipykernel 7.4 sends what the page says to the shell that last wrote on the comm instead. For a widget written to
    by a thread that is the shell of any former request: a cell that runs (sliders then act only after it) or a
    subshell that was deleted when the page was opened again (then nothing acts).
    """

    def open(self) -> None:
        """Open the comm to the page."""
        super().open()
        if self.comm is not None:
            self.comm._reply_subshell_for = None  # ipykernel asks for this attribute, and takes None
