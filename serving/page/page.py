"""What a server needs in order to bring its page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from contract.repository.model import Repository
from serving.page.deploys import RecentDeploys

DrawTree = Callable[[Repository], str]


@dataclass(frozen=True)
class Page:
    """The page of one server. draw: returns the tree of a repository as an SVG document. deploys: hears of them."""

    draw: DrawTree
    deploys: RecentDeploys = field(default_factory=RecentDeploys)
