"""Blocks of segments: each segment in one, small enough, and no block changes but those of what comes and goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.repository import Repository
from serving.engines.bundles.partition import MOST_BYTES, MOST_MEMBERS, Partition
from tests.serving.heads import Head, with_heads

EMPTY = Repository(Path("nowhere"), {}, {})
NAMES = [f"h{number}" for number in range(200)]
CHANGES = st.lists(st.tuples(st.sampled_from(["add", "remove"]), st.sets(st.sampled_from(NAMES), min_size=1)), max_size=8)


def repository(names: set[str] | list[str], **changes: object) -> Repository:
    found = with_heads(EMPTY, [Head(name) for name in sorted(names)])
    heads = {name: replace(segment, **changes) if name in names else segment for name, segment in found.segments.items()}
    return replace(found, segments=heads)


@settings(max_examples=50, deadline=None)
@given(CHANGES)
def test_each_segment_has_one_place_and_others_keep_theirs(changes: list[tuple[str, set[str]]]) -> None:
    partition, present = Partition(), set[str]()
    for action, names in changes:
        before = dict(partition.targets)
        if action == "add":
            present |= names
            partition.add(repository(present))
        else:
            present -= names
            partition.remove(names)
        targets = partition.targets
        bundles = {bundle.name: bundle for bundle in targets.values()}
        members = [member.segment for bundle in bundles.values() for member in bundle.members]
        assert len(members) == len(set(members))
        assert set(members) == set(targets) <= present
        assert all(2 <= len(bundle.members) <= MOST_MEMBERS for bundle in bundles.values())
        assert len(present) - len(members) <= max(1, len(present) // 2)
        for segment, bundle in before.items():
            if segment in targets and not names & {member.segment for member in (*bundle.members, *targets[segment].members)}:
                assert targets[segment].name == bundle.name


def test_blocks_hold_so_many_bytes_at_most() -> None:
    partition = Partition()
    partition.add(repository(NAMES[:20], weight_bytes=MOST_BYTES // 4))
    assert {len(bundle.members) for bundle in partition.targets.values()} == {4}


@pytest.mark.parametrize(
    "change", [{"rows": "coupled"}, {"rows": ""}, {"macs": 0}, {"macs": 2_000_000}, {"weight_bytes": MOST_BYTES + 1}]
)
def test_coupled_unknown_and_large_segments_run_by_themselves(change: dict[str, object]) -> None:
    partition = Partition()
    partition.add(repository(NAMES[:3], **change))
    assert not partition.targets


def test_other_types_than_fp32_run_by_themselves() -> None:
    partition = Partition()
    ints = tuple(replace(spec, dtype="INT64") for spec in Head("h0").segment().outputs)
    partition.add(repository(NAMES[:3], outputs=ints))
    assert not partition.targets


def test_one_that_is_excluded_stays_so_until_it_goes() -> None:
    partition = Partition()
    partition.add(repository(NAMES[:3]))
    partition.exclude("h1")
    partition.add(repository(NAMES[:3]))
    assert set(partition.targets) == {"h0", "h2"}
    partition.remove(["h1"])
    partition.add(repository(NAMES[:3]))
    assert set(partition.targets) == {"h0", "h1", "h2"}
