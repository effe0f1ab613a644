from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from espalier.cli import app
from espalier.commands.options.groups import ungroup
from espalier.commands.options.training import (
    Augmentation,
    BatchSizeOption,
    Cache,
    Learning,
    Machine,
    cache_limits,
    make_fit_options,
)


@dataclass(frozen=True)
class Paint:
    colour: Annotated[str, typer.Option(help="What colour.")] = "red"
    coats: Annotated[int, typer.Option(min=1)] = 2
    varnish: bool = False


@dataclass(frozen=True)
class OneCoat(Paint):
    colour: Annotated[str, typer.Option("--color", help="What color.")] = "grey"
    coats: int = field(default=1, init=False)


@dataclass(frozen=True)
class Quick(Learning):  # its other annotations are names of another module
    batch_size: BatchSizeOption = 7


def command_line(command: Callable[..., None]) -> typer.Typer:
    cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    cli.command()(ungroup(command))
    return cli


def options(cli: typer.Typer, *path: str) -> dict[str, Any]:
    """The options by name in their order, and the defaults; None for those that must be given."""
    command: Any = typer.main.get_command(cli)
    for name in path:
        command = command.commands[name]
    return {parameter.opts[0]: parameter.default for parameter in command.params}


def test_fields_stand_where_their_group_stood_and_come_back_as_one() -> None:
    calls = []

    def furnish(*, wall: Annotated[str, typer.Option()], paint: Paint, doors: int = 1) -> None:
        """Furnish a room."""
        calls.append((wall, paint, doors))

    cli = command_line(furnish)
    assert list(options(cli).items()) == [
        ("--wall", None),
        ("--colour", "red"),
        ("--coats", 2),
        ("--varnish", False),
        ("--doors", 1),
    ]
    assert CliRunner().invoke(cli, ["--wall", "north", "--varnish", "--coats", "3"]).exit_code == 0
    assert CliRunner().invoke(cli, ["--wall", "south", "--doors", "2"]).exit_code == 0
    assert calls == [("north", Paint("red", 3, True), 1), ("south", Paint(), 2)]
    assert CliRunner().invoke(cli, ["--wall", "north", "--coats", "0"]).exit_code == 2
    assert CliRunner().invoke(cli, []).exit_code == 2
    said = CliRunner().invoke(cli, ["--help"], env={"COLUMNS": "100"}).stdout
    assert "What colour." in said
    assert "Furnish a room." in said


def test_a_subclass_changes_an_option_in_its_place_and_leaves_one_out() -> None:
    calls = []

    def furnish(*, paint: OneCoat) -> None:
        calls.append(paint)

    cli = command_line(furnish)
    assert list(options(cli).items()) == [("--color", "grey"), ("--varnish", False)]
    assert CliRunner().invoke(cli, ["--color", "blue"]).exit_code == 0
    assert [asdict(paint) for paint in calls] == [{"colour": "blue", "coats": 1, "varnish": False}]


def test_an_option_in_two_groups_is_refused_at_once() -> None:
    def furnish(*, paint: Paint, coats: int = 3) -> None: ...

    with pytest.raises(ValueError, match="duplicate parameter name: 'coats'"):
        ungroup(furnish)


@pytest.mark.slow
@settings(max_examples=30)
@given(
    st.builds(
        Quick,
        epochs=st.integers(1, 99),
        lr=st.none() | st.floats(1e-6, 1.0),
        weight_decay=st.floats(0, 1),
        batch_size=st.integers(2, 99),
        seed=st.integers(0, 2**40),
    ),
    st.builds(Augmentation, views=st.integers(1, 9), flip=st.booleans()),
)
def test_what_is_given_reaches_the_training(learning: Quick, augmentation: Augmentation) -> None:
    found = []

    def train(*, learning: Quick, augmentation: Augmentation, machine: Machine) -> None:
        found.append(make_fit_options(learning, augmentation, machine))

    words = []
    for name, value in (asdict(learning) | asdict(augmentation)).items():
        option = f"--{name.replace('_', '-')}"
        words += [] if value is None or value is False else [option] if value is True else [option, str(value)]
    run = CliRunner().invoke(command_line(train), [*words, "--device", "cpu", "--precision", "bfloat16", "--cache", "off"])
    assert run.exit_code == 0, run.output
    on_machine = {"device": "cpu", "precision": "bfloat16", "cache_bytes": 0, "cache_folder": None}
    assert asdict(found[0]) == asdict(learning) | asdict(augmentation) | on_machine


@pytest.mark.parametrize(
    ("command", "lacks", "defaults"),
    [
        ("fit", set(), {"--lr": None, "--batch-size": 64, "--seed": 0}),
        ("compare", {"--lr", "--seed", "--train-images"}, {"--epochs": 10, "--batch-size": 64}),
        ("prune", {"--train-images"}, {"--corruption": None, "--epochs": 10}),
        ("pretrain", {"--corruption", "--train-images", "--views"}, {"--lr": 2e-3, "--batch-size": 32, "--epochs": 10}),
    ],
)
def test_commands_differ_in_their_options(command: str, lacks: set[str], defaults: dict[str, object]) -> None:
    found = options(app, "tune", command)
    assert not lacks & set(found)
    assert {name: found[name] for name in defaults} == defaults
    assert {"--data", "--data-folder", "--download", "--epochs", "--weight-decay"} <= set(found)


@pytest.mark.parametrize(("available", "kept"), [(6 * 2**30, 3 * 2**30), (0, 2 * 2**30)])
def test_memory_for_features_is_half_of_what_the_process_may_have(
    monkeypatch: pytest.MonkeyPatch, available: int, kept: int
) -> None:
    """In a container that is the container's limit; where nobody says how much there is, 2 GiB."""
    monkeypatch.setattr("espalier.commands.options.training.available_memory_bytes", lambda: available)
    assert cache_limits(Cache.MEMORY) == (kept, None)
