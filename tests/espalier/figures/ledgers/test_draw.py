"""Every chart, drawn: what is on it, that nothing overlaps or is cut off, and that it comes out the same every time."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from itertools import combinations, pairwise

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from contract.units import percent
from espalier.figures.errors import OneLedgerOnly
from espalier.figures.ledgers.draw import draw, render
from espalier.figures.ledgers.kinds import Kind
from espalier.figures.ledgers.style import apart, looks
from tests.espalier.figures.ledgers.ledgers import (
    METHODS,
    NETWORKS,
    RESNET18,
    RESNET50,
    Fake,
    comparison,
    greedy,
    make_header,
    profile,
    source,
)
from tuning.search.greedy import StopRule
from tuning.search.ledger import Header, LedgerContents
from tuning.search.score import Objective

HEADER = make_header(RESNET18, folds=3)

pytestmark = pytest.mark.slow  # most of the time goes into drawing


def shown(figure: Figure) -> list[Text]:
    """What is written on a figure, laid out. Ticks beyond the ends of an axis are kept by matplotlib, but not drawn."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    found = list(figure.texts)
    everywhere = list(figure.axes)
    for axes in everywhere:
        everywhere += axes.child_axes
        found += [*axes.texts, *_titles(axes)]
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low - 1e-9 <= tick.get_loc() <= high + 1e-9]
            found += [axis.label, *(label for tick in ticks for label in (tick.label1, tick.label2))]
    return [text for text in found if text.get_text() and text.get_visible()]


def _titles(axes: Axes) -> list[Text]:
    return [child for child in axes.get_children() if isinstance(child, Text) and child.get_text() and child not in axes.texts]


def check_legible(figure: Figure) -> None:
    """No text overlaps another or leaves the picture. The boxes of slanted texts are larger than they: they may overlap."""
    found = [(text, text.get_window_extent()) for text in shown(figure)]
    picture = figure.bbox.padded(1)
    for text, box in found:
        assert picture.containsx(box.x0) and picture.containsx(box.x1), f"{text.get_text()!r} is cut off"  # noqa: PT018
        assert picture.containsy(box.y0) and picture.containsy(box.y1), f"{text.get_text()!r} is cut off"  # noqa: PT018
    for (one, first), (other, second) in combinations([item for item in found if not item[0].get_rotation() % 90], 2):
        overlap = Bbox.intersection(first, second)
        assert overlap is None or min(overlap.width, overlap.height) < 2, f"{one.get_text()!r} is on {other.get_text()!r}"


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", [Kind.profile, Kind.pairs, Kind.cost])
def test_charts_of_networks_of_all_sizes_are_legible(network: str, kind: Kind) -> None:
    check_legible(draw([source(profile(make_header(NETWORKS[network], network), pairs=True))], kind))


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_paths_are_legible(network: str, direction: str) -> None:
    contents = greedy(make_header(NETWORKS[network], network), direction, StopRule(0.01, "drop"))  # type: ignore[arg-type]
    check_legible(draw([source(contents)], Kind.path))
    check_legible(draw([source(contents)], Kind.cost))


@pytest.mark.parametrize(
    "contents", [comparison(), comparison(seeds=1), comparison((800,)), comparison((50, 100, 400, 500, 1500))]
)
def test_comparisons_are_legible(contents: LedgerContents) -> None:
    check_legible(draw([source(contents)], Kind.samples))


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_profiles_side_by_side_are_legible(count: int) -> None:
    names = ["digits:inverted", "digits:parity", "flowers", "a-data-set-with-a-name-that-is-too-long-for-its-panel"]
    sources = [source(profile(make_header(RESNET50, data=names[i]), favourite=i / count)) for i in range(count)]
    figure = draw(sources, Kind.profile)
    check_legible(figure)
    assert {"digits:inverted", "digits:parity"} < {text.get_text() for text in shown(figure)}


@pytest.mark.slow
def test_sixty_blocks_are_legible() -> None:
    header = make_header([f"stages.{i}" for i in range(60)])
    check_legible(draw([source(profile(header))], Kind.profile))
    check_legible(draw([source(profile(header))], Kind.cost))


@pytest.mark.parametrize(
    ("kind", "make"),
    [(Kind.profile, profile), (Kind.path, greedy), (Kind.cost, greedy), (Kind.samples, lambda header: comparison((100, 400), 2))],
)
def test_charts_are_legible(kind: Kind, make: Callable[[Header], LedgerContents]) -> None:
    check_legible(draw([source(make(HEADER))], kind))


def words(contents: LedgerContents, kind: Kind) -> list[str]:
    root = ElementTree.fromstring(render([source(contents)], kind, "svg"))
    return ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_profile_says_every_score_and_unit() -> None:
    found = words(profile(HEADER), Kind.profile)
    fake = Fake(HEADER)
    assert {percent(fake.score((name,)).mean) for name in RESNET18} <= set(found)
    assert {*RESNET18, f"head alone {percent(fake.score(()).mean)}", "accuracy (%)", "parameters", "MACs per image"} <= set(found)
    assert {"75 k", "230 M"} <= set(found)


