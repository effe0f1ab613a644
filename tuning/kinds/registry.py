"""Which kinds of tasks can be tuned, and how."""

from __future__ import annotations

from contract.kinds.classes import Classes
from contract.kinds.labels import Labels
from contract.kinds.values import Values
from tuning.data.labelled import TaskData
from tuning.kinds.classes import ClassesObjective
from tuning.kinds.labels import LabelsObjective
from tuning.kinds.objective import Objective
from tuning.kinds.values import ValuesObjective

_OBJECTIVES: dict[type, type[Objective]] = {Classes: ClassesObjective, Labels: LabelsObjective, Values: ValuesObjective}


def objective_of(data: TaskData) -> Objective:
    """Return the loss and measures for the kind of `data`. Raises BadData for values that do not differ."""
    return _OBJECTIVES[type(data.kind)](data)
