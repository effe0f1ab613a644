"""A tokenizer beside a task: which inputs it fills, what it is refused for, and that it stays through every change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from onnx import helper

import espalier as espalier_api
from contract.errors import RepositoryError
from contract.repository import Repository, Task, TensorSpec, read_repository
from contract.repository.free_sizes import FreeSize
from contract.text import TextInput
from exporter.add import AddOptions, add_tasks
from exporter.build.texts import with_text
from exporter.deploy import deploy, promote, rollback
from exporter.errors import BadTokenizer, ExportError, NoPadding, NotForTexts, TokenizerDoesNotFit, TokenizerOfNobody
from exporter.export import ExportOptions, export_repository
from exporter.gc import collect_garbage
from exporter.open_models import open_sources
from exporter.remove import remove_tasks
from exporter.sources.task_model import Sources, TaskModel
from exporter.sources.tokenizer import TokenizerSource, read_tokenizer
from tests import words
from tests.documents import commands
from tests.espalier.test_cli import espalier
from tests.exporter.bert import LENGTH, WORDS, Bert
from tests.exporter.graphs import Net

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced", "forked_preflight")]

BERT = Bert((10,), 90, masked=True)
FILE = "tokenizer.json"


@pytest.fixture
def tokenizer(tmp_path: Path) -> TokenizerSource:
    return read_tokenizer(words.save(tmp_path))


def sources(tokenizer: TokenizerSource | None, **tasks: Bert | Net) -> Sources:
    return Sources({name: (lambda net=net: TaskModel(net.model(), tokenizer=tokenizer)) for name, net in tasks.items()})


def export(folder: Path, tokenizer: TokenizerSource, **tasks: Bert | Net) -> Repository:
    export_repository(sources(tokenizer, **tasks), ExportOptions(folder / "repo"))
    return read_repository(folder / "repo")


def content(repo: Path, task: str, folder: str = ".") -> str:
    return sha256((repo / task / folder / FILE).read_bytes()).hexdigest()


def test_inputs_are_found_by_name(tmp_path: Path, tokenizer: TokenizerSource) -> None:
    repository = export(tmp_path, tokenizer, a=BERT, b=replace(BERT, head=91))
    expected = TextInput(
        tokenizer.opened.sha256, "input_ids", "attention_mask", "token_type_ids", pad=0, least=LENGTH, most=LENGTH
    )
    assert [task.text for task in repository.tasks.values()] == [expected] * 2
    assert content(repository.path, "a") == tokenizer.opened.sha256
    assert (repository.path / "a" / FILE).stat().st_ino == (repository.path / "b" / FILE).stat().st_ino


def test_it_stays_through_every_change(tmp_path: Path, tokenizer: TokenizerSource) -> None:
    repo = export(tmp_path, tokenizer, a=BERT, gone=replace(BERT, head=91)).path
    other = words.tokenizer()
    other.enable_truncation(4)  # another file
    second = read_tokenizer(words.save(tmp_path, other, "other.json"))
    ours, theirs = tokenizer.opened.sha256, second.opened.sha256
    deploy(repo, sources(second, a=replace(BERT, head=92)))
    assert (content(repo, "a"), content(repo, "a", "previous")) == (theirs, ours)
    rollback(repo, "a")
    assert (content(repo, "a"), content(repo, "a", "previous")) == (ours, theirs)
    deploy(repo, sources(second, a=replace(BERT, head=93)), canary=0.5)
    assert (content(repo, "a"), content(repo, "a", "canary")) == (ours, theirs)
    add_tasks(repo, sources(None, plain=replace(BERT, head=94)), AddOptions(recut=True))
    remove_tasks(repo, ["gone"], gc=True)
    collect_garbage(repo)
    promote(repo, "a")
    collect_garbage(repo, drop_previous=True)
    task = read_repository(repo).tasks["a"]
    assert task.text is not None
    assert (task.text.sha256, content(repo, "a"), task.previous) == (theirs, theirs, None)
    assert read_repository(repo).tasks["plain"].text is None
    assert not (repo / "plain" / FILE).exists()


def test_a_model_that_brings_none_keeps_that_of_the_version_before(tmp_path: Path, tokenizer: TokenizerSource) -> None:
    repo = export(tmp_path, tokenizer, a=BERT).path
    report = deploy(repo, sources(None, a=replace(BERT, head=92))).added
    assert report is not None
    assert report.inherited == {"a": ("tokenizer",)}
    assert content(repo, "a") == tokenizer.opened.sha256


def test_what_the_network_takes_limits_texts_also_where_the_tokenizer_is_kept(tmp_path: Path, tokenizer: TokenizerSource) -> None:
    longer = replace(BERT, length="length")
    repo = export(tmp_path, tokenizer, a=longer).path
    for positions in (4, LENGTH + 2):
        deploy(repo, sources(None, a=replace(longer, head=90 + positions, positions=positions)))
        text = read_repository(repo).tasks["a"].text
        assert text is not None
        assert text.most == positions
    small = replace(longer, head=99, words=WORDS - 1)
    with pytest.raises(TokenizerDoesNotFit, match=r"tokenizer.json gives ids up to 10, and the network knows ids up to 9"):
        deploy(repo, sources(None, a=small))
    assert read_repository(repo).tasks["a"].version == "3"


def test_a_repository_without_the_file_is_damaged(tmp_path: Path, tokenizer: TokenizerSource) -> None:
    repo = export(tmp_path, tokenizer, a=BERT).path
    (repo / "a" / FILE).unlink()
    with pytest.raises(RepositoryError, match=r"Task 'a' has no tokenizer.json; export it again"):
        read_repository(repo)


def renamed(bert: Bert, old: str, new: str) -> ir.Model:
    model = bert.model()
    next(value for value in model.graph.inputs if value.name == old).name = new
    return model


def of_floats() -> ir.Model:
    node = helper.make_node("Gemm", ["values", "weight"], ["logits"])
    weight = helper.make_tensor("weight", 1, [4, 3], [float(number) for number in range(12)])
    ends = [helper.make_tensor_value_info(name, 1, ["batch", size]) for name, size in (("values", 4), ("logits", 3))]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weight])
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))


NO_PAD = words.tokenizer(special=("none", "[UNK]", "[CLS]", "[SEP]"))
MANY_WORDS = words.tokenizer((*words.WORDS, "more"))
LONG = words.tokenizer()
LONG.post_processor = words.processors.TemplateProcessing(
    single="[CLS] [CLS] [CLS] [SEP] [SEP] $A", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
)


@pytest.mark.parametrize(
    ("make", "made", "error", "sentence"),
    [
        (partial(renamed, BERT, "token_type_ids", "position_ids"), None, NotForTexts, "'position_ids' .INT64 .5.., which no"),
        (of_floats, None, NotForTexts, "takes '.*' .FP32 .4.., which no tokenizer gives"),
        (Bert((10,)).model, NO_PAD, NoPadding, "no mask, and tokenizer.json names no token that fills up"),
        (
            BERT.model,
            MANY_WORDS,
            TokenizerDoesNotFit,
            "not that of its network: tokenizer.json gives ids up to 11, and the network knows ids up to 10",
        ),
        (BERT.model, LONG, TokenizerDoesNotFit, "takes 5 tokens, of which tokenizer.json adds 5 itself"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path: Path, make: Callable[[], ir.Model], made: words.Tokenizer | None, error: type[ExportError], sentence: str
) -> None:
    tokenizer = read_tokenizer(words.save(tmp_path, made))
    with pytest.raises(error, match=sentence):
        export_repository(Sources({"a": lambda: TaskModel(make(), tokenizer=tokenizer)}), ExportOptions(tmp_path / "repo"))
    assert not (tmp_path / "repo").exists()


def of_text(*names: str, shape: tuple[int, ...] = (-1,), **facts: Any) -> Task:
    inputs = tuple(TensorSpec(name, "INT64", shape, axes=(name,) if shape == (-1,) else ()) for name in names)
    return Task("a", (), inputs, (TensorSpec("a", "FP32", (3,)),), 6, **facts)


def test_ids_beyond_the_table_are_refused_by_their_numbers(tokenizer: TokenizerSource) -> None:
    task = of_text("input_ids", shape=(5,), values={"input_ids": (0, 9)})
    with pytest.raises(TokenizerDoesNotFit, match=r"tokenizer.json gives ids up to 10, and the network knows ids up to 9"):
        with_text(task, ["input_ids"], tokenizer)
    assert with_text(replace(task, values={"input_ids": (0, 10)}), ["input_ids"], tokenizer).text is not None


def test_a_text_is_as_long_as_all_inputs_and_the_folder_allow(tokenizer: TokenizerSource) -> None:
    sizes = {"input_ids": FreeSize(4, 1, 40), "attention_mask": FreeSize(4, 2, 30)}
    names = [*sizes]
    text = with_text(of_text(*names, sizes=sizes), names, tokenizer).text
    assert text is not None
    assert (text.least, text.most) == (2, 30)
    text = with_text(of_text(*names, sizes=sizes), names, replace(tokenizer, most=20, pad=7)).text
    assert text is not None
    assert (text.most, text.pad) == (20, 7)
    unlimited = of_text("ids", sizes={"ids": FreeSize(4)})
    assert with_text(unlimited, ["ids"], tokenizer).text == TextInput(tokenizer.opened.sha256, "ids")


def test_a_file_that_is_no_tokenizer_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "wrong.json").write_text("{}")
    Net((1,)).save(tmp_path / "net.onnx")
    for file, sentence in (("wrong.json", "is no tokenizer: Model missing"), ("none.json", "cannot be read: No such file")):
        with pytest.raises(BadTokenizer, match=sentence):
            open_sources(None, {"a": tmp_path / "net.onnx"}, tokenizers={"": tmp_path / file})
    with pytest.raises(TokenizerOfNobody, match=r"given for 'b', which is none of the tasks that come \(a\)"):
        open_sources(None, {"a": tmp_path / "net.onnx"}, tokenizers={"b": words.save(tmp_path)})


def test_one_tokenizer_for_all_and_one_for_a_task(tmp_path: Path) -> None:
    ir.save(BERT.model(), tmp_path / "net.onnx")
    other = words.tokenizer(("the",))
    files = {"": words.save(tmp_path), "b": words.save(tmp_path, other, "other.json")}
    opened = open_sources(None, dict.fromkeys("abc", tmp_path / "net.onnx"), tokenizers=files)
    found = {name: load().tokenizer for name, load in opened.tasks.items()}
    assert {name: source.file.name for name, source in found.items() if source} == {"a": FILE, "b": "other.json", "c": FILE}


def test_the_commands_of_the_document(tmp_path: Path) -> None:
    for seed, name in enumerate(("mood", "topic", "tone", "better")):
        ir.save(replace(BERT, head=90 + seed).model(), tmp_path / f"{name}.onnx")
    words.save(tmp_path)
    for command in commands("docs/guides/text.md", __file__):
        run = espalier(*command[1:], cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        assert "Texts: " in run.stdout
    tasks = read_repository(tmp_path / "repo").tasks
    assert (tasks.keys(), tasks["mood"].version) == ({"mood", "topic", "tone"}, "2")
    assert all(task.text is not None for task in tasks.values())


def test_a_tokenizer_on_the_command_line_that_does_not_do(tmp_path: Path) -> None:
    ir.save(BERT.model(), tmp_path / "net.onnx")
    file = words.save(tmp_path)
    for given, sentence in (
        ([f"b={file}"], "is given for 'b', which is none of the tasks that come"),
        ([file, file], "one for all is given twice"),
        ([tmp_path / "net.onnx"], "is no tokenizer"),
    ):
        options = [word for one in given for word in ("--tokenizer", one)]
        run = espalier("export", "--task", "a=net.onnx", "--out", "repo", *options, cwd=tmp_path)
        assert (run.returncode, sentence in " ".join(run.stderr.replace("│", " ").split())) == (2, True), run.stderr
    assert not (tmp_path / "repo").exists()


def test_from_python(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        ir.save(replace(BERT, head=90 + seed).model(), tmp_path / f"{name}.onnx")
    file, repo = words.save(tmp_path), tmp_path / "repo"
    espalier_api.export({"a": tmp_path / "a.onnx"}, repo, tokenizer=file)
    espalier_api.add(repo, {"b": tmp_path / "b.onnx"}, tokenizer={"b": file})
    espalier_api.deploy(repo, {"c": tmp_path / "c.onnx"}, tokenizer=str(file))
    assert [name for name, task in read_repository(repo).tasks.items() if task.text is not None] == ["a", "b", "c"]
