from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tuning.errors import BadOptions
from tuning.training.compute import Compute
from tuning.training.features import FeatureStore

CPU = Compute("cpu")
IMAGES = torch.randint(0, 256, (300, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
ENTRY = 300 * 16 * 8  # bytes: 16 pixels, a float32 and three more tensors' worth (see _Prefix: 1 + 1 floats per pixel)


class _Prefix(nn.Module):
    """Bytes to (n, 1, 4, 4) and (n, 16) floats; counts the rows that it is asked for."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.rows = 0

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        self.rows += len(images)
        maps = images.permute(0, 3, 1, 2).float() * self.factor
        return maps[:, :1], maps[:, 1].flatten(1)


class _Kinds(nn.Module):
    """One tensor of each kind that a network may hand on, feature maps in channels-last layout among them."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = images.permute(0, 3, 1, 2).float()
        last = maps.contiguous(memory_format=torch.channels_last)
        return last, maps.contiguous(), images, images.int(), images > 7, maps.mean((2, 3)), maps.sum((1, 2, 3)), maps.bfloat16()


def test_features_are_those_of_the_prefix_in_any_number_of_batches() -> None:
    store = FeatureStore(10**6)
    found = store.get("a", "training", _Prefix(), IMAGES, CPU)
    for feature, expected in zip(found, _Prefix()(IMAGES), strict=True):
        assert torch.equal(feature, expected)


def test_what_is_held_is_not_computed_again() -> None:
    store, prefix = FeatureStore(10**6), _Prefix()
    first = store.get("a", "training", prefix, IMAGES, CPU)
    asked = prefix.rows
    assert store.get("a", "training", prefix, IMAGES, CPU) is first
    assert prefix.rows == asked


def test_prefixes_and_images_are_told_apart() -> None:
    store = FeatureStore(10**6)
    other = IMAGES.flip(0)
    found = [
        store.get(key, "training", _Prefix(factor), images, CPU)[0]
        for key, factor in (("a", 1.0), ("b", 2.0))
        for images in (IMAGES, other)
    ]
    expected = [_Prefix(factor)(images)[0] for factor in (1.0, 2.0) for images in (IMAGES, other)]
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


def test_the_least_recently_used_gives_way_and_comes_back_the_same() -> None:
    store = FeatureStore(2 * ENTRY)
    prefixes = {key: _Prefix(factor) for key, factor in (("a", 1.0), ("b", 2.0), ("c", 3.0))}

    def runs(key: str) -> bool:
        before = prefixes[key].rows
        found = store.get(key, "training", prefixes[key], IMAGES, CPU)
        assert torch.equal(found[0], IMAGES.permute(0, 3, 1, 2)[:, :1] * prefixes[key].factor)
        return prefixes[key].rows > before

    # c comes when a was used after b: b gives way. b comes back: a gives way, being older than c.
    assert [runs(key) for key in "abaacab"] == [True, True, False, False, True, False, True]
    assert [runs(key) for key in "acb"] == [False, True, True]


def test_a_prefix_that_fails_leaves_the_store_as_it_was() -> None:
    class _Failing(_Prefix):
        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            if len(images) > 1:
                raise RuntimeError("no memory")
            return super().forward(images)

    store, prefix = FeatureStore(ENTRY), _Prefix()
    with pytest.raises(RuntimeError, match="no memory"):
        store.get("broken", "training", _Failing(), IMAGES, CPU)
    for key in ("a", "b", "broken"):
        assert torch.equal(store.get(key, "training", prefix, IMAGES, CPU)[0], prefix(IMAGES)[0])


@pytest.mark.parametrize("limit", [0, 1000])
def test_files_hold_what_memory_would(tmp_path: Path, limit: int) -> None:
    in_memory = FeatureStore(10**9).get("a", "training", _Kinds(), IMAGES, CPU)
    store = FeatureStore(limit, tmp_path)
    in_files = store.get("a", "training", _Kinds(), IMAGES, CPU)
    assert _mapped_below(tmp_path) == len(in_files)
    rows = torch.tensor([299, 0, 130])
    for one, two in zip(in_files, in_memory, strict=True):
        assert one.dtype == two.dtype
        assert torch.equal(one, two)
        assert torch.equal(one[rows], two[rows])
    last = torch.channels_last
    assert in_files[0].is_contiguous(memory_format=last)
    assert in_memory[0].is_contiguous(memory_format=last)
    assert in_files[1].is_contiguous()


def test_files_have_no_name_and_are_gone_with_the_store(tmp_path: Path) -> None:
    """So nothing of them is left when the process is killed."""
    store = FeatureStore(0, tmp_path)
    store.get("a", "training", _Prefix(), IMAGES, CPU)
    assert not list(tmp_path.iterdir())
    assert _mapped_below(tmp_path) == 2
    store.close()
    gc.collect()
    assert _mapped_below(tmp_path) == 0


def _mapped_below(folder: Path) -> int:
    """Return how many files are mapped there; one may be mapped in several pieces."""
    return len({line.split()[4] for line in Path("/proc/self/maps").read_text().splitlines() if f"{folder}/" in line})


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadOptions, match="nowhere, does not exist"):
        FeatureStore(0, tmp_path / "nowhere")


def test_room(tmp_path: Path) -> None:
    prefix = _Prefix()
    assert FeatureStore(ENTRY).has_room(prefix, IMAGES, 300, CPU)
    assert not FeatureStore(ENTRY).has_room(prefix, IMAGES, 301, CPU)
    assert not FeatureStore(0).enabled
    with_files = FeatureStore(0, tmp_path)
    assert with_files.enabled
    assert with_files.has_room(prefix, IMAGES, 301, CPU)
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert not with_files.has_room(prefix, IMAGES, free // 128, CPU)


def test_sizes_are_told_before_they_are_taken(tmp_path: Path) -> None:
    told: list[str] = []
    store = FeatureStore(30_000, tmp_path, told.append)
    store.get("a", "training", _Prefix(), IMAGES[:100], CPU)
    store.get("a", "test", _Prefix(), IMAGES, CPU)
    assert told == [
        "0 MB of frozen features of 100 training images, in memory",
        "0 MB of frozen features of 300 test images, in a file",
    ]


def test_threads_wait_for_one_another_and_compute_once() -> None:
    store, prefix = FeatureStore(10**6), _Prefix()
    found: list[tuple[Tensor, ...]] = []
    threads = [threading.Thread(target=lambda: found.append(store.get("a", "training", prefix, IMAGES, CPU))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(one is found[0] for one in found)
    assert prefix.rows == 1 + len(IMAGES)  # one to learn the sizes from
