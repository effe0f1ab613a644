"""The model repository: the one contract between the offline half and the online half (Triton's directory layout)."""

from contract.repository.config import ALL_TASKS
from contract.repository.model import Canary, Repository, Segment, Step, Task, TensorSpec
from contract.repository.read import read_repository

__all__ = ["ALL_TASKS", "Canary", "Repository", "Segment", "Step", "Task", "TensorSpec", "read_repository"]
