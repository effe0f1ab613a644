from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.nets import tiny_data, tiny_preprocessing, tiny_resnet, tiny_vit
from tuning.data.labelled import TaskData
from tuning.errors import BadData, BadOptions, NonFiniteLoss
from tuning.network.checkpoint import build_network, load_task, save_task
from tuning.network.normalise import Normalise
from tuning.training.fit import evaluate
from tuning.transfer.compare import Spread, mean_weights, run_methods, spread
from tuning.transfer.features import TeacherFeatures
from tuning.transfer.guides import KernelMatch
from tuning.transfer.training import Guidance, Student, TransferOptions, batches, train_guided
from tuning.transfer.transfer import METHODS, Method, Transferred, transfer, transfer_features

SHORT = TransferOptions(steps=4, batch_size=8, lr=1e-3)


def _run(method: Method, options: TransferOptions = SHORT, data: TaskData | None = None) -> Transferred:
    data = data or tiny_data()
    teachers = {"big": tiny_vit(seed=3), "other": tiny_resnet(seed=4)}
    return transfer(tiny_resnet(), teachers, lambda _: data, method, options)


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def _features(data: TaskData, dimensions: int = 6) -> dict[str, TeacherFeatures]:
    rows = torch.randn(len(data.train), dimensions, generator=torch.Generator().manual_seed(0))
    return {"made up": TeacherFeatures(tiny_vit().spec, rows)}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_result_is_a_task_of_the_student_like_any_other(method: Method, tmp_path: Path) -> None:
    student, data = tiny_resnet(), tiny_data()
    result = _run(method, replace(SHORT, steps=40, lr=5e-3, beta=1.0))
    save_task(result.checkpoint, tmp_path / "task.safetensors")
    checkpoint = load_task(tmp_path / "task.safetensors")
    network = build_network(student, checkpoint)
    assert checkpoint.all_weights
    assert checkpoint.labels == data.labels
    assert set(checkpoint.tensors) == set(network.state_dict())
    assert checkpoint.scores == {
        "test_accuracy": evaluate(network, data.test, tiny_preprocessing()),
        "train_accuracy": evaluate(network, data.train, tiny_preprocessing()),
    }
    assert checkpoint.scores["train_accuracy"] > 0.6
    assert {name for name in checkpoint.provenance if name.startswith("teacher")} == (
        set() if method == "plain" else {"teacher big", "teacher other"}
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_everything_of_the_student_trains_and_the_given_one_stays(method: Method) -> None:
    student, data = tiny_resnet(), tiny_data()
    before = {name: tensor.clone() for name, tensor in student.network.state_dict().items()}
    tensors = transfer_features(student, _features(data), data, method, SHORT).checkpoint.tensors
    assert _equal(before, student.network.state_dict())
    assert not student.network.training
    assert not [name for name, tensor in before.items() if not name.startswith("fc.") and torch.equal(tensor, tensors[name])]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_weights_whatever_torchs_global_seed(method: Method) -> None:
    torch.manual_seed(1)
    first = _run(method)
    torch.manual_seed(2)
    second = _run(method)
    other = _run(method, replace(SHORT, seed=1))
    assert _equal(first.checkpoint.tensors, second.checkpoint.tensors)
    assert first.teacher_weights == second.teacher_weights
    assert first.checkpoint.scores == second.checkpoint.scores
    assert not _equal(first.checkpoint.tensors, other.checkpoint.tensors)


@pytest.mark.slow
def test_teachers_make_a_difference_unless_beta_is_zero() -> None:
    plain = _run("plain").checkpoint.tensors
    for method in ("aft", "distillation"):
        assert _equal(_run(method, replace(SHORT, beta=0.0)).checkpoint.tensors, plain), method
        assert not _equal(_run(method).checkpoint.tensors, plain), method


@pytest.mark.slow
def test_a_teachers_scale_counts_unless_balanced() -> None:
    data = tiny_data()
    small = _features(data)["made up"]
    large = replace(small, rows=small.rows.flip(0) * 100)

    def shares(balanced: bool) -> list[float]:
        features = {"small": small, "large": large}
        weights = transfer_features(tiny_vit(), features, data, "aft", replace(SHORT, balanced=balanced)).teacher_weights
        return [round(one.share_at_start, 3) for one in weights.values()]

    assert shares(balanced=False) == [0.0, 1.0]
    assert shares(balanced=True) == [0.5, 0.5]


@pytest.mark.slow
def test_learned_weights_are_told_by_teacher() -> None:
    weights = _run("aft").teacher_weights
    assert {name: one.dimensions for name, one in weights.items()} == {"big": 32, "other": 16}
    assert all(0 < one.quantiles[0] <= one.mean <= one.quantiles[-1] < 1 for one in weights.values())
    assert all(one.quantiles[0] < one.quantiles[-1] for one in weights.values())
    assert sum(one.share for one in weights.values()) == pytest.approx(1)
    assert _run("plain").teacher_weights == {} == _run("distillation").teacher_weights


@pytest.mark.slow
def test_dimensions_that_help_the_task_outweigh_noise() -> None:
    """Half of the teacher's dimensions tell the class, half are noise that no image explains."""
    data = tiny_data(train=96, size=8)
    targets = torch.from_numpy(data.train.targets)
    generator = torch.Generator().manual_seed(0)
    telling = torch.eye(3)[targets].repeat(1, 4) + 0.3 * torch.randn(96, 12, generator=generator)
    psi = torch.cat([telling, 0.5 * torch.randn(96, 12, generator=generator)], 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(192, 24), nn.ReLU(), nn.Linear(24, 3))
    match = KernelMatch(24)
    options = TransferOptions(steps=300, lr=1e-3, batch_size=32)
    student = Student(network, "3", Normalise(tiny_preprocessing(8)))
    train_guided(student, torch.from_numpy(data.train.images), targets, Guidance(match, psi, 1e-2), options, None)
    weights = match.weights.detach()
    assert float(weights[:12].mean()) > 1.5 * float(weights[12:].mean())
    assert float(weights[12:].max()) < 0.4  # of the telling ones only those stay low that the others make superfluous


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_diverging_training_says_at_which_step(method: Method) -> None:
    data = tiny_data()
    with pytest.raises(NonFiniteLoss, match=r"at step [0-9]+; try a learning rate below 1e\+30"):
        transfer_features(tiny_resnet(), _features(data), data, method, replace(SHORT, lr=1e30))


def test_a_teacher_that_says_nan_stops_at_the_first_step() -> None:
    data = tiny_data()
    broken = {"broken": TeacherFeatures(tiny_vit().spec, torch.full((24, 2), torch.nan))}
    with pytest.raises(NonFiniteLoss, match="at step 1;"):
        transfer_features(tiny_resnet(), broken, data, "aft", SHORT)


@pytest.mark.slow
def test_progress_is_told_after_every_step() -> None:
    told: list[tuple[int, int]] = []
    transfer_features(tiny_vit(), {}, tiny_data(), "plain", SHORT, on_step=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.slow
def test_methods_run_one_after_the_other_with_each_seed() -> None:
    told: list[tuple[str, int, int]] = []
    data = tiny_data()
    pairs = run_methods(
        tiny_vit(),
        _features(data),
        data,
        ("aft", "plain"),
        replace(SHORT, seed=5),
        2,
        on_step=lambda *facts: told.append(facts),
    )
    runs = [run for run, _ in pairs]
    assert [(run.method, run.seed) for run in runs] == [("aft", 5), ("aft", 6), ("plain", 5), ("plain", 6)]
    assert told == [(method, step, 8) for method in ("aft", "plain") for step in range(1, 9)]
    mean = mean_weights(runs)["made up"].mean
    assert mean == pytest.approx(sum(run.teacher_weights["made up"].mean for run in runs[:2]) / 2)
    assert mean_weights(runs[2:]) == {}


def test_spread_by_hand() -> None:
    assert spread([1.0, 2.0, 3.0]) == Spread(2.0, 1.0)
    assert spread([0.25]) == Spread(0.25, 0.0)


@given(st.integers(3, 60), st.integers(3, 70), st.integers(0, 1000))
def test_an_epoch_has_every_image_once_in_batches_of_about_one_size(rows: int, batch_size: int, seed: int) -> None:
    epoch = -(-rows // batch_size) if rows // 3 >= -(-rows // batch_size) else rows // 3
    first, second = (list(islice(batches(rows, batch_size, seed), start, start + epoch)) for start in (0, epoch))
    for some in (first, second):
        assert sorted(torch.cat(some).tolist()) == list(range(rows))
        assert all(len(batch) >= 3 for batch in some)
        assert max(map(len, some)) - min(map(len, some)) <= 1
    if batch_size >= 5:  # below, five images cannot be dealt into batches of three or four
        assert max(map(len, first)) <= batch_size


@pytest.mark.parametrize("method", ["aft", "distillation"])
def test_methods_with_teachers_want_some(method: Method) -> None:
    with pytest.raises(BadOptions, match="give at least one"):
        transfer_features(tiny_resnet(), {}, tiny_data(), method)


def test_an_unknown_method_names_the_known() -> None:
    with pytest.raises(BadOptions, match="one of aft, plain, distillation, not 'magic'"):
        transfer_features(tiny_resnet(), {}, tiny_data(), "magic")  # type: ignore[arg-type]


def test_features_of_other_images_are_refused() -> None:
    with pytest.raises(BadData, match=r"'made up' have shape \(21, 6\); one row for each of the 24"):
        transfer_features(tiny_resnet(), _features(tiny_data(train=21)), tiny_data(), "aft")


def test_data_of_another_size_or_too_few_images_are_refused() -> None:
    with pytest.raises(BadData, match=r"\(16, 16\) pixels, but the student takes \(32, 32\)"):
        transfer_features(tiny_resnet(), {}, tiny_data(size=16), "plain")
    with pytest.raises(BadData, match="at least 3 training images"):
        transfer_features(tiny_resnet(), {}, tiny_data(classes=2, train=2), "plain")


def test_at_least_one_seed_is_needed() -> None:
    with pytest.raises(BadOptions, match="seeds must be at least 1"):
        list(run_methods(tiny_vit(), {}, tiny_data(), ("plain",), SHORT, 0))


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"batch_size": 2}, {"lr": 0.0}, {"weight_lr": float("nan")}, {"beta": -1.0}, {"seed": -1}]
)
def test_options_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadOptions, match=next(iter(wrong))):
        TransferOptions(**wrong)  # type: ignore[arg-type]
