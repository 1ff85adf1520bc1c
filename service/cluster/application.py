"""Configures Ray Serve from the settings of a service, and refuses settings that a cluster cannot honour."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from rankone.model.errors import RankoneError
from rankone.service.settings import Settings

Proxies = Literal["EveryNode", "HeadOnly"]

NAME: Final = "rankone"
"""Of the application and of its one deployment."""
IMPORT_PATH: Final = "rankone.service.cluster.deployment:app"
PROXY: Final = "RAY_SERVE_ENABLE_HA_PROXY"
"""The variable by which Ray Serve starts HAProxy, with 1, instead of its own proxy in Python."""

_MIN_ONGOING: Final = 64
_RAY_DRAINS_S: Final = 30
"""Ray Serve keeps an ending replica at least so long, for its proxies to forget it."""
_RAY_DECIDES: Final = {
    "bundles": "a cluster serves one bundle, named by bundle; deploy again with another one to change it",
    "own_keys": "every replica would make its own; make one file (`rankone keys add`) and give every machine a copy (keys)",
    "host": "replicas and proxies listen on all addresses of their machines; keep others out by a firewall",
    "drain_s": "Ray Serve drains its replicas itself",
}
_OF_RAY: Final = frozenset({*_RAY_DECIDES, "port", "grace_s", "bundle"})
"""Settings that no replica is given: Ray Serve is, or `Chosen`."""


class NotInCluster(RankoneError, ValueError):
    """A setting that replicas on a cluster cannot honour."""


class Chosen(BaseModel):
    """What changes while replicas run, without a restart (Ray Serve's `user_config`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: Path
    """Directory of the bundle, the same on every machine."""


class Arguments(BaseModel):
    """What replicas are made with; another value replaces them one after the other (Ray Serve's `args`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: dict[str, Any] = {}
    """Settings of the service by name; a replica reads the others from the environment of its machine."""
    indexes: bool = True
    """Whether replicas keep indexes, which they must share."""

    def given(self) -> dict[str, Any]:
        """The settings that are given.

        Raises:
            NotInCluster: one of them is not a replica's to decide.
        """
        for name in sorted(_OF_RAY & set(self.settings)):
            reason = _RAY_DECIDES.get(name, "it is said to Ray Serve (docs/cluster.md)")
            raise NotInCluster(f"{name} is no setting of a replica: {reason}")
        return self.settings


def check(settings: Settings, *, indexes: bool) -> None:
    """Checks that replicas on a cluster can do what the settings say.

    Raises:
        NotInCluster: they cannot; the message says what to do.
    """
    for name, reason in _RAY_DECIDES.items():
        if getattr(settings, name) != Settings.model_fields[name].default:
            raise NotInCluster(f"{name} is set, which a cluster cannot honour: {reason}")
    if settings.keys is None and not settings.allow_anonymous:
        raise NotInCluster(
            "replicas of a cluster can be reached from other machines and there are no keys: make some (`rankone keys add`, "
            "--keys), or set allow_anonymous (--allow-anonymous, RANKONE_ALLOW_ANONYMOUS=true) if that is meant"
        )
    if settings.max_connections < _MIN_ONGOING:
        raise NotInCluster(
            f"max_connections ({settings.max_connections}) is what a replica works on at once: with fewer than {_MIN_ONGOING}, "
            "its batches stay small"
        )
    if indexes and not is_shared(settings):
        raise NotInCluster(
            "an index on the disk of one machine cannot be shared by replicas: keep indexes in PostgreSQL "
            "(RANKONE_INDEX=postgresql://…), or serve without any (--no-indexes)"
        )


def is_shared(settings: Settings) -> bool:
    """Whether all replicas see the same indexes."""
    return settings.index != "local"


def to_serve(settings: Settings, *, replicas: int, indexes: bool, proxies: Proxies = "EveryNode") -> dict[str, Any]:
    """The configuration for Ray Serve (`serve deploy`), in which only the bundle may change without new replicas.

    Each replica reserves as many processors as it has `threads`, and a GPU if its `device` is one.

    Raises:
        NotInCluster: see `check`.
    """
    check(settings, indexes=indexes)
    told = settings.model_dump(mode="json", exclude=set(_OF_RAY), exclude_defaults=True)
    told |= {"threads": settings.threads, "workers": settings.workers}  # or each machine would take what it has
    told = {name: str(Path(value).absolute()) if name in _PATHS else value for name, value in told.items()}
    return {
        "proxy_location": proxies,
        "http_options": {"port": settings.port},
        "applications": [
            {
                "name": NAME,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": {"settings": told, "indexes": indexes},
                "deployments": [
                    {
                        "name": NAME,
                        "num_replicas": replicas,
                        "max_ongoing_requests": settings.max_connections,
                        "graceful_shutdown_timeout_s": _RAY_DRAINS_S + settings.grace_s,
                        "ray_actor_options": {
                            "num_cpus": settings.threads,
                            "num_gpus": int(settings.device == "cuda"),
                        },
                        "user_config": {"bundle": str(settings.bundle.absolute())},
                    }
                ],
            }
        ],
    }


_PATHS: Final = frozenset({"data", "keys", "tensorrt_cache"})
"""Relative to where the command runs; a replica runs elsewhere."""
