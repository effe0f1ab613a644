"""Folders of transformers as sources: what is read, what is shared, what a server answers, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
import tritonclient.http as http_client

from contract.repository import read_repository
from espalier.client import Client
from exporter.errors import BadModel, ExportError, GeneratesText
from exporter.export import ExportOptions, ExportReport, export_repository
from exporter.open_models import open_sources
from exporter.sharing.choose import CutOptions
from exporter.torch import text_export
from serving.server import BackgroundServer
from tests import folders, words
from tests.documents import commands
from tests.espalier.test_cli import espalier
from tuning.errors import BackboneOptions
from tuning.network.backbone import load_backbone

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced")]

TEXTS = ["The cat sat", "not far", "the dog ran far not far"]
MOODS = {0: "calm", 1: "cross", 2: "glad"}


def family(root: Path, name: str) -> dict[str, Any]:
    """Write a backbone, and networks that were tuned from it, as folders into `root`, and return those."""
    base = folders.network(f"{name}ForMaskedLM")
    made = {
        "mood": folders.tuned(base, f"{name}ForSequenceClassification", 1, (1,), id2label=MOODS),
        "topic": folders.tuned(base, f"{name}ForSequenceClassification", 2, num_labels=3),
        "more": folders.tuned(base, f"{name}ForSequenceClassification", 4, (1,), num_labels=3),
    }
    if name == "Bert":
        made["tags"] = folders.tuned(base, "BertForTokenClassification", 3, (1,), num_labels=5)
    folders.save(root / "base", base)
    for task, network in made.items():
        folders.save(root / task, network)
    return made


def export(root: Path, *tasks: str) -> ExportReport:
    sources = open_sources(f"hf:{root / 'base'}", {task: f"hf:{root / task}" for task in tasks})
    return export_repository(sources, ExportOptions(root / "repo", cuts=CutOptions("exact")))


@pytest.fixture(scope="module", autouse=True)
def traces() -> Iterator[list[str]]:
    """What was traced: each architecture once for all tests, since other weights are put into a trace."""
    traced: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_export, "trace", partial(_kept, text_export.trace, traced))
        yield traced  # type: ignore[misc]  # the keys


def _kept(trace: Callable[..., Any], traced: dict[str, Any], network: Any, *others: Any) -> Any:
    shapes = [(name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()]
    key = repr((type(network.network).__name__, shapes, network.inputs, network.outputs, network.sigmoid, others))
    if key not in traced:
        traced[key] = trace(network, *others)
    return traced[key].clone()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], ExportReport]:
    root = tmp_path_factory.mktemp("bert")
    return family(root, "Bert"), export(root, "mood", "topic", "tags")


@pytest.fixture(scope="module")
def server(exported: tuple[dict[str, Any], ExportReport]) -> Iterator[BackgroundServer]:
    with BackgroundServer(exported[1].repository.path, http_port=0, grpc_port=0, threads=1) as running:
        yield running


def theirs(network: Any, text: str) -> np.ndarray:
    """Return what transformers itself answers to one text, without any padding."""
    ids = torch.tensor([words.tokenizer().encode(text).ids])
    with torch.no_grad():
        return network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].numpy()


def test_texts_get_the_answers_of_transformers_with_one_run_of_the_trunk(
    exported: tuple[dict[str, Any], ExportReport], server: BackgroundServer
) -> None:
    networks, report = exported
    answer = Client(f"http://{server.http_address}").predict(text=TEXTS, tasks=["mood", "topic"])
    for text, found in zip(TEXTS, answer["texts"], strict=True):
        for task in ("mood", "topic"):
            scores = torch.softmax(torch.tensor(theirs(networks[task], text)), 0)
            labels = networks[task].config.id2label
            best = found["tasks"][task]["labels"][0]
            assert best["label"] == labels[int(scores.argmax())]
            assert best["score"] == pytest.approx(float(scores.max()), abs=1e-4)
    shared = {step.segment for step in report.repository.tasks["mood"].steps if step.segment.startswith("trunk")}
    ran = [(run["segment"], run["rows"]) for run in answer["segments"] if run["segment"] in shared]
    assert sorted(ran) == sorted((segment, len(TEXTS)) for segment in shared)


def test_ids_over_v2_get_the_same_classes_and_each_token_its_own(
    exported: tuple[dict[str, Any], ExportReport], server: BackgroundServer
) -> None:
    networks, report = exported
    specs = report.repository.tasks["mood"].inputs
    length = specs[0].shape[0] if specs[0].shape[0] > 0 else 8
    encoded = [words.tokenizer().encode(text) for text in TEXTS]
    for one in encoded:
        one.pad(length, pad_token="[PAD]")
    columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    client = http_client.InferenceServerClient(server.http_address)
    tensors = []
    for spec in specs:
        values = np.array([getattr(one, columns[spec.name]) for one in encoded], np.int64)
        tensors.append(http_client.InferInput(spec.name, values.shape, "INT64"))
        tensors[-1].set_data_from_numpy(values)
    found = client.infer("all_tasks", tensors)
    for row, text in enumerate(TEXTS):
        for task in ("mood", "topic", "tags"):
            network = networks[task]
            expected = theirs(network, text)
            ours = found.as_numpy(task)[row]
            np.testing.assert_allclose(ours[: len(expected)] if task == "tags" else ours, expected, atol=1e-4)
    client.close()


def test_what_tasks_share_is_found_in_a_family(exported: tuple[dict[str, Any], ExportReport]) -> None:
    _, report = exported
    forks = report.plan.forks
    assert forks["topic"] > forks["mood"] == forks["tags"] > 0
    assert report.repository.tasks["mood"].labels == ("calm", "cross", "glad")
    assert report.repository.tasks["topic"].labels == tuple(f"LABEL_{index}" for index in range(3))
    tags = report.repository.tasks["tags"]
    assert (tags.answers.word(), tags.labels[1], tags.outputs[0].shape[-1]) == ("tokens", "LABEL_1", 5)
    assert report.repository.tasks["mood"].provenance == {"network": "BertForSequenceClassification", "file": "mood"}
    text = report.repository.tasks["mood"].text
    assert text is not None
    assert (text.most, text.pad, text.types) == (folders.MOST, 0, "token_type_ids")


@pytest.mark.parametrize(("name", "most"), [("Roberta", folders.MOST - 1), ("DistilBert", folders.MOST)])
def test_other_families_share_a_trunk_and_a_trace(tmp_path: Path, traces: list[str], name: str, most: int) -> None:
    networks = family(tmp_path, name)
    before = len(traces)
    sources = open_sources(None, {task: f"hf:{tmp_path / task}" for task in ("mood", "more")})
    report = export_repository(sources, ExportOptions(tmp_path / "repo", cuts=CutOptions("exact")))
    assert (len(traces) - before, report.plan.forks["mood"] > 0) == (1, True)
    text = report.repository.tasks["mood"].text
    assert text is not None
    assert (text.most, text.names) == (most, ("input_ids", "attention_mask"))
    with BackgroundServer(tmp_path / "repo", http_port=0, grpc_port=0, threads=1) as running:
        answer = Client(f"http://{running.http_address}").predict(text=TEXTS, top_k=1)
    for text, found in zip(TEXTS, answer["texts"], strict=True):
        for task in ("mood", "more"):
            scores = torch.softmax(torch.tensor(theirs(networks[task], text)), 0)
            assert found["tasks"][task]["labels"][0]["score"] == pytest.approx(float(scores.max()), abs=1e-4)


def test_the_commands_of_the_document(tmp_path: Path) -> None:
    models = tmp_path / "models"
    networks = family(models, "DistilBert")
    (models / "base").rename(models / "encoder")
    export_it, inspect, serve, infer, curl = commands("docs/guides/text.md", __file__)
    run = espalier(*export_it[1:], cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    said = " ".join((run.stdout + run.stderr).split())
    assert "models/mood is a DistilBertForSequenceClassification, read by transformers" in said
    assert "no code of the folder is run. It takes text by its tokenizer.json." in said
    assert "It is a DistilBertForMaskedLM, of which the encoder is taken." in said
    assert "Texts: mood, topic take at most 20 tokens" in said
    assert "Texts: mood, topic take" in espalier(*inspect[1:], cwd=tmp_path).stdout
    assert serve == ["espalier", "serve", "repo"]
    with BackgroundServer(tmp_path / "repo", http_port=0, grpc_port=0, threads=1) as server:
        run = espalier(*infer[1:], "--url", f"http://{server.http_address}")
        assert run.returncode == 0, run.stderr
        header, body, url = curl[2], curl[4], curl[5].replace("127.0.0.1:8000", server.http_address)
        request = Request(url, body.encode(), dict([header.split(": ")]))
        with urlopen(request) as response:
            answer = json.loads(response.read())
    scores = torch.softmax(torch.tensor(theirs(networks["mood"], "What a day.")), 0)
    best = answer["texts"][0]["tasks"]["mood"]["labels"][0]
    assert (best["label"], best["score"]) == (MOODS[int(scores.argmax())], pytest.approx(float(scores.max()), abs=1e-4))
    assert MOODS[int(scores.argmax())] in run.stdout


def test_a_folder_of_labels_for_tokens_is_of_that_kind(tmp_path: Path) -> None:
    names = {0: "O", 1: "B-A", 2: "I-A"}
    network = folders.network("DistilBertForTokenClassification", 5, id2label=names, label2id={"O": 0, "B-A": 1, "I-A": 2})
    folder = folders.save(tmp_path / "ner", network)
    run = espalier("export", "--task", f"ner=hf:{folder}", "--out", tmp_path / "repo")
    assert run.returncode == 0, run.stderr
    task = read_repository(tmp_path / "repo").tasks["ner"]
    assert (task.answers.word(), task.labels) == ("tokens", ("O", "B-A", "I-A"))


def test_several_classes_at_a_time_and_a_deploy(tmp_path: Path) -> None:
    kind = "DistilBertForSequenceClassification"
    network = folders.network(kind, 5, problem_type="multi_label_classification")
    many = folders.save(tmp_path / "many", network)
    folders.save(tmp_path / "other", folders.network(kind, 6, num_labels=3))
    mine = words.save(tmp_path, words.tokenizer(words.WORDS[:4]), "mine.json")
    run = espalier("export", "--task", f"many=hf:{many}", "--tokenizer", f"many={mine}", "--out", tmp_path / "repo")
    assert run.returncode == 0, run.stderr
    assert "It has classes of which several may be true, so that its answers are put through a sigmoid." in " ".join(
        (run.stdout + run.stderr).split()
    )
    run = espalier("deploy", f"hf:{tmp_path / 'other'}", "--to", tmp_path / "repo")
    assert run.returncode == 0, run.stderr
    with BackgroundServer(tmp_path / "repo", http_port=0, grpc_port=0, threads=1) as server:
        answer = Client(f"http://{server.http_address}").predict(text="the cat", top_k=2)
    assert answer["tasks"].keys() == {"many", "other"}
    expected = sorted(torch.sigmoid(torch.tensor(theirs(network, "the cat"))).tolist(), reverse=True)
    assert [entry["score"] for entry in answer["tasks"]["many"]["labels"]] == pytest.approx(expected, abs=1e-4)


def edited(folder: Path, file: str = "config.json", **changes: Any) -> None:
    said = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**said, **changes}))


def generating(folder: Path) -> None:
    folders.save(folder, folders.network("GPT2LMHeadModel"))


def masked(folder: Path) -> None:
    folders.save(folder, folders.network("BertForMaskedLM"))


def pickled(folder: Path) -> None:
    made = folders.network("BertForSequenceClassification")
    folders.save(folder, made)
    (folder / "model.safetensors").unlink()
    torch.save(made.state_dict(), folder / "pytorch_model.bin")


def headless(folder: Path) -> None:
    folders.save(folder, folders.network("BertModel"))
    edited(folder, architectures=["BertForSequenceClassification"])


def foreign(folder: Path) -> None:
    folders.save(folder, folders.network("BertForSequenceClassification"))
    edited(folder, model_type="mine", auto_map={"AutoModel": "code.Mine"})
    (folder / "code.py").write_text("raise SystemExit('it was run')\n")


def unnamed(folder: Path) -> None:
    folders.save(folder, folders.network("BertForSequenceClassification"))
    edited(folder, architectures=None)


def torn(folder: Path) -> None:
    folders.save(folder, folders.network("BertForSequenceClassification"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def other_sizes(folder: Path) -> None:
    folders.save(folder, folders.network("BertForSequenceClassification"))
    edited(folder, hidden_size=4)


def no_json(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (
            generating,
            GeneratesText,
            "is a GPT2LMHeadModel, which generates text token by token; give a network for sequence or token",
        ),
        (masked, BadModel, "is a BertForMaskedLM, which gives no classes; give a network for sequence or token classification"),
        (
            pickled,
            BadModel,
            "holds its weights as pytorch_model.bin, which may run code when it is read; save them as safetensors",
        ),
        (headless, BadModel, "has no weights for 'classifier.bias' and 1 more; give a folder with all of a fine-tuned network"),
        (
            foreign,
            BadModel,
            "is of the type 'mine', which transformers .* does not know; code that comes with a folder is not run",
        ),
        (unnamed, BadModel, "names no architecture"),
        (torn, BadModel, "cannot be read by transformers"),
        (other_sizes, BadModel, "cannot be read by transformers"),
        (no_json, BadModel, "config.json: cannot be read as JSON"),
        (Path.mkdir, BadModel, "is no folder that transformers has written: it has no config.json"),
        (lambda folder: None, BadModel, "there is no such folder of transformers; models are read from this machine alone"),
    ],
)
def test_what_cannot_be_served_is_refused(
    tmp_path: Path, make: Callable[[Path], None], error: type[ExportError], sentence: str
) -> None:
    make(tmp_path / "model")
    with pytest.raises(error, match=sentence):
        export_repository(open_sources(None, {"a": f"hf:{tmp_path / 'model'}"}), ExportOptions(tmp_path / "repo"))
    assert not (tmp_path / "repo").exists()


def test_without_a_tokenizer_it_takes_ids(tmp_path: Path) -> None:
    folders.save(tmp_path / "mood", folders.network("BertForSequenceClassification"))
    (tmp_path / "mood" / "tokenizer.json").unlink()
    sources = open_sources(None, {"mood": f"hf:{tmp_path / 'mood'}"})
    assert "It has no tokenizer.json, so that it takes ids; give a tokenizer to have it take text." in sources.remarks[0]
    assert sources.tasks["mood"]().tokenizer is None


def test_nothing_is_tuned_on_it(tmp_path: Path) -> None:
    with pytest.raises(BackboneOptions, match="tasks are tuned on networks of images"):
        load_backbone(f"hf:{tmp_path}")
