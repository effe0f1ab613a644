"""What a model repository says, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from contract.kinds.kind import Kind, Scores, Taken
from contract.kinds.registry import assumed_kind
from contract.preprocessing import Layout, Preprocessing
from contract.repository.free_sizes import FreeSize
from contract.repository.not_shared import NotShared
from contract.repository.origin import Origin
from contract.repository.record import ParityRecord
from contract.tensor_names import Names
from contract.text import TextInput

SEGMENT_INPUT = "input"
SEGMENT_OUTPUT = "output"
# Whether a row's answer depends on the other rows of its batch: no, yes, or nobody has checked.
Rows = Literal["independent", "coupled", ""]

Precision = Literal["fp32", "int8"]
FP32_FOLDER = "fp32"  # of a segment in int8: the folder, of one segment, that it was before; neither Triton nor a server reads it

DEFAULT_CUT_RULE = "cheap"  # what a repository that does not say it was cut by
# Of the digests that the exporter computes today; whatever changes the digest of a network that was exported raises it. 1: also of what
# does not say it.
DIGEST_VERSION = 3


def segment_tensor(kind: str, index: int) -> str:
    """Return the name of a segment's tensor number `index`, `kind` being SEGMENT_INPUT or SEGMENT_OUTPUT: input, input_1, ..."""
    return f"{kind}_{index}" if index else kind


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a model: `dtype` in the v2 protocol's words ("UINT8", "FP32"), `shape` without the batch axis.

    A size may be -1: it is free. axes: what the free sizes are called, an entry for each axis of `shape`, "" where it is fixed; or empty,
    where none is free, and of a model that espalier did not export. Equal names in one model are equal sizes.
    layout: of an input that is an image, for clients who ask. Nothing computes with it, nor with the names of axes: specs are equal
    whatever they are.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    layout: Layout = field(default="", compare=False)
    axes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def named_shape(self) -> tuple[int | str, ...]:
        """Return the shape for people: with the names of what is free."""
        return tuple(name or size for size, name in zip(self.shape, self.axes or ("",) * len(self.shape), strict=True))

    def shape_at(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape with `sizes`, by name, in place of those that are free. Raises KeyError where one is missing."""
        names = self.axes or ("",) * len(self.shape)
        return tuple(sizes[name] if size < 0 else size for size, name in zip(self.shape, names, strict=True))


@dataclass(frozen=True)
class Plain:
    """What there is to know of a model that espalier did not export: a task that is one segment, under its own tensor names.

    file: its ONNX file, below the repository. config: its config.pbtxt, completed from that file as Triton does it.
    has_rows: whether its tensors have a batch axis; without one, all of a request is one row. shapes: of those tensors, by name, that
    have another shape in the file than to clients, without the batch axis. labels: of each output that has some.
    unheeded: what its config.pbtxt says that nothing here follows.
    """

    file: str
    config: str
    has_rows: bool = True
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unheeded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Segment:
    """A run of consecutive blocks, exported as one ONNX model that is named by its content and never changes.

    inputs: the tap that the blocks before it leave, and whatever else it takes (an input of the network, another tap).
    outputs: the tap that it leaves; several only where a network ends in several outputs that cannot be told apart.
    blocks: first and last block of the network, counted from 0, both included.
    modules: the modules of the network that it computes, as far as the exporter knows their names.
    digest: SHA-256 (hex) of what the segment computes, as the version `digest_version` of the digests has it.
    macs: multiply-accumulates for one row; GFLOPs = 2 x GMACs. uncounted: operator types that `macs` leaves out.
    parameters: number of weights; weight_bytes: their size. activation_bytes: size of the output tensors for one row.
    reason: why the network is cut in front of it, a sentence for people; empty at the input.
    rows: "independent"; "coupled", where one request must be one run, none of its rows apart and no stranger's row beside them; or "",
        where nobody has checked.
    plain: of a model that espalier did not export; None: it did.
    sizes: of each free axis of its tensors, by the name that it has in this segment. Costs for one row are those at the reference sizes.
    weight_files: the files beside its model with weights that other segments hold, too, and how many bytes of each it uses. Such a file
        is named by its content, and a hard link of the others of its name.
    precision: "fp32", as the network was given (perhaps with half precision, or integers of its own), or "int8", made of that.
    stands_for: of a segment in int8, the name of the one in fp32 whose place it takes; that lies beside it, in FP32_FOLDER, and `digest`,
        `digest_version` and costs but `weight_bytes` are those of that one.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    blocks: tuple[int, int]
    digest: str
    max_batch_rows: int
    macs: int = 0
    parameters: int = 0
    weight_bytes: int = 0
    activation_bytes: int = 0
    modules: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()
    reason: str = ""
    rows: Rows = ""
    version: str = "1"
    plain: Plain | None = None
    digest_version: int = 1
    weight_files: Mapping[str, int] = field(default_factory=dict, hash=False)
    sizes: Mapping[str, FreeSize] = field(default_factory=dict)
    precision: Precision = "fp32"
    stands_for: str = ""

    @property
    def is_coupled(self) -> bool:
        """Whether one request must be one run: the rows affect each other, or nobody knows that they do not."""
        return self.rows != "independent"


@dataclass(frozen=True)
class Step:
    """One segment applied to tensors, given in the order of its inputs and outputs.

    Tensors are named by how they are computed: equal name, equal value.
    """

    segment: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """What a client asks for: the steps from the inputs to the outputs, each step after those whose results it takes.

    inputs: the tensors that the client sends, most often one, with a row per image. outputs: one that is named like the task, or
    several that are named `task.output`; those of a plain model have names of their own.
    preprocessing: how an image becomes a row (None: no image task).
    labels: one per entry of the only output, a vector, or empty. provenance: where the weights come from, for people.
    previous: the version before this one, kept for a rollback. canary: one that is tried beside it. Neither keeps any in turn.
    last_version: the highest version number that the task ever had, where that is higher than those it has now; otherwise 0.
    parity: what the whole network answered when it was exported; None: nobody recorded it.
    scores: what its only output, a vector, is: "logits"; "probabilities", which sum to one; "independent", each between 0 and 1 by itself;
        "log_probabilities"; "value", a single number of which nobody knows more; or "", where nobody has looked.
    plain: of a model that espalier did not export; None: it did.
    sizes: of each free axis of its tensors, by name. values: the least and the largest value that an integer input may have, by its name,
    where that is known (the rows of a table of embeddings).
    text: how a text becomes a row; None: there is no tokenizer beside the task.
    names: what clients may call its tensors besides, by their names here (`contract.tensor_names`).
    kind: how people read its answers; None: nobody has said (`answers`).
    """

    name: str
    steps: tuple[Step, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_rows: int
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    version: str = "1"
    previous: Task | None = None
    canary: Canary | None = None
    last_version: int = 0
    parity: ParityRecord | None = None
    scores: Scores = ""
    plain: Plain | None = None
    sizes: Mapping[str, FreeSize] = field(default_factory=dict)
    values: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    text: TextInput | None = None
    names: Names = field(default_factory=dict)
    kind: Kind | None = None

    @property
    def takes(self) -> Taken:
        """Return what it can be asked about besides tensors: texts where it has a tokenizer, images where one becomes its only input."""
        if self.text is not None:
            return "text"
        return "image" if self.image_layout else ""

    @property
    def image_layout(self) -> Layout:
        """Return how an image lies in its only input, as the preprocessing makes one; "" where none becomes that."""
        how = self.preprocessing
        if how is None or not self.is_like_image:
            return ""
        ways: dict[Layout, tuple[int, ...]] = {"NHWC": (how.height, how.width, 3), "NCHW": (3, how.height, how.width)}
        for layout, made in ways.items():
            if all(size in (-1, given) for size, given in zip(self.inputs[0].shape, made, strict=True)):
                return layout
        return ""

    @property
    def is_like_image(self) -> bool:
        """Whether it has one input, which could be an image: uint8 with the channels last, or floats with them last or first."""
        if len(self.inputs) != 1 or len(self.inputs[0].shape) != 3:
            return False
        first, _, last = self.inputs[0].shape
        return (self.inputs[0].dtype == "UINT8" and last == 3) or (
            self.inputs[0].dtype in ("FP32", "FP16") and 3 in (first, last)
        )

    @property
    def output_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of each output by name, without the batch axis."""
        return {spec.name: spec.shape for spec in self.outputs}

    @property
    def answers(self) -> Kind:
        """Return how people read its answers: as somebody said, or else one vector as classes, and all else as tensors."""
        return self.kind or assumed_kind(self.output_shapes)

    def input_layouts(self) -> tuple[Layout, ...]:
        """Return the layout of each input: as its configuration says, or else as the preprocessing makes images."""
        return tuple(spec.layout or (self.preprocessing.layout(spec.shape) if self.preprocessing else "") for spec in self.inputs)

    @property
    def versions(self) -> tuple[Task, ...]:
        """Return the task as it is now, and then the versions that are kept beside it."""
        canary = None if self.canary is None else self.canary.task
        return tuple(task for task in (self, self.previous, canary) if task is not None)


@dataclass(frozen=True)
class Canary:
    """A version of a task that answers a `share` of its requests, more than 0 and less than 1. Raises ValueError for others."""

    task: Task
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"a canary's share is {self.share}; it must be more than 0 and less than 1")


@dataclass(frozen=True)
class Repository:
    """Segments and tasks, each by name. `path` holds `<segment>/<version>/model.onnx`.

    cuts_left_out: places where tasks part or meet without a cut there, with the reason, a sentence each for people.
    cut_rule: by what rule of the exporter it was cut, and is cut anew.
    copies: models that only copy a tensor, which `all_tasks` needs on Triton where tasks have equal outputs.
    unserved: why models that are there, and that espalier did not export, cannot be served: a sentence each for people.
    digest_version: of the digests of who wrote it last; segments that stayed may be of an older one.
    not_shared: equal, and nearly equal, weights that tasks compute with by themselves, as far as exports have looked.
    origin: what the export was told, for who adds to it.
    """

    path: Path
    segments: Mapping[str, Segment]
    tasks: Mapping[str, Task]
    cuts_left_out: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    cut_rule: str = DEFAULT_CUT_RULE
    unserved: Mapping[str, str] = field(default_factory=dict)
    digest_version: int = 1
    not_shared: tuple[NotShared, ...] = ()
    origin: Origin = Origin()  # noqa: RUF009  # frozen

    @property
    def newest_digest_version(self) -> int:
        """Return the newest version of the digests that something of it has."""
        return max([self.digest_version, *(segment.digest_version for segment in self.segments.values())])

    @property
    def exported(self) -> Repository:
        """Return what of it espalier has exported, and what can therefore be shared and asked for together."""
        segments = {name: segment for name, segment in self.segments.items() if segment.plain is None}
        return replace(self, segments=segments, tasks={name: task for name, task in self.tasks.items() if task.plain is None})

    def model_file(self, segment: str) -> Path:
        """Return the path of the ONNX model of `segment`."""
        found = self.segments[segment]
        return self.path / (found.plain.file if found.plain else f"{segment}/{found.version}/model.onnx")

    def network_file(self, segment: str) -> Path:
        """Return the path of the ONNX model of `segment` as it is in fp32, for whoever compares networks."""
        found = self.segments[segment]
        return self.path / segment / FP32_FOLDER / "1/model.onnx" if found.stands_for else self.model_file(segment)
