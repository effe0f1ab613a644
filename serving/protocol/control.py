"""Model control: who may load and unload models, and what they may ask for: what is not applied is refused."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from contract.errors import InvalidRequest
from serving.errors import Forbidden, Unauthenticated, Unsupported
from serving.protocol.fields import parameters_of

_FILE = "file:"
_SCHEME = "bearer"


class Admin:
    """Whoever knows the `token` may load and unload models; None or empty: nobody may."""

    def __init__(self, token: str | None = None) -> None:
        self._token = (token or "").encode()

    @property
    def enabled(self) -> bool:
        """Whether models can be loaded and unloaded at all."""
        return bool(self._token)

    def check(self, authorization: str | None) -> None:
        """Let the caller pass whose header, `Bearer TOKEN`, has the token. Raises Unsupported, Unauthenticated, Forbidden."""
        if not self._token:
            raise Unsupported(
                "Loading and unloading models is not offered by this server: it was started without an admin token."
            )
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != _SCHEME or not token.strip():
            raise Unauthenticated
        if not hmac.compare_digest(token.strip().encode(), self._token):  # takes as long whatever part of it is right
            raise Forbidden


def body_parameters(body: Mapping[str, Any]) -> Mapping[str, object]:
    """Return the parameters in the JSON object of a request; those that are null are not there. Raises InvalidRequest."""
    others = sorted(name for name, value in body.items() if name != "parameters" and value is not None)
    if others:
        raise InvalidRequest(f"The request has a member {others[0]!r}; it takes 'parameters' alone.")
    return parameters_of(body, "The request")


def check_load(parameters: Mapping[str, object]) -> None:
    """Raise Unsupported, InvalidRequest unless a load asks for what is in the repository on disk, and for nothing else."""
    for name in parameters:
        if name == "config" or name.startswith(_FILE):
            raise files_not_taken()
        raise InvalidRequest(f"A load has no parameter {name!r}; send none: what is loaded is what the repository on disk says.")


def files_not_taken() -> Unsupported:
    """Return the refusal of a load that brings a configuration or files of its own."""
    return Unsupported(
        f"A load takes neither 'config' nor '{_FILE}' parameters here: what is loaded is what the repository on disk says; change that, "
        "and load the model without parameters."
    )


def check_unload(parameters: Mapping[str, object]) -> None:
    """Raise InvalidRequest for parameters of an unload other than `unload_dependents`.

    Whether true or false, nothing more is to be done: a segment goes with the last task that needs it, and no segment earlier.
    """
    for name, value in parameters.items():
        if name != "unload_dependents":
            raise InvalidRequest(f"An unload has no parameter {name!r}; it takes 'unload_dependents'.")
        if not isinstance(value, bool):
            raise InvalidRequest(f"Parameter 'unload_dependents' is {value!r}; give true or false.")


def check_repository_name(name: str) -> None:
    """Raise Unsupported where a client names a repository: there is one."""
    if name:
        raise Unsupported("There is one repository here; leave 'repository_name' out.")
