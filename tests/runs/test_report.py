"""The report: every part that the records can fill, no other, and no text taken for HTML."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from rlhflab.core.record import Sample
from rlhflab.runs.report import TOP_PAIRS, tables, write_report
from rlhflab.runs.store import Run
from tests.toy import BACKDROP, Toy

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)></td>&amp;"


class Reader(HTMLParser):
    """Collects the tags of a page and the text of its tables."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.cells, self.sources = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "td":
            self.cells[-1] += data


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", {"algorithm": "dpo", "world": EVIL}, BACKDROP)


def test_the_page_needs_no_network_and_takes_no_text_for_html(run):
    for record in Toy():
        texts = tuple(EVIL + str(i) for i in record.pairs.ids)
        pairs = replace(record.pairs, prompts=texts, chosen=texts, rejected=texts)
        run.append(replace(record, pairs=pairs, samples=(Sample(EVIL, EVIL, EVIL, 1.0, 2.0),)))
    page = write_report(run).read_text(encoding="utf-8")
    reader = Reader(page)
    assert "img" not in reader.tags
    assert reader.sources == []
    assert reader.tags.count("script") == page.count("<script") == page.count("</script>")
    assert "alert('x')" not in page
    assert [cell.strip() for cell in reader.cells].count(EVIL) == 3 + 1  # a sample's three, the configuration
    assert page.count("plotly.js v") == 1  # embedded once


def test_pairs_are_sorted_by_weight_and_mislabelled_ones_marked(run):
    for record in Toy(steps=40):
        run.append(record)
    page = write_report(run).read_text(encoding="utf-8")
    table = page[page.index("Pairs that pull hardest") :].split("</section>")[0]
    weights = [float(row) for row in re.findall(r"<tr[^>]*><td class='n'>([\d.]+)</td>", table)]
    assert len(weights) == TOP_PAIRS
    assert weights == sorted(weights, reverse=True)
    for row in re.findall(r"<tr.*?</tr>", table)[1:]:
        pair = int(re.search(r"bad (\d+)", row).group(1))
        assert ("mislabelled" in row) == bool(pair % 2)


def test_a_run_without_records_is_refused(run):
    with pytest.raises(ValueError, match="has no records yet"):
        write_report(run)


def test_the_report_goes_where_it_is_asked_to(run, tmp_path):
    run.append(next(Toy()))
    assert write_report(run) == run.folder / "report.html"
    assert write_report(run, tmp_path / "other.html") == tmp_path / "other.html"
    assert (tmp_path / "other.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_notebook_gets_the_answers_or_else_the_pairs():
    records = [replace(r, pairs=replace(r.pairs, prompts=(EVIL,) * 3), samples=()) for r in Toy()]
    pairs = Reader(tables(records, most=2))
    assert pairs.tags.count("tr") == 3 and "img" not in pairs.tags and "script" not in pairs.tags
    assert EVIL in "".join(pairs.cells)
    drawn = [replace(records[0], samples=(Sample("a prompt", "before", EVIL),)), *records[1:]]
    answers = Reader(tables(drawn))
    assert answers.cells == ["a prompt", "before", EVIL] and "img" not in answers.tags
    assert "no texts" in tables([replace(records[0], pairs=None, samples=())])
