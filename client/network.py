"""The way to a service, by the environment: a proxy, and the certificates to trust.

httpx reads the same variables, but it fails on `NO_PROXY=[::1]`, ignores networks there, and does not name the wrong value.
"""

from __future__ import annotations

import os
import re
import ssl
from importlib.util import find_spec
from ipaddress import ip_address, ip_network
from urllib.request import getproxies

import httpx

from rankone.client.errors import ServiceError


def proxy_for(address: httpx.URL) -> httpx.Proxy | None:
    """The proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY; None for this machine and for what NO_PROXY names.

    Raises:
        ServiceError: the proxy cannot be used.
    """
    proxies = getproxies()
    name = address.scheme if proxies.get(address.scheme) else "all"
    if not proxies.get(name) or is_direct(address, proxies.get("no", "")):
        return None
    url = proxies[name] if "://" in proxies[name] else f"http://{proxies[name]}"
    try:
        proxy = httpx.Proxy(url)
    except (httpx.InvalidURL, ValueError) as error:  # no value in the message: it may hold a password
        reason = "it is no URL that begins with http://, https:// or socks5://"
        raise ServiceError(0, f"the variable {name.upper()}_PROXY cannot be used: {reason}") from error
    if proxy.url.scheme.startswith("socks") and find_spec("socksio") is None:
        advice = f"pip install 'httpx[socks]', or add {address.host} to NO_PROXY"
        raise ServiceError(0, f"the variable {name.upper()}_PROXY names a SOCKS proxy, which needs socksio: {advice}")
    return proxy


def is_direct(address: httpx.URL, no_proxy: str) -> bool:
    """Whether an address is on this machine, or is named in `no_proxy`: domains, addresses and networks, also with a port."""
    hosts = ["localhost", "127.0.0.1", "::1", *filter(None, re.split(r"[,\s]+", no_proxy))]
    port = address.port or {"http": 80, "https": 443}.get(address.scheme)
    return any(_matches(host.rpartition("://")[2].lower(), address.host, port) for host in hosts)


def _matches(pattern: str, host: str, port: int | None) -> bool:
    if pattern == "*":
        return True
    with_port = re.fullmatch(r"(\[.*\]|[^:]*):(\d+)", pattern)
    if with_port:
        pattern, needed = with_port[1], int(with_port[2])
        if needed != port:
            return False
    try:
        return ip_address(host) in ip_network(re.sub(r"[\[\]]", "", pattern), strict=False)
    except ValueError:  # at least one of them is a name
        domain = pattern.lstrip("*.")
        return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def certificates_for(address: httpx.URL) -> ssl.SSLContext:
    """Those in SSL_CERT_FILE or SSL_CERT_DIR, else certifi's; none are read if the address is not https.

    Raises:
        ServiceError: they cannot be read.
    """
    if address.scheme != "https":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        names = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
        given = ", ".join(f"{name}={os.environ[name]}" for name in names if os.environ.get(name))
        reason = error.strerror or str(error)
        raise ServiceError(
            0, f"the certificates for {address} cannot be read: {reason} ({given or 'certifi'})"
        ) from error
