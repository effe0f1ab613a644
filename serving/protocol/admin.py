"""Who may load and unload models: whoever knows the server's token."""

from __future__ import annotations

import hmac

from serving.errors import Forbidden, Unauthenticated, Unsupported

_SCHEME = "bearer"


class Admin:
    """Model control. token: what its callers must know; None or empty: it is off."""

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
