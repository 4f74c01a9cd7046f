"""A page's scripts become one module: put together in order, refused in one line, and fit for a browser."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import rlhflab
from rlhflab.explore.beta import BetaExplorable
from rlhflab.live.page import BoardWidget
from rlhflab.widget import page_module
from tests.node import NODE, needs_node, run_module

PACKAGE = Path(rlhflab.__file__).parent
ENTRIES = sorted(
    path for path in PACKAGE.rglob("static/*.js") if "export default" in path.read_text(encoding="utf-8")
)


def module_of(folder: Path, **files: str) -> str:
    for name, text in files.items():
        (folder / f"{name}.js").write_text(text, encoding="utf-8")
    return page_module(folder / "page.js")


def test_what_a_script_imports_stands_before_it_once_and_a_style_sheet_is_a_constant(tmp_path: Path) -> None:
    (tmp_path / "looks.css").write_text('a { content: "\\2191"; }\n', encoding="utf-8")
    module = module_of(
        tmp_path,
        page='import { a, B } from "./left.js";\nimport { c } from "./right.js";\nexport default [a, B, c];\n',
        left='import { c } from "./right.js";\nexport function a() {}\nexport class B {}\nc();\n',
        right='import LOOKS from "./looks.css" with { type: "text" };\nexport const c = () => LOOKS;\n',
    )
    right, left, page = (
        module.index("==== right.js"),
        module.index("==== left.js"),
        module.index("==== page.js"),
    )
    assert right < left < page and module.count("====") == 3
    assert 'const LOOKS = "a { content: \\"\\\\2191\\"; }\\n";' in module and "import" not in module


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('import { b } from "./other.js";', "page.js imports b, which other.js does not export"),
        (
            'import { a as b } from "./other.js";',
            "page.js: not an import that page_module takes: import { a as b }",
        ),
        (
            'import "https://cdn.example/x.js";',
            'page.js: not an import that page_module takes: import "https',
        ),
        ('import { a } from "./circle.js";', "imports in a circle: page.js → circle.js → page.js"),
    ],
)
def test_other_imports_are_one_line(tmp_path: Path, text: str, says: str) -> None:
    circle = 'import { b } from "./page.js";\nexport const a = 1;\n'
    with pytest.raises(ValueError) as error:
        module_of(
            tmp_path, page=text + "\nexport const b = 1;\n", other="export const a = 1;\n", circle=circle
        )
    assert says in str(error.value) and "\n" not in str(error.value)


def test_board_and_explorables_are_built_from_the_same_toolkit() -> None:
    for widget in (BoardWidget, BetaExplorable):
        assert {"==== dom.js", "==== slider.js", "==== numbers.js"} <= {
            line.removeprefix("// ") for line in str(widget._esm).splitlines()
        }


@needs_node
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda path: path.stem)
def test_every_page_is_a_module_that_loads_by_itself(entry: Path, tmp_path: Path) -> None:
    module = tmp_path / "page.mjs"
    module.write_text(page_module(entry), encoding="utf-8")
    code = (
        'import page from "./page.mjs"; if (typeof page.render !== "function") throw new Error("no render");'
    )
    done = subprocess.run(
        [str(NODE), "--input-type=module", "-e", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


NUMBERS = """
const odd = [null, undefined, NaN, Infinity, -Infinity];
result = {
  short: [0, 0.3, 0.05, 2.5, 12, 1240, 1234567, -0.00012, 0.001, 10, 100].map(m.short), odd: odd.map(m.short),
  steady: [0, 0.69, 12, 1239.6, 5e-4, -0.5, 999].map((v) => m.steady(v)), rate: m.steady(38.2, 2),
  fixed: [m.fixed(0.5), m.fixed(-1.204, 2), m.fixed(1e6), m.fixed(Infinity)],
  signed: [0.001, -1.5, 2].map((v) => m.signed(v)), percent: [0.004, 0.5, 0.996, 1].map(m.percent),
  duration: [5.4, 125, 3720].map(m.duration), whole: m.whole(12345),
  log: [m.logTicks(0.05, 10), m.logTicks(0.01, 100)], pieces: m.pieces("log π_ref(s_{t+1}) γ^t grad_norm mean_t"),
  between: [-1, 0.5, 9].map((x) => m.between([0, 1, 2], [10, 20, 40], x)),
  counted: m.countIn([-1, 0, 0.4, 0.5, 1, 2, NaN], 0, 1, 2), spread: m.spreadOf([1, 2, 3]),
};
"""


@needs_node
def test_numbers_are_written_alike_everywhere(tmp_path: Path) -> None:
    page = run_module(BoardWidget, NUMBERS, None, tmp_path)
    assert page["short"] == [
        "0",
        "0.3",
        "0.05",
        "2.5",
        "12",
        "1,240",
        "1.2e6",
        "−1.2e−4",
        "0.001",
        "10",
        "100",
    ]
    assert page["odd"] == ["–", "–", "–", "∞", "−∞"]
    assert page["steady"] == ["0", "0.690", "12.0", "1,240", "5e−4", "−0.500", "999"] and page["rate"] == "38"
    assert page["fixed"] == ["0.500", "−1.20", "1e6", "∞"]
    assert page["signed"] == ["0.00", "−1.50", "+2.00"] and page["percent"] == [
        "0.4 %",
        "50 %",
        "99.6 %",
        "100 %",
    ]
    assert page["duration"] == ["5 s", "2 min 5 s", "1 h 2 min"] and page["whole"] == "12,345"
    assert page["log"] == [[0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10], [0.01, 0.1, 1, 10, 100]]
    assert [(part["text"], part["shift"]) for part in page["pieces"] if part["text"]] == [
        ("log π", 0), ("ref", 1), ("(s", 0), ("t+1", 1), (") γ", 0), ("t", -1), (" grad_norm mean", 0), ("t", 1),
    ]  # fmt: skip
    assert page["between"] == [10, 15, 40] and page["spread"] == 1
    assert page["counted"] == {"counts": [2, 2], "below": 1, "above": 2}
