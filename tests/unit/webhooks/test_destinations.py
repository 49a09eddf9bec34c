"""The guard against forged requests: every spelling of an address that is not a merchant's public server."""

from __future__ import annotations

import pytest

from streams.webhooks.destinations import Mode, RefusedDestination, is_loopback, is_public, reach_of

NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",  # IPv4-compatible
    "::ffff:10.0.0.1",  # IPv4-mapped
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",  # NAT64
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",  # Teredo
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",  # 6to4
    "2002:808:808::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",  # a cloud's metadata
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "2606:4700::1111%eth0",
    "0x7f.1",
    "2130706433",
    "017700000001",
    "127.1",
    "",
    "localhost",
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_no_public_host_is_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "2a00:1450:4001::1"])
def test_a_public_host_is_accepted(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", False),
        ("10.0.0.1", False),
        ("x", False),
    ],
)
def test_loopback_is_known_in_its_plain_spelling(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


@pytest.mark.parametrize(
    ("url", "mode", "reach"),
    [
        ("https://shop.example/hooks", "live", "public"),
        ("https://shop.example:8443/hooks?a=b", "test", "public"),
        ("https://8.8.8.8/", "live", "public"),
        ("http://127.0.0.1:9000/hooks", "test", "loopback"),
        ("http://localhost:9000", "test", "loopback"),
        ("http://[::1]:9000/", "test", "loopback"),
    ],
)
def test_a_url_says_how_far_it_reaches(url: str, mode: Mode, reach: str) -> None:
    assert reach_of(url, mode) == reach


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("http://shop.example/", "live"),
        ("http://127.0.0.1:9000/", "live"),
        ("http://8.8.8.8/", "test"),
        ("http://10.0.0.1/", "test"),
        ("https://127.0.0.1/", "test"),
        ("https://[::1]/", "test"),
        ("https://[::ffff:127.0.0.1]/", "live"),
        ("https://169.254.169.254/latest/meta-data", "live"),
        ("https://user:password@shop.example/", "live"),
        ("https:///hooks", "live"),
        ("https://shop.example:0/", "live"),
        ("https://shop.example:99999/", "live"),
        ("https://[::1/", "live"),
        ("ftp://shop.example/", "test"),
        ("file:///etc/passwd", "test"),
        ("shop.example", "test"),
        ("", "test"),
    ],
)
def test_a_url_that_may_not_be_an_endpoint_is_refused(url: str, mode: Mode) -> None:
    with pytest.raises(RefusedDestination):
        reach_of(url, mode)
