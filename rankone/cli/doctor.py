"""`rankone doctor`: checks the installation and the settings of a service."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

import httpx
import orjson
import tyro
from rich.console import Console
from rich.markup import escape

from rankone.cli.errors import how_to_install
from rankone.client import DEFAULT_URL, Client
from rankone.model.errors import RankoneError
from rankone.model.findings import Finding, extras, versions

if TYPE_CHECKING:  # a bare installation has no settings of a service
    from rankone.service.settings import Settings

console = Console(highlight=False)
_MARKS: Final = {
    "ok": "[green]ok[/green]",
    "note": "note",
    "skipped": "skipped",
    "problem": "[bold red]problem[/bold red]",
}
_ASK_S: Final = 3.0


def doctor(arguments: list[str]) -> None:
    """See `command`. The flags are those of `rankone serve`, where that is installed."""
    try:
        from rankone.cli.serve import doctor_flags, with_settings
        from rankone.service.environment import SettingError
    except ModuleNotFoundError as error:
        _bare(arguments, error)
        return
    try:
        settings, as_json = with_settings(arguments, doctor_flags)
    except SettingError as error:
        mend = "Correct the variable or flag, or leave it out; `rankone serve --help` says what each takes."
        findings = (
            Finding("settings", "values", "problem", str(error), mend),
            Finding("service", "all", "skipped", "the settings must be mended first"),
        )
        _tell([_training(), *findings, *_named_client()], None, as_json="--json" in arguments)
        return
    _tell([*_of_service(settings), *_named_client()], settings, as_json=as_json)


def _bare(arguments: list[str], missing: ModuleNotFoundError) -> None:
    """Without the service's packages there are no settings to look at."""

    def command(json: bool = False) -> None:
        """Says what is installed and what is missing for what. Changes nothing. See docs/operations.md.

        Args:
            json: print JSON instead.
        """
        words = f"this installation serves nothing: `rankone serve` {how_to_install('serve', missing.name) or missing}"
        _tell([_training(), Finding("service", "installed", "skipped", words), _client()], None, as_json=json)

    tyro.cli(command, prog="rankone doctor", args=arguments)


def _of_service(settings: Settings) -> Iterator[Finding]:
    training = _training()
    yield training
    if settings.device == "cpu" and training.says.startswith("cuda"):
        yield Finding("service", "device", "note", "cpu is set, and there is a GPU: RANKONE_DEVICE=cuda serves on it")
    try:
        from rankone.service.doctor import examine

        yield from examine(settings)
        yield _port(settings)
    except ModuleNotFoundError as error:
        advice = how_to_install("serve", error.name)
        if advice is None:
            raise
        yield Finding("service", "installed", "skipped", f"`rankone serve` {advice}")


def _training() -> Finding:
    """The device that `rankone train` would choose."""
    try:
        from rankone.training.processes import choose_device
    except ModuleNotFoundError as error:
        return Finding(
            "training", "device", "skipped", f"`rankone train` {how_to_install('train', error.name) or error}"
        )
    device, reason = choose_device("auto")
    return Finding("training", "device", "ok", f"{device}: {reason}")


def _port(settings: Settings) -> Finding:
    """Whether the address is free, and who answers there if it is not."""
    from rankone.service.listening import CannotListen, check_free

    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared
    where = f"{settings.host}:{settings.port}"
    if not is_local(local) and not local.replace(".", "").isdigit() and ":" not in local:
        return Finding("ports", where, "skipped", f"{settings.host} is a name, which only `rankone serve` looks up")
    try:
        check_free(settings.host, settings.port)
    except CannotListen as error:
        url = f"http://[{local}]:{settings.port}" if ":" in local else f"http://{local}:{settings.port}"
        if is_local(local) and (found := ask(url)):
            return _service("ports", where, found)
        mend = "Set another --host or --port (RANKONE_HOST, RANKONE_PORT), or end what listens there."
        return Finding("ports", where, "problem", str(error), mend)
    return Finding("ports", where, "ok", "free")


def _named_client() -> list[Finding]:
    return [_client()] if "RANKONE_URL" in os.environ else []


