"""Base of all widgets: a page as a single module, and messages that are answered even while a cell runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import anywidget

_IMPORT = re.compile(
    r"""^import (?:\{ (?P<names>\w+(?:, \w+)*) \} from "(?P<script>\.[^"]+\.js)"|"""
    r"""(?P<text>\w+) from "(?P<sheet>\.[^"]+\.css)" with \{ type: "text" \});\n""",
    re.MULTILINE,
)


def page_module(entry: Path) -> str:
    """Return a page's script and all that it imports as one JavaScript module: a widget's `_esm`.

    A widget's page is one text, and must not need the network in JupyterLab, Notebook, VS Code or Colab. The scripts
    are ordinary modules, as editors, node and eslint know them, with imports of two kinds:

        import { make, mount } from "../../static/dom.js";
        import BOARD_CSS from "./board.css" with { type: "text" };

    Imported files are put before the script, each once, and the import is removed; a style sheet becomes a constant.
    Nothing else is changed, so a line looks the same in the browser as in the file. All files then share one scope: two
    files cannot use the same name at their top level (a SyntaxError, which the tests find), and an import cannot
    rename.

    Args:
        entry: the script that exports the widget, `export default { render }`.

    Raises:
        ValueError: an import of another kind, of a name that the file does not export, or in a cycle.
    """
    texts: dict[Path, str] = {}  # each file after what it imports

    def add(path: Path, importing: tuple[Path, ...]) -> None:
        def resolve(found: re.Match[str]) -> str:
            if sheet := found["sheet"]:
                return f"const {found['text']} = {json.dumps((path.parent / sheet).read_text(encoding='utf-8'))};\n"
            script = (path.parent / found["script"]).resolve()
            add(script, (*importing, path))
            for name in found["names"].split(", "):
                if not re.search(
                    rf"^export (?:async )?(?:function|class|const|let) {name}\b", texts[script], re.M
                ):
                    raise ValueError(f"{path.name} imports {name}, which {script.name} does not export")
            return ""

        if path in importing:
            raise ValueError(f"imports in a circle: {' → '.join(each.name for each in (*importing, path))}")
        if path in texts:
            return
        text = _IMPORT.sub(resolve, path.read_text(encoding="utf-8"))
        if other := re.search(r"^import\b.*", text, re.MULTILINE):
            raise ValueError(f"{path.name}: not an import that page_module takes: {other[0]}")
        texts[path] = f"// ==== {path.name}\n{text}"

    add(entry.resolve(), ())
    return "\n".join(texts.values())


class PageWidget(anywidget.AnyWidget):
    """An anywidget whose messages stay in the subshell that JupyterLab chose for them.

    ipykernel 7.4 routes the page's messages to the shell that last wrote on the comm instead. For a widget written to
    by a thread, that is the shell of some earlier request: a running cell (sliders then act only after it) or a
    subshell that was deleted when the page was reopened (then nothing acts).
    """

    def open(self) -> None:
        """Open the comm to the page."""
        super().open()
        if self.comm is not None:
            self.comm._reply_subshell_for = None  # ipykernel reads this attribute, and accepts None
