"""The report: every part that the records can fill, no other, and no text taken for HTML."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from rlhflab.core.record import Record, Sample
from rlhflab.plots.panel import COLOURS
from rlhflab.plots.panels import PANELS
from rlhflab.runs.report import TOP_PAIRS, tables, write_report
from rlhflab.runs.store import Run
from tests.real_records import real_run
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


def titles_of(page):
    return re.findall(r"<h2>([^<]*)</h2>", page)


def test_a_report_shows_the_panels_of_its_algorithm_and_all_else_that_was_recorded(run):
    for record in Toy():
        run.append(record)
    page = write_report(run).read_text(encoding="utf-8")
    main, rest = page.split("<h2>Also recorded</h2>")
    assert titles_of(main) == [
        "True reward", "KL from the reference", "Implicit rewards", "Gradient weights now",
        "Gradient weights over time", "Reward against KL", "Loss and regret", "Efficiency",
        "Pairs that pull hardest", "Answers before and after",
    ]  # fmt: skip
    assert titles_of(rest) == ["Frontier reward", "Objective", "Optimum", "Ref reward", "Grad norm"]
    assert "The last evaluation, of step 10: exact." in page
    assert "<dt>π<sub>θ</sub></dt><dd>the policy being trained</dd>" in page
    assert COLOURS["chosen"][0] in main and "Step 10. Every pair starts" in main


@pytest.mark.parametrize("name", ["reward", "trpo", "sft", "ppo-control"])
def test_real_records_of_every_kind_fill_a_report(name, tmp_path):
    records, backdrop = real_run(name)
    run = Run.create(tmp_path / "run", {"algorithm": name.removesuffix("-control")}, backdrop)
    for record in records:
        run.append(record)
    titles = titles_of(write_report(run).read_text(encoding="utf-8"))
    assert [panel.title for panel in PANELS[name]] == titles[: len(PANELS[name])]


def test_a_run_of_an_algorithm_that_nobody_knows_is_shown_by_its_own_scalars(tmp_path):
    run = Run.create(tmp_path / "run", {"algorithm": "mine"})
    estimated = {"kl_rb": 0.5, "kl_rb_se": 0.25, "reward": 1.0, "reward_se": 0.1}
    for step in (1, 2):
        run.append(Record(step, {"my/<thing>": 1.0, "my/other": 2.0}, {}, estimated=estimated))
    page = write_report(run).read_text(encoding="utf-8")
    assert titles_of(page) == ["Reward against KL", "KL", "Reward", "My"]
    assert "my/&lt;thing&gt; of the records" in page and "<thing>" not in page
    assert "<b>0.500 ± 0.250</b><span>kl</span>" in page and "estimated from samples" in page


def test_a_runs_figures_are_saved_by_their_panels_ids(run, tmp_path):
    for record in Toy():
        run.append(record)
    drawn = run.save_figure(tmp_path / "some.svg", ["plane", "general-grad_norm"]).read_text("utf-8")
    assert "Reward against KL" in drawn and "Grad norm" in drawn and "Implicit" not in drawn
    assert "Implicit" in run.save_figure(tmp_path / "all.svg").read_text("utf-8")


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
