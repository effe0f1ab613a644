"""Configurations as the text of a config.pbtxt."""

from __future__ import annotations

from typing import Any, cast

from google.protobuf import text_format

from contract.errors import RepositoryError
from contract.repository.config.parameters import KIND, parameters_of
from contract.repository.config.pieces import parse


def to_text(config: Any) -> str:
    """Return `config` as the text of a config.pbtxt."""
    return cast(str, text_format.MessageToString(config))


def parse_text(text: str, where: str) -> Any:
    """Return the ModelConfig that `text` describes. Raises RepositoryError naming `where`."""
    try:
        return parse(text)
    except text_format.ParseError as error:
        raise RepositoryError(f"{where} is not a Triton model configuration: {str(error).rstrip('.')}.") from error


def kind_of(config: Any) -> str:
    """Return "segment", "task", "all_tasks", "copy", or "" for a model that espalier did not write."""
    return parameters_of(config).get(KIND, "")
