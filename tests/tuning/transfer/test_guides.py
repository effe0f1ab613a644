from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tuning.transfer.features import balance
from tuning.transfer.guides import FeatureRegression, KernelMatch, gram, kernel_distance
from tuning.transfer.weights import summarise_weights

SEEDS = st.integers(0, 2**31)


def _features(seed: int, dimensions: int = 6, rows: int = 9) -> Tensor:
    return torch.randn(rows, dimensions, generator=torch.Generator().manual_seed(seed))


def _rotation(seed: int, dimensions: int) -> Tensor:
    return torch.linalg.qr(_features(seed, dimensions, dimensions).double())[0]


def test_a_kernel_by_hand() -> None:
    # The mean is (10, 1); from there the rows point to 0, 180, 45 and 225 degrees.
    features = torch.tensor([[13.0, 1.0], [7.0, 1.0], [11.0, 2.0], [9.0, 0.0]])
    half = 0.5**0.5
    expected = [[1, -1, half, -half], [-1, 1, -half, half], [half, -half, 1, -1], [-half, half, -1, 1]]
    torch.testing.assert_close(gram(features), torch.tensor(expected))


@given(SEEDS)
def test_equal_features_are_as_near_as_the_floor_allows_and_others_are_not(seed: int) -> None:
    phi = _features(seed)
    assert float(kernel_distance(phi, phi)) == pytest.approx(1e-4)
    assert float(kernel_distance(phi, _features(seed + 1))) > 0.05


@given(SEEDS, st.floats(0.1, 1e3), st.floats(-10, 10))
def test_scale_shift_and_rotation_of_either_change_nothing(seed: int, scale: float, shift: float) -> None:
    phi, psi = _features(seed, 6).double(), _features(seed + 1, 11).double()
    turned = scale * psi @ _rotation(seed + 2, 11) + shift
    torch.testing.assert_close(kernel_distance(phi, turned), kernel_distance(phi, psi), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(kernel_distance(turned, phi), kernel_distance(psi, phi), rtol=1e-5, atol=1e-7)


def test_one_dimensions_scale_does_change_the_kernel() -> None:
    phi = _features(0)
    stretched = phi * torch.tensor([10.0, 1, 1, 1, 1, 1])
    assert float(kernel_distance(phi, stretched)) > 0.05


def test_weights_start_alike_and_so_change_nothing() -> None:
    phi, psi, match = _features(0), _features(1, 8), KernelMatch(8)
    assert match.weights.tolist() == [0.5] * 8
    torch.testing.assert_close(match(phi, psi), kernel_distance(phi, psi))


def test_gradients_reach_the_weights_and_the_student() -> None:
    phi, match = _features(0).requires_grad_(), KernelMatch(8)
    match(phi, _features(1, 8)).backward()
    for tensor in (phi, match.scores):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert (tensor.grad != 0).all()


def test_following_the_gradient_finds_the_dimensions_that_the_student_shares() -> None:
    shared, strange = _features(0, 5, 40), _features(1, 5, 40)
    match = KernelMatch(10)
    optimiser = torch.optim.Adam(match.parameters(), lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        match(shared, torch.cat([shared, strange], 1)).backward()
        optimiser.step()
    weights = match.weights.detach()
    assert float(weights[:5].min()) > 2 * float(weights[5:].max())


@pytest.mark.parametrize("phi", [torch.zeros(6, 4), torch.ones(6, 4)])
def test_features_that_do_not_vary_give_finite_gradients(phi: Tensor) -> None:
    phi = phi.clone().requires_grad_()
    match = KernelMatch(3)
    match(phi, torch.zeros(6, 3)).backward()
    assert phi.grad is not None
    assert phi.grad.isfinite().all()
    assert match.scores.grad is not None
    assert match.scores.grad.isfinite().all()


def test_balanced_features_have_mean_0_and_mean_square_1_and_the_kernel_that_they_had() -> None:
    rows = _features(0, 4, 50) * torch.tensor([300.0, 1, 1, 1]) + 7
    balanced = balance(rows)
    torch.testing.assert_close(balanced.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    assert float(balanced.square().mean()) == pytest.approx(1, rel=1e-4)
    assert float(balanced[:, 0].std() / balanced[:, 1].std()) == pytest.approx(
        float(rows[:, 0].std() / rows[:, 1].std()), rel=1e-3
    )
    torch.testing.assert_close(gram(balanced), gram(rows), atol=1e-4, rtol=0)


def test_a_teacher_that_never_varies_is_balanced_to_nothing() -> None:
    assert float(balance(torch.full((9, 2), 3.0)).abs().max()) < 0.1


def test_a_map_that_says_nothing_loses_one_and_one_that_knows_all_nothing() -> None:
    psi = balance(_features(0, 4, 50))
    guide = FeatureRegression(4, 4)
    with torch.no_grad():
        guide.map.bias.zero_()
        guide.map.weight.zero_()
        assert float(guide(psi, psi)) == pytest.approx(1.0, rel=1e-4)
        guide.map.weight.copy_(torch.eye(4))
        assert float(guide(psi, psi)) == pytest.approx(0.0, abs=1e-10)


def test_weights_are_summed_up_by_teacher_by_hand() -> None:
    # Variances: 1 and 4 of the first teacher's dimensions, 25 of the second's.
    features = {"a": torch.tensor([[1.0, 2.0], [-1.0, -2.0]]), "b": torch.tensor([[5.0], [-5.0]])}
    found = summarise_weights(torch.tensor([1.0, 0.5, 0.2]), features)
    assert found["a"].dimensions == 2
    assert found["a"].mean == 0.75
    assert found["a"].quantiles == (0.5, 0.625, 0.75, 0.875, 1.0)
    assert found["a"].above_half == 0.5
    assert found["a"].share_at_start == pytest.approx(5 / 30)
    assert found["a"].share == pytest.approx(2 / 3)  # 1 + 4 / 4 against 25 / 25
    assert found["b"].share == pytest.approx(1 / 3)
    assert found["b"].above_half == 0


def test_teachers_that_never_vary_share_nothing() -> None:
    found = summarise_weights(torch.tensor([0.5]), {"still": torch.ones(4, 1)})
    assert found["still"].share == found["still"].share_at_start == 0
