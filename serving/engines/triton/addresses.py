"""Where Tritons are: from what the command line says to what gRPC takes."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from serving.engines.triton.errors import InvalidTritonUrl
from serving.process.sockets import format_address

_DEFAULT_PORT = 8001
_SCHEMES = ("grpc://", "dns:///")


@dataclass(frozen=True, order=True)
class Address:
    """A host, by name or number, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return format_address(self.host, self.port)

    @property
    def is_number(self) -> bool:
        """Whether the host is an IP address."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


def parse_urls(urls: str) -> tuple[Address, ...]:
    """Return the addresses in "grpc://a:8001,b:8001" or "dns:///a:8001"; without a port, Triton's own. Raises InvalidTritonUrl."""
    if not urls.startswith(_SCHEMES):
        raise InvalidTritonUrl(urls)
    return tuple(dict.fromkeys(_parse(url.strip()) for url in urls.split(",")))


def _parse(url: str) -> Address:
    rest = url
    for scheme in _SCHEMES:
        rest = rest.removeprefix(scheme)
    try:
        parts = urlsplit(f"//{rest}")
        port = parts.port
    except ValueError as error:
        raise InvalidTritonUrl(url) from error
    if not parts.hostname or parts.netloc != rest or parts.username is not None or port == 0:
        raise InvalidTritonUrl(url)
    return Address(parts.hostname, port or _DEFAULT_PORT)


async def resolve(address: Address) -> frozenset[Address]:
    """Return the addresses by number that `address` stands for now. Raises OSError.

    Of a host that has both, those of IPv4: the two would be the same servers, counted and told everything twice.
    """
    found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    by_family: dict[int, set[Address]] = {}
    for family, _, _, _, place in found:
        by_family.setdefault(family, set()).add(Address(str(place[0]), address.port))
    return frozenset(by_family.get(socket.AF_INET) or by_family.get(socket.AF_INET6) or ())


def target(addresses: Iterable[Address]) -> str:
    """Return what gRPC calls these addresses by number; of both families, those of IPv4 as IPv6 writes them."""
    addresses = sorted(addresses)
    if all(":" not in address.host for address in addresses):
        return "ipv4:" + ",".join(map(str, addresses))
    six = (address if ":" in address.host else Address(f"::ffff:{address.host}", address.port) for address in addresses)
    return "ipv6:" + ",".join(map(str, six))
