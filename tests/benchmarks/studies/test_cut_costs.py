from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.models.conv_chains import ConvChain, random_kernels, take_turns
from benchmarks.studies.cut_costs import MeasuredCosts, Quartiles, describe, main


def test_macs_of_a_chain_counted_by_hand() -> None:
    kernels = random_kernels(3, 4, [3, 1])
    assert [kernel.shape for kernel in kernels] == [(4, 4, 3, 3), (4, 4, 1, 1), (4, 4, 3, 3)]
    assert ConvChain(kernels, (4, 5, 6)).macs == (2 * 4 * 4 * 9 + 4 * 4) * 30


@pytest.mark.parametrize("segments", [1, 2, 3])
def test_a_chain_runs_in_any_number_of_segments(segments: int) -> None:
    ConvChain(random_kernels(3, 4, [3, 1]), (4, 5, 6)).runner(segments, threads=1)()


def test_each_variant_goes_first_in_turn() -> None:
    calls: list[str] = []
    seconds = take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=4, warmup=1)
    assert sorted("".join(calls[index : index + 2]) for index in range(0, 10, 2)) == ["ab", "ab", "ab", "ba", "ba"]
    assert [len(values) for values in seconds.values()] == [4, 4]
    assert all(np.all(values >= 0) for values in seconds.values())


def test_the_constants_are_shown_with_what_they_decide() -> None:
    said = describe(MeasuredCosts(Quartiles(40e-6, 30e-6, 50e-6), Quartiles(8e9, 7e9, 9e9), Quartiles(40e9, 30e9, 50e9), 1))
    assert "30.0 - 50.0" in said
    # 40 us and twice 401,408 bytes at 8 GB/s are 140 us, in which 40 G MACs/s compute 5.6 M.
    assert said.count("costs 140 us: as much as 5.6 MMACs, or reading 1.12 MB of weights") == 2


def test_measuring_gives_all_three(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--rounds", "10", "--threads", "1", "--json"])
    data = json.loads(capsys.readouterr().out)
    for name in ("seconds_per_run", "bytes_per_second", "macs_per_second"):
        assert data[name]["low"] <= data[name]["median"] <= data[name]["high"]
    assert data["macs_per_second"]["median"] > 0
