"""`espalier infer`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from espalier.commands.options.arrays import infer_arrays, read_arrays
from espalier.console import console, print_data
from espalier.tables.answers import answer_rows

if TYPE_CHECKING:
    from espalier.client import Client
    from serving.answers.answer import Shown, Vectors


def infer(
    image: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[IMAGE]...", help="Image files (PNG, JPEG, ...), folders of them, or - for one on standard input."
        ),
    ] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="A text to ask about; repeat it for several.")] = None,
    text_file: Annotated[
        Path | None, typer.Option("--text-file", metavar="FILE", help="Texts to ask about, one a line; - for standard input.")
    ] = None,
    array: Annotated[
        list[str] | None,
        typer.Option(
            "--array",
            metavar="NAME=FILE",
            help="An input as an array of numpy (.npy), the rows first, of any size that the task takes.",
        ),
    ] = None,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Of a text that is too long, have the beginning answered; else it is refused.")
    ] = False,
    task: Annotated[
        list[str] | None, typer.Option("--task", help="A task to ask for; repeat it for several. Default: all.")
    ] = None,
    url: Annotated[str, typer.Option(help="The HTTP address of a running server.")] = "http://127.0.0.1:8000",
    top_k: Annotated[
        int | None,
        typer.Option(min=1, help="How many classes, or boxes, to show per task. By default as many as the server gives."),
    ] = None,
    vectors: Annotated[
        str, typer.Option(metavar="list|base64", help="How embeddings are written; base64 is of little-endian float32.")
    ] = "list",
    show: Annotated[
        list[str] | None,
        typer.Option(
            metavar="logits|scores|preprocessing",
            help="Show beside the answers the numbers that the network gives, the scores that are made of them, of all labels, or what the "
            "image or text was made into. Repeat it, or put commas between them.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the server's whole answer; of several images a line each.")
    ] = False,
) -> None:
    """Ask a running server about an image, texts or arrays, for one task, several, or all.

    [dim]espalier infer photo.jpg --task flowers[/]

    [dim]espalier infer --text "What a day." --task mood[/]

    [dim]espalier infer --array input_ids=ids.npy --array attention_mask=mask.npy --task mood[/]
    """
    from espalier.client import Client

    if array:
        if image or text is not None or text_file is not None:
            raise typer.BadParameter("ask about arrays, an image or texts, and not about several of them.", param_hint="--array")
        _refuse_unused(
            {"--top-k": top_k is not None, "--vectors": vectors != "list", "--show": bool(show), "--truncate": truncate}
        )
        infer_arrays(Client(url), read_arrays(array), task or [], as_json=as_json)
        return
    asked = _Asked(task or [], top_k, _parse_vectors(vectors), _parse_show(show or ()))
    texts = [*(text or ()), *(_lines(text_file) if text_file is not None else ())]
    asks_texts = text is not None or text_file is not None
    if asks_texts == bool(image):
        raise typer.BadParameter(
            "ask about an image or about texts: give IMAGE, --text or --text-file; or arrays with --array.", param_hint="IMAGE"
        )
    if image and (len(image) > 1 or image[0].is_dir()):
        _show_many(Client(url), image, asked, as_json)
        return
    answer = Client(url).predict(
        _content(image[0]) if image else None,
        asked.tasks,
        asked.top_k,
        text=texts if asks_texts else None,
        truncate=truncate,
        vectors=asked.vectors,
        show=asked.show,
    )
    if as_json:
        print_data(answer)
        return
    console.print(_texts_table(texts, answer) if asks_texts else _table(answer))
    for number, found in enumerate(answer.get("texts", ()), 1):
        if found["truncated"]:
            console.print(
                f"Of text {number} only the beginning was read, by {escape(', '.join(found['truncated']))}.", soft_wrap=True
            )


def _refuse_unused(given: Mapping[str, bool]) -> None:
    """Raise typer.BadParameter where an option is given that would do nothing for arrays."""
    for option, is_given in given.items():
        if is_given:
            raise typer.BadParameter(
                "is of images and texts; arrays are answered with what the network gives.", param_hint=option
            )


def _content(image: Path) -> Path | bytes:
    return sys.stdin.buffer.read() if str(image) == "-" else image


@dataclass(frozen=True)
class _Asked:
    """What is asked, and how answers are wanted; as of `Client.predict`."""

    tasks: list[str]
    top_k: int | None
    vectors: Vectors
    show: tuple[Shown, ...]


def _parse_vectors(word: str) -> Vectors:
    """Return `word` as how embeddings are written. Raises typer.BadParameter."""
    known: tuple[Vectors, ...] = ("list", "base64")
    for one in known:
        if word == one:
            return one
    raise typer.BadParameter(f"must be list or base64, not {word!r}.", param_hint="--vectors")


def _parse_show(words: Sequence[str]) -> tuple[Shown, ...]:
    """Return `words` as what is shown. Raises typer.BadParameter."""
    if not words:
        return ()
    from contract.errors import InvalidRequest
    from serving.answers.shown import parse_shown

    try:
        return parse_shown(words)
    except InvalidRequest as error:
        raise typer.BadParameter(str(error), param_hint="--show") from error


def _show_many(client: Client, images: list[Path], asked: _Asked, as_json: bool) -> None:
    """Ask about several images, and show the answers with the files' names: as JSON a line each, as they come."""
    contents = map(_content, images)
    answers = client.predict_many(contents, asked.tasks, asked.top_k, vectors=asked.vectors, show=asked.show)
    if as_json:
        for answer in answers:
            print(json.dumps(answer), flush=True)
        return
    table = Table("image", "task", "answer", "")
    for answer in answers:
        _add_answer(table, answer, answer["filename"])
    console.print(table)


def _lines(file: Path) -> list[str]:
    """Return the lines of `file`, without blank ones. Raises typer.BadParameter."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read ({error.strerror}).", param_hint="--text-file") from error
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{file} is not text in UTF-8.", param_hint="--text-file") from error
    return [line for line in text.splitlines() if line.strip()]


def _table(answer: dict[str, Any]) -> Table:
    table = Table("task", "answer", "")
    _add_answer(table, answer)
    return table


def _texts_table(texts: list[str], answer: dict[str, Any]) -> Table:
    table = Table("text", "task", "answer", "")
    for text, found in zip(texts, answer["texts"], strict=True):
        _add_answer(table, found, text)
    return table


def _add_answer(table: Table, answer: dict[str, Any], text: str | None = None) -> None:
    """Add the rows of one image, or of one `text`, which stands in front of the first."""
    first = [] if text is None else [escape(text)]
    for name, result in answer["tasks"].items():
        for index, (what, how_much) in enumerate(answer_rows(result)):
            table.add_row(*first, escape(name) if index == 0 else "", escape(what), escape(how_much))
            first = [] if text is None else [""]
        table.add_section()
