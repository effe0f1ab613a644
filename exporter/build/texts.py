"""Texts as the inputs of tasks: which input takes what a tokenizer gives, and how many tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from contract.repository import Task, TensorSpec
from contract.repository.config import TOKENIZER_FILE
from contract.repository.free_sizes import FreeSize
from contract.repository.tokenizers import TokenizerFiles
from contract.text import TextInput, Tokenizer
from exporter.errors import NoPadding, NotForTexts, TokenizerDoesNotFit
from exporter.sources.task_model import TaskModel
from exporter.sources.tokenizer import TokenizerSource

# What inputs are called by transformers, and by BERT's first export.
_ROLES = {
    "input_ids": "ids",
    "attention_mask": "mask",
    "input_mask": "mask",
    "token_type_ids": "types",
    "segment_ids": "types",
}


def with_text(task: Task, names: Sequence[str], tokenizer: TokenizerSource | None) -> Task:
    """Return `task` with how a text becomes its inputs by `tokenizer`; None: it takes none.

    names: what the network calls its inputs, in their order. Raises NotForTexts, NoPadding, TokenizerDoesNotFit.
    """
    if tokenizer is None:
        return task
    roles = _roles(task, names)
    size = _length(task)
    most, opened = _least(size.most, tokenizer.most), tokenizer.opened
    pad = opened.pad if tokenizer.pad is None else tokenizer.pad
    if pad is None and "mask" not in roles and size.least > 1:
        raise NoPadding(task.name, tokenizer.file.name)
    most = opened.limit if most is None else most
    most = None if most is None else max(most, size.least)
    ids, mask, types = (roles.get(role, "") for role in ("ids", "mask", "types"))
    text = TextInput(opened.sha256, ids, mask, types, pad or 0, size.least, most)
    _check_ids(task, text, opened, tokenizer.file.name)
    return replace(task, text=text)


def with_kept_text(task: Task, before: Task, tokenizers: TokenizerFiles) -> Task:
    """Return `task`, which has the tokenizer of `before`, with as many tokens as its own network takes.

    What else limits them (the tokenizer, its folder) stays. tokenizers: at least that. Raises TokenizerDoesNotFit, and ExtraNeeded without
    the library.
    """
    if task.text is None:
        return task
    size, limit = _length(task), task.text.most
    most = size.most if limit == _length(before).most else _least(size.most, limit)
    text = replace(task.text, least=size.least, most=None if most is None else max(most, size.least))
    _check_ids(task, text, open_tokenizer(tokenizers, text.sha256), TOKENIZER_FILE)
    return replace(task, text=text)


def open_tokenizer(tokenizers: TokenizerFiles, digest: str) -> Tokenizer:
    """Return the one with that hash. Raises ExtraNeeded without the library."""
    content = tokenizers[digest]
    return Tokenizer(content if isinstance(content, bytes) else content.read_bytes())


def tokenizers_of(models: Iterable[TaskModel]) -> dict[str, bytes]:
    """Return the contents of the tokenizers of `models`, by hash."""
    found = (model.tokenizer for model in models if model.tokenizer is not None)
    return {tokenizer.opened.sha256: tokenizer.content for tokenizer in found}


def _roles(task: Task, names: Sequence[str]) -> dict[str, str]:
    """Return what the inputs of `task` are called, by their roles."""
    roles: dict[str, str] = {}
    for name, spec in zip(names, task.inputs, strict=True):
        role = "ids" if len(names) == 1 else _role(name)
        if role is None or role in roles or not _is_row_of_ids(spec):
            raise NotForTexts(task.name, name, f"{spec.dtype} {list(spec.shape)}")
        roles[role] = spec.name
    if "ids" not in roles:
        raise NotForTexts(task.name, next(iter(names)), "no ids")
    return roles


def _role(name: str) -> str | None:
    """Return what an input of that name takes, which may have something behind it, as "input_ids:0"."""
    return next((role for known, role in _ROLES.items() if name == known or name.startswith((f"{known}:", f"{known}_"))), None)


def _is_row_of_ids(spec: TensorSpec) -> bool:
    return spec.dtype in ("INT32", "INT64") and len(spec.shape) == 1


def _length(task: Task) -> FreeSize:
    """Return the tokens that every input of `task` takes."""
    sizes = [task.sizes[spec.axes[0]] if spec.shape[0] < 0 else _fixed(spec.shape[0]) for spec in task.inputs]
    least, most = max(size.least for size in sizes), sizes[0].most
    for size in sizes[1:]:
        most = _least(most, size.most)
    return FreeSize(least, least, most)


def _fixed(size: int) -> FreeSize:
    return FreeSize(size, size, size)


def _least(one: int | None, other: int | None) -> int | None:
    return min((size for size in (one, other) if size is not None), default=None)


def _check_ids(task: Task, text: TextInput, tokenizer: Tokenizer, name: str) -> None:
    words = tokenizer.words
    known = task.values.get(text.ids)
    if known is not None and words - 1 > known[1]:
        raise TokenizerDoesNotFit(task.name, f"{name} gives ids up to {words - 1}, and the network knows ids up to {known[1]}")
    if text.most is not None and text.most <= tokenizer.added:
        raise TokenizerDoesNotFit(
            task.name, f"the network takes {text.most} tokens, of which {name} adds {tokenizer.added} itself"
        )
