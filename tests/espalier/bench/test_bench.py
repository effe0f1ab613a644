from __future__ import annotations

import io
import re
import sys
import xml.etree.ElementTree as ElementTree
from contextlib import redirect_stdout
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.framework.benchmark import Benchmark
from benchmarks.framework.errors import BenchmarkError
from benchmarks.framework.options import Options, Scale
from benchmarks.framework.record import Record
from benchmarks.framework.result import Column, Plot, Result, Series, Style, Table, Unit
from benchmarks.harness.noise import RULE
from benchmarks.harness.timing import Timing
from benchmarks.registry import BENCHMARKS
from espalier.bench.files import REPORT, prepare, read_records
from espalier.bench.plots import render
from espalier.bench.report import make_report
from espalier.bench.run import run_all
from espalier.bench.tables import MISSING, cell_words, markdown
from tests.espalier.test_cli import espalier

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute

TIMING = Timing(12.34, 11.0, 15.0, 30)
TABLE = Table(
    "Times <of> a | b",
    (Column("who", "variant"), Column("time", "time", Unit.ms), Column("x", "speed-up", Unit.ratio), Column("empty", "none")),
    ({"who": "a|b & <c>", "time": TIMING, "x": 2.0}, {"who": "none", "time": None, "x": 1.0, "empty": ""}),
    "Median & quartiles.",
)
PLOT = Plot(
    "toy-plot",
    "A plot",
    "Of nothing.",
    "tasks",
    "ms",
    (
        Series.of_timings("shared", [1, 2], [TIMING, TIMING]),
        Series("separate", (1, 2), (1, 2)),
        Series("limit", (1, 2), (4, 4), style=Style.dashed),
        Series("meanwhile", (1, 2), (0, 0), style=Style.span),
        Series("requests", (1, 1.5, 2), (1, 3, 2), style=Style.points),
    ),
)


def run(options: Options) -> Result:
    """A benchmark: this module is one."""
    return Result("Twice as fast.", (TABLE, replace(TABLE, title="Another table")), (PLOT,), ("Random weights.", RULE))


def failing(name: str) -> Benchmark:
    return Benchmark(name, "Fails.", "tests.espalier.no_such_module")


