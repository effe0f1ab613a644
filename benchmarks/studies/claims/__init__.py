"""SubTuning's and AFT's claims on ImageNet's weights: `python -m benchmarks.studies.claims --out FOLDER`.

Work is cut into units (a task, a method, a size, a seed). What a unit gave is one entry of a ledger in `ledgers/`, by a key that is made
from all that decides about it; a run does what is missing, the most valuable first, until the budget is spent, and tables are made
from the ledgers alone.
"""

__all__: list[str] = []
