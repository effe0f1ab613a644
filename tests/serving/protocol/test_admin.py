from __future__ import annotations

import pytest

from serving.errors import Forbidden, Unauthenticated, Unsupported
from serving.protocol.control import Admin


def test_without_a_token_model_control_is_off() -> None:
    for admin in (Admin(), Admin("")):
        assert not admin.enabled
        for header in (None, "Bearer ", "Bearer x"):
            with pytest.raises(Unsupported, match="without an admin token"):
                admin.check(header)


@pytest.mark.parametrize("header", [None, "", "secret", "Bearer", "Bearer ", "Basic secret"])
def test_no_token_is_not_a_wrong_one(header: str | None) -> None:
    with pytest.raises(Unauthenticated):
        Admin("secret").check(header)


@pytest.mark.parametrize("header", ["Bearer Secret", "Bearer secret2", "Bearer sécret", "bearer secre"])
def test_a_wrong_token_is_refused_without_saying_it(header: str) -> None:
    with pytest.raises(Forbidden) as caught:
        Admin("secret").check(header)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("header", ["Bearer secret", "bearer secret", "Bearer  secret "])
def test_the_token_lets_pass(header: str) -> None:
    Admin("secret").check(header)