TITLES = ["Times &lt;of&gt; a | b", "Another table"]
TOY = Benchmark("toy", "A toy.", __name__)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of two benchmarks, and what the terminal has shown."""
    folder, shown = tmp_path_factory.mktemp("bench"), io.StringIO()
    other = Benchmark("other", "A toy, too.", __name__)
    with redirect_stdout(shown):
        assert run_all([TOY, other], Options(folder, Scale.quick, threads=1), folder)
    return folder, shown.getvalue()


@pytest.fixture(scope="module")
def folder(ran: tuple[Path, str]) -> Path:
    return ran[0]


class Page(HTMLParser):
    """What stands in a page: its words, every id, and everything that it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words, self.ids, self.targets, self.open, self.tables = "", list[str](), list[str](), list[str](), 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tables += tag == "table"
        if tag not in ("meta", "br"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            elif name in ("href", "xlink:href", "src") and value:
                self.targets.append(value)
            elif value:
                self.targets += re.findall(r"url\(([^)]*)\)", value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_is_whole_and_needs_nothing_else(folder: Path) -> None:
    page = Page((folder / REPORT).read_text())
    assert page.open == []
    assert len(page.ids) == len(set(page.ids)) or _only_within_plots(page.ids)
    inner = [target for target in page.targets if target.startswith("#")]
    assert inner
    assert {target[1:] for target in inner} <= set(page.ids)
    assert all(target.startswith(("#", "data:")) for target in page.targets)
    assert page.words.count(RULE) == 1
    for words in (
        "Twice as fast.",
        "a|b & <c>",
        f"12.3 (11.0{MISSING}15.0)",
        "Random weights.",
        "Another table",
        "Not the full measurement (other, toy)",
        "A plot",
    ):
        assert words in page.words


def _only_within_plots(ids: list[str]) -> bool:
    """The two toys draw the same plot, whose name is in the ids; real benchmarks name theirs differently."""
    return {name for name in ids if ids.count(name) > 1} == {name for name in ids if name.startswith("toy-plot-")}


def test_wide_tables_scroll_by_keys_too_and_are_whole_on_paper(folder: Path) -> None:
    page = (folder / REPORT).read_text()
    tables = re.findall(r"(<div [^>]*>)?<table>", page)
    assert tables == ['<div class="wide" tabindex="0" role="region" aria-label="' + title + '">' for title in TITLES * 2]
    screen, paper = page.split("@media print")
    assert ".wide { overflow-x: auto;" in screen
    assert re.match(r"[^@]*?\.wide { overflow: visible;", paper)


def test_plots_follow_the_page_from_light_to_dark(folder: Path) -> None:
    text = (folder / REPORT).read_text()
    svg = text[text.index("<svg") : text.index("</svg>")]
    assert "var(--ink)" in svg
    assert "var(--dim)" in svg
    assert "#ffffff" not in svg
    assert "prefers-color-scheme: dark" in text
    ElementTree.fromstring((folder / "toy-plot.svg").read_bytes())
    assert (folder / "toy-plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_names_its_series_and_axes_and_is_the_same_every_time() -> None:
    svg = render(PLOT, "svg")
    assert svg == render(PLOT, "svg")
    words = {"".join(element.itertext()) for element in ElementTree.fromstring(svg).iter(f"{SVG}text")}
    assert {"shared", "separate", "limit", "meanwhile", "requests", "tasks", "ms", "A plot", "Of nothing."} <= words


def test_logarithmic_axes_have_powers_of_two() -> None:
    plot = Plot("log", "Log", "", "x", "y", (Series("a", (1, 3, 8), (1, 5, 20)),), log="xy")
    words = ["".join(element.itertext()) for element in ElementTree.fromstring(render(plot, "svg")).iter(f"{SVG}text")]
    assert {"1", "2", "4", "8", "16"} <= set(words)


@pytest.mark.parametrize(
    ("cell", "unit", "words"),
    [
        (None, Unit.ms, MISSING),
        (TIMING, Unit.ms, f"12.3 (11.0{MISSING}15.0)"),
        (3.456, Unit.ms, "3.46"),
        (1234, Unit.number, "1,234"),
        (4.09e9, Unit.macs, "4.1 GMACs"),
        (5_000_000, Unit.bytes, "5.0 MB"),
        (4.2, Unit.ratio, "4.20x"),
        (0.917, Unit.share, "91.7 %"),
        (12345.6, Unit.per_s, "12,346/s"),
        (7.26, Unit.per_s, "7.3/s"),
    ],
)
def test_numbers_in_words(cell: object, unit: Unit, words: str) -> None:
    assert cell_words(cell, unit) == words  # type: ignore[arg-type]


def test_markdown_leaves_empty_columns_out() -> None:
    lines = markdown([TABLE]).splitlines()
    assert lines[2:6] == [
        "| variant | time, ms | speed-up |",
        "| :-- | --: | --: |",
        f"| a\\|b & <c> | 12.3 (11.0{MISSING}15.0) | 2.00x |",
        f"| none | {MISSING} | 1.00x |",
    ]


def test_one_of_several_that_fails_does_not_keep_the_others_from_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not run_all([failing("first"), TOY], Options(tmp_path, Scale.quick), tmp_path)
    assert "first failed" in capsys.readouterr().err
    assert (tmp_path / "toy.json").exists()
    assert (tmp_path / "toy.md").exists()
    with pytest.raises(ModuleNotFoundError):
        run_all([failing("alone")], Options(tmp_path, Scale.quick), tmp_path)


def test_the_terminal_shows_headline_and_main_table_and_says_where_the_rest_is(ran: tuple[Path, str]) -> None:
    folder, shown = ran
    assert shown.count("toy: Twice as fast.") == 1
    assert shown.count("Times <of> a | b") == 2
    assert shown.count(f"{folder / 'toy.md'}, and more: Another table.") == 1
    assert "Another table" not in shown.replace("more: Another table", "")
    assert re.search(r"Took: toy \d+ s, other \d+ s\.$", shown.strip())


def test_results_that_were_measured_elsewhere_are_told_apart(folder: Path) -> None:
    first, second = read_records(folder)
    elsewhere: Record = replace(second, machine={**second.machine, "processor": "Another One"})
    words = Page(make_report([first, elsewhere], {})).words
    assert "Another One" in words
    assert "(toy)" in words
    assert "(other)" in words


def test_few_runs_and_what_was_chosen_are_said(folder: Path) -> None:
    record = replace(
        read_records(folder)[0], options={"scale": "full", "precision": "fp32", "threads": 1, "only": ["block"], "runs": 30}
    )
    words = Page(make_report([record], {})).words
    assert "scale full, --only block, --runs 30, in" in words
    assert "Not the full measurement" not in words
    few = replace(record, benchmark="toy", options={**record.options, "runs": 29})
    assert "Not the full measurement (toy)" in Page(make_report([few], {})).words


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchmarkError, match="cannot be written"):
        prepare(tmp_path / "file")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc takes no files, not even root's")
def test_a_folder_that_is_there_but_takes_no_files_is_said_before_anything_is_measured() -> None:
    with pytest.raises(BenchmarkError, match="cannot be written to /proc"):
        prepare(Path("/proc"))


def test_what_was_measured_is_shown_though_it_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = Benchmark("toy", "A toy.", __name__)
    with pytest.raises(BenchmarkError, match="cannot be written"):
        run_all([toy], Options(tmp_path, Scale.tiny), Path("/proc") / "absent")
    assert "Twice as fast." in capsys.readouterr().out


def test_nothing_measured_is_drawn_as_nothing() -> None:
    for log in ("", "xy"):
        render(Plot("p", "P", "", "x", "y", (Series("a", (), ()),), log), "svg")
    render(Plot("p", "P", "", "x", "y", (Series("a", (0.0, 2.0), (0.0, 1.0)),), "xy"), "svg")


def test_the_command_lists_and_refuses() -> None:
    listed = espalier("bench", "list")
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [*(benchmark.name for benchmark in BENCHMARKS), "REPO"]
    unknown = espalier("bench", "speed")
    assert unknown.returncode == 2
    assert "There is no benchmark 'speed'" in unknown.stderr
    refused = espalier("bench", "flops", "--only", "triton")
    assert refused.returncode == 2
    assert "--only does not go with flops; give it with latency or merge or families or load or peers." in refused.stderr
    refused = espalier("bench", "load", "--runs", "30")
    assert refused.returncode == 2
    assert "--runs does not go with load; give it with latency or merge or families or peers." in refused.stderr


def test_the_command_refuses_precisions_before_it_measures(tmp_path: Path) -> None:
    refused = espalier("bench", "flops", "--precision", "int8", "--out", tmp_path / "out")
    assert refused.returncode == 2
    assert "Networks in fp32 alone are measured by flops" in refused.stderr
    assert not (tmp_path / "out").exists()
