"""The parts of the tree, where each is and in which paint."""

from __future__ import annotations

from dataclasses import dataclass

from contract.repository import Repository
from espalier.figures.repository.flow import OWN, role
from espalier.figures.repository.graph import INPUT, OUTPUT, Graph
from espalier.figures.repository.shapes import INK, TASK_PAINT
from espalier.figures.repository.sizes import FigureSizes
from espalier.figures.repository.text import RunLabel

BOX_WIDTH = 117.0
INPUT_WIDTH = 5.0


@dataclass(frozen=True)
class Parts:
    """All that the assembly needs to know; lists are by node or link of the graph."""

    repository: Repository
    graph: Graph
    costs: tuple[int, ...]
    sizes: FigureSizes
    upper: list[float]
    labels: dict[int, RunLabel]
    lefts: tuple[float, ...]
    task_numbers: dict[str, int]

    def left(self, node: int) -> float:
        """Return where a node begins."""
        return self.lefts[self.graph.nodes[node].column] - (INPUT_WIDTH if self.graph.nodes[node].kind == INPUT else 0.0)

    def right(self, node: int) -> float:
        """Return where a node ends; an output has no width."""
        kind = self.graph.nodes[node].kind
        return self.left(node) + (INPUT_WIDTH if kind == INPUT else 0.0 if kind == OUTPUT else BOX_WIDTH)

    def paint(self, node: int) -> str:
        """Return the paint of a node: its role, or that of its task."""
        run = self.graph.nodes[node].run
        if run is None:
            return INK
        return self.task_paint(min(run.tasks)) if role(run) == OWN else role(run)

    def task_paint(self, task: str) -> str:
        """Return the paint of what is a task's own."""
        return f"{TASK_PAINT}{self.task_numbers[task]}"
