"""What a task is scored by: its name, its unit, and which way is better. Needs no torch: ledgers, tables and charts ask it, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from contract.units import percent

_SHARE = "%"


@dataclass(frozen=True)
class Metric:
    """One number of how well a task is done. Nothing else in the code knows which way is better.

    name: in ledgers and JSON. unit: "%" of shares, which are from 0 to 1 and shown times 100; else what the numbers are in, "" if that
    is not known. best: no number is better. epsilon: what a gain must be at least to count, where nobody says another.
    """

    name: str
    unit: str
    less_is_better: bool
    best: float
    epsilon: float = 0.005

    def worth(self, number: float) -> float:
        """Return `number` so turned that more is better. Turned again it is the number."""
        return -number if self.less_is_better else number

    @property
    def title(self) -> str:
        """The name, for sentences."""
        return self.name.replace("_", " ")

    @property
    def opening(self) -> str:
        """The name, where a sentence begins with it."""
        return f"{self.title[0].upper()}{self.title[1:]}"

    @property
    def heading(self) -> str:
        """Name and unit, for tables: "accuracy, %"."""
        return ", ".join(filter(None, (self.title, self.unit)))

    @property
    def axis(self) -> str:
        """Name and unit, for charts, and that less is better where it is: "mean absolute error (mm; less is better)"."""
        inside = "; ".join(filter(None, (self.unit, "less is better" * self.less_is_better)))
        return f"{self.title} ({inside})" if inside else self.title

    def scaled(self, number: float) -> float:
        """Return the number as it is shown: shares in per cent."""
        return 100 * number if self.unit == _SHARE else number

    def text(self, number: float, digits: int = 1) -> str:
        """Return the number without its unit. digits: after the point of per cent; of other units four figures are shown."""
        return percent(number, digits) if self.unit == _SHARE else f"{number:.4g}"

    def words(self, number: float, deviation: float | None = None, digits: int = 1) -> str:
        """Return the number with its unit: "81.2 %", or "81.2 ± 0.4 %" with a deviation."""
        spread = "" if deviation is None else f" \N{PLUS-MINUS SIGN} {self.text(deviation, digits)}"
        return f"{self.text(number, digits)}{spread} {self.unit}".rstrip()

    def gain_words(self, gain: float) -> str:
        """Return a difference of two worths, with its sign: "+0.52 %", "-0.1 mm"."""
        return f"{'-' if gain < 0 else '+'}{self.words(abs(gain), digits=2)}"


ACCURACY = Metric("accuracy", _SHARE, less_is_better=False, best=1.0)
AVERAGE_PRECISION = Metric("mean_average_precision", _SHARE, less_is_better=False, best=1.0)


def absolute_error(unit: str, epsilon: float) -> Metric:
    """Return the metric of values: their mean absolute error in `unit`."""
    return Metric("mean_absolute_error", unit, less_is_better=True, best=0.0, epsilon=epsilon)


def metric_to_json(metric: Metric) -> dict[str, Any]:
    """Return a metric as plain JSON."""
    return asdict(metric)


def metric_from_json(fields: Mapping[str, Any]) -> Metric:
    """Return what `metric_to_json` wrote. Raises TypeError for other fields."""
    return Metric(**fields)
