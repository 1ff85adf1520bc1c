"""The replica as Ray Serve starts it: `import_path: rankone.service.cluster.deployment:app`."""

from __future__ import annotations

from typing import Any, Final

from ray import serve

from rankone.service.cluster.application import NAME, Arguments
from rankone.service.cluster.replica import Replica

_CONSTRUCTOR_TRIES: Final = 3
_CHECK_S: Final = 5.0


def app(args: dict[str, Any]) -> serve.Application:
    """What Ray Serve builds from the `args` of a configuration, see `Arguments`.

    Raises:
        ValidationError: there is an argument of another name.
        NotInCluster: a setting among them is not a replica's.
    """
    arguments = Arguments.model_validate(args)
    arguments.given()
    deployment: Any = serve.deployment(
        name=NAME, max_constructor_retry_count=_CONSTRUCTOR_TRIES, health_check_period_s=_CHECK_S
    )
    replica: serve.Application = deployment(serve.ingress()(Replica)).bind(arguments.model_dump())
    return replica
