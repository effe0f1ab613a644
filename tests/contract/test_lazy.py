"""Public names are there when they are asked for, and cost nothing before."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from contract.lazy import public


def test_names_are_loaded_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("made_up")
    monkeypatch.setitem(sys.modules, "made_up", package)
    names, find = public("made_up", {"places": ["far", "away"]})
    assert names == ["away", "far"]
    places = ModuleType("made_up.places")
    places.far = places.away = 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up.places", places)
    assert find("far") == 7
    assert vars(package)["far"] == 7
    assert "away" not in vars(package)
    with pytest.raises(AttributeError, match="module 'made_up' has no attribute 'near'"):
        find("near")
