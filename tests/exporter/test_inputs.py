"""Tasks that take different inputs: what is one input of the repository, and what the tasks then share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.plan import make_plan
from contract.repository import Repository, read_repository
from contract.repository.anchor import anchored
from contract.repository.model import Step, TensorSpec
from contract.repository.unite import united_inputs
from espalier import api
from espalier.figures.repository.layout import make_layout
from espalier.tables.tree import repository_tree
from exporter.add import AddOptions, add_tasks
from exporter.build.parity import ParityChecker
from exporter.deploy import deploy
from exporter.diff.diff import diff_models
from exporter.errors import AmbiguousInput, BadTaskName, ExportError, InputTwice, OtherInputs, OtherInputType, UnknownInputName
from exporter.export import ExportOptions, ExportReport, export_repository
from exporter.graph.chain import Tap
from exporter.graph.digests import source_address
from exporter.remove import remove_tasks
from exporter.sharing.choose import CutOptions
from exporter.sources.inputs import RepositoryInput, match_inputs
from exporter.sources.runtime import open_session
from exporter.sources.task_model import Sources, TaskModel
from tests.exporter.wired import FROZEN, WIDTH, Wired, plain, with_metadata

pytestmark = pytest.mark.usefixtures("unsynced")

Make = Callable[[], ir.Model]
Names = Mapping[str, Mapping[str, str]]


def called(model: ir.Model, names: Mapping[str, str]) -> ir.Model:
    for value in model.graph.inputs:
        value.name = names.get(str(value.name), value.name)
    return model


def metadata_alone(head: int) -> ir.Model:
    net = Wired({"age": 2})
    net.layer(net.layer("age", "age.hidden", 50, 4), "logits", head, 3)
    return net.model("logits")


def twins(head: int) -> ir.Model:
    net = Wired({"left": WIDTH, "right": WIDTH})
    left, right = net.layer("left", "b1", 1), net.layer("right", "other", 7)
    net.layer(net.concat([left, right], "both"), "logits", head, 3)
    return net.model("logits")


IMAGE: Make = lambda: plain(FROZEN, head=20)  # noqa: E731
PIXELS: Make = lambda: called(plain(FROZEN, head=21), {"image": "pixels"})  # noqa: E731
BOTH: Make = lambda: with_metadata(22)  # noqa: E731
AGE: Make = lambda: metadata_alone(23)  # noqa: E731
TWINS: Make = lambda: twins(24)  # noqa: E731
WIDER: Make = lambda: wider(25)  # noqa: E731


def wider(head: int) -> ir.Model:
    net = Wired({"image": WIDTH + 2})
    net.layer("image", "logits", head, 3)
    return net.model("logits")


def sources(tasks: Mapping[str, Make], names: Names | None = None, backbone: Make | None = None) -> Sources:
    loaders = {name: (lambda make=make: TaskModel(make())) for name, make in tasks.items()}
    return Sources(loaders, None if backbone is None else (lambda: TaskModel(backbone())), inputs=names or {})


def export(out: Path, tasks: Mapping[str, Make], names: Names | None = None, backbone: Make | None = None) -> ExportReport:
    return export_repository(sources(tasks, names, backbone), ExportOptions(out, cuts=CutOptions("exact")))


def taken(repository: Repository) -> dict[str, list[str]]:
    return {name: [spec.name for spec in task.inputs] for name, task in repository.tasks.items()}


def segments(repository: Repository, task: str) -> list[str]:
    return [step.segment for step in repository.tasks[task].steps]


def check_answers(repository: Repository, tasks: Mapping[str, Make]) -> None:
    checker = ParityChecker(repository)
    for name, make in tasks.items():
        rows = [
            np.random.default_rng(3).standard_normal((2, *spec.shape)).astype(np.float32)
            for spec in repository.tasks[name].inputs
        ]
        session = open_session(make())
        expected = session.run(None, dict(zip([value.name for value in session.get_inputs()], rows, strict=True)))
        np.testing.assert_allclose(checker.compose(name, rows)[0], expected[0], atol=1e-5)


def test_an_image_and_an_image_with_metadata_share_the_branch_of_the_image(tmp_path: Path) -> None:
    tasks = {"kind": PIXELS, "risk": BOTH}
    report = export(tmp_path / "repo", tasks)
    assert taken(report.repository) == {"kind": ["image"], "risk": ["image", "age"]}
    trunk = segments(report.repository, "kind")[0]
    assert trunk in segments(report.repository, "risk")
    assert report.plan.segments[trunk].blocks[0].macs > 0
    check_answers(report.repository, tasks)
    assert "takes its input 'pixels' as 'image'" in report.remarks["kind"]
    plan = make_plan(report.repository, ["kind", "risk"])
    assert plan.inputs == ("image", "age")
    assert sum(step.segment == trunk for step in plan.steps) == 1
    assert make_plan(report.repository, ["kind"]).inputs == ("image",)


def test_what_is_added_takes_the_inputs_that_are_there(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    first = export(repo, {"kind": IMAGE, "more": PIXELS}).repository
    assert taken(first) == {"kind": ["image"], "more": ["image"]}
    pixels_and_age: Make = lambda: called(with_metadata(22), {"image": "pixels"})  # noqa: E731
    added = add_tasks(repo, sources({"risk": pixels_and_age}), AddOptions())
    assert taken(added.repository)["risk"] == ["image", "age"]
    assert segments(first, "kind")[0] in segments(added.repository, "risk")
    assert "takes its input 'pixels' as 'image'" in added.remarks["risk"]
    more = add_tasks(repo, sources({"years": AGE}), AddOptions()).repository
    assert taken(more)["years"] == ["age"]
    tasks = {"kind": IMAGE, "more": PIXELS, "risk": pixels_and_age, "years": AGE}
    check_answers(read_repository(repo), tasks)
    again = add_tasks(repo, Sources({}), AddOptions(recut=True)).repository
    assert taken(again) == taken(more)
    check_answers(again, tasks)
    remove_tasks(repo, ["kind", "more", "years"], gc=True)
    left = read_repository(repo)
    assert taken(left) == {"risk": ["image", "age"]}
    check_answers(add_tasks(repo, sources({"kind": IMAGE}), AddOptions()).repository, {"risk": pixels_and_age, "kind": IMAGE})


def test_a_recut_keeps_apart_what_was_said_to_be_apart(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    names = {"kind": {"image": "own"}}
    assert taken(export(repo, {"kind": IMAGE, "risk": BOTH}, names).repository) == {"kind": ["own"], "risk": ["image", "age"]}
    again = add_tasks(repo, Sources({}), AddOptions(recut=True)).repository
    assert taken(again) == {"kind": ["own"], "risk": ["image", "age"]}
    check_answers(again, {"kind": IMAGE, "risk": BOTH})


def test_inputs_of_one_name_and_another_type_are_apart_and_that_is_said(tmp_path: Path) -> None:
    tasks = {"kind": IMAGE, "wide": WIDER}
    report = export(tmp_path / "repo", tasks)
    assert taken(report.repository) == {"kind": ["image"], "wide": ["image_float_8"]}
    assert "takes its input 'image' as 'image_float_8'" in report.remarks["wide"]
    assert (
        "shares no computation, because it takes FLOAT rows of shape [8], and kind takes FLOAT rows of shape [6]"
        in (report.remarks["wide"])
    )
    check_answers(report.repository, tasks)


def test_where_two_inputs_fit_the_export_asks(tmp_path: Path) -> None:
    with pytest.raises(AmbiguousInput, match=r"input 'image' of 'kind' \(FLOAT rows of shape \[6\]\) may be 'left' or 'right'"):
        export(tmp_path / "repo", {"kind": IMAGE, "pair": TWINS})
    assert [*tmp_path.iterdir()] == []
    said = export(tmp_path / "repo", {"kind": IMAGE, "pair": TWINS}, {"kind": {"image": "left"}}).repository
    assert taken(said) == {"kind": ["left"], "pair": ["left", "right"]}
    assert set(segments(said, "kind")) & set(segments(said, "pair"))
    export(tmp_path / "images", {"kind": IMAGE})
    with pytest.raises(AmbiguousInput, match=r"inputs 'left' and 'right' of 'pair' .* may be 'image'"):
        add_tasks(tmp_path / "images", sources({"pair": TWINS}), AddOptions())
    names = {"pair": {"right": "image"}}
    assert taken(add_tasks(tmp_path / "images", sources({"pair": TWINS}, names), AddOptions()).repository)["pair"] == [
        "left",
        "image",
    ]


REFUSED: dict[str, tuple[Mapping[str, Make], Names, type[ExportError], str]] = {
    "unknown": ({"kind": IMAGE, "risk": BOTH}, {"kind": {"pixels": "age"}}, UnknownInputName, "no input 'pixels'; it takes 'image'"),
    "no network": ({"kind": IMAGE}, {"risk": {"image": "age"}}, UnknownInputName, "'risk' is not among"),
    "other type": ({"kind": IMAGE, "risk": BOTH}, {"kind": {"image": "age"}}, OtherInputType, r"\[6\], but 'age' takes .*\[2\]"),
    "twice": ({"pair": TWINS}, {"pair": {"left": "right"}}, InputTwice, "Two inputs of 'pair' would both be 'right'"),
    "a task's name": ({"age": IMAGE, "risk": BOTH}, {}, BadTaskName, "'age' cannot name a task: another network has"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_said_wrongly_of_inputs_is_refused(tmp_path: Path, what: str) -> None:
    tasks, names, kind, sentence = REFUSED[what]
    with pytest.raises(kind, match=sentence):
        export(tmp_path / "repo", tasks, names)
    assert [*tmp_path.iterdir()] == []


def test_a_task_is_replaced_by_one_that_takes_more_but_a_canary_is_not(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export(repo, {"kind": IMAGE})
    with pytest.raises(
        OtherInputs, match=r"canary of task 'kind' takes .* in 'age', but the current version .* in 'image'; a request"
    ):
        deploy(repo, sources({"kind": BOTH}), canary=0.1)
    after = deploy(repo, sources({"kind": BOTH})).repository
    assert taken(after)["kind"] == ["image", "age"]
    assert after.tasks["kind"].previous is not None
    check_answers(after, {"kind": BOTH})


def test_two_networks_are_compared_behind_the_input_that_they_have_in_common() -> None:
    assert diff_models("a", TaskModel(PIXELS()), "b", TaskModel(BOTH())).shared_macs > 0
    with pytest.raises(AmbiguousInput):
        diff_models("a", TaskModel(IMAGE()), "b", TaskModel(TWINS()))
    assert diff_models("a", TaskModel(IMAGE()), "b", TaskModel(TWINS()), {"a": {"image": "left"}}).shared_macs > 0
    assert diff_models("a", TaskModel(IMAGE()), "b", TaskModel(TWINS()), {"a": {"image": "right"}}).shared_macs == 0


def test_the_functions_of_the_package_take_names_of_inputs(tmp_path: Path) -> None:
    for name, make in {"kind": IMAGE, "pair": TWINS}.items():
        onnx.save(ir.to_proto(make()), tmp_path / f"{name}.onnx")
    files = {name: tmp_path / f"{name}.onnx" for name in ("kind", "pair")}
    report = api.export(files, tmp_path / "repo", input_names={"kind": {"image": "right"}})
    assert taken(report.repository) == {"kind": ["right"], "pair": ["left", "right"]}


def test_the_tree_and_the_picture_name_every_input(tmp_path: Path) -> None:
    repository = export(tmp_path / "repo", {"kind": IMAGE, "risk": BOTH, "wide": WIDER}).repository
    assert [spec.name for spec in united_inputs(repository.tasks.values()) or ()] == ["image", "age", "image_float_8"]
    assert all(name in str(repository_tree(repository).label) for name in ("image", "age", "image_float_8"))
    texts = {text.text for text in make_layout(repository).texts}
    assert texts >= {"image", "age"}
    assert sum(text.startswith("image") for text in texts) == 2


def tap(network: str, name: str, size: int) -> Tap:
    return Tap(name, f"{network} {name}", "FLOAT", (size,))


NETWORKS = st.dictionaries(
    st.sampled_from(["n1", "n2", "n3", "n4"]),
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 3), min_size=1, max_size=3),
    min_size=1,
)


@given(networks=NETWORKS, there=st.dictionaries(st.sampled_from("abce"), st.integers(1, 3)))
def test_one_name_is_one_type_whatever_comes_in_whatever_order(
    networks: dict[str, dict[str, int]], there: dict[str, int]
) -> None:
    known = {
        name: RepositoryInput(name, ("FLOAT", (size,)), source_address("FLOAT", (size,), name), size % 2 == 0)
        for name, size in there.items()
    }
    taps = {network: [tap(network, name, size) for name, size in inputs.items()] for network, inputs in networks.items()}
    try:
        found = match_inputs(taps, known, {})
    except (AmbiguousInput, InputTwice):
        return
    kinds: dict[str, object] = {one.name: one for one in known.values()}
    for network, inputs in found.items():
        assert len({one.address for one in inputs}) == len(inputs)
        for one, taken_tap in zip(inputs, taps[network], strict=True):
            assert one.rows == taken_tap.rows
            assert kinds.setdefault(one.name, one) == one
    assert len({one.address for one in kinds.values()}) == len(kinds)  # type: ignore[attr-defined]


@given(data=st.data())
def test_triton_leaves_no_step_out_that_is_needed(data: st.DataObject) -> None:
    """What Triton 24.10 does when outputs are left out, step 0 standing for the maker of an input that nobody needs any more."""
    inputs = [TensorSpec(name, "FP32", (2,)) for name in "xyz"[: data.draw(st.integers(1, 3))]]
    tensors, steps = [spec.name for spec in inputs], []
    for number in range(data.draw(st.integers(1, 6))):
        chosen = data.draw(st.lists(st.sampled_from(tensors), min_size=1, max_size=2, unique=True))
        steps.append(Step(f"s{number}", tuple(chosen), (f"t{number}",)))
        tensors.append(f"t{number}")
    inner = {name for step in steps for name in step.inputs}
    outputs = [step.outputs[0] for step in steps if step.outputs[0] not in inner]
    used = [spec for spec in inputs if spec.name in inner]
    ordered, _ = anchored(steps, used, outputs)
    wanted = set(data.draw(st.lists(st.sampled_from(outputs), min_size=1, unique=True)))
    left = pruned(ordered, set(outputs) - wanted)
    needed, need = set(wanted), []
    for step in sorted(ordered, key=lambda step: depth(ordered, step), reverse=True):
        if needed.intersection(step.outputs):
            need.append(step)
            needed.update(step.inputs)
    assert left.issuperset(need)


def depth(steps: list[Step], step: Step) -> int:
    makers = {name: other for other in steps for name in other.outputs}
    return 1 + max((depth(steps, makers[name]) for name in step.inputs if name in makers), default=0)


def pruned(steps: list[Step], ignored: set[str]) -> set[Step]:
    """Return the steps that Triton runs (EnsembleContext in its ensemble_scheduler.cc, 24.10)."""
    maker = {name: number for number, step in enumerate(steps) for name in step.outputs}
    readers = {
        name: {number for number, step in enumerate(steps) if name in step.inputs} for step in steps for name in step.inputs
    }
    counts = {number: len(step.outputs) for number, step in enumerate(steps)}
    out: set[int] = set()
    while ignored:
        following: set[str] = set()
        for name in ignored:
            number = maker.get(name, 0)
            counts[number] -= 1
            if counts[number] == 0:
                out.add(number)
                for taken_name in steps[number].inputs:
                    readers[taken_name].discard(number)
                    if not readers[taken_name]:
                        following.add(taken_name)
        ignored = following
    return {step for number, step in enumerate(steps) if number not in out}