def _client() -> Finding:
    """The service that the client's commands would ask."""
    url = os.environ.get("RANKONE_URL") or DEFAULT_URL
    try:
        Client(url).close()
    except RankoneError as error:
        mend = "Set RANKONE_URL to the address of a service, and RANKONE_KEY to a key of it."
        return Finding("client", "url", "problem", str(error), mend)
    shown = str(httpx.URL(url).copy_with(userinfo=b""))  # what is printed here is pasted into bug reports
    if not is_local(httpx.URL(url).host):
        return Finding("client", shown, "skipped", "on another machine, which is not asked")
    found = ask(url)
    if found is None:
        words = "nobody answers: start a service there (`rankone serve`), or name another by RANKONE_URL"
        return Finding("client", shown, "note", words)
    if not found:
        return Finding("client", shown, "problem", "what answers is no rankone", "Name a service by RANKONE_URL.")
    return _service("client", shown, found)


def ask(url: str) -> dict[str, Any] | None:
    """What `/readyz` of a service of ours says, with its `version` and whether it `is_ready`.

    Empty if another program answers, None if nobody does. Only for addresses of this machine: ValueError for others.
    """
    if not is_local(httpx.URL(url).host):
        raise ValueError(f"{url} is not on this machine")
    with httpx.Client(base_url=url, timeout=_ASK_S, trust_env=False, verify=False) as http:  # noqa: S501 - only told apart
        try:
            about = http.get("openapi.json").json()["info"]
            if about["title"] != "rankone":
                return {}
            ready = http.get("readyz")
            return {**ready.json(), "version": about["version"], "is_ready": ready.is_success}
        except (httpx.ConnectError, httpx.ConnectTimeout):
            return None
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            return {}


def is_local(host: str) -> bool:
    """Whether a host is a loopback address, for which no name is looked up."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _service(area: str, where: str, found: dict[str, Any]) -> Finding:
    name = f"rankone {found['version']} answers"
    if not found["is_ready"]:
        mend = "Wait if it is starting; otherwise read its log."
        return Finding(area, where, "problem", f"{name} and is not ready: {found.get('detail', '')}", mend)
    if found.get("indexes"):
        words = f"{name} and cannot use or write these indexes: {', '.join(found['indexes'])}"
        return Finding(area, where, "problem", words, "GET /info says why; `rankone index verify` looks at an index.")
    return Finding(area, where, "ok", f"{name} and is ready")


def _shown(settings: Settings) -> dict[str, Any]:
    return {**settings.model_dump(mode="json"), "index": _without_password(settings.index)}


def _without_password(value: str) -> str:
    from rankone.service.settings import without_password

    return without_password(value)


def _variables(settings: Settings | None) -> dict[str, str]:
    """Every variable of ours that is set; the value only of settings, without the password of a database."""
    shown = set[str]() if settings is None else {f"RANKONE_{name}".upper() for name in type(settings).model_fields}
    ours = {name: value for name, value in sorted(os.environ.items()) if name.upper().startswith("RANKONE_")}
    return {name: _without_password(value) if name.upper() in shown else "(set)" for name, value in ours.items()}


def _tell(findings: list[Finding], settings: Settings | None, *, as_json: bool) -> None:
    """Prints everything; ends with status 1 if there is a problem."""
    num_problems = sum(finding.state == "problem" for finding in findings)
    body: dict[str, Any] = {
        "sound": not num_problems,
        "versions": {**versions(), "sqlite": sqlite3.sqlite_version},
        "system": platform.platform(),
        "extras": {one.name: {"purpose": one.purpose, "missing": one.missing} for one in extras()},
        "variables": _variables(settings),
        "settings": None if settings is None else _shown(settings),
        "findings": [asdict(finding) for finding in findings],
    }
    if as_json:
        print(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())
    else:
        _print(body, findings)
        console.print({0: "everything is sound", 1: "1 problem"}.get(num_problems, f"{num_problems} problems"))
    if num_problems:
        raise SystemExit(1)


def _print(body: dict[str, Any], findings: Iterable[Finding]) -> None:
    installed = {**body["versions"], "system": body["system"]}
    needs = {
        f"rankone\\[{name}]": f"{extra['purpose']}; missing: {', '.join(extra['missing']) or 'nothing'}"
        for name, extra in body["extras"].items()
    }
    for title, rows in (("installed", installed), ("extras", needs), ("variables", body["variables"])):
        console.print(f"[bold]{title}[/bold]" if rows else "", end="\n" if rows else "")
        for name, value in rows.items():
            console.print(f"  {name}: {escape(value or 'missing')}", soft_wrap=True)
    for area in dict.fromkeys(finding.area for finding in findings):
        console.print(f"[bold]{area}[/bold]")
        for one in findings:
            if one.area == area:
                console.print(f"  {_MARKS[one.state]} {escape(f'{one.name}: {one.says}')}", soft_wrap=True)
                if one.mend:
                    console.print(f"    {escape(one.mend)}", soft_wrap=True)
