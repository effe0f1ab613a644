"""What the session store asks of a runtime, which opens, runs and prices sessions: ONNX Runtime is one (serving/engines/onnxruntime)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

from contract.dtypes import Array
from contract.errors import RepositoryError
from contract.repository.model import Repository, Segment
from serving.engines.device_tensors import Device
from serving.engines.sessions.kept_files import KeptFiles

SessionT = TypeVar("SessionT")
DEFAULT_CACHE_BYTES = 20_000_000_000


class RuntimeKind(StrEnum):
    """What computes the segments in this process."""

    onnxruntime = "onnxruntime"
    openvino = "openvino"


class Precision(StrEnum):
    """In which numbers segments of floats are multiplied; auto: in bf16 where the processor has it, else in fp32."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


@dataclass(frozen=True)
class SessionStoreOptions:
    """How sessions are opened. Raises ValueError for a precision or a provider that the runtime does not have.

    threads: of each session (None: the cores of this process); small segments take one. provider: see providers.PROVIDER_CHOICES.
    cache_folder: where optimised segments are kept (None: nowhere; only for the CPU provider), cache_limit_bytes of them at most;
    TensorRT keeps its engines in `engines` beside it, without a limit.
    record_hashes: whether files that were hashed since the machine started are believed to be the same while they are not written.
    memory_limit_bytes: what open sessions may take together (None: no limit). Counted per session: the size of its model file and
    250 kB. Not counted: features and answers of running requests, and for the moments in which ONNX Runtime optimises a segment that
    is not in the cache, another two or three times its weights.
    spin: as of `session_options`.
    device: where features stay between segments; None: on the GPU if that computes, else on the host.
    runtime: ONNX Runtime, or OpenVINO, which leaves to ONNX Runtime what it cannot do (serving/engines/openvino/runtime.py); precision: of
    OpenVINO's; ways_file: where that keeps how segments were found to be best run, None: nowhere.
    """

    threads: int | None = None
    provider: str = "auto"
    cache_folder: Path | None = None
    cache_limit_bytes: int = DEFAULT_CACHE_BYTES
    record_hashes: bool = True
    memory_limit_bytes: int | None = None
    spin: bool = True
    device: Device | None = None
    runtime: RuntimeKind = RuntimeKind.onnxruntime
    precision: Precision = Precision.fp32
    ways_file: Path | None = None

    def __post_init__(self) -> None:
        if self.runtime == RuntimeKind.openvino and self.provider not in ("auto", "cpu"):
            raise ValueError(f"OpenVINO has no execution provider {self.provider!r}: those are ONNX Runtime's.")
        if self.runtime != RuntimeKind.openvino and self.precision != Precision.fp32:
            raise ValueError(
                f"ONNX Runtime computes as the model says, not in precision {str(self.precision)!r}; OpenVINO has that."
            )


@dataclass(frozen=True)
class SegmentFile:
    """A segment and the ONNX file that computes it."""

    segment: Segment
    model: Path

    @cached_property
    def kept(self) -> KeptFiles:
        """Return the file, with what is beside it, kept from when this was first asked for. Raises RepositoryError."""
        try:
            return KeptFiles(self.model)
        except OSError as error:
            raise RepositoryError(f"Segment {self.segment.name!r} has no model.onnx; export the repository again.") from error


@dataclass(frozen=True)
class BundleFile(SegmentFile):
    """Segments that take the same, to be computed by one session. segment: as which the store knows them. members: in their order."""

    members: tuple[SegmentFile, ...] = ()

    @cached_property
    def kept(self) -> KeptFiles:
        """Return the files of the first; each member keeps its own."""
        return self.members[0].kept

    @property
    def bytes(self) -> int:
        """Return the size of all files."""
        return sum(member.kept.bytes for member in self.members)


class Runtime(Protocol[SessionT]):
    """What computes segments in this process. A session is whatever it likes; closing one is to drop it.

    Every method can be called from several threads at once.
    """

    @property
    def name(self) -> str:
        """Return what this is, and its version."""

    @property
    def on_cpu(self) -> bool:
        """Return whether the CPU computes, and nothing else."""

    @property
    def shares_weights(self) -> bool:
        """Return whether sessions of one segment with other numbers of threads have their weights in common."""

    @property
    def rounding(self) -> float:
        """Return by how much an answer may differ from that in fp32 because of how this computes, in units of its spread."""

    def prepare(self, repository: Repository, files: Iterable[SegmentFile]) -> None:
        """Find out how the segments `files` of `repository`, which are new, are best run. Raises RepositoryError."""

    def load(self, file: SegmentFile) -> SessionT:
        """Return a session of `file` that has been checked by a run. Raises RepositoryError naming the segment."""

    def open(self, file: SegmentFile, threads: int | None = None) -> SessionT:
        """Return another session of a segment that has been checked, with so many threads (None: as `load`). Raises RepositoryError."""

    def run(self, segment: Segment, session: SessionT, inputs: Sequence[Array]) -> Sequence[Array]:
        """Run `session` of `segment` on its inputs in order, each of shape (n, ...); return its outputs, each of shape (n, ...).

        Several runs of a session may go on at once. EspalierErrors are for clients; whatever else is raised fails the run.
        """

    def memory_of(self, file: SegmentFile) -> int:
        """Return the bytes that an open session of `file` takes, before it is opened. Raises RepositoryError."""

    def computed_by(self, segment: Segment) -> str:
        """Return what computes `segment`, its version, and the precision where there is a choice."""

    def has_one_thread(self, segment: Segment) -> bool:
        """Return whether sessions of `segment` have one thread, however many are asked for."""
