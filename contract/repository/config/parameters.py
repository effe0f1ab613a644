"""What serving needs beyond what Triton knows: `parameters` of a configuration, which Triton passes by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contract.errors import RepositoryError

KIND = "espalier_kind"
AXES = "axes"  # names of the free axes of tensors, by the tensors' names
SIZES = "free_sizes"
DIGEST_VERSION_KEY = "digest_version"


def set_parameters(config: Any, parameters: Mapping[str, str]) -> None:
    """Put `parameters` into `config`, but for empty ones."""
    for key, value in parameters.items():
        if value:
            config.parameters[key].string_value = value


def parameters_of(config: Any) -> dict[str, str]:
    """Return the parameters of `config`."""
    return {key: value.string_value for key, value in config.parameters.items()}


def version_text(version: int) -> str:
    """Return what is written for a version of the digests: nothing for the first, which had no number."""
    return str(version) if version > 1 else ""


def digest_version_of(parameters: Mapping[str, str]) -> int:
    """Return the version of the digests that `parameters` say. Raises ValueError."""
    version = int(parameters.get(DIGEST_VERSION_KEY, "1"))
    if version < 1:
        raise ValueError(f"the digests are of version {version}")
    return version


def incomplete(name: str, kind: str, error: Exception) -> RepositoryError:
    """Return what is raised for the configuration of `name`, of that kind, where `error` came of reading it."""
    return RepositoryError(f"The configuration of {kind} {name!r} is incomplete or damaged ({error}); export it again.")
