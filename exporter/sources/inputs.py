"""Which inputs of networks are one input of the repository.

Those of networks with several inputs are told apart by name. The only input of a network says what may be put there, and its name says
nothing: it is whatever input of the others takes the same, if there is exactly one. Where two fit, somebody has to say which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from contract.dtypes import onnx_dtype
from contract.repository import Task
from exporter.errors import AmbiguousInput, InputTwice, OtherInputType, UnknownInputName
from exporter.graph.chain import Chain, Tap
from exporter.graph.digests import source_address

_ONLY_INPUT = "image"  # what clients call the input, where all networks have one and take the same
Rows = tuple[str, tuple[int, ...]]  # dtype in ONNX's words, shape without the batch axis
Chosen = Mapping[str, Mapping[str, str]]  # per network, what inputs of it are to be called


@dataclass(frozen=True)
class RepositoryInput:
    """An input of the repository: its name for clients, what may be put there, and its address in every network that takes it.

    by_type: whether only networks with a single input take it, so that its name tells it from nothing.
    """

    name: str
    rows: Rows
    address: str
    by_type: bool = False


def inputs_of(tasks: Iterable[Task]) -> dict[str, RepositoryInput]:
    """Return the inputs of `tasks`, all of one repository, by name. Raises OtherInputType where tasks call different ones by one name."""
    tasks = list(tasks)
    rows: dict[str, Rows] = {}
    for task in tasks:
        for spec in task.inputs:
            kind = onnx_dtype(spec.dtype), spec.shape
            if rows.setdefault(spec.name, kind) != kind:
                raise OtherInputType(task.name, spec.name, describe_rows(kind), spec.name, describe_rows(rows[spec.name]))
    named = {spec.name for task in tasks if len(task.inputs) > 1 for spec in task.inputs}
    return {name: RepositoryInput(name, kind, _address(kind, name, len(rows)), name not in named) for name, kind in rows.items()}


def match_inputs(
    networks: Mapping[str, Sequence[Tap]], there: Mapping[str, RepositoryInput], chosen: Chosen
) -> dict[str, tuple[RepositoryInput, ...]]:
    """Return for each of `networks`, given as what it takes, the inputs of the repository that these are.

    there: the inputs that the repository has already. chosen: what somebody said. Of networks that have inputs of one name and another
    type, the first keeps the name. Raises AmbiguousInput, UnknownInputName, OtherInputType, InputTwice.
    """
    matcher = _Matcher(networks, there, chosen)
    matcher.match()
    names = {name: tuple(matcher.names[name, tap.name] for tap in taps) for name, taps in networks.items()}
    for network, called in names.items():
        for name in called:
            if called.count(name) > 1:
                raise InputTwice(network, name)
    told_apart = {name for called in names.values() if len(called) > 1 for name in called}
    found = {
        name: RepositoryInput(name, rows, _address(rows, name, len(matcher.known)), name not in told_apart)
        for name, rows in matcher.known.items()
    } | dict(there)
    return {network: tuple(found[name] for name in called) for network, called in names.items()}


def with_names(chain: Chain, inputs: Sequence[RepositoryInput]) -> Chain:
    """Return `chain` with its inputs called as the repository calls them."""
    return replace(chain, inputs=tuple(replace(tap, name=found.name) for tap, found in zip(chain.inputs, inputs, strict=True)))


def explain_inputs(taps: Sequence[Tap], inputs: Sequence[RepositoryInput], chosen: Mapping[str, str]) -> str | None:
    """Return which inputs of a network the repository calls otherwise, to be read after the network's name.

    None: none, or as was said; and what its only input is called goes without saying where all networks have that one.
    """
    others = [
        f"{tap.name!r} as {found.name!r}"
        for tap, found in zip(taps, inputs, strict=True)
        if tap.name not in chosen
        and found.name != tap.name
        and not (len(taps) == 1 and found.address == _address(found.rows, "", 1))
    ]
    return f"takes its input {' and '.join(others)}." if others else None


class _Matcher:
    """Gives each input of each network a name. known: those that there are, with what they take."""

    def __init__(self, networks: Mapping[str, Sequence[Tap]], there: Mapping[str, RepositoryInput], chosen: Chosen) -> None:
        self._networks, self._chosen = networks, chosen
        self._loose = {name for name, found in there.items() if found.by_type}
        self.known: dict[str, Rows] = {name: found.rows for name, found in there.items()}
        self.names: dict[tuple[str, str], str] = {}

    def match(self) -> None:
        """Name those of networks with several inputs, those of which somebody said what they are, and then the others."""
        self._check_chosen()
        for network, taps in self._networks.items():
            if len(taps) > 1:
                self._match_several(network, [tap for tap in taps if not self._is_chosen(network, tap)])
        for network, taps in self._networks.items():
            for tap in taps:
                if self._is_chosen(network, tap):
                    self._take(network, tap, self._chosen[network][tap.name])
        for network, taps in self._networks.items():
            if len(taps) == 1 and not self._is_chosen(network, taps[0]):
                self._match_only(network, taps[0])

    def _check_chosen(self) -> None:
        for network, names in self._chosen.items():
            there = [tap.name for tap in self._networks.get(network, ())]
            for name in names:
                if name not in there:
                    raise UnknownInputName(network, name, there)

    def _is_chosen(self, network: str, tap: Tap) -> bool:
        return tap.name in self._chosen.get(network, {})

    def _match_several(self, network: str, taps: Sequence[Tap]) -> None:
        """Name `taps` of a network with several inputs: as they are called, or as what only networks with one input take so far."""
        new = [tap for tap in taps if self.known.get(tap.name) != tap.rows]
        taken = {tap.name for tap in taps if tap not in new}.union(self._chosen.get(network, {}).values())
        for rows in dict.fromkeys(tap.rows for tap in new):
            fitting = [tap for tap in new if tap.rows == rows]
            loose = [name for name in self._fitting(rows) if name in self._loose - taken]
            if len(fitting) == len(loose) == 1:
                self._take(network, fitting[0], loose[0])
            elif loose:
                raise AmbiguousInput(network, [tap.name for tap in fitting], describe_rows(rows), loose)
        for tap in taps:
            if (network, tap.name) not in self.names:
                self._take(network, tap, tap.name if self.known.get(tap.name, tap.rows) == tap.rows else _apart(tap))

    def _match_only(self, network: str, tap: Tap) -> None:
        fitting = self._fitting(tap.rows)
        if len(fitting) > 1 and tap.name not in fitting:
            raise AmbiguousInput(network, [tap.name], describe_rows(tap.rows), fitting)
        if fitting:
            self._take(network, tap, tap.name if tap.name in fitting else fitting[0])
        elif not self.known and all(taps[0].rows == tap.rows for taps in self._networks.values()):
            self._take(network, tap, _ONLY_INPUT)
        else:
            self._take(network, tap, _apart(tap) if tap.name in self.known else tap.name)

    def _fitting(self, rows: Rows) -> list[str]:
        return [name for name, known in self.known.items() if known == rows]

    def _take(self, network: str, tap: Tap, name: str) -> None:
        known = self.known.setdefault(name, tap.rows)
        if known != tap.rows:
            raise OtherInputType(network, tap.name, describe_rows(tap.rows), name, describe_rows(known))
        self.names[network, tap.name] = name


def describe_rows(rows: Rows) -> str:
    """Return what may be put into an input, in words."""
    dtype, shape = rows
    return f"{dtype} rows of shape {list(shape)}"


def _apart(tap: Tap) -> str:
    """Return a name for an input whose own one is taken by another: with what tells the two apart."""
    dtype, shape = tap.rows
    return "_".join([tap.name, dtype.lower(), "x".join("any" if size < 0 else str(size) for size in shape)])


def _address(rows: Rows, name: str, count: int) -> str:
    return source_address(*rows, name if count > 1 else "")
