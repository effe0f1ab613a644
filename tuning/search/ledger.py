"""The ledger of a search: every training that was done, one JSON line each, in a file that is only ever appended to.

So a search may be killed at any moment and go on where it was, other stopping rules are answered without training, and plots need
nothing else. The first line says what was searched: a ledger of another backbone, data set or training is refused.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from tuning.errors import CannotWrite, TuningError
from tuning.kinds.metric import ACCURACY, Metric, metric_from_json, metric_to_json
from tuning.search.proxy import Proxy, read_proxy
from tuning.search.score import Score, Subset, SubsetCost

_FORMAT = "espalier-ledger/1"
_CLASSES = "classes"


class BadLedger(TuningError):
    """A file is no ledger, or damaged."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason.rstrip('.')}.")


class LedgerMismatch(TuningError):
    """A ledger belongs to another search."""

    def __init__(self, path: Path, what: str, there: object, here: object) -> None:
        super().__init__(
            f"The ledger {path} is of another {what}: it has {there}, this search has {here}; give another file, or the same {what}."
        )


class LedgerInUse(TuningError):
    """Another process writes this ledger."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"Another search is writing the ledger {path}; wait for it, or give another file.")


@dataclass(frozen=True)
class BlockFacts:
    """name: module path. parameters: values. macs: multiply-accumulates per image."""

    name: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class Header:
    """What a ledger is about.

    backbone: architecture. weights: where they came from. weights_sha256: what they are. data: name. data_sha256: what they are.
    train_images: in all. folds: their number; 0 where trainings are measured on the test split (a comparison of methods).
    seed: of folds and trainings. training: options that decide about results, by name. blocks: in forward order.
    macs: of the whole backbone for one image. versions: of libraries, for people. kind: of the task. metric: what trainings are scored
    by.
    """

    backbone: str
    weights: str
    weights_sha256: str
    data: str
    data_sha256: str
    train_images: int
    classes: int
    folds: int
    seed: int
    training: Mapping[str, Any]
    blocks: tuple[BlockFacts, ...]
    macs: int
    versions: Mapping[str, str] = field(default_factory=dict)
    kind: str = _CLASSES
    metric: Metric = ACCURACY

    def difference(self, other: Header) -> tuple[str, object, object] | None:
        """Return (what, own, other's) of the first thing that makes trainings incomparable; None if they belong together."""
        if (self.backbone, self.weights_sha256) != (other.backbone, other.weights_sha256):
            return "backbone", self._backbone_in_words, other._backbone_in_words
        if self.data_sha256 != other.data_sha256:
            return "data set", self._data_in_words, other._data_in_words
        if (self.kind, self.metric) != (other.kind, other.metric):
            return "kind of task", self._kind_in_words, other._kind_in_words
        if (self.folds, self.seed) != (other.folds, other.seed):
            return "split", f"{self.folds} folds of seed {self.seed}", f"{other.folds} folds of seed {other.seed}"
        for name in sorted(self.training.keys() | other.training.keys()):
            if self.training.get(name) != other.training.get(name):
                return "training", f"{name} {self.training.get(name)}", f"{name} {other.training.get(name)}"
        return None

    @property
    def _backbone_in_words(self) -> str:
        return f"{self.backbone} with weights {self.weights_sha256[:12]} ({self.weights})"

    @property
    def _kind_in_words(self) -> str:
        return f"{self.kind} scored by {self.metric.heading}"

    @property
    def _data_in_words(self) -> str:
        return f"{self.data} ({self.train_images} training images, {self.data_sha256[:12]})"


@dataclass(frozen=True)
class Trial:
    """One training.

    method: as `tuning.training.methods` names it. variant: what else tells it from others of the method ("rank 8"), or "".
    subset: what was tuned. fold: which one it was scored on, None: the test split. seed: of head and order.
    train_images: how many it learnt from. score: by the header's metric. loss: mean training loss of the last epoch. lr: peak.
    seconds: of training and scoring, features that several trainings share not counted.
    macs: multiply-accumulates that the training took, forward and backward.
    processor_s: seconds of a processor, where one thread did it all; else None.
    """

    method: str
    subset: Subset
    fold: int | None
    seed: int
    train_images: int
    score: float
    loss: float
    epochs: int
    lr: float
    seconds: float
    macs: int
    variant: str = ""
    processor_s: float | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What the training was: equal keys, equal result."""
        return (self.method, self.variant, self.subset, self.fold, self.seed, self.train_images, self.lr)


@dataclass(frozen=True)
class LedgerContents:
    """What is in a ledger. costs: what serving subsets would cost. notes: further lines, such as selections that were made."""

    header: Header
    trials: tuple[Trial, ...] = ()
    costs: Mapping[Subset, SubsetCost] = field(default_factory=dict)
    notes: tuple[Mapping[str, Any], ...] = ()
    proxies: tuple[Proxy, ...] = ()

    @property
    def work(self) -> tuple[Trial | Proxy, ...]:
        """Everything that took time: trainings, and what candidates were ranked by."""
        return (*self.trials, *self.proxies)

    def scores(self, method: str = "subtuning") -> dict[Subset, Score]:
        """Return the cross-validated scores by subset. The empty subset is the linear probe."""
        folds: dict[Subset, dict[int, float]] = {}
        for trial in self.trials:
            if trial.fold is not None and (trial.method == method or not trial.subset):
                folds.setdefault(trial.subset, {})[trial.fold] = trial.score
        of, metric = self.header.folds, self.header.metric
        return {subset: Score(tuple(found[f] for f in sorted(found)), of, metric) for subset, found in folds.items()}


class Ledger:
    """A ledger that is open for writing."""

    def __init__(self, path: Path, file: IO[str], contents: LedgerContents) -> None:
        self.path = path
        self.header = contents.header
        self._file = file
        self._trials = {trial.key: trial for trial in contents.trials}
        self._costs = dict(contents.costs)
        self._notes = list(contents.notes)
        self._proxies = {proxy.key: proxy for proxy in contents.proxies}

    @property
    def contents(self) -> LedgerContents:
        """What is in it now."""
        trials, proxies = tuple(self._trials.values()), tuple(self._proxies.values())
        return LedgerContents(self.header, trials, dict(self._costs), tuple(self._notes), proxies)

    def find(self, key: tuple[object, ...]) -> Trial | None:
        """Return the training of that key, if it was done."""
        return self._trials.get(key)

    def add(self, trial: Trial) -> None:
        """Write a training down; it is on the disk when this returns."""
        self._trials[trial.key] = trial
        self._write({"trial": _trial_fields(trial, self.header.metric)})

    def find_proxy(self, key: tuple[object, ...]) -> Proxy | None:
        """Return the measurement of that key, if it was made."""
        return self._proxies.get(key)

    def add_proxy(self, proxy: Proxy) -> None:
        """Write a measurement down; it is on the disk when this returns."""
        self._proxies[proxy.key] = proxy
        self._write({"proxy": asdict(proxy)})

    def add_cost(self, subset: Subset, cost: SubsetCost) -> None:
        """Write down what serving `subset` would cost, if that is news."""
        if self._costs.get(subset) != cost:
            self._costs[subset] = cost
            self._write({"cost": {"subset": subset, **asdict(cost)}})

    def note(self, note: Mapping[str, Any]) -> None:
        """Write a further line."""
        self._notes.append(note)
        self._write({"note": note})

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise CannotWrite(self.path, str(error)) from error


@contextmanager
def open_ledger(path: Path, header: Header) -> Iterator[Ledger]:
    """Open the ledger at `path`, or begin it. Raises LedgerMismatch, LedgerInUse, BadLedger, CannotWrite."""
    if not path.parent.is_dir():
        raise CannotWrite(path, f"the folder {path.parent} does not exist")
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise CannotWrite(path, str(error)) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LedgerInUse(path) from error
        yield _opened(path, file, header)


def read_ledger(path: Path) -> LedgerContents:
    """Return what is in the ledger at `path`. Raises BadLedger."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadLedger(path, f"cannot be read as a ledger ({error})") from error
    return _parse(path, text)


def _opened(path: Path, file: IO[str], header: Header) -> Ledger:
    file.seek(0)
    text = file.read()
    if not text.strip():
        ledger = Ledger(path, file, LedgerContents(header))
        ledger._write({"format": _FORMAT, "header": _header_fields(header)})
        return ledger
    contents = _parse(path, text)
    found = contents.header.difference(header)
    if found is not None:
        raise LedgerMismatch(path, *found)
    if not text.endswith("\n"):  # a line that a kill cut off: what comes next begins a line of its own
        file.write("\n")
    return Ledger(path, file, contents)


def _parse(path: Path, text: str) -> LedgerContents:
    lines = text.split("\n")
    first = _loaded(lines[0])
    if not isinstance(first, dict) or first.get("format") != _FORMAT:
        raise BadLedger(path, f"is no ledger of espalier (its first line does not say {_FORMAT})")
    trials: dict[tuple[object, ...], Trial] = {}
    costs: dict[Subset, SubsetCost] = {}
    notes: list[Mapping[str, Any]] = []
    proxies: dict[tuple[object, ...], Proxy] = {}
    try:
        header = _header(first["header"])
        for line in lines[1:]:
            entry = _loaded(line)
            if entry is None:
                continue  # an empty line, or one that a kill cut off
            if "trial" in entry:
                trial = _trial(entry["trial"], header.metric)
                trials[trial.key] = trial
            elif "cost" in entry:
                fields = dict(entry["cost"])
                subset = tuple(fields.pop("subset"))
                costs[subset] = SubsetCost(**fields)
            elif "note" in entry:
                notes.append(entry["note"])
            elif "proxy" in entry:
                proxy = read_proxy(entry["proxy"])
                proxies[proxy.key] = proxy
    except (TypeError, KeyError, AttributeError) as error:
        raise BadLedger(path, f"it is damaged, or of another version ({error})") from error
    return LedgerContents(header, tuple(trials.values()), costs, tuple(notes), tuple(proxies.values()))


def _loaded(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _header(fields: Mapping[str, Any]) -> Header:
    blocks: Sequence[Mapping[str, Any]] = fields["blocks"]
    metric = metric_from_json(fields["metric"]) if "metric" in fields else ACCURACY
    return Header(**{**fields, "blocks": tuple(BlockFacts(**block) for block in blocks), "metric": metric})


def _header_fields(header: Header) -> dict[str, Any]:
    """Return a header as plain JSON. Of classes neither kind nor metric is said: so it was before there were others."""
    fields = {name: value for name, value in asdict(header).items() if name not in ("kind", "metric")}
    if header.kind == _CLASSES:
        return fields
    return {**fields, "kind": header.kind, "metric": metric_to_json(header.metric)}


def _trial(fields: Mapping[str, Any], metric: Metric) -> Trial:
    known = {name: value for name, value in fields.items() if name != metric.name}
    return Trial(**{**known, "score": fields[metric.name], "subset": tuple(fields["subset"])})


def _trial_fields(trial: Trial, metric: Metric) -> dict[str, Any]:
    """Return a training as plain JSON, its score by the metric's name; seconds of a processor that nobody knows are left out."""
    known = {name: value for name, value in asdict(trial).items() if (name, value) != ("processor_s", None)}
    return {metric.name if name == "score" else name: value for name, value in known.items()}
