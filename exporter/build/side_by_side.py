"""Chains of networks that are made for sharing with each other: what one of them takes at a border is a tap in all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from exporter.graph.chain import Chain
from exporter.graph.network import Network
from exporter.sources.sandbox import guarded

MakeChain = Callable[[str, Network, Collection[str]], Chain]


def make_chains(networks: Mapping[str, Network], users: Mapping[str, int], make: MakeChain) -> dict[str, Chain]:
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
        inside = (borders - chains[name].taps).intersection(frozenset[str]().union(*network.values))
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
