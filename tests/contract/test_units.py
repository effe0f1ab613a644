from __future__ import annotations

import pytest

from contract.units import human_bytes, human_count, human_macs, percent, recorded_bytes, recorded_macs, short_count


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 "),
        (999, "999 "),
        (1000, "1.0 k"),
        (99_949, "99.9 k"),
        (123_456, "123 k"),
        (4_567_890, "4.6 M"),
        (10**12, "1.0 T"),
        (5 * 10**15, "5000 T"),
    ],
)
def test_amounts_have_two_to_three_digits_and_a_prefix(count: int, words: str) -> None:
    assert human_bytes(count) == f"{words}B"
    assert human_macs(count) == f"{words}MACs"
    assert human_count(count) == words.rstrip()


def test_what_a_repository_records_is_written_as_ever() -> None:
    assert [recorded_bytes(count) for count in (512, 2_304, 128_000, 125_000_000)] == ["512 B", "2.3 kB", "128.0 kB", "125.0 MB"]
    macs = ["9,648 MACs", "4.1 MMACs", "144.0 MMACs", "4.09 GMACs"]
    assert [recorded_macs(count) for count in (9_648, 4_100_000, 144_000_000, 4_090_000_000)] == macs


@pytest.mark.parametrize(("count", "words"), [(850, "850"), (75_432, "75 k"), (4_500_000, "4.5 M"), (999_600, "1.0 M")])
def test_short_counts_fit_where_there_is_little_room(count: int, words: str) -> None:
    assert short_count(count) == words


def test_percentages_have_no_sign() -> None:
    assert (percent(0.12345), percent(0.12345, 2), percent(1, 0), percent(-0.005)) == ("12.3", "12.35", "100", "-0.5")
