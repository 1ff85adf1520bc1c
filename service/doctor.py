"""The checks of `rankone doctor`: whether everything that a service's settings name is sound. Changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

from rankone.index import IndexProblem
from rankone.index.backup import Inspected, inspect, user_of
from rankone.index.source import is_lance, look_at
from rankone.model.bundle import BundleError, open_bundle
from rankone.model.errors import RankoneError
from rankone.model.findings import Finding
from rankone.service.bundle_files import Checked, list_bundles
from rankone.service.disk import LEAST_FREE, Disk, disk_of
from rankone.service.environment import misspelt
from rankone.service.preflight import CHECKS
from rankone.service.settings import Settings

_MEND: Final = {
    "address": "Set keys, or listen on 127.0.0.1.",
    "bundle": "Name a bundle by --bundle (RANKONE_BUNDLE); `rankone export` and `rankone bundle init` write one.",
    "keys": "Name a file that `rankone keys add` wrote by --keys (RANKONE_KEYS), and let the service's user read it.",
    "traces": "Install rankone[traces], or unset OTEL_EXPORTER_OTLP_ENDPOINT.",
    "engine": "Set engine, device and precision to what this machine has (docs/engines.md), or export the bundle again.",
}
_ELSEWHERE: Final = "Name another folder by --data (RANKONE_DATA)."
_NEW_BUNDLE: Final = "Export it again, or take it out of the folder."


def examine(settings: Settings) -> Iterator[Finding]:
    """A finding for everything that was looked at. Loads the engine as the service does, and closes it again."""
    yield from _variables()
    yield from _checks(settings)
    if settings.index == "local":
        yield from _disk(settings)
        yield from _indexes(settings)
    else:
        yield from _database(settings)


def _variables() -> Iterator[Finding]:
    sentences = misspelt(Settings)
    for sentence in sentences:
        yield Finding("settings", "variable", "problem", sentence, "Rename the variable, or unset it.")
    if not sentences:
        yield Finding("settings", "variables", "ok", "every variable RANKONE_… that is set is read by something")


def _checks(settings: Settings) -> Iterator[Finding]:
    """The checks of `rankone serve --check`; of the bundles, every one."""
    said = set[str]()
    for name, run in CHECKS.items():
        if name == "engine":
            fresh = [finding for finding in _bundles(settings) if finding.says not in said]
            said |= {finding.says for finding in fresh}
            yield from fresh
            if settings.tensorrt_cache is not None:
                words = (
                    f"loading the engine would write into {settings.tensorrt_cache}; `rankone serve --check` loads it"
                )
                yield Finding("service", name, "skipped", words)
                continue
        try:
            found = run(settings)
        except RankoneError as error:
            if str(error) in said:
                yield Finding("service", name, "skipped", "there is no bundle to load")
            elif name == "bundle" and _has_none_yet(settings):
                said.add(str(error))
                yield Finding("service", name, "note", f"there is no folder {settings.bundle} yet", _MEND["bundle"])
            else:
                said.add(str(error))
                yield Finding("service", name, "problem", str(error), _MEND[name])
            continue
        yield from _sound(name, found, settings, said)


def _has_none_yet(settings: Settings) -> bool:
    """Whether no bundle was named and none is in the default place, as before the first export."""
    default = Settings.model_fields["bundle"].default
    return settings.bundles is None and settings.bundle == default and not settings.bundle.exists()


def _sound(name: str, found: Any, settings: Settings, said: set[str]) -> Iterator[Finding]:
    """The findings of a check that passed."""
    match name:
        case "keys" if found == 0:
            words = f"{settings.keys} holds no keys, so nobody can use the service"
            yield Finding("service", name, "problem", words, "Add one with `rankone keys add`.")
        case "keys" if found is None:
            made = settings.own_keys is not None and not settings.allow_anonymous
            yield Finding("service", name, "ok", "the first start makes a key" if made else "no keys are asked for")
        case "keys":
            yield Finding("service", name, "ok", "1 key" if found == 1 else f"{found} keys")
        case "address":
            yield Finding("service", name, "ok", f"{settings.host} may be listened on with these settings")
        case "engine":
            checked: Checked = found
            for reason in checked.passed_over:
                if reason not in said:
                    yield Finding("bundles", "newer", "problem", f"a newer bundle is not served: {reason}", _NEW_BUNDLE)
            manifest = checked.bundle.manifest
            words = (
                f"{manifest.name} {manifest.version} by {checked.engine} on {checked.provider} in {checked.precision}: "
                f"engine {settings.engine} and device {settings.device} are set, {checked.why}"
            )
            yield Finding("service", name, "ok", words)


def _bundles(settings: Settings) -> Iterator[Finding]:
    """Every bundle, with the checksum of every file. `check_paths` has said it if there is none."""
    try:
        listed = list_bundles(settings)
    except BundleError:
        return
    for one in listed:
        try:
            bundle = open_bundle(one.path)
        except BundleError as error:
            yield Finding(
                "bundles", one.path.name, "problem", str(error), _NEW_BUNDLE if settings.bundles else _MEND["bundle"]
            )
            continue
        pixels = bundle.manifest.preprocessing.summary
        words = f"{bundle.manifest.name} {bundle.manifest.version}, {bundle.fingerprint[:16]}: every file is as it was written"
        words = f"{words}; it sees {pixels}"
        yield Finding("bundles", one.path.name, "ok", words)


def _disk(settings: Settings) -> Iterator[Finding]:
    try:
        disk = disk_of(settings.data)
    except OSError as error:
        yield Finding("disk", "folder", "problem", f"{settings.data} cannot be looked at: {error.strerror}", _ELSEWHERE)
        return
    is_there = disk.folder == settings.data.resolve()
    where = f"{settings.data}" if is_there else f"{disk.folder}, where the first start makes {settings.data},"
    yield _writable(disk, where)
    free, mend = (
        f"{disk.free_bytes / 1e9:,.1f} GB are free",
        "Make room: on a full disk, additions are refused with 507.",
    )
    is_full = disk.free_bytes < LEAST_FREE
    yield Finding("disk", "free", "problem" if is_full else "ok", free, mend if is_full else None)
    yield _file_system(disk, where)


def _writable(disk: Disk, where: str) -> Finding:
    if disk.is_read_only:
        return Finding("disk", "writable", "problem", f"{where} is on a disk that is mounted read-only", _ELSEWHERE)
    if not disk.is_writable:
        mend = "Give it to the service's user (chown), or name another by --data (RANKONE_DATA)."
        return Finding("disk", "writable", "problem", f"{where} cannot be written by this user", mend)
    return Finding("disk", "writable", "ok", f"{where} can be written")


def _file_system(disk: Disk, where: str) -> Finding:
    kind, name = disk.file_system, "file system"
    if kind is None:
        return Finding("disk", name, "skipped", "its type is not known here")
    if disk.is_network:
        words = f"{where} is on {kind}, a network file system, which SQLite's write-ahead log does not work on"
        return Finding("disk", name, "problem", words, "Put the folder on a local disk: --data (RANKONE_DATA).")
    if disk.is_memory:
        return Finding("disk", name, "note", f"{where} is in memory ({kind}) and empty after a restart of the machine")
    return Finding("disk", name, "ok", f"{kind} is a local disk, as SQLite's write-ahead log needs")


def _indexes(settings: Settings) -> Iterator[Finding]:
    folder = settings.data
    if not folder.exists():
        yield Finding("indexes", "folder", "note", f"there is no folder {folder} yet: the first start makes it")
        return
    if not folder.is_dir():
        yield Finding("indexes", "folder", "problem", f"{folder} is not a directory", _ELSEWHERE)
        return
    user = user_of(folder)
    yield Finding("indexes", "folder", "ok", f"{folder} is used by {f'process {user}' if user else 'no process'}")
    models = _models(settings)
    for one in inspect(folder):
        yield _index(one, models)


def _database(settings: Settings) -> Iterator[Finding]:
    """The indexes in PostgreSQL or Lance. Unlike a start of the service, this makes nothing in a database that has none."""
    of_lance = is_lance(settings.index)
    try:
        found = look_at(settings.index)
    except IndexProblem as problem:
        page = "lance" if of_lance else "postgres"
        mend = f"Check the address (RANKONE_INDEX), that it can be reached, and what docs/{page}.md asks of it."
        yield Finding("indexes", "database", "problem", str(problem), mend)
        return
    how = "the published versions can be read" if of_lance else "the database answers, and its commits are durable"
    yield Finding("indexes", "database", "ok", f"{how}; {len(found)} indexes")
    models = _models(settings)
    for name, spec, count in found:
        yield _index(Inspected(name, spec, count), models)


def _models(settings: Settings) -> Collection[str]:
    """The fingerprints of the bundles that can be served; none if that is not known."""
    try:
        return {one.fingerprint for one in list_bundles(settings) if one.fingerprint is not None}
    except BundleError:
        return set()


def _index(one: Inspected, models: Collection[str]) -> Finding:
    if one.left is not None:
        return Finding("indexes", one.name, "skipped", f"not read: {one.left}")
    if one.spec is None:
        return Finding("indexes", one.name, "problem", one.fault or "", "Restore a backup: `rankone index restore`.")
    if models and one.spec.fingerprint not in models:
        made = f"{one.count:,} items, made with the bundle {one.spec.fingerprint[:16]}, which is not available"
        mend = "Serve that bundle, or embed the images again: `rankone index rebuild`."
        return Finding("indexes", one.name, "problem", made, mend)
    depth = "every page is whole" if one.is_checked else "`rankone index verify` reads every row"
    return Finding(
        "indexes", one.name, "ok", f"{one.count:,} items of {one.spec.dim:,} numbers, {one.spec.kind}; {depth}"
    )
