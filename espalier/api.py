"""What `import espalier` offers as functions: a repository is written, changed, served, or opened in this process.

Each is the library's own function behind the command of that name; nothing heavy is loaded before one is called. Models are named as on
the command line: a file, NETWORK@FILE, NETWORK, or PACKAGE.MODULE:CALLABLE (`espalier export --help`). Whatever is refused raises an
`contract.errors.EspalierError` with one sentence, and then a repository on disk is as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contract.kinds.kind import Kind
    from contract.preprocessing import Preprocessing
    from contract.repository.model import Precision
    from espalier.client import Client
    from espalier.local import LocalRepository
    from espalier.running_server import RunningServer
    from exporter.add import AddReport
    from exporter.deploy import Deployment
    from exporter.export import ExportReport
    from exporter.precision.examples import PrecisionOptions
    from exporter.remove import Removal
    from exporter.sharing.choose import CutOptions
    from exporter.sources.references import InputOptions
    from exporter.sources.task_model import Sources
    from serving.engines.embedded import EngineOptions

log = logging.getLogger(__name__)
_Models = Mapping[str, str | Path]
_Tokenizer = str | Path | Mapping[str, str | Path] | None
_Kinds = Mapping[str, "str | Kind"]
_Said = Mapping[str, "str | Path | Preprocessing"]
_Calibration = str | Path | Mapping[str, str | Path] | None


def export(
    tasks: _Models,
    out: str | Path,
    *,
    backbone: str | Path | None = None,
    inputs: InputOptions | None = None,
    input_names: Mapping[str, Mapping[str, str]] | None = None,
    tokenizer: _Tokenizer = None,
    kinds: _Kinds = MappingProxyType({}),
    preprocessing: _Said = MappingProxyType({}),
    cuts: CutOptions | None = None,
    max_batch_rows: int = 64,
    coupled: bool = False,
    snap: float | None = None,
    precision: Precision | None = None,
    calibration: _Calibration = None,
    max_drop: float = 0.005,
    force: bool = False,
) -> ExportReport:
    """Find what `tasks` (models by name) share, and write trunk and branches as a model repository at `out`.

    backbone: the network that they were tuned from; None: what they have in common becomes the trunk. inputs: of torch networks.
    input_names: per task, what inputs of its network are called in the repository; by default those of networks with several inputs are
    matched by name, and the only one of a network by what it takes. tokenizer: a tokenizer.json, for all tasks or by their names: they
    take texts. kinds: how people read what tasks answer, by name: of `contract.kinds`, or as words ("boxes:layout=yolo"). preprocessing: of
    ONNX files, by task, how an image becomes their input: one of `contract`, a JSON file as transformers or timm write it, or words
    ("imagenet,size=224,crop=0.875"); None: as the file says, if it does. cuts: how to choose where to fork. max_batch_rows: of one run
    of a model. coupled: take networks whose answer to a row depends on the other rows, too. snap: let tasks take the backbone's, or the
    first task's, weights for blocks in which theirs differ by so much at most, as a part of the largest in a tensor. precision: "int8"
    takes calibration, data as docs/guides/quantise.md lists it, for all tasks or by their names, and costs no task more than the share
    max_drop of its answers. force: replace a repository that is there. Raises ExportError, TuningError, NotWritten.
    """
    from exporter.export import ExportOptions, export_repository
    from exporter.sharing.choose import CutOptions

    options = ExportOptions(
        Path(out),
        max_batch_rows,
        force,
        cuts=cuts or CutOptions(),
        coupled=coupled,
        snap=snap,
        precision=_precision(tasks, precision, calibration, max_drop),
    )
    return export_repository(_sources(backbone, tasks, inputs, tokenizer, input_names, kinds, preprocessing), options)


def add(
    repository: str | Path,
    tasks: _Models,
    *,
    backbone: str | Path | None = None,
    inputs: InputOptions | None = None,
    input_names: Mapping[str, Mapping[str, str]] | None = None,
    tokenizer: _Tokenizer = None,
    kinds: _Kinds = MappingProxyType({}),
    preprocessing: _Said = MappingProxyType({}),
    replace: bool = False,
    recut: bool = False,
    cuts: CutOptions | None = None,
    coupled: bool = False,
    snap: float | None = None,
    precision: Precision | None = None,
    calibration: _Calibration = None,
    max_drop: float = 0.005,
) -> AddReport:
    """Add `tasks` (models by name) to the repository at that path. What is there stays as it is, to the byte, unless `recut`.

    replace: tasks of the same names, which are kept for a rollback. recut: cut all tasks anew, by the rule of `cuts` (None: as it was
    exported). What is left out is as the repository remembers it: its backbone, where a task of weights alone needs that and its
    reference still leads to the same; what `inputs` leave open; and `snap` (0: none). All else as for `export`. Raises ExportError,
    TuningError, RepositoryError, NotWritten.
    """
    from exporter.add import AddOptions, add_tasks

    sources = _sources(backbone, tasks, inputs, tokenizer, input_names, kinds, preprocessing, Path(repository))
    asked = _precision(None if recut else tasks, precision, calibration, max_drop)
    return add_tasks(
        Path(repository), sources, AddOptions(recut, replace, cuts=cuts, coupled=coupled, snap=snap, precision=asked)
    )


def remove(repository: str | Path, tasks: Iterable[str], *, gc: bool = False) -> Removal:
    """Remove tasks from the repository at that path. gc: the segments that no task uses then, too.

    Raises UnknownTask, LastTask, RepositoryError, NotWritten.
    """
    from exporter.remove import remove_tasks

    return remove_tasks(Path(repository), tasks, gc=gc)


def deploy(
    repository: str | Path,
    tasks: _Models,
    *,
    backbone: str | Path | None = None,
    inputs: InputOptions | None = None,
    input_names: Mapping[str, Mapping[str, str]] | None = None,
    tokenizer: _Tokenizer = None,
    kinds: _Kinds = MappingProxyType({}),
    preprocessing: _Said = MappingProxyType({}),
    canary: float | None = None,
    coupled: bool = False,
    snap: float | None = None,
    precision: Precision | None = None,
    calibration: _Calibration = None,
    max_drop: float = 0.005,
    servers: Sequence[Client] = (),
) -> Deployment:
    """Add or replace `tasks` (models by name) in the repository at that path, and have running `servers` switch to them.

    The old versions are kept for a rollback. canary: they stay current, and the new ones answer that share of the requests, in (0, 1).
    All else as for `add`. Raises what that does, LoadsRefused for a server that takes no loads from this client, and
    ServerUnreachable where none answers: then nothing was changed. For the first server that fails to load it RequestRefused or
    ServerUnreachable is raised: then the repository is changed, and the servers before it serve that.
    """
    from espalier.client import check_servers
    from exporter.deploy import deploy

    check_servers(servers)

    sources = _sources(backbone, tasks, inputs, tokenizer, input_names, kinds, preprocessing, Path(repository))
    asked = _precision(tasks, precision, calibration, max_drop)
    deployment = deploy(Path(repository), sources, canary=canary, coupled=coupled, snap=snap, precision=asked)
    for server in servers:
        for task in tasks:
            server.load(task)
    return deployment


def open(
    path: str | Path,
    options: EngineOptions | None = None,
    *,
    pad_lengths: Sequence[int] = (),
    feature_cache_bytes: int | None = None,
) -> LocalRepository:
    """Open the repository at `path` for predictions in this process; to be closed, or used in a `with` block.

    options: how it is computed; None: on a GPU if CUDA works here, else with all cores of this process. pad_lengths: to the next of which
    texts are padded, so that those of several threads run together, where a mask hides what is added. feature_cache_bytes: how much of what
    tasks share is kept for other tasks on the same input; None: nothing.
    Raises RepositoryError, EngineError.
    """
    from espalier.local import LocalRepository

    return LocalRepository(path, options, pad_lengths, feature_cache_bytes)


def serve(
    repository: str | Path | LocalRepository,
    *,
    host: str = "127.0.0.1",
    http_port: int = 8000,
    grpc_port: int = 8001,
    page: bool = True,
    **options: Any,
) -> RunningServer:
    """Serve a repository, a path or what `open` returned, over HTTP and gRPC, in this process; it answers when this returns.

    The server stops at the end of a `with` block, at `close`, or with this process; `wait` blocks until SIGTERM or Ctrl-C.
    http_port, grpc_port: 0 means any free port. page: whether there is a page for people at `/`. options: further ones of
    `serving.server.Server`. Raises RepositoryError, AddressInUse, InvalidAddress, ExtraNeeded.
    """
    from contract.repository.write import recover
    from espalier.figures.repository.svg import tree_svg
    from espalier.running_server import RunningServer

    options["page"] = tree_svg if page else None
    path = Path(repository) if isinstance(repository, str | Path) else repository.repository.path
    recover(path)
    return RunningServer(path, host=host, http_port=http_port, grpc_port=grpc_port, **options)


def _precision(
    tasks: Iterable[str] | None, precision: Precision | None, calibration: _Calibration, max_drop: float
) -> PrecisionOptions:
    """Return these as the exporter takes them. tasks: that come; None: any."""
    from exporter.precision.errors import NeedlessExamples
    from exporter.precision.examples import PrecisionOptions

    if calibration is None or precision != "int8":
        if calibration is not None:
            raise NeedlessExamples
        return PrecisionOptions(precision, max_drop=max_drop)

    from exporter.torch.calibration import CalibrationData

    given = calibration if isinstance(calibration, Mapping) else {None: calibration}
    data = CalibrationData({task: str(source) for task, source in given.items()})
    if tasks is not None:
        data.check_tasks([*tasks])
    return PrecisionOptions(precision, data, max_drop)


def _sources(
    backbone: str | Path | None,
    tasks: _Models,
    inputs: InputOptions | None,
    tokenizer: _Tokenizer,
    input_names: Mapping[str, Mapping[str, str]] | None,
    kinds: _Kinds,
    preprocessing: _Said,
    repository: Path | None = None,
) -> Sources:
    from contract.kinds.registry import parse_kind
    from exporter.open_models import open_sources
    from exporter.sources.references import InputOptions
    from exporter.sources.remembered import Remembered

    tokenizers = tokenizer if isinstance(tokenizer, Mapping) else {"": tokenizer} if tokenizer is not None else {}
    read = {task: parse_kind(kind) if isinstance(kind, str) else kind for task, kind in kinds.items()}
    remembered = Remembered() if repository is None else Remembered.by(repository)
    sources = open_sources(
        backbone, tasks, inputs or InputOptions(), tokenizers, input_names or {}, read, remembered, preprocessing=preprocessing
    )
    for remark in sources.remarks:
        log.info("%s", remark)
    return sources
