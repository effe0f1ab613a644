"""Numbers with names and units."""

from __future__ import annotations

from collections.abc import Sequence

from contract.kinds.kind import Kind, Shapes, Taken, check_count, only_output


class Values(Kind, frozen=True, tag="values"):
    """The network gives a vector, shape (n, V), of numbers as they are. Labels: what each is called.

    units: of each, or one for all; empty: none is known.
    """

    units: tuple[str, ...] = ()

    def check(self, outputs: Shapes, labels: Sequence[str], takes: Taken) -> None:
        """Raise KindDoesNotFit unless there is one vector, with a name and a unit an entry or none."""
        (count,) = only_output(outputs, "V", "values are")
        check_count(len(labels) or count, count, "name", "names", "values")
        check_count(len(self.units) if len(self.units) > 1 else count, count, "unit", "units", "values")

    def unit(self, index: int) -> str:
        """Return the unit of value number `index`; "": none is known."""
        return self.units[index if len(self.units) > 1 else 0] if self.units else ""
