"""A configuration that is parsed field by field is what protobuf's own reader makes of the whole text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.repository.config import ModelConfig, parse_text
from contract.repository.config.pieces import parse

FIELDS = (
    'name: "a"',
    "name: 'b'",
    "max_batch_size: 0",
    "max_batch_size: 3",
    "dynamic_batching { }",
    "sequence_batching { }",
    "version_policy { all { } }",
    "version_policy: {latest {num_versions: 1}}",
    'input {\n  name: "x"\n  dims: [1, 2]\n}',
    'input [\n{name: "x"},\n{name: "y"}\n]',
    'parameters {\n  key: "a"\n  value {\n    string_value: "1"\n  }\n}',
    'parameters { key: "a" value { string_value: "name: \\n input {" } }',
    'parameters { key: "b" }',
    'platform: "x" backend: "y"',
    "# name: 1",
    "input {\nname: 'z'\n}",
    "backend:\n'a'\n'b'",
    "no_such_field: 1",
    "max_batch_size: many",
    "}",
    "",
)


def read(text: str, reader: Any) -> object:
    try:
        return reader(text)
    except text_format.ParseError as error:
        return str(error)


def whole(text: str) -> Any:
    return text_format.Parse(text, ModelConfig())


@settings(max_examples=300)
@given(st.lists(st.sampled_from(FIELDS), max_size=6).map("\n".join))
def test_it_is_what_the_whole_text_is(text: str) -> None:
    assert read(text, parse) == read(text, whole)


def texts() -> Iterator[str]:
    yield from map("\n".join, product(FIELDS, FIELDS))


def test_any_two_fields_are_read_as_the_whole_text_is() -> None:
    assert all(read(text, parse) == read(text, whole) for text in texts())


def test_what_two_configurations_have_in_common_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    parsed = text_format.Parse

    def counting(text: str, message: Any) -> Any:
        asked.append(text)
        return parsed(text, message)

    monkeypatch.setattr(text_format, "Parse", counting)
    common = 'backend: "known to two"\ninput {\n  name: "in common"\n}\n'
    first, second = (parse_text(f'name: "{name}"\n{common}', "there") for name in ("the first", "the second"))  # no other test's
    assert (first.name, second.name) == ("the first", "the second")
    assert first.backend == second.backend == "known to two"
    assert len(asked) == 4
    first.input[0].name = "changed"
    assert parse_text(common, "there").input[0].name == "in common"
