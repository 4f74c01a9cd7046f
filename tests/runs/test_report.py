"""The report: every part that the records can fill, no other, and no text taken for HTML."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from rlhflab.algorithms.record import Record, Sample
from rlhflab.runs.report import POINTS, TOP_PAIRS, figures, write_report
from rlhflab.runs.store import Run
from tests.toy import BACKDROP, Toy

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)></td>&amp;"
ALL = [
    "True reward", "KL from the reference", "Reward against KL", "Efficiency", "Regret", "Implicit rewards",
    "Margins and accuracy", "Loss", "Gradient weights, last batch", "Gradient weights over time",
]  # fmt: skip


def dpo_records(steps=10):
    for record in Toy(steps=steps):
        extra = {
            "rewards/chosen_std": 0.5,
            "rewards/rejected_std": 0.5,
            "rewards/margins": 0.1,
            "rewards/accuracies": 0.6,
        }
        yield replace(record, scalars={**record.scalars, **extra})


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


def test_all_plots_of_a_full_run():
    assert [plot.title for plot in figures(list(dpo_records()), BACKDROP)] == ALL


def test_missing_parts_are_left_out():
    assert figures([]) == []
    assert [plot.title for plot in figures([Record(1, {"loss": 0.5}, {})])] == ["Loss"]
    assert figures([Record(1, {"loss": math.nan}, {})]) == []
    titles = [plot.title for plot in figures([replace(record, exact=None) for record in dpo_records()])]
    assert titles == ALL[5:]


def test_curves_hold_the_records_numbers():
    records = list(dpo_records())
    plots = {plot.title: plot.figure for plot in figures(records, BACKDROP)}
    loss = plots["Loss"].data[0]
    assert list(loss.x) == [record.step for record in records]
    assert list(loss.y) == [record.scalars["loss"] for record in records]
    reward = plots["True reward"].data[0]
    assert list(zip(reward.x, reward.y, strict=True)) == [
        (r.step, r.exact["reward"]) for r in records if r.exact
    ]


def test_the_optimum_follows_the_beta_in_force():
    records = [replace(r, knobs={"beta": 1.0 if r.step <= 4 else 0.1}) for r in dpo_records()]
    (kl,) = (plot.figure for plot in figures(records, BACKDROP) if plot.title == "KL from the reference")
    optimum = kl.data[1]
    assert optimum.name == "optimum at this β"
    assert list(zip(optimum.x, optimum.y, strict=True)) == [(1, 1.0), (4, 1.0), (5, 4.0), (10, 4.0)]


def test_long_curves_are_thinned_and_keep_their_extremes():
    records = [Record(step, {"loss": 0.5}, {}) for step in range(1, 20_001)]
    records[12_345] = Record(12_346, {"loss": 9.0}, {})
    (plot,) = figures(records)
    assert len(plot.figure.data[0].x) <= POINTS
    assert (12_346, 9.0) in zip(plot.figure.data[0].x, plot.figure.data[0].y, strict=True)


def test_the_page_needs_no_network_and_takes_no_text_for_html(run):
    for record in dpo_records():
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


def test_figure_text_cannot_end_its_script(run):
    import plotly.graph_objects as go

    html = go.Figure(go.Scatter(x=[1], y=[1], text=[EVIL])).to_html(full_html=False, include_plotlyjs=False)
    assert "alert('x')</script>" not in html
    assert html.count("</script>") == html.count("<script")


def test_pairs_are_sorted_by_weight_and_mislabelled_ones_marked(run):
    for record in dpo_records(steps=40):
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
