"""Who answers at an address of this machine: a service of ours, another program, or nobody."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import httpx

_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Answering:
    """What answered: the title and version of its API, and whether it is ready or why not."""

    version: str | None
    """Of a rankone service; None if something else answered."""
    is_ready: bool = False
    detail: str = ""
    indexes: tuple[str, ...] = ()
    """Names of the indexes that it cannot use or write."""


def ask(url: str) -> Answering | None:
    """Asks for `/openapi.json` and `/readyz`, which need no key; None if nobody answers. Only for addresses of this machine.

    Raises:
        ValueError: the host of `url` is not a loopback address.
    """
    if not is_local(httpx.URL(url).host):
        raise ValueError(f"{url} is not on this machine")
    with httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False, verify=False) as http:  # noqa: S501 - only told apart
        try:
            about = _json(http.get("openapi.json")).get("info")
            if not isinstance(about, dict) or about.get("title") != "rankone":
                return Answering(None)
            ready = http.get("readyz")
        except (httpx.ConnectError, httpx.ConnectTimeout):
            return None
        except httpx.HTTPError:
            return Answering(None)
    body = _json(ready)
    return Answering(
        str(about.get("version")),
        ready.status_code == 200,
        str(body.get("detail", "")),
        tuple(body.get("indexes") or ()),
    )


def is_local(host: str) -> bool:
    """Whether a host is a loopback address, for which no name is looked up."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
