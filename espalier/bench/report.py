"""One page with everything that the benchmarks of a folder have found: no other file, no script, no address on the web."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from benchmarks.framework.options import LEAST_RUNS
from benchmarks.framework.record import Record
from benchmarks.framework.result import Table
from benchmarks.harness.noise import RULE
from contract.units import human_bytes
from espalier.bench.page import PAGE, RULES
from espalier.bench.tables import heading, is_left, shown_columns, table_words
from espalier.figures.style import DIM_COLOUR, GRID, INK_COLOUR, WORSE

# What the page replaces in the plots, so that they are readable on light and on dark.
_COLOURS = {INK_COLOUR: "var(--ink)", DIM_COLOUR: "var(--dim)", GRID: "var(--grid)", WORSE: "var(--axis)", "#ffffff": "none"}
_LONG = 12  # rows beyond which a table is folded away, unless it is a benchmark's main one
_RECENT_S = 180  # for which the load average remembers a benchmark that has ended
_SPREAD = re.compile(r"(\S+) (\(\S+\))")  # a median and its quartiles


def make_report(records: Sequence[Record], svgs: Mapping[str, bytes]) -> str:
    """Return the page, HTML. svgs: plots by name; those that are missing are left out."""
    links = "".join(f'<a href="#{escape(record.benchmark)}">{escape(record.benchmark)}</a>' for record in records)
    return PAGE.format(
        machine=_facts(records),
        links=links,
        summary="".join(f"<li>{_strong(record.benchmark)}: {escape(record.result.headline)}</li>" for record in records),
        quick=_quick(records),
        rules="".join(f"<li>{escape(rule)}</li>" for rule in (*RULES, RULE)),
        sections="".join(_section(record, records, svgs) for record in records),
    )


def _quick(records: Iterable[Record]) -> str:
    partly = [record.benchmark for record in records if not _is_full(record)]
    if not partly:
        return ""
    return f'<p class="warning">Not the full measurement ({escape(", ".join(partly))}): for a first impression, not for publication.</p>'


def _is_full(record: Record) -> bool:
    runs = record.options.get("runs")  # not in the files of earlier versions
    return record.options["scale"] == "full" and (runs is None or runs >= LEAST_RUNS)


def _facts(records: Sequence[Record]) -> str:
    """Return what the results were measured on, and where results of one page differ, each value with its benchmarks."""
    values: dict[str, dict[str, list[str]]] = {}
    for record in records:
        for name, value in _facts_of(record).items():
            values.setdefault(name, {}).setdefault(value, []).append(record.benchmark)
    rows = ""
    for name, found in values.items():
        words = [value if len(found) == 1 else f"{value} ({', '.join(of)})" for value, of in found.items()]
        rows += f"<tr><th>{escape(name)}</th><td>{'<br>'.join(map(escape, words))}</td></tr>"
    return rows


def _facts_of(record: Record) -> dict[str, str]:
    machine = record.machine
    vectors = ", ".join(machine["vector_instructions"]) or "unknown"
    return {
        "processor": f"{machine['processor']} ({vectors})",
        "cores": f"{machine['cores']} of {machine['machine_cores']}; {record.options['threads']} threads for every variant",
        "memory": human_bytes(machine["memory_bytes"]),
        "system": f"{machine['system']}, Python {machine['python']}",
        "versions": ", ".join(f"{name} {number}" for name, number in record.versions.items()),
        "commit": record.commit or "not from a checkout",
        "precision": record.options["precision"],
    }


def _section(record: Record, records: Sequence[Record], svgs: Mapping[str, bytes]) -> str:
    result = record.result
    failed = "".join(f'<p class="warning">Not to be used: {escape(sentence)}</p>' for sentence in result.failed)
    plots = "".join(f"<figure>{_inline_svg(plot.name, svgs[plot.name])}</figure>" for plot in result.plots if plot.name in svgs)
    notes = "".join(f"<p>{escape(note)}</p>" for note in result.notes if note != RULE)
    before, after = record.load
    if _was_busy(record, records):
        failed += f'<p class="warning">The machine was busy when this began (load average {before}).</p>'
    chosen = "".join(f", --{name} {value}" for name in ("only", "runs") if (value := _given(record, name)))
    when = (
        f"Measured {record.time}, scale {record.options['scale']}{chosen}, in {record.seconds:,.0f} s; load average {before} before and "
        f"{after} after."
    )
    return (
        f'<section id="{escape(record.benchmark)}"><h2>{escape(record.benchmark)}</h2><p class="about">{escape(record.about)}</p>'
        f'{failed}<p class="headline">{escape(result.headline)}</p>{plots}'
        f"{''.join(_table(table, main=table is result.tables[0]) for table in result.tables)}"
        f'<details><summary>How it was measured</summary>{notes}</details><p class="when">{escape(when)}</p></section>'
    )


def _given(record: Record, name: str) -> str:
    value = record.options.get(name)
    return ",".join(value) if isinstance(value, list) else str(value or "")


def _was_busy(record: Record, records: Iterable[Record]) -> bool:
    """Whether the machine had something else to do when this began; the benchmark just before it leaves a load of its own."""
    began = datetime.fromisoformat(record.time)
    pauses = [
        (began - datetime.fromisoformat(other.time)).total_seconds() - other.seconds for other in records if other != record
    ]
    ours = any(-1 <= pause < _RECENT_S for pause in pauses)
    return record.load[0] > record.machine["machine_cores"] / 2 and not ours


def _table(table: Table, *, main: bool) -> str:
    columns = shown_columns(table)
    sides = ["left" if is_left(column) else "right" for column in columns]
    head = "".join(f'<th class="{side}">{escape(heading(column))}</th>' for column, side in zip(columns, sides, strict=True))
    body = "".join(f"<tr>{_cells(words, sides)}</tr>" for words in table_words(table))
    caption = f"<p>{escape(table.caption)}</p>" if table.caption else ""
    region = f'<div class="wide" tabindex="0" role="region" aria-label="{escape(table.title)}">'  # scrolls by keys, too
    grid = f"{region}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{caption}"
    if len(table.rows) > _LONG and not main:
        return f"<details><summary>{escape(table.title)} ({len(table.rows)} rows)</summary>{grid}</details>"
    return f"<h3>{escape(table.title)}</h3>{grid}"


def _cells(words: Sequence[str], sides: Sequence[str]) -> str:
    cells = ""
    for word, side in zip(words, sides, strict=True):
        if spread := _SPREAD.fullmatch(word) if side == "right" else None:  # the quartiles go below where there is little room
            cells += f'<td class="right time"><span>{escape(spread[1])}</span> <small>{escape(spread[2])}</small></td>'
            continue
        kind = f"{side} noisy" if word.startswith("noisy") else side
        cells += f'<td class="{kind}">{escape(word)}</td>'
    return cells


def _inline_svg(name: str, svg: bytes) -> str:
    """Return a plot for a page that holds several: names inside made its own, and colours that follow the page's."""
    text = svg.decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    for colour, variable in _COLOURS.items():
        text = text.replace(colour, variable)
    return text


def _strong(text: Any) -> str:
    return f"<strong>{escape(str(text))}</strong>"
