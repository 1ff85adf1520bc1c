"""`rankone serve --cluster`: tells Ray Serve what to run, and waits until every replica answers."""

from __future__ import annotations

import logging
import os
import re
import time
from contextlib import suppress
from typing import Any, Final

import httpx

from rankone.model.bundle import open_bundle
from rankone.model.errors import RankoneError
from rankone.service.cluster.application import NAME, PROXY, Proxies, to_serve
from rankone.service.observe import logs
from rankone.service.settings import Settings

logger = logging.getLogger("rankone")

_ADDRESS: Final = "RAY_DASHBOARD_ADDRESS"
"""Where `serve deploy` looks for the cluster, too."""
_DEFAULT_ADDRESS: Final = "http://127.0.0.1:8265"
_POLL_S: Final = 0.5
_COLORS: Final = re.compile("\x1b\\[[0-9;]*m")
_EXCEPTION: Final = re.compile(r"([\w.]+\.)?[A-Z]\w+: ")


class DeployFailed(RankoneError, RuntimeError):
    """There is no cluster, or it cannot run the replicas."""


def deploy(settings: Settings, *, replicas: int, indexes: bool, proxies: Proxies = "EveryNode") -> None:
    """Runs the service as replicas on the Ray cluster at RAY_DASHBOARD_ADDRESS, or changes the one that runs there.

    If nothing but the bundle is another, the replicas load it one after the other and answer all the while.

    Raises:
        NotInCluster: a setting that a cluster cannot honour.
        BundleError: the bundle cannot be read here.
        DeployFailed: the replicas do not start, or no cluster answers.
    """
    logs.configure(settings.log_format)
    wanted = to_serve(settings, replicas=replicas, indexes=indexes, proxies=proxies)
    open_bundle(settings.bundle)
    address = os.environ.get(_ADDRESS) or _DEFAULT_ADDRESS
    client = _client(address)
    running = client.get_serve_details()["http_options"] if _is_serving(client) else {"port": settings.port}
    if running["port"] != settings.port:
        raise DeployFailed(
            f"Ray Serve listens on port {running['port']} already, which cannot change while it runs: set that port, or end it "
            f"first (serve shutdown --address {address})"
        )
    try:
        client.deploy_applications(wanted)
    except RuntimeError as error:
        raise DeployFailed(f"Ray Serve at {address} refuses the configuration: {reason_in(str(error))}") from error
    deadline = time.monotonic() + settings.load_timeout_s
    _wait_for_replicas(client, deadline)
    url = _wait_for_proxies(client, settings.port, deadline)
    logger.info("%d replicas answer at %s; end them with: serve shutdown --address %s", replicas, url, address)


def _client(address: str) -> Any:
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    try:
        return ServeSubmissionClient(address)
    except (ConnectionError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DeployFailed(
            f"no Ray cluster answers at {address} ({reason}): start one (docs/cluster.md), or name its dashboard in {_ADDRESS}"
        ) from error


def _is_serving(client: Any) -> bool:
    return bool(client.get_serve_details().get("proxies"))


def _wait_for_replicas(client: Any, deadline: float) -> None:
    """Returns when all replicas run."""
    while True:
        application = client.get_serve_details()["applications"].get(NAME, {})
        found = application.get("deployments", {}).get(NAME, {})
        status = application.get("status")
        if status == "RUNNING":
            return
        if status in ("DEPLOY_FAILED", "UNHEALTHY"):
            said = found.get("message") or application.get("message") or status
            raise DeployFailed(f"the replicas do not start: {reason_in(said)}")
        if time.monotonic() > deadline:
            states = [replica["state"].lower() for replica in found.get("replicas", [])]
            said = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states))) or "none was placed"
            raise DeployFailed(
                f"not all replicas run ({said}): `ray status` tells whether the cluster has the processors and GPUs that they "
                "reserve (--threads, --device, --replicas)"
            )
        time.sleep(_POLL_S)


def _wait_for_proxies(client: Any, port: int, deadline: float) -> str:
    """The address of the first proxy that knows of a replica, and is HAProxy."""
    while time.monotonic() < deadline:
        for proxy in client.get_serve_details()["proxies"].values():
            url = f"http://{proxy['node_ip']}:{port}"
            with suppress(httpx.HTTPError):
                answer = httpx.get(f"{url}/-/healthz", trust_env=False)
                if "uvicorn" in answer.headers.get("server", ""):
                    raise DeployFailed(
                        f"the proxy at {url} is not HAProxy: the head of the cluster was started without {PROXY}=1. End Ray on "
                        "every machine, and start it again with the variable"
                    )
                if answer.is_success:
                    return url
        time.sleep(_POLL_S)
    raise DeployFailed(f"the replicas run, but no proxy answers on port {port}: `serve status` tells more")


def reason_in(message: str) -> str:
    """The sentence in what Ray Serve says of a failure: the last line of its last traceback, without the exception's name."""
    lines = [line.strip() for line in _COLORS.sub("", message).splitlines() if line.strip()]
    return _EXCEPTION.sub("", lines[-1], count=1) if lines else "Ray Serve says no more"
