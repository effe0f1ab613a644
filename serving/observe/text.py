"""Prometheus' text format. The client library's own writer takes 14 microseconds a line and allows no counter without "_total"."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import Metric


def render(families: Iterable[Metric]) -> str:
    """Return `families` (counters, gauges, histograms) in the text format 0.0.4, with line ends."""
    return "".join(part for family in families for part in _family(family))


def _family(family: Metric) -> Iterable[str]:
    # Triton's counters do not end in _total.
    ending = "_total" if family.type == "counter" and not family.name.startswith("nv_") else ""
    text = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {family.name}{ending} {text}\n# TYPE {family.name}{ending} {family.type}\n"
    for sample in family.samples:
        labels = ",".join([f'{key}="{_escaped(value)}"' for key, value in sample.labels.items()])
        yield f"{sample.name}{{{labels}}} {sample.value}\n" if labels else f"{sample.name} {sample.value}\n"


def _escaped(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return value
