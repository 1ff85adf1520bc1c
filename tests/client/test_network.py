"""The way to a service: proxies, certificates and addresses from the environment."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from rankone.client import DEFAULT_URL, AsyncClient, Client, ServiceError
from rankone.client.network import is_direct, proxy_for

FAR = httpx.URL("http://far:8000")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "RANKONE_URL", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("url", "no_proxy", "expected"),
    [
        ("http://far", "", False),
        ("http://127.0.0.1", "", True),
        ("http://[::1]:8000", "", True),
        ("http://[fd00::7]", "[::1],fd00::/8", True),
        ("http://[fe80::7]", "[::1],fd00::/8", False),
        ("http://[fe80::7]:80", "[fe80::7]:80", True),
        ("http://10.1.2.3", "10.0.0.0/8", True),
        ("http://11.1.2.3", "10.0.0.0/8", False),
        ("http://a.example.com", "example.com", True),
        ("http://a.example.com", ".EXAMPLE.com", True),
        ("http://a.example.com", "*.example.com", True),
        ("http://anexample.com", "example.com", False),
        ("http://far:81", "near far:81", True),
        ("http://far:82", "near far:81", False),
        ("http://far", "http://far", True),
        ("http://far", "near, *", True),
        ("http://far", ".,,[", False),
    ],
)
def test_no_proxy_names_domains_addresses_and_networks(url: str, no_proxy: str, *, expected: bool) -> None:
    assert is_direct(httpx.URL(url), no_proxy) is expected


def test_a_proxy_is_used_unless_no_proxy_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "proxy:3128")
    proxy = proxy_for(FAR)
    assert proxy is not None
    assert proxy.url == "http://proxy:3128"
    assert proxy_for(httpx.URL("https://far")) is None
    monkeypatch.setenv("NO_PROXY", "[::1],fd00::/8,far")
    assert proxy_for(FAR) is None
    Client("http://[fd00::1]:8000").close()  # at which httpx raised


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        (
            "ALL_PROXY",
            "socks5://proxy:1080",
            "ALL_PROXY names a SOCKS proxy, .* pip install 'httpx.socks.', or add far to",
        ),
        ("ALL_PROXY", "ftp://user:secret@proxy", "ALL_PROXY cannot be used: it is no URL"),
        ("HTTP_PROXY", "http://[::", "HTTP_PROXY cannot be used: it is no URL"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(
    name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("rankone.client.network.find_spec", lambda _: None)  # as where socksio is not installed
    for make in (Client, AsyncClient):
        with pytest.raises(ServiceError, match=sentence) as raised:
            make(str(FAR))
        assert "secret" not in str(raised.value)


def test_certificates_that_are_missing_are_named_where_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    Client(str(FAR)).close()
    with pytest.raises(
        ServiceError, match=r"certificates for https://far .*No such file.*SSL_CERT_FILE=/nowhere/ca.pem"
    ):
        Client("https://far")


def test_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async def url() -> str:
        async with AsyncClient() as client:
            return client.url

    assert Client().url == DEFAULT_URL
    monkeypatch.setenv("RANKONE_URL", "http://there:9000")
    assert Client().url == asyncio.run(url()) == "http://there:9000"
    assert Client("http://here:1").url == "http://here:1"
    monkeypatch.setenv("RANKONE_URL", "there")
    with pytest.raises(ServiceError, match="'there' is not the URL of a service"):
        Client()
