"""The input that networks are tried with: the same bytes everywhere and for ever, and worth trying with."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.dtypes import NUMPY_DTYPES
from contract.repository import TensorSpec
from contract.repository.record import MOST_VALUES, OutputRecord, ParityRecord, recorded_places
from contract.repository.sample import sample_inputs, sample_rows

# Recorded answers in repositories belong to these bytes: other bytes need another number in contract.repository.record.SAMPLE.
GOLDEN = {
    ("UINT8", (224, 224, 3)): "6dad62bc6b2a850c",
    ("UINT8", (8, 8, 3)): "4aa0ec7593c41a4f",
    ("FP32", (3, 32, 32)): "dceae9f96a4497e9",
    ("FP16", (6,)): "0be951726ea43067",
    ("FP64", ()): "c687938707785749",
    ("INT64", (16,)): "c167dcceaa189c62",
    ("INT32", (4, 4)): "fae1dddc3ab54be6",
    ("BOOL", (9,)): "97644ca09d06ca7f",
}
DTYPES = st.sampled_from(sorted(NUMPY_DTYPES.keys() - {"BYTES"}))
SHAPES = st.lists(st.integers(1, 20), max_size=3).map(tuple)


@pytest.mark.parametrize(("dtype", "shape"), GOLDEN)
def test_the_sample_has_the_recorded_bytes(dtype: str, shape: tuple[int, ...]) -> None:
    rows = sample_rows(TensorSpec("x", dtype, shape), 2, seed=1)
    little_endian = rows.astype(rows.dtype.newbyteorder("<"))
    assert hashlib.sha256(little_endian.tobytes()).hexdigest()[:16] == GOLDEN[dtype, shape]


@given(DTYPES, SHAPES, st.integers(1, 4), st.integers(0, 3))
def test_a_row_does_not_depend_on_how_many_there_are(dtype: str, shape: tuple[int, ...], count: int, seed: int) -> None:
    spec = TensorSpec("x", dtype, shape)
    rows = sample_rows(spec, 4, seed)
    assert (rows.shape, rows.dtype) == ((4, *shape), NUMPY_DTYPES[dtype])
    np.testing.assert_array_equal(sample_rows(spec, count, seed), rows[:count])


@given(DTYPES, SHAPES)
def test_numbers_stay_in_the_range_that_networks_take(dtype: str, shape: tuple[int, ...]) -> None:
    rows = sample_rows(TensorSpec("x", dtype, shape), 3).astype(np.float64)
    low, high = {"f": (-3.5, 3.5), "u8": (0, 255)}.get("u8" if dtype == "UINT8" else NUMPY_DTYPES[dtype].kind, (0, 1))
    assert low <= rows.min() <= rows.max() <= high


def test_images_differ_in_brightness_and_contrast_and_have_large_and_small_parts() -> None:
    images = sample_rows(TensorSpec("image", "UINT8", (64, 64, 3)), 8).astype(np.float64)
    assert np.ptp(images.mean((1, 2, 3))) > 40
    deviations = images.std((1, 2, 3))
    assert deviations.min() > 15
    assert deviations.max() > 1.5 * deviations.min()
    patches = images.reshape(8, 8, 8, 8, 8, 3).mean((2, 4))
    assert (patches.std((1, 2, 3)) > 0.6 * deviations).all()
    assert (np.abs(np.diff(images, axis=2)).mean((1, 2, 3)) > 2).all()


def test_inputs_of_one_network_differ() -> None:
    specs = (TensorSpec("left", "FP32", (5,)), TensorSpec("right", "FP32", (5,)))
    sample = sample_inputs(specs, 2)
    assert [*sample] == ["left", "right"]
    assert not np.isclose(sample["left"], sample["right"]).any()


@given(st.integers(0, 10_000))
def test_recorded_places_are_spread_over_the_output(size: int) -> None:
    places = recorded_places(size)
    assert len(places) == min(size, MOST_VALUES)
    assert len({*places.tolist()}) == len(places)
    assert all(0 <= place < size for place in places)
    if size > 2 * MOST_VALUES:
        assert np.diff(places).min() >= size // MOST_VALUES
        assert places[-1] >= size - size // MOST_VALUES - 1


finite = st.floats(allow_nan=False, allow_infinity=False)
outputs = st.none() | st.builds(OutputRecord, st.lists(finite, max_size=3).map(tuple), finite)


@given(st.builds(ParityRecord, st.lists(outputs, max_size=3).map(tuple), finite, st.integers(0, 9)))
def test_a_record_is_read_back_as_it_was_written(record: ParityRecord) -> None:
    assert ParityRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"outputs": 3, "sample": 1, "tolerance": 0.1}',
        '{"outputs": [], "sample": "x", "tolerance": 0.1}',
        '{"outputs": [], "sample": 1, "tolerance": NaN}',
        '{"outputs": [3], "sample": 1, "tolerance": 0.1}',
        '{"outputs": [{"values": [1]}], "sample": 1, "tolerance": 0.1}',
        '{"outputs": [{"values": [Infinity], "scale": 1}], "sample": 1, "tolerance": 0.1}',
    ],
)
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        ParityRecord.from_json(text)