def test_bars_reach_from_the_head_alone_to_the_score() -> None:
    axes = draw([source(profile(HEADER))], Kind.profile).axes[0]
    fake = Fake(HEADER)
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches if bar.get_height() < 1]  # type: ignore[attr-defined]
    assert [pytest.approx(100 * fake.score((name,)).mean) for name in RESNET18] == ends


def test_what_a_race_gave_up_is_hatched_and_hollow() -> None:
    fake = Fake(HEADER)
    singles = [(name,) for name in RESNET18]
    raced = LedgerContents(HEADER, (*fake.trials([(), singles[5]]), *fake.trials(singles[:5] + singles[6:], folds=1)))
    assert any("Hatched" in text for text in words(raced, Kind.profile))
    assert not any("Hatched" in text for text in words(profile(HEADER), Kind.profile))
    untried = LedgerContents(HEADER, fake.trials([(), *singles[2:]]))
    assert words(untried, Kind.profile).count("not tried") == 2
    assert "\N{MIDDLE DOT}" not in words(profile(HEADER, pairs=True), Kind.pairs)


def test_a_path_names_its_steps_and_says_why_it_stopped() -> None:
    found = words(greedy(HEADER, rule=StopRule(-1.0, max_blocks=2)), Kind.path)
    assert "Stopped: 2 blocks are the most allowed." in found
    assert "Rule: epsilon -100 % (least gain of a block), at most 2 blocks." in found
    assert sum(text.startswith("+ layer") for text in found) == 2
    assert "accuracy (%)" in found
    weighed = words(greedy(HEADER, objective=Objective(0.05)), Kind.path)
    assert "accuracy less the weighed costs (%)" in weighed
    assert any("MACs weigh 0.05" in text for text in weighed)


def test_cost_lists_the_front_and_the_chosen() -> None:
    found = words(greedy(HEADER, objective=Objective(0.05)), Kind.cost)
    assert {"head alone", "layer4.1", "% of the backbone's MACs", "GMACs per image that the task adds"} <= set(found)
    counted = words(profile(HEADER), Kind.cost)
    assert "GMACs per image that the task adds, from the first tuned block on" in counted


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (Kind.profile, lambda: profile(HEADER)),
        (Kind.pairs, lambda: profile(HEADER, pairs=True)),
        (Kind.path, lambda: greedy(HEADER)),
        (Kind.cost, lambda: greedy(HEADER)),
        (Kind.samples, lambda: comparison(seeds=2)),
    ],
)
def test_the_same_ledger_gives_the_same_bytes_whatever_the_users_style(kind: Kind, make: Callable[[], LedgerContents]) -> None:
    expected = render([source(make())], kind, "svg")
    assert b"<dc:date>" not in expected
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": None, "axes.grid": True, "lines.linewidth": 7}):
        assert render([source(make())], kind, "svg") == expected


def test_png() -> None:
    picture = render([source(profile(HEADER))], Kind.auto, "png")
    assert picture.startswith(b"\x89PNG")
    assert picture == render([source(profile(HEADER))], Kind.auto, "png")


def test_odd_names_are_written_as_they_are() -> None:
    odd = make_header(RESNET18, backbone="$a$_<b>", data="x\x01y & z", folds=3)
    assert "Finetuning profile of $a$_<b> on x y & z" in words(profile(odd), Kind.profile)


def test_degenerate_ledgers_are_drawn() -> None:
    one = make_header(RESNET18[:1], folds=1)
    for kind in (Kind.profile, Kind.cost):
        assert render([source(profile(one))], kind, "png")
    assert render([source(comparison((100,), 1, ("subtuning",)))], Kind.samples, "png")


def test_only_profiles_stand_side_by_side() -> None:
    with pytest.raises(OneLedgerOnly, match="kind path is drawn from one ledger, not 2"):
        draw([source(greedy(HEADER))] * 2, Kind.path)


def test_methods_look_the_same_in_all_charts_and_no_two_alike() -> None:
    many = [(method, method) for method in METHODS] + [("lora", f"lora, rank {rank}") for rank in range(20)]
    found = looks(many)
    assert len(set(found.values())) == len(many)
    known = {found[method].marker for method in METHODS}
    assert not known & {found[f"lora, rank {rank}"].marker for rank in range(1, 20)}
    assert looks([("subtuning", "mine")])["mine"] == found["subtuning"]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12), st.floats(0.1, 10))
def test_places_are_moved_apart_in_their_order_and_no_further_than_needed(places: list[float], gap: float) -> None:
    moved = apart(places, gap)
    order = sorted(range(len(places)), key=lambda index: places[index])
    assert all(moved[b] - moved[a] >= gap - 1e-6 for a, b in pairwise(order))
    spread = sorted(places)
    if all(b - a >= gap for a, b in pairwise(spread)):
        assert moved == pytest.approx(places)
    assert sum(moved) == pytest.approx(sum(places))
