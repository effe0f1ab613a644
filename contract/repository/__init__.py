"""The model repository: the one contract between the offline half and the online half (Triton's directory layout)."""

from contract.lazy import public
from contract.repository.config import ALL_TASKS
from contract.repository.model import Canary, Repository, Segment, Step, Task, TensorSpec
from contract.repository.read import RepositoryReader, read_repository

__all__ = [
    "ALL_TASKS",
    "Canary",
    "Repository",
    "RepositoryReader",
    "Segment",
    "Step",
    "Task",
    "TensorSpec",
    "read_repository",
]
# What changes one, for those that do.
_of_writers, __getattr__ = public(__name__, {"write": ["Change", "changed", "recover", "tidy", "written"]})
__all__ += _of_writers
