"""The report in a real browser: no table makes the page wider than the window, and none is cut off without a way to see the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.framework.options import Options, Scale
from benchmarks.framework.record import run_benchmark
from benchmarks.framework.result import Column, Table, Unit
from espalier.bench.report import make_report
from tests.espalier.bench.test_bench import TIMING, TOY
from tests.serving.page.browsers import chromium

pytestmark = pytest.mark.slow
COLUMNS = (Column("c0", "variant"), *(Column(f"c{place}", "a column of times", Unit.ms) for place in range(1, 18)))
TIMES = Table("Times", COLUMNS, ({column.key: TIMING for column in COLUMNS[1:]} | {"c0": "a variant"},), "")
WORDS = Table("Words", (Column("w", "what"), Column("y", "why")), ({"w": "x", "y": "a sentence that goes on " * 12},), "")


def test_wide_tables_scroll_and_long_words_have_lines(tmp_path: Path) -> None:
    record = run_benchmark(TOY, Options(tmp_path, Scale.quick, threads=1))
    page_file = tmp_path / "report.html"
    page_file.write_text(make_report([replace(record, result=replace(record.result, tables=(TIMES, WORDS)))], {}))
    with chromium() as browser:
        for width in (400, 1200):
            page = browser.new_page(viewport={"width": width, "height": 700})
            page.goto(page_file.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") == width
            sizes = page.eval_on_selector_all(".wide", "all => all.map((one) => [one.scrollWidth, one.clientWidth])")
            (times, room), (words, all_of_it) = sizes
            assert times > room  # and scrolls
            assert page.evaluate("getComputedStyle(document.querySelector('.wide')).overflowX") == "auto"
            assert words == all_of_it
