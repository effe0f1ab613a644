from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tuning.data.augment import draw_views
from tuning.errors import BadData, BadOptions

IMAGES = npst.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(2, 20), st.integers(2, 20), st.just(3)))


def _numbered(count: int, side: int) -> np.ndarray:
    """Images whose pixels are all different, so that a crop tells where it was cut."""
    one = np.arange(side * side, dtype=np.uint16).reshape(side, side)
    return np.broadcast_to(np.stack([one % 256, one // 256, one * 0], -1).astype(np.uint8), (count, side, side, 3))


@settings(max_examples=25)
@given(IMAGES, st.integers(1, 3), st.integers(0, 2**63 - 1), st.booleans())
def test_views_keep_shape_and_values_and_do_not_depend_on_their_number(
    images: np.ndarray, count: int, seed: int, flip: bool
) -> None:
    views = draw_views(images, count, seed, flip=flip)
    assert views.shape == (count, *images.shape)
    assert views.dtype == np.uint8
    assert set(np.unique(views)) <= set(np.unique(images))
    assert np.array_equal(views, draw_views(images, count + 1, seed, flip=flip)[:count])


def test_views_are_crops_within_an_eighth() -> None:
    images = _numbered(50, 16)
    views = draw_views(images, 4, 0).reshape(-1, 16, 16, 3).astype(int)
    middle = views[:, 8, 8, 0] + 256 * views[:, 8, 8, 1]  # 16 * row + column of the original
    shifts = np.stack([middle // 16 - 8, middle % 16 - 8])
    assert shifts.min() == -2
    assert shifts.max() == 2
    for view, (down, right) in zip(views, shifts.T, strict=True):
        assert np.array_equal(view[4:12, 4:12], images[0, 4 + down : 12 + down, 4 + right : 12 + right])


def test_only_a_flip_mirrors() -> None:
    images = _numbered(40, 16)
    rising = [
        (views[..., 8, 9, 0].astype(int) > views[..., 8, 7, 0]) for views in (draw_views(images, 1, 0, flip=f) for f in (0, 1))
    ]
    assert rising[0].all()
    assert 5 < rising[1].sum() < 35


def test_views_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(BadOptions, match="at least 1, not 0"):
        draw_views(_numbered(1, 8), 0, 0)
    with pytest.raises(BadData, match=r"take 45\.8 GiB of memory, more than 8 GiB; draw fewer views"):
        draw_views(np.zeros((1, 128, 128, 3), np.uint8), 1_000_000, 0)
