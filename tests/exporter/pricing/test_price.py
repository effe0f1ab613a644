"""A price must be what adding the task really costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.costs import shared_cost
from contract.repository import Repository, read_repository
from exporter.add import AddOptions, add_tasks
from exporter.build.repository_chains import read_repository_chains
from exporter.build.weight_store import WeightStore
from exporter.errors import DifferentInput
from exporter.export import ExportOptions, export_repository
from exporter.gc import collect_garbage
from exporter.graph.network import Network
from exporter.graph.passes.canonical import canonicalise
from exporter.pricing.price import AddedCost, Pricing, Served, SharesNothing
from exporter.remove import remove_tasks
from exporter.sharing.choose import CutOptions
from exporter.sources.runtime import open_session
from exporter.sources.task_model import Sources, TaskModel
from tests.exporter.graphs import CHANNELS, SIZE, Net
from tests.exporter.mixed import image, image_with_age, tokens
from tests.exporter.test_export import BACKBONE, FAMILY, export
from tests.exporter.wired import FROZEN, Wired, plain

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute

MODULES = ("0", "1", "2", "3")
# Hand counts of tests.exporter.graphs.Net.
STEM = SIZE * SIZE * CHANNELS * 27
BLOCK, BLOCK_BYTES = SIZE * SIZE * CHANNELS * (9 * CHANNELS + CHANNELS), 4 * CHANNELS * CHANNELS * 10
HEAD, HEAD_BYTES = CHANNELS * 3, 4 * (CHANNELS * 3 + 3)
FLAT_BYTES = 16  # the shape that the last block is brought to


def tuned(modules: Iterable[str], head: int = 77) -> Net:
    """Return the task that tunes `modules`; another head means another task, all of whose weights are others."""
    changed = [seed + 10 * head if str(index) in modules else seed for index, seed in enumerate(BACKBONE.blocks)]
    return Net(blocks=changed, head=head)


def load_tuned(modules: tuple[str, ...]) -> ir.Model:
    return tuned(modules).model()


def beside_the_backbone(measure: Callable[[ir.Model], float] | None = None) -> Pricing:
    backbone = Network("the backbone", canonicalise(BACKBONE.model()))
    return Pricing(load_tuned, Served.alone(backbone, CutOptions("exact")), measure)


def served_in(repo: Path, scratch: Path, backbone: ir.Model) -> Served:
    repository = read_repository(repo)
    repository_chains = read_repository_chains(repository, WeightStore(scratch))
    return Served.in_repository(repository, repository_chains, Network("the backbone", canonicalise(backbone)))


def totals(repository: Repository) -> tuple[int, int]:
    """Return the MACs of a request for all tasks, and the bytes of all weights that are stored."""
    macs = shared_cost(repository, list(repository.tasks)).macs
    return macs, sum(segment.weight_bytes for segment in repository.segments.values())


def really_added(repo: Path, task: ir.Model, backbone: ir.Model | None = None) -> tuple[int, int]:
    """Add the task, and return by how much the totals grew."""
    before = totals(read_repository(repo))
    base = None if backbone is None else (lambda: TaskModel(backbone))
    report = add_tasks(repo, Sources({"new": lambda: TaskModel(task)}, base), AddOptions())
    after = totals(report.repository)
    return after[0] - before[0], after[1] - before[1]


def amounts(cost: AddedCost) -> tuple[int, int]:
    return cost.macs, cost.weight_bytes


@pytest.mark.parametrize(
    ("modules", "macs", "weight_bytes"),
    [
        ((), HEAD, HEAD_BYTES),
        (("3",), BLOCK + HEAD, BLOCK_BYTES + FLAT_BYTES + HEAD_BYTES),
        (("1",), 3 * BLOCK + HEAD, BLOCK_BYTES + HEAD_BYTES),
        (("1", "3"), 3 * BLOCK + HEAD, 2 * BLOCK_BYTES + FLAT_BYTES + HEAD_BYTES),
        (MODULES, 4 * BLOCK + HEAD, 4 * BLOCK_BYTES + FLAT_BYTES + HEAD_BYTES),
    ],
)
def test_beside_the_backbone_alone_a_task_costs_what_comes_after_its_fork(
    modules: tuple[str, ...], macs: int, weight_bytes: int
) -> None:
    pricing = beside_the_backbone()
    assert amounts(pricing.price(modules)) == (macs, weight_bytes)
    assert pricing.macs == STEM + 4 * BLOCK + HEAD
    assert pricing.own_macs("2") == BLOCK


def test_a_deeper_fork_costs_less() -> None:
    pricing = beside_the_backbone()
    macs = [pricing.price([module]).macs for module in MODULES]
    assert macs == sorted(macs, reverse=True)
    assert len(set(macs)) == len(MODULES)
    assert pricing.price().macs < macs[-1]


def test_on_a_trunk_to_the_end_a_linear_probe_adds_its_head(tmp_path: Path) -> None:
    export(tmp_path / "repo", {name: FAMILY[name] for name in ("probe", "early")})
    pricing = Pricing(load_tuned, served_in(tmp_path / "repo", tmp_path, BACKBONE.model()))
    assert amounts(pricing.price()) == (HEAD, HEAD_BYTES)


def test_what_several_modules_cost_is_put_together_from_each() -> None:
    calls: list[tuple[str, ...]] = []

    def load(modules: tuple[str, ...]) -> ir.Model:
        calls.append(modules)
        return load_tuned(modules)

    pricing = Pricing(load, beside_the_backbone()._served)
    assert amounts(pricing.price(["2", "0", "0"])) == (4 * BLOCK + HEAD, 2 * BLOCK_BYTES + HEAD_BYTES)
    pricing.price(["0", "2"])
    assert sorted(calls) == [(), ("0",), ("2",)]


def test_modules_that_share_a_block_are_exported_together() -> None:
    calls: list[tuple[str, ...]] = []

    def load(modules: tuple[str, ...]) -> ir.Model:
        calls.append(modules)
        seed = 3 + 10 * ("2.left" in modules) + 20 * ("2.right" in modules)
        return Net(blocks=(1, 2, seed, 4), head=77).model()

    pricing = Pricing(load, beside_the_backbone()._served)
    assert amounts(pricing.price(["2.left", "2.right"])) == (2 * BLOCK + HEAD, BLOCK_BYTES + HEAD_BYTES)
    assert ("2.left", "2.right") in calls


def test_latency_is_measured_once_per_fork_on_what_comes_after_it() -> None:
    convolutions: list[int] = []

    def measure(model: ir.Model) -> float:
        open_session(model)  # a model of its own
        convolutions.append(sum(node.op_type == "Conv" for node in model.graph))
        return float(len(convolutions))

    pricing = beside_the_backbone(measure)
    found = [pricing.price(modules).latency_ms for modules in (["1"], ["1", "3"], ["3"], [], ["1", "2"])]
    assert found == [1.0, 1.0, 2.0, 3.0, 1.0]
    assert convolutions == [6, 2, 0]
    assert beside_the_backbone().price(["1"]).latency_ms is None


def test_a_repository_of_another_backbone_is_refused(tmp_path: Path) -> None:
    export(tmp_path / "repo", FAMILY)
    with pytest.raises(SharesNothing, match=r"No task in .*repo has a block with the weights of this backbone"):
        served_in(tmp_path / "repo", tmp_path, Net(blocks=(91, 92, 93, 94), head=9, stem=9).model())


def test_a_repository_that_takes_another_input_is_refused(tmp_path: Path) -> None:
    export(tmp_path / "repo", FAMILY)
    network = BACKBONE.model()
    network.graph.inputs[0].shape = ir.Shape(["batch", 2 * SIZE, 2 * SIZE, 3])
    with pytest.raises(DifferentInput):
        served_in(tmp_path / "repo", tmp_path, network)


@pytest.mark.slow
def test_segments_that_no_task_uses_any_more_cost_nothing_until_they_are_gone(tmp_path: Path) -> None:
    export(tmp_path / "repo", {"early": FAMILY["early"], "new": tuned("3")})
    remove_tasks(tmp_path / "repo", ["new"])
    for gone in (False, True):
        if gone:
            collect_garbage(tmp_path / "repo")
        cost = Pricing(load_tuned, served_in(tmp_path / "repo", tmp_path, BACKBONE.model())).price(["3"])
        assert (cost.weight_bytes < HEAD_BYTES) != gone
        assert amounts(cost) == really_added(tmp_path / "repo", tuned("3").model())
        remove_tasks(tmp_path / "repo", ["new"])


def test_a_tap_that_only_another_task_shows_counts_as_it_does_when_adding(tmp_path: Path) -> None:
    short = Wired()
    short.layers("image", FROZEN)
    short.layer("b4.product", "logits", 22, 3)  # before the activation, which belongs to the last block of every plain task
    loaders = {"short": lambda: TaskModel(short.model("logits"))}
    export_repository(Sources(loaders), ExportOptions(tmp_path / "repo", cuts=CutOptions("exact")))
    loaders = {"other": lambda: TaskModel(plain(FROZEN, 21))}
    add_tasks(tmp_path / "repo", Sources(loaders), AddOptions(recut=True))
    pricing = Pricing(lambda modules: plain(FROZEN, 25), served_in(tmp_path / "repo", tmp_path, plain(FROZEN, 19)))
    cost = pricing.price()
    assert cost.macs == 6 * 3  # the head alone
    assert amounts(cost) == really_added(tmp_path / "repo", plain(FROZEN, 25))


def test_where_tasks_take_different_inputs_a_price_is_what_adding_costs(tmp_path: Path) -> None:
    models = {"kind": lambda: ir.from_proto(image(20)), "risk": lambda: ir.from_proto(image_with_age(22))}
    models |= {"mood": lambda: ir.from_proto(tokens(23, types=True))}
    loaders = {name: (lambda make=make: TaskModel(make())) for name, make in models.items()}
    export_repository(Sources(loaders), ExportOptions(tmp_path / "repo", cuts=CutOptions("exact")))
    pricing = Pricing(load_tuned, served_in(tmp_path / "repo", tmp_path, BACKBONE.model()))
    cost = pricing.price()
    assert cost.macs < pricing.macs / 2
    assert amounts(cost) == really_added(tmp_path / "repo", load_tuned(()))


subsets = st.frozensets(st.sampled_from(MODULES))


@pytest.fixture(scope="module", params=["exact", "cheap", "stages"])
def pricing(request: pytest.FixtureRequest) -> Pricing:
    backbone = Network("the backbone", canonicalise(BACKBONE.model()))
    return Pricing(load_tuned, Served.alone(backbone, CutOptions(request.param)))


@given(subsets, subsets)
def test_a_superset_costs_no_less(pricing: Pricing, left: frozenset[str], right: frozenset[str]) -> None:
    smaller, larger = pricing.price(left), pricing.price(left | right)
    assert larger.macs >= smaller.macs
    assert larger.macs <= pricing.macs
    assert larger.weight_bytes >= smaller.weight_bytes


@pytest.mark.slow
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(subsets, min_size=1, max_size=3), subsets, st.sampled_from(["exact", "cheap", "stages"]))
def test_a_price_is_what_adding_costs(
    tmp_path_factory: pytest.TempPathFactory, there: list[frozenset[str]], coming: frozenset[str], rule: str
) -> None:
    folder = tmp_path_factory.mktemp("priced")
    tasks = {f"task{index}": tuned(modules, head=index + 20) for index, modules in enumerate(there)}
    export(folder / "repo", tasks, cuts=CutOptions(rule))  # type: ignore[arg-type]
    pricing = Pricing(load_tuned, served_in(folder / "repo", folder, BACKBONE.model()))
    real = tuned(coming, head=50).model()
    assert amounts(pricing.price(coming)) == really_added(folder / "repo", real, BACKBONE.model())
