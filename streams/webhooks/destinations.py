"""Where webhooks may go: the guard against requests forged through our own network (SSRF).

A destination is an https URL at a public address; in test mode also plain http to loopback. The guard looks at the
addresses themselves, at the moment before connecting, so no spelling of a host and no second DNS answer gets around
it. Python's `is_global` is not enough: it lets NAT64, 6to4, IPv4-compatible and site-local addresses and multicast by.
"""

from __future__ import annotations

import ipaddress
from typing import Literal
from urllib.parse import urlsplit

Mode = Literal["test", "live"]
Reach = Literal["public", "loopback"]

_IPV4_REFUSED = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carriers' shared space, and some clouds' metadata
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments, metadata of one cloud
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_IPV6_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that is routed: nothing else is public
_IPV6_REFUSED = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: any IPv4 address in disguise
        "3fff::/20",  # documentation
    )
)
_PUBLIC_SERVICES_REFUSED = frozenset({"168.63.129.16"})  # a cloud's host agent, at a public address


class RefusedDestination(OSError):  # noqa: N818 - an OSError, so that a connector treats it as a failed connection
    """The URL, or an address of its host, is not one that webhooks may go to. The text says why, not where."""


def is_public(address: str) -> bool:
    """Whether a numeric IP address is that of a public host. A scope id or anything unparsable: no."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.scope_id is not None or parsed not in _IPV6_UNICAST:
            return False
        return parsed.is_global and not any(parsed in network for network in _IPV6_REFUSED)
    if address in _PUBLIC_SERVICES_REFUSED:
        return False
    return parsed.is_global and not any(parsed in network for network in _IPV4_REFUSED)


def is_loopback(address: str) -> bool:
    """Whether a numeric IP address is this host's own, in its plain spelling."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_loopback and getattr(parsed, "ipv4_mapped", None) is None


def is_allowed(address: str, reach: Reach) -> bool:
    """Whether a connection to this numeric address may be made for a URL with this reach."""
    return is_public(address) if reach == "public" else is_loopback(address)


def reach_of(url: str, mode: Mode) -> Reach:
    """Which addresses a URL may lead to: https to public ones; in test mode plain http to loopback.

    Raises RefusedDestination for any other scheme, credentials in the URL, a missing host, or a host that is written
    as an address of the wrong kind. A name is not resolved here: what it leads to is checked on connecting.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise RefusedDestination("not a URL") from None
    if parts.username is not None or parts.password is not None or not parts.hostname or port == 0:
        raise RefusedDestination("a URL has a host, and no credentials")
    reach: Reach
    match parts.scheme:
        case "https":
            reach = "public"
        case "http" if mode == "test":
            reach = "loopback"
        case _:
            raise RefusedDestination("https only")
    if _is_address(parts.hostname) and not is_allowed(parts.hostname, reach):
        raise RefusedDestination(f"not a {reach} address")
    return reach


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
