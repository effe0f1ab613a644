"""The ways to run several streams in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from benchmarks.merge.grouped import group_blocks, split_streams
from benchmarks.merge.streams import Streams

Run = Callable[[], Sequence[Tensor]]

SEPARATE, FORKED, STACKED, GROUPED = "separate networks", "shared prefix", "stacked suffix", "grouped blocks"


def network_variants(streams: Streams, images: Tensor) -> dict[str, Run]:
    """Return the ways to get every stream's output (n, classes) for `images`, the baseline first; each adds one idea to the one before it.

    Independent networks, one after another; the frozen prefix once; the frozen suffix once, on the streams stacked; the tuned blocks as
    one grouped convolution.
    """
    grouped = group_blocks(streams.tuned).to(images.device)
    return {
        SEPARATE: lambda: [_rest(streams, stream, streams.prefix(images)) for stream in range(streams.count)],
        FORKED: lambda: _forked(streams, images),
        STACKED: lambda: _stacked(streams, images),
        GROUPED: lambda: _finish(streams, split_streams(grouped(streams.prefix(images)), streams.count)),
    }


def suffix_variants(suffix: nn.Module, rows: Sequence[Tensor]) -> dict[str, Run]:
    """Return both ways to take streams through a frozen suffix: once for each, and once for all of them. rows: (n, ...) by stream."""
    return {
        "apart": lambda: [suffix(stream) for stream in rows],
        "stacked": lambda: suffix(torch.cat(list(rows))).chunk(len(rows)),
    }


def block_variants(tuned: Sequence[Sequence[nn.Module]], rows: Tensor) -> dict[str, Run]:
    """Return both ways to run the tuned blocks of all streams on `rows`, which they share: apart, and as grouped convolutions."""
    grouped = group_blocks(tuned).to(rows.device)
    chains = [nn.Sequential(*blocks) for blocks in tuned]
    return {
        "apart": lambda: [chain(rows) for chain in chains],
        "grouped": lambda: split_streams(grouped(rows), len(tuned)).chunk(len(tuned)),
    }


def _tuned(streams: Streams, stream: int, rows: Tensor) -> Tensor:
    for block in streams.tuned[stream]:
        rows = block(rows)
    return rows


def _rest(streams: Streams, stream: int, rows: Tensor) -> Tensor:
    return streams.heads[stream](streams.suffix(_tuned(streams, stream, rows)))  # type: ignore[no-any-return]


def _forked(streams: Streams, images: Tensor) -> list[Tensor]:
    rows = streams.prefix(images)
    return [_rest(streams, stream, rows) for stream in range(streams.count)]


def _stacked(streams: Streams, images: Tensor) -> list[Tensor]:
    rows = streams.prefix(images)
    return _finish(streams, torch.cat([_tuned(streams, stream, rows) for stream in range(streams.count)]))


def _finish(streams: Streams, rows: Tensor) -> list[Tensor]:
    """Take stacked rows through the suffix and each stream's through its head."""
    features = streams.suffix(rows).chunk(streams.count)
    return [head(part) for head, part in zip(streams.heads, features, strict=True)]
