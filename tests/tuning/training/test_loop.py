from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tuning.errors import NonFiniteLoss, UnsupportedNetwork
from tuning.training.compute import Compute
from tuning.training.loop import Course, Examples, FitOptions, logits, train

CPU = Compute("cpu", channels_last=False)


def _examples(count: int = 4, views: int = 1, rows: Tensor | None = None) -> Examples:
    inputs = torch.arange(views * count, dtype=torch.float32).reshape(-1, 1) / count
    return Examples((inputs,), torch.arange(count) % 2, torch.arange(count) if rows is None else rows, views)


class _Sum(nn.Module):
    """Scores (first + second, 0) for whatever input: with targets 0, the gradient is the same for both parameters."""

    def __init__(self, first: float, second: float) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor([first]))
        self.second = nn.Parameter(torch.tensor([second]))

    def forward(self, x: Tensor) -> Tensor:
        score = (self.first + self.second).expand(len(x), 1)
        return torch.cat([score, torch.zeros(len(x), 1)], dim=1)


class _Recorder(nn.Module):
    """A linear layer that keeps what it is asked; gives NaN from call `broken` on."""

    def __init__(self, broken: int = 1_000_000) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)
        self.broken = broken
        self.seen: list[list[float]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.flatten().tolist())
        scores: Tensor = self.layer(x)
        return scores * torch.nan if len(self.seen) >= self.broken else scores


@given(epochs=st.integers(1, 5), steps=st.integers(1, 7), peak=st.floats(1e-5, 1.0))
def test_the_rate_is_torchs_cosine_step_by_step(epochs: int, steps: int, peak: float) -> None:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=epochs * steps)
    course = Course(peak, epochs)
    for epoch, step in itertools.product(range(epochs), range(steps)):
        assert course.lr(epoch, step / steps) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-6, abs=1e-12)
        optimiser.step()
        scheduler.step()


def test_stretches_of_one_cosine_join() -> None:
    whole = Course(1.0, 5)
    parts = [Course(1.0, 2, first_epoch=0, epochs_in_all=5), Course(1.0, 3, first_epoch=2, epochs_in_all=5)]
    rates = [part.lr(epoch, 0.5) for part in parts for epoch in range(part.epochs)]
    assert rates == [whole.lr(epoch, 0.5) for epoch in range(5)]


def test_stretches_go_on_in_the_order_and_views_of_the_whole() -> None:
    whole, parts = _Recorder(), _Recorder()
    options = FitOptions(batch_size=4, device="cpu")
    train(whole, _examples(8, views=2), options, Course(1e-3, 4), CPU)
    for first in range(4):
        train(parts, _examples(8, views=2), options, Course(1e-3, 1, first_epoch=first, epochs_in_all=4), CPU)
    assert parts.seen == whole.seen
    assert len({tuple(batch) for batch in whole.seen}) == len(whole.seen)


@settings(max_examples=50)
@given(count=st.integers(2, 40), batch_size=st.integers(2, 16), data=st.data())
def test_an_epoch_shows_each_row_once_and_no_batch_is_of_one(count: int, batch_size: int, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=count, unique=True))
    module = _Recorder()
    examples = _examples(count, views=2, rows=torch.tensor(rows))
    train(module, examples, FitOptions(batch_size=batch_size), Course(1e-3, 2), CPU)
    shown = [round(value * count) for batch in module.seen for value in batch]
    assert sorted(shown[: len(rows)]) == sorted(rows)
    assert sorted(shown[len(rows) :]) == sorted(row + count for row in rows)  # the second epoch shows the second view
    assert all(len(batch) >= 2 for batch in module.seen)
    assert all(len(batch) <= max(batch_size, 3) for batch in module.seen)  # three, not two and one


def test_relative_gradients_scale_the_rates() -> None:
    """Norms by hand: the gradients are equal, the values 2 and -0.5: relative norms g/2 and g/0.5, rates a quarter and the whole."""
    module = _Sum(2.0, -0.5)
    examples = Examples((torch.zeros(4, 1),), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    train(module, examples, FitOptions(batch_size=4), Course(0.1, 1, relative_gradients=True), CPU)
    # Adam's first step is the rate itself, against the gradient's sign.
    assert [module.first.item(), module.second.item()] == pytest.approx([2.0 + 0.025, -0.5 + 0.1], abs=1e-5)


def test_without_relative_gradients_rates_are_equal() -> None:
    module = _Sum(2.0, -0.5)
    examples = Examples((torch.zeros(4, 1),), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    train(module, examples, FitOptions(batch_size=4), Course(0.1, 1), CPU)
    assert [module.first.item(), module.second.item()] == pytest.approx([2.1, -0.4], abs=1e-5)


def test_biases_and_norms_do_not_decay() -> None:
    module = nn.Sequential(nn.Linear(1, 2), nn.Flatten())
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    examples = Examples((torch.zeros(4, 1),), torch.arange(4) % 2, torch.arange(4))  # zeros: the weight has no gradient
    train(module, examples, FitOptions(batch_size=4, weight_decay=0.5), Course(0.1, 1), CPU)
    torch.testing.assert_close(module[0].weight.detach(), before["0.weight"] * (1 - 0.1 * 0.5))


@pytest.mark.parametrize("broken", [1, 2, 5])
def test_a_loss_that_is_not_finite_is_told_with_its_step(broken: int) -> None:
    with pytest.raises(NonFiniteLoss) as error:
        train(_Recorder(broken), _examples(4), FitOptions(batch_size=2), Course(1e-3, 3), CPU)
    assert error.value.step == broken


def test_a_step_on_a_loss_that_is_not_finite_is_not_taken() -> None:
    module = _Recorder(1)
    with pytest.raises(NonFiniteLoss):
        train(module, _examples(4), FitOptions(batch_size=4), Course(1e-3, 1), CPU)
    assert all(bool(p.isfinite().all()) for p in module.parameters())


class _Auxiliary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.layer(x)
        return scores, scores


def test_auxiliary_heads_are_refused() -> None:
    with pytest.raises(UnsupportedNetwork, match="more than class scores"):
        train(_Auxiliary(), _examples(4), FitOptions(batch_size=4), Course(1e-3, 1), CPU)


class _InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.add_(1)


def test_logits_come_in_the_rows_order_and_leave_the_inputs_alone() -> None:
    inputs = torch.arange(10.0).reshape(5, 2)
    kept = inputs.clone()
    rows = torch.tensor([4, 0, 3])
    assert torch.equal(logits(_InPlace(), (inputs,), rows, 2, CPU), kept[rows] + 1)
    assert torch.equal(inputs, kept)
