"""The chains of networks, made for sharing with each other and with what is there: what one of them takes at a border is a tap in all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from exporter.graph.chain import Chain, count_users
from exporter.graph.network import Network
from exporter.sharing.reuse import Existing, Pattern, fit_segments, usable
from exporter.sources.sandbox import guarded

_MakeChain = Callable[[str, Network, Collection[str]], Chain]


def together(networks: Mapping[str, Network], kept: Collection[str] = ()) -> dict[str, Chain]:
    """Return the chains of `networks`, made for sharing with each other. kept: addresses of tensors that are taps wherever they can be."""
    users = count_users(network.values for network in networks.values())
    return _make_chains(networks, users, lambda name, network, borders: network.chain(users, kept={*kept, *borders}))


def beside(networks: Mapping[str, Network], existing: Sequence[Existing], patterns: Mapping[str, Pattern]) -> dict[str, Chain]:
    """Return the chains of `networks`, made for sharing with each other and for using the segments `existing`."""
    there = frozenset[str]().union(*(one.values for one in existing))
    users = count_users([(there,), *(network.values for network in networks.values())])
    usables = {name: usable(existing, network.inputs, _values(network)) for name, network in networks.items()}
    chains = _make_chains(networks, users, lambda name, network, kept: network.chain(users, usables[name], kept))
    return {name: fit_segments(chain, patterns) for name, chain in chains.items()}


def _make_chains(networks: Mapping[str, Network], users: Mapping[str, int], make: _MakeChain) -> dict[str, Chain]:
    """Return the chain of each network. users: who needs what. make: makes one of (name, network, addresses that are to be taps).

    A network cuts where its own nodes of other users begin. Where another network does that in the middle of what is one part here (a
    decoder takes what is in front of the first pooling, a classifier does not), there is a cut here, too: else the two would not be alike.
    """
    chains = {}
    for name, network in networks.items():
        with guarded(name):
            chains[name] = make(name, network, ())
    borders = frozenset(address for chain in chains.values() for address in _borders(chain, users))
    for name, network in networks.items():
        inside = (borders - chains[name].taps).intersection(_values(network))
        if inside:
            with guarded(name):
                chains[name] = make(name, network, inside)
    return chains


def _borders(chain: Chain, users: Mapping[str, int]) -> Iterator[str]:
    """Yield the addresses of what goes in `chain` from nodes of some users to nodes of others."""
    makers = {tap.address: users.get(block.end.address) for block in chain.blocks for tap in block.outputs}
    for block in chain.blocks:
        for tap in block.inputs:
            if tap.address in makers and makers[tap.address] != users.get(block.end.address):
                yield tap.address


def _values(network: Network) -> frozenset[str]:
    return frozenset[str]().union(*network.values)
