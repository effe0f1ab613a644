"""`espalier tune transfer`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from espalier.commands.options.tune import DataOption, ForceOption, Images, Weights, check_writable, write_json
from espalier.commands.pairs import split_pairs
from espalier.console import console, loading, progress_bars

if TYPE_CHECKING:
    from contract.preprocessing import Preprocessing
    from tuning.data.labelled import TaskData
    from tuning.transfer.compare import TransferRun
    from tuning.transfer.features import TeacherFeatures
    from tuning.transfer.training import TransferOptions
    from tuning.transfer.transfer import Method

_ALL: tuple[Method, ...] = ("aft", "plain", "distillation")  # tuning.transfer.transfer.METHODS, which would import torch


@dataclass(frozen=True)
class _Weights(Weights):
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights of the student, another way to write NAME@FILE.")
    ] = None


@dataclass(frozen=True)
class _Training:
    """Options of each training."""

    steps: Annotated[int, typer.Option(min=1, help="Batches to train on.")] = 5000
    beta: Annotated[float, typer.Option(help="What the teachers count beside the labels (aft: try 3 to 30).")] = 10.0
    lr: Annotated[float, typer.Option(help="Peak learning rate of the student (Adam, cosine).")] = 1e-4
    balanced: Annotated[
        bool, typer.Option("--balanced", help="For aft with several teachers: bring their features to one scale first.")
    ] = False
    batch_size: Annotated[int, typer.Option(min=3, help="Images per step.")] = 128
    seed: Annotated[int, typer.Option(help="Fixes the head's first weights and the order of the data.")] = 0

    def options(self) -> TransferOptions:
        """Return them as the training takes them."""
        from tuning.transfer.training import TransferOptions

        return TransferOptions(**asdict(self))


def transfer(
    *,
    student: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="The network to train, from its pretrained weights: a timm name or torchvision/NAME, with @FILE for other weights, or a "
            "backbone file.",
        ),
    ],
    data: DataOption,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The task checkpoint to write (.safetensors): of --method, of aft where that is all; always of the first seed.",
        ),
    ],
    teacher: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=MODEL", help="A network to learn from, and what to call it. Repeat it for each teacher."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="aft|plain|distillation|all",
            help="aft: match the kernels of features, with learned weights of the teachers'. distillation: predict the teachers' features. "
            "plain: no teachers. all: the three beside each other.",
        ),
    ] = "aft",
    weights: _Weights,
    images: Images,
    training: _Training,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per method, with seeds from --seed on.")] = 1,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every number as JSON.")] = None,
    force: ForceOption = False,
) -> None:
    """Train a small network with what larger ones know (Adaptive Feature Transfer), and write it as a task checkpoint.

    The teachers are needed here only. Export the result with --backbone STUDENT, as any other task.

    [dim]espalier tune transfer --student resnet18.a1_in1k --teacher big=resnet50.a1_in1k --data flowers/ --out flowers.safetensors[/]
    """
    methods, teachers = _parse_method(method), split_pairs(teacher or [], "NAME=MODEL", "--teacher")
    if not teachers and methods != ("plain",):
        raise typer.BadParameter(f"the method {method} learns from teachers; name at least one.", param_hint="--teacher")
    check_writable(out, force=force)
    if report is not None:
        check_writable(report, ".json", "--report", force=force)

    with loading():
        from espalier.tables.transfer import as_data, methods_table, weights_table
        from tuning.network.checkpoint import save_task
        from tuning.transfer.compare import mean_weights, run_methods
        from tuning.transfer.features import compute_features

    options = training.options()
    pupil = weights.open(student)
    task_data = images.open(data, pupil.spec.preprocessing)

    def data_for(preprocessing: Preprocessing) -> TaskData:
        return task_data if preprocessing == pupil.spec.preprocessing else images.load(data, preprocessing)

    features: dict[str, TeacherFeatures] = {}
    for name, model in teachers.items() if methods != ("plain",) else ():
        backbone = Weights().open(model)
        with console.status(f"Asking the teacher {escape(name)}"):
            features |= compute_features({name: backbone}, data_for, task_data)
    runs: list[TransferRun] = []
    with progress_bars() as progress:
        for run, result in run_methods(pupil, features, task_data, methods, options, seeds, on_step=progress):
            if not runs:
                save_task(result.checkpoint, out)
            runs.append(run)
    console.print(methods_table(runs))
    if learned := mean_weights(runs):
        console.print(weights_table(learned))
    if report is not None:
        about = {"student": student, "teachers": teachers, "data": data, "options": asdict(options), "seeds": seeds}
        write_json(report, {**about, **as_data(runs)})
    console.print(f"Wrote {escape(str(out))}: {methods[0]}, seed {training.seed}.", soft_wrap=True)


def _parse_method(method: str) -> tuple[Method, ...]:
    """Return the methods that `--method` names, the one to write first."""
    if method == "all":
        return _ALL
    for known in _ALL:
        if method == known:
            return (known,)
    raise typer.BadParameter(f"must be {', '.join(_ALL)} or all, not {method!r}.", param_hint="--method")
