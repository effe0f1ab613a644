"""Whether tasks that are there answer what the repository recorded of them: for segments whose digest is of an older version.

Their digest of today tells what they compute, and not whether that is what was exported; the recorded answers do, as far as a few
numbers can.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from contract.dtypes import Array
from contract.repository import Repository, Task
from contract.repository.record import SAMPLE, recorded_places
from contract.repository.reference import at_reference
from contract.repository.sample import sample_inputs
from exporter.build.parity import ParityChecker
from exporter.errors import DamagedTask


def check_recorded_answers(repository: Repository, segments: Collection[str]) -> None:
    """Raise DamagedTask unless each task of `repository` that uses one of `segments` answers the sample as its record says.

    Tasks without a record of the sample that this version makes are not compared.
    """
    checker = ParityChecker(repository)
    for name, task in repository.tasks.items():
        used = [step.segment for step in task.steps if step.segment in segments]
        if used and task.parity is not None and task.parity.sample == SAMPLE:
            answers = checker.compose(name, [*sample_inputs(at_reference(task.inputs, task.sizes)).values()])
            if not _is_as_recorded(task, answers):
                raise DamagedTask(name, used)


def _is_as_recorded(task: Task, answers: Sequence[Array]) -> bool:
    assert task.parity is not None
    for answer, record in zip(answers, task.parity.outputs, strict=True):
        if record is None:
            continue
        found = answer.reshape(-1).astype(np.float64)
        difference = np.abs(found[recorded_places(found.size)] - np.asarray(record.values)).max(initial=0.0)
        if not difference <= task.parity.tolerance * record.scale:  # NaN is wrong, too
            return False
    return True
