"""The model repository: the one contract between the offline half and the online half (Triton's directory layout)."""

from serving.repository.config import ALL_TASKS
from serving.repository.model import Canary, Repository, Segment, Step, Task, TensorSpec
from serving.repository.read import read_repository

__all__ = ["ALL_TASKS", "Canary", "Repository", "Segment", "Step", "Task", "TensorSpec", "read_repository"]
