"""What tuning asks of the kind of a task: the loss, the measure of what was reached, and what becomes of the head afterwards."""

from contract.lazy import public

__all__, __getattr__ = public(__name__, {"registry": ["objective_of"], "objective": ["Objective"]})
