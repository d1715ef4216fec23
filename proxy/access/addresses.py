"""Addresses, networks, and where a request really came from.

X-Forwarded-For is a list to which every proxy appends the address it saw, so
only its right end can be believed: it is read from there for as long as the
hop that wrote an entry is one of ours.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Networks: TypeAlias = tuple[Network, ...]

# An IPv6 address with a scope, brackets and port has less than 64 characters.
MAX_ADDRESS_BYTES = 64


def networks(texts: Iterable[str]) -> Networks:
    """Addresses and networks as they are written in configurations; ValueError if one is neither."""
    return tuple(_plain_network(ip_network(text.strip(), strict=False)) for text in texts)


def trusted_networks(texts: Iterable[str]) -> Networks:
    """The networks of the proxies in front, whose X-Forwarded-For is believed."""
    return networks(texts)


def address(text: str) -> Address | None:
    """The address, without scope, IPv4 also where it is written as IPv6; None if it is none."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def is_within(found: Address, networks: Networks) -> bool:
    """Whether any of the networks holds the address."""
    return any(found in network for network in networks)


def client_ip(peer: str, forwarded_for: bytes | None, trusted: Networks) -> str:
    """The first address from the right that is not a trusted proxy's.

    A peer without an address came through a Unix socket, which only a proxy on
    this host can reach; it is trusted if anybody is. What is no address ends the
    walk at the hop that wrote it.
    """
    if forwarded_for is None or not trusted:
        return peer
    current = address(peer)
    if current is not None and not is_within(current, trusted):
        return peer
    for entry in reversed(forwarded_for.split(b",")):
        found = _hop(entry)
        if found is None:
            break
        current = found
        if not is_within(found, trusted):
            break
    return peer if current is None else str(current)


def _hop(entry: bytes) -> Address | None:
    """One entry of X-Forwarded-For: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`."""
    if len(entry) > MAX_ADDRESS_BYTES or not entry.isascii():
        return None
    text = entry.decode("ascii").strip(" \t")
    if text.startswith("["):
        inside, bracket, _port = text[1:].partition("]")
        return address(inside) if bracket else None
    if text.count(":") == 1:
        text = text.partition(":")[0]
    return address(text)


def _plain_network(network: Network) -> Network:
    """IPv4 networks that were written as IPv6, ::ffff:10.0.0.0/104, as IPv4."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < 96:
        return network
    return IPv4Network((mapped, network.prefixlen - 96))
