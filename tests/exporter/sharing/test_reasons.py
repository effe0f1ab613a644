"""The sentences about sharing."""

from __future__ import annotations

from exporter.graph.chain import Block, Tap
from exporter.sharing.reasons import explain_several_shapes


def block(digest: str, side: int, size: int = 8) -> Block:
    taps = tuple(Tap(f"t{place}", f"a{place}", "FP32", (4, side, side)) for place in range(2))
    return Block(0, digest, digest, taps[:1], taps[1:], 10, 2, size)


def test_of_many_shapes_three_are_named() -> None:
    runs = [(block("a", side), block("b", side)) for side in (4, 8, 16, 32, 64)] + [(block("c", 64),)]
    assert explain_several_shapes(runs) == (
        "The same weights take rows of several shapes ([4, 64, 64] and [4, 32, 32] and [4, 16, 16] and 2 more), and a model is made for "
        "one: 64 B of weights, in 2 blocks, are in several segments."
    )
    assert explain_several_shapes(runs[-1:]) == ""


def test_next_to_nothing_is_not_worth_a_sentence() -> None:
    """As the bounds of a Clip, which every network of that kind has at several resolutions."""
    clips = [(block("clip", side),) for side in (4, 8, 16)]
    assert "16 B of weights" in explain_several_shapes([*clips, (block("weights", 16, 15_000),)])
    assert explain_several_shapes([*clips, (block("weights", 16, 17_000),)]) == ""
