"""What must hold before task models may share a repository, and why a task shares nothing, in a sentence."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from contract.preprocessing import Preprocessing
from contract.repository import ALL_TASKS, Task
from exporter.errors import AnotherArchitecture, BadTaskName, NoTasks
from exporter.graph.chain import Chain
from exporter.sharing.plan import common_blocks
from exporter.sharing.reasons import Difference, explain_other_operators, unknown_difference
from exporter.sources.inputs import describe_rows

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_SEGMENT_NAME = re.compile(r".*-\d{2,}-\d{2,}-[0-9a-f]{8}")


def check_names(names: Iterable[str]) -> None:
    """Raise NoTasks or BadTaskName unless every name can be a folder, a tensor and an ensemble of its own."""
    names = list(names)
    if not names:
        raise NoTasks
    for name in names:
        if not _NAME.fullmatch(name):
            raise BadTaskName(name, "use letters, digits, '_', '-' and '.', beginning with a letter, a digit or '_'")
        if name == ALL_TASKS or _SEGMENT_NAME.fullmatch(name):
            raise BadTaskName(name, "the repository uses that name itself")
        if name in ("image", "trunk", "shared"):
            raise BadTaskName(name, "the repository uses that word for its own tensors and segments")


def check_output_names(tasks: Iterable[Task]) -> None:
    """Raise BadTaskName when an output of one task has the name of another task or of its output."""
    tasks = list(tasks)
    seen: dict[str, str] = {}
    inputs = {spec.name for task in tasks for spec in task.inputs}
    for task in tasks:
        if not inputs.isdisjoint([task.name, *(output.name for output in task.outputs)]):
            whose = "the" if task.name in {spec.name for spec in task.inputs} else "another"
            raise BadTaskName(task.name, f"{whose} network has an input of that name")
        for name in {task.name, *(output.name for output in task.outputs)}:
            other = seen.setdefault(name, task.name)
            if other != task.name:
                raise BadTaskName(task.name, f"{other!r} would have an output {name!r}, too")


def check_together(tasks: Sequence[Chain], backbone: Chain | None) -> None:
    """Raise AnotherArchitecture unless `tasks` are of `backbone`, if there is one."""
    for chain in tasks:
        if backbone is not None and not _shares_weights(chain, backbone) and not _same_architecture(chain, backbone):
            raise AnotherArchitecture(chain.name, len(chain.blocks), len(backbone.blocks))


def explain_sharing(
    chain: Chain,
    preprocessing: Preprocessing | None,
    others: Mapping[str, tuple[Chain, Preprocessing | None]],
    difference: Difference = unknown_difference,
    apart: Collection[str] | None = None,
) -> str | None:
    """Return why the task shares no computation with any of `others`, or less than its weights would allow, or None if it does.

    difference: says by what two blocks differ first. apart: those of `others` of which it has weights in what it computes alone; None: all
    may be.
    """
    if not others:
        return None
    if any(common_blocks(chain, other) for other, _ in others.values()):
        alike = {name: other for name, (other, _) in others.items() if apart is None or name in apart}
        return explain_other_operators(chain, alike, difference)
    return _explain_nothing_shared(chain, preprocessing, others, difference)


def _explain_nothing_shared(
    chain: Chain,
    preprocessing: Preprocessing | None,
    others: Mapping[str, tuple[Chain, Preprocessing | None]],
    difference: Difference,
) -> str:
    name, (other, others_preprocessing) = next(iter(others.items()))
    weighty = [block for block in chain.blocks if block.parameters]
    stored = sum(block.content in {b.content for o, _ in others.values() for b in o.blocks} for block in weighty)
    weights = f"; the weights of {stored} of its {len(weighty)} blocks are still stored once" if stored else ""
    found = difference((chain.name, chain.blocks[0]), (name, other.blocks[0]))
    if not any(set(chain.inputs) & set(there.inputs) for there, _ in others.values()):
        reason = f"it takes {_describe_inputs(chain)}, and {name} takes {_describe_inputs(other)}"
    elif preprocessing == others_preprocessing and _other_steps(chain, other):
        reason = (
            "it was quantised by other steps (scales and zero points), as another calibration gives them; quantise what the tasks have in "
            "common by one"
        )
    elif chain.preprocessing != other.preprocessing:
        described = _describe(preprocessing, others_preprocessing) or (found and f" ({found})")
        reason = f"its preprocessing is not that of {name}{described}"
    elif chain.blocks[0].structure == other.blocks[0].structure:
        reason = f"the weights of its first block were changed{found and f' (first {found})'}"
    else:
        reason = f"its first block computes something else than that of {name}{found and f' ({found})'}"
    return f"shares no computation, because {reason}{weights}."


def _other_steps(chain: Chain, other: Chain) -> bool:
    """Whether the first blocks are of one structure and quantise what is computed by different steps."""
    ours, theirs = chain.blocks[0], other.blocks[0]
    return ours.structure == theirs.structure and ours.steps != theirs.steps


def _describe_inputs(chain: Chain) -> str:
    named = len(chain.inputs) > 1
    return " and ".join(f"{describe_rows(tap.rows)}{f' in {tap.name!r}' if named else ''}" for tap in chain.inputs)


def _describe(ours: Preprocessing | None, theirs: Preprocessing | None) -> str:
    if ours is None or theirs is None:
        return ""  # a foreign ONNX model: its constants are in the graph, their meaning is not recorded
    return f" (mean {ours.mean}, std {ours.std} instead of mean {theirs.mean}, std {theirs.std})"


def _shares_weights(chain: Chain, other: Chain) -> bool:
    digests = {block.digest for block in chain.blocks if block.parameters} & {block.digest for block in other.blocks}
    return bool(digests) or not _matrices(chain).isdisjoint(_matrices(other))


def _matrices(chain: Chain) -> frozenset[bytes]:
    return frozenset[bytes]().union(*(block.matrices for block in chain.blocks))


def _same_architecture(chain: Chain, other: Chain) -> bool:
    # The last block is the head, which has a size of its own.
    return [b.structure for b in chain.blocks[:-1]] == [b.structure for b in other.blocks[:-1]]
