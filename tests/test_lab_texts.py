"""Every lab opens as the others do, and explains its words: the standard that CONTRIBUTING.md sets for a lab."""

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "labs"
LABS = sorted(FOLDER.glob("[0-9]*.ipynb"))
BY_LAB = pytest.mark.parametrize("path", LABS, ids=lambda path: path.stem)
GLOSSARY = FOLDER / "glossary.ipynb"
# What is not prose: formulas, code, links, headings, tags, solutions, and words that stand out.
APART = re.compile(
    r"(\$\$.*?\$\$|\$[^$\n]*\$|```.*?```|`[^`\n]*`|\[[^\]]*\]\([^)]*\)|^#[^\n]*$|<details>.*?</details>|<[^>\n]+>"
    r"|\*\*[^*\n]+\*\*|(?<!\*)\*(?!\s)[^*\n]+\*)",
    re.S | re.M,
)
# Words of the glossary that every lab uses freely: lab 00 explains them, or the lab that is named for them.
COMMON = {
    "action",
    "behaviour policy",
    "best-of-n",
    "β",
    "clip",
    "DPO",
    "<eos>",
    "KL",
    "optimum",
    "pair",
    "policy",
}
COMMON |= {"PPO", "Q", "reference", "REINFORCE", "return", "score", "SFT", "state", "trajectory", "TRPO"}


def prose(path):
    """The texts of a notebook's Markdown cells, in order."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


def entries():
    """The glossary: word → its explanation."""
    parts = re.split(r"(?m)^#### (.*)\n", "\n\n".join(prose(GLOSSARY)))
    return {
        word.replace("&lt;", "<").replace("&gt;", ">"): text
        for word, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def anchor(word):
    return word.replace(" ", "-")


@BY_LAB
def test_a_lab_says_what_for_from_what_and_how_long(path):
    texts = prose(path)
    about, rest = texts[1], "\n\n".join(texts[2:])
    begin, *points = about.split("\n\n**You need** ")[0].split("\n- ")
    assert begin.strip() == "**After this lab you can**" and 2 <= len(points) <= 5
    total, listed = re.fullmatch(
        r".+?\.\n\n\*\*Time\*\*: about (\d+) minutes to work through, [a-z0-9 ]+ to run\. (.*)\.",
        about.split("**You need** ")[1], re.S,
    ).groups()  # fmt: skip
    sections = re.findall(r"(.+?) \((\d+)\)(?: · |$)", listed)
    headings = [line.removeprefix("## ") for line in rest.splitlines() if line.startswith("## ")]
    assert [name for name, _ in sections] == headings
    assert sum(int(minutes) for _, minutes in sections) == int(total)


@BY_LAB
def test_a_word_is_explained_or_linked_where_a_lab_first_uses_it(path):
    (title, _, *others), missing = prose(path), []  # the second cell says what is to be learnt
    for word in set(entries()) - COMMON:
        said = re.compile(rf"(?<![\w-]){re.escape(word)}s?(?![\w-])", re.I)
        first = next(
            (part for text in (title, *others) for part in APART.split(text) if said.search(seen(part))), ""
        )
        if first and not first.startswith(("**", "[")):
            missing.append(word)
    assert not missing


def seen(part):
    """A part of a text in which a word counts: not code, formulas, headings or titles in italics."""
    return "" if APART.fullmatch(part) and not part.startswith(("**", "[")) else part


def test_the_glossary_is_in_order_and_its_links_lead_somewhere():
    words = list(entries())
    assert len(words) > 50 and words == sorted(
        words, key=lambda word: word.lower().strip("<").replace("β", "beta")
    )
    for word, text in entries().items():
        lab, _, section = re.search(r"\*\(\[lab \d\d\]\((\w+)\.ipynb\)(, section (\d+))?\)\*", text).groups()
        there = "\n" + "\n".join(prose(FOLDER / f"{lab}.ipynb"))
        if section:
            there = there.partition(f"\n## {section}. ")[2].partition("\n## ")[0]
        assert re.search(rf"(?<![\w-]){re.escape(word)}", there.replace("**", ""), re.I), word


@pytest.mark.parametrize("path", [*LABS, GLOSSARY], ids=lambda path: path.stem)
def test_links_between_notebooks_lead_somewhere(path):
    anchors = set(map(anchor, entries()))
    for name, fragment in re.findall(r"\]\((\w+\.ipynb)(?:#([^)]*))?\)", "\n".join(prose(path))):
        assert (FOLDER / name).exists()
        assert not fragment or (name == GLOSSARY.name and fragment in anchors)


def test_lab_00_has_a_map_of_all_labs():
    text = "\n".join(prose(LABS[0]))
    assert not [path.stem for path in [*LABS[1:], GLOSSARY] if f"]({path.name})" not in text]
