"""What torch networks return: one tensor, a dict, a tuple; and what is no answer."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contract.preprocessing import Preprocessing
from exporter.errors import FailingForward, UnsupportedOutput
from exporter.export import ExportOptions, export_repository
from exporter.open_models import open_sources
from exporter.sources.references import InputOptions
from exporter.sources.runtime import open_session
from exporter.torch.export import NetworkExporter
from exporter.torch.outputs import flatten, run_network

pytestmark = pytest.mark.slow

Pair = namedtuple("Pair", ["logits", "features"])


class ModelOutput(OrderedDict[str, Tensor]):
    """As transformers has it: a dict whose values are attributes, too."""


class Returning(nn.Module):
    """Gives `form` of 5 scores, 4 features and the images."""

    def __init__(self, form: Callable[[Tensor, Tensor, Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 5)
        self.form = form

    def forward(self, images: Tensor) -> object:
        features = self.stem(images).relu().mean((2, 3))
        return self.form(self.head(features), features, images)


HOW = Preprocessing(8, 8, mean=(0.5, 0.4, 0.3))


@pytest.mark.parametrize(
    ("form", "names"),
    [
        (lambda y, f, x: {"logits": y, "features": f}, ["logits", "features"]),
        (lambda y, f, x: {"linear": y, "mean": f, "relu": f.sin()}, ["linear", "mean", "relu"]),  # names that nodes inside have
        (lambda y, f, x: {"image": f, "y": y}, ["image_output", "y"]),
        (lambda y, f, x: (y, f), ["output_0", "output_1"]),
        (lambda y, f, x: {"scores": y}, ["logits"]),
        (lambda y, f, x: {"logits": y, "label": y.argmax(1), "sure": y > 0}, ["logits", "label", "sure"]),
    ],
)
def test_each_tensor_becomes_an_output(form: Callable[..., object], names: list[str]) -> None:
    network = Returning(form).eval()
    model = NetworkExporter(8, 8, "none").export(network, HOW)
    assert [value.name for value in model.graph.outputs] == names
    images = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        returned = network(images)
    expected = list(returned.values()) if isinstance(returned, dict) else list(returned)
    found = open_session(model).run(None, {"image": images.numpy()})
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("form", "names"),
    [
        (lambda y, f, x: ModelOutput(logits=y, hidden=f), ["logits", "hidden"]),
        (lambda y, f, x: [y, f], ["output_0", "output_1"]),
        (lambda y, f, x: Pair(y, f), ["logits", "features"]),
        (lambda y, f, x: (y,), ["output_0"]),
    ],
)
def test_what_holds_tensors_is_a_tuple_of_them_before_it_is_traced(form: Callable[..., object], names: list[str]) -> None:
    network, images = Returning(form).eval(), torch.randn(2, 3, 8, 8)
    found = run_network("nets:make", network, images)
    assert [*found] == names
    with torch.inference_mode():
        flat = flatten(network(images))
    assert isinstance(flat, tuple)
    for ours, theirs in zip(flat, found.values(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert [tuple(tensor.shape) for tensor in flat] == [(2, 5), (2, 4)][: len(names)]


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (
            lambda y, f, x: {"logits": y, "aux": None},
            "a dict in which 'aux' is None; let it return a tensor, or a dict or a tuple",
        ),
        (lambda y, f, x: (y, [f]), "a tuple in which 'output_1' is a list"),
        (lambda y, f, x: {"logits": y, "hidden": {"a": f}}, "a dict in which 'hidden' is a dict"),
        (lambda y, f, x: {}, "an empty dict"),
        (lambda y, f, x: "five", "a str"),
        (lambda y, f, x: None, "a NoneType"),
        (lambda y, f, x: {"logits": y, "loss": y.mean()}, r"'loss' of shape \(\) for 3 images, and no row for each"),
        (lambda y, f, x: {"logits": y, "rows": f[:2]}, r"'rows' of shape \(2, 4\) for 3 images"),
        (lambda y, f, x: {"a": y, "b": y}, "one tensor as 'a' and as 'b'; leave one out"),
        (lambda y, f, x: {"logits": y, "image": x}, "what it is given as 'image'; leave it out"),
    ],
)
def test_what_is_no_answer_is_named(form: Callable[..., object], words: str) -> None:
    with pytest.raises(UnsupportedOutput, match=f"^nets:make returns {words}"):
        NetworkExporter(8, 8, "none").export(Returning(form), HOW, "nets:make")


class _Raising(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise ValueError("first\n  :boom: [red]last[/red].\n")


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (
            nn.Conv2d(1, 4, 3),
            r"raises RuntimeError for a batch of shape \(3, 3, 8, 8\): .* to have 1 channels, but got 3 channels instead\.$",
        ),
        (_Raising(), r"raises ValueError for a batch of shape \(3, 3, 8, 8\): :boom: \[red\]last\[/red\]\.$"),
    ],
)
@pytest.mark.parametrize("preprocess", ["in-graph", "none"])
def test_a_forward_that_raises_is_one_sentence(network: nn.Module, words: str, preprocess: str) -> None:
    with pytest.raises(FailingForward, match=words) as raised:
        NetworkExporter(8, 8, preprocess).export(network, HOW)
    assert "\n" not in str(raised.value)


CODE = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
        self.head = nn.Linear(4, 5)

    def forward(self, images):
        features = self.stem(images).mean((2, 3))
        return {"logits": self.head(features), "features": features}
"""


def test_a_repository_of_a_network_with_two_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "two_outputs_of_a_user.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    sources = open_sources(None, {"pets": "two_outputs_of_a_user:Two"}, InputOptions("none", 8))
    task = export_repository(sources, ExportOptions(tmp_path / "repo")).repository.tasks["pets"]
    assert [(output.name, output.shape) for output in task.outputs] == [("pets.logits", (5,)), ("pets.features", (4,))]
