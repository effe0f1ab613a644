"""Plans what a repository becomes when tasks are added: beside what is there, or with all of it cut anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from contract.repository import Repository, Step, Task
from contract.repository.not_shared import NotShared
from exporter.build.analysis import Analysis, Progress
from exporter.build.describe import TensorNames, describe_steps, describe_task, names_of_tensors
from exporter.build.near_weights import explain_near
from exporter.build.repository_chains import RepositoryChains, contents_of
from exporter.errors import UnknownCutRule
from exporter.graph.chain import Chain
from exporter.graph.extract import rejoin
from exporter.sharing.choose import CUT_RULES, CutOptions
from exporter.sharing.not_shared import combined, find_not_shared
from exporter.sharing.plan import SharingPlan, make_sharing_plan
from exporter.sharing.reuse import Existing, Missed, Pattern, as_block, keep_segments, missed_sharing
from exporter.sources.task_model import LoadTaskModel, Sources, TaskModel

_TaskSteps = Mapping[str, Sequence[Step]]


@dataclass(frozen=True)
class Addition:
    """What a repository becomes. steps: of each version that was there; coming: the tasks that are added.

    cut_rule: how it is cut then. missed: per new task, what it shares but computes itself for want of a cut. not_shared: as of Repository.
    """

    plan: SharingPlan
    steps: Mapping[str, tuple[Step, ...]]
    coming: Mapping[str, Task]
    cut_rule: str
    missed: Mapping[str, Missed] = field(default_factory=dict)
    not_shared: tuple[NotShared, ...] = ()


def rows_of(repository: Repository) -> int:
    """Return the most rows that one run of a model of `repository` takes."""
    return min(segment.max_batch_rows for segment in repository.segments.values())


def plan_beside(
    old: Repository, repository_chains: RepositoryChains, coming: Sources, analysis: Analysis, progress: Progress
) -> Addition:
    """Return what `old`, whose versions are tasks of their own and taken apart `repository_chains`, becomes when all of it stays."""
    analysis.adopt(repository_chains, old)
    analysis.read(coming, progress)
    new, there = [*analysis.tasks.values()], [*repository_chains.chains.values()]
    cuts = keep_segments([*there, *new])
    plan = make_sharing_plan([*there, *new], analysis.backbone, cuts, _contents(old, repository_chains), analysis.digest_of)
    plan = replace(plan, cuts_left_out=old.cuts_left_out)
    steps = {name: task.steps for name, task in old.tasks.items()}
    values = frozenset[str]().union(*(one.values for one in repository_chains.existing))
    missed = {chain.name: missed_sharing(values, chain) for chain in new}
    described = _described(coming.tasks, plan, analysis, old, steps)
    described = {name: _as_there(task, analysis.tasks[name], repository_chains, old) for name, task in described.items()}
    apart = combined(
        old.not_shared, [*find_not_shared(analysis.segment_graphs(plan)), *explain_near(analysis.near), *analysis.scaled]
    )
    return Addition(plan, steps, described, old.cut_rule, missed, apart)


def _as_there(task: Task, chain: Chain, repository_chains: RepositoryChains, old: Repository) -> Task:
    """Return `task` with the steps of a version of it that computes the same: what is deployed again changes nothing."""
    wanted = [tap.address for tap in chain.outputs]
    for version, there in repository_chains.chains.items():
        if version.partition("@")[0] == task.name and [tap.address for tap in there.outputs] == wanted:
            return replace(task, steps=old.tasks[version].steps)
    return task


def plan_anew(
    old: Repository,
    repository_chains: RepositoryChains,
    answers: Mapping[str, bool],
    coming: Sources,
    cuts: CutOptions | None,
    analysis: Analysis,
    progress: Progress,
) -> Addition:
    """Return what `old` becomes when all tasks are cut as an export of them would cut them.

    answers: the versions that stay, and whether each answers requests. What answers none decides no cut: it uses the segments that
    fit it, as a task that is added does. cuts: how to choose them; None: by the rule that `old` was cut by. Raises UnknownCutRule.
    """
    cuts = cuts or _cuts_of(old)
    tasks = _put_together(repository_chains, [old.tasks[name] for name in answers])
    analysis.fixed = tasks.keys()
    analysis.levels |= _untaken(repository_chains)
    kept_names = {name: {spec.name: spec.name for spec in old.tasks[name].inputs} for name in tasks}
    both = Sources({**tasks, **coming.tasks}, coming.backbone, inputs={**kept_names, **coming.inputs})
    analysis.read(both, progress, repository_chains.inputs)
    kept = [name for name, answering in answers.items() if not answering]
    plan = _plan(analysis, kept, replace(cuts, levels=analysis.levels), _contents(old, repository_chains))
    # A name is first given to what answers requests, in which every tensor is made by one segment.
    steps = {name: task.steps for name, task in old.tasks.items()}
    live = _steps([name for name, answering in answers.items() if answering], plan, analysis)
    described = _described(coming.tasks, plan, analysis, old, live)
    taken = live | {name: task.steps for name, task in described.items()}
    all_steps = {**steps, **live, **_steps(kept, plan, analysis, names_of_tensors(taken))}
    apart = (*find_not_shared(analysis.segment_graphs(plan, anew=True)), *explain_near(analysis.near), *analysis.scaled)
    return Addition(plan, all_steps, described, cuts.rule, not_shared=apart)


def _contents(old: Repository, repository_chains: RepositoryChains) -> dict[str, str]:
    return contents_of(old, repository_chains.digests)


def _cuts_of(repository: Repository) -> CutOptions:
    for rule in CUT_RULES:
        if rule == repository.cut_rule:
            return CutOptions(rule)
    raise UnknownCutRule(repository.path, repository.cut_rule, CUT_RULES)


def _put_together(repository_chains: RepositoryChains, tasks: Iterable[Task]) -> dict[str, LoadTaskModel]:
    models = repository_chains.models

    def loader(task: Task) -> LoadTaskModel:
        return lambda: TaskModel(rejoin(task, models), task.labels, task.preprocessing, task.provenance)

    return {task.name: loader(task) for task in tasks}


def _untaken(repository_chains: RepositoryChains) -> frozenset[str]:
    """Return the addresses of what segments give for tasks to come: nothing that is there takes it."""
    chains = repository_chains.chains.values()
    taken = {address for chain in chains for block in chain.blocks for address in block.addresses}
    taken.update(tap.address for chain in chains for tap in chain.outputs)
    given = (tap.address for chain in chains for block in chain.blocks for tap in block.outputs)
    return frozenset(address for address in given if address not in taken)


def _plan(analysis: Analysis, kept: Collection[str], cuts: CutOptions, there: Mapping[str, str]) -> SharingPlan:
    deciding = [chain for name, chain in analysis.tasks.items() if name not in kept]
    plan = make_sharing_plan(deciding, analysis.backbone, cuts, there, analysis.digest_of)
    if not kept:
        return plan
    others = analysis.beside(kept, _existing(plan, analysis), _patterns(plan))
    fixed = [_as_segments(chain, plan) for chain in deciding]
    there = {**there, **{name: segment.content for name, segment in plan.segments.items()}}
    chains = [*fixed, *others]
    wider = make_sharing_plan(chains, analysis.backbone, keep_segments(chains), there, analysis.digest_of)
    return replace(plan, segments={**wider.segments, **plan.segments}, tasks={**wider.tasks, **plan.tasks})


def _existing(plan: SharingPlan, analysis: Analysis) -> list[Existing]:
    """Return the segments of `plan` where they are used, each after those whose outputs it takes."""
    found: dict[tuple[str, tuple[str, ...]], Existing] = {}
    for name, steps in plan.tasks.items():
        for step in steps:
            key = step.segment, tuple(tap.address for tap in step.inputs)
            if key not in found:
                found[key] = analysis.existing(name, step, plan.segments[step.segment])
    return [*found.values()]


def _patterns(plan: SharingPlan) -> dict[str, Pattern]:
    return {
        name: Pattern(segment.digest, segment.blocks, segment.inputs, segment.outputs) for name, segment in plan.segments.items()
    }


def _as_segments(chain: Chain, plan: SharingPlan) -> Chain:
    """Return `chain` with a block for each of its steps in `plan`."""
    blocks = [as_block(step, plan.segments[step.segment]) for step in plan.tasks[chain.name]]
    return replace(chain, blocks=tuple(replace(block, index=index) for index, block in enumerate(blocks)))


def _steps(
    names: Iterable[str], plan: SharingPlan, analysis: Analysis, taken: TensorNames | None = None
) -> dict[str, tuple[Step, ...]]:
    """Return the steps of the versions `names`, TASK or TASK@VERSION; their outputs are named after the task."""
    chains = {name: replace(analysis.tasks[name], name=name.partition("@")[0]) for name in names}
    taken = taken or TensorNames()
    return {name: describe_steps(chain, plan.tasks[name], taken) for name, chain in chains.items()}


def _described(
    names: Iterable[str], plan: SharingPlan, analysis: Analysis, old: Repository, there: _TaskSteps
) -> dict[str, Task]:
    taken = names_of_tensors(there)
    return {
        name: describe_task(analysis.tasks[name], plan.tasks[name], analysis.models[name], rows_of(old), taken) for name in names
    }
