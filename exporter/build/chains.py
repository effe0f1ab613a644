"""The chains of networks, made for sharing with each other and with what is there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from exporter.graph.chain import Chain, count_users
from exporter.graph.network import Network
from exporter.sharing.reuse import Existing, Pattern, fit_segments, usable
from exporter.sources.sandbox import guarded


def together(networks: Mapping[str, Network], kept: Collection[str] = ()) -> dict[str, Chain]:
    """Return the chains of `networks`, made for sharing with each other. kept: addresses of tensors that are taps wherever they can be."""
    users = count_users(network.values for network in networks.values())
    chains = {}
    for name, network in networks.items():
        with guarded(name):
            chains[name] = network.chain(users, kept=kept)
    return chains


def beside(networks: Mapping[str, Network], existing: Sequence[Existing], patterns: Mapping[str, Pattern]) -> dict[str, Chain]:
    """Return the chains of `networks`, made for sharing with each other and for using the segments `existing`."""
    there = frozenset[str]().union(*(one.values for one in existing))
    users = count_users([(there,), *(network.values for network in networks.values())])
    chains = {}
    for name, network in networks.items():
        with guarded(name):
            values = frozenset[str]().union(*network.values)
            chain = network.chain(users, usable(existing, network.inputs, values))
        chains[name] = fit_segments(chain, patterns)
    return chains
