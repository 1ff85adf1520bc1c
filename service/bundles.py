"""The bundles of the service: which there are, the newest at the start, and another one while it runs."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from rankone.index import AnyIndexes
from rankone.model.bundle import Bundle, BundleError, open_bundle
from rankone.model.engine import UnusableNetwork
from rankone.model.errors import RankoneError
from rankone.service import runtime
from rankone.service.bundle_files import Listed, list_bundles, none_usable
from rankone.service.errors import Problem
from rankone.service.inference.engine_thread import EngineThread
from rankone.service.observe.metrics import Metrics
from rankone.service.runtime import Runtime
from rankone.service.settings import Settings

logger = logging.getLogger("rankone")


class LoadConflict(Problem):
    """The bundle cannot be loaded as asked; the one being served stays."""

    def __init__(self, detail: str) -> None:
        super().__init__(409, detail)


class LoadTooLong(RankoneError):
    """A bundle took longer to load than the settings allow."""


class ServiceState:
    """The runtime being served, None until one is loaded. A request keeps the one it began with until it ends."""

    def __init__(self) -> None:
        self.runtime: Runtime | None = None
        self.is_draining = False
        self._leases: Counter[Runtime | None] = Counter()
        self._returned = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Requests are answered: a bundle is served, its parts work, and the service is not ending."""
        if self.runtime is None or self.is_draining:
            return False
        return not self.runtime.faults(needs_all_decoders=True)

    @contextmanager
    def leased(self) -> Iterator[Runtime | None]:
        """The runtime for one request, which is not closed while the block runs."""
        runtime = self.runtime
        self._leases[runtime] += 1
        try:
            yield runtime
        finally:
            self._leases[runtime] -= 1
            self._returned.set()

    def replace(self, runtime: Runtime | None) -> Runtime | None:
        """Serves `runtime` from now on; returns the one before, which the caller must retire."""
        before, self.runtime = self.runtime, runtime
        return before

    async def retire(self, runtime: Runtime) -> None:
        """Closes a runtime that was replaced, once it has answered its last request."""
        while self._leases[runtime]:
            self._returned.clear()
            await self._returned.wait()
        del self._leases[runtime]
        await runtime.close()


class Models:
    """The bundles that the settings name; one is served at a time."""

    def __init__(self, settings: Settings, state: ServiceState, metrics: Metrics, indexes: AnyIndexes) -> None:
        self._settings, self._state, self._metrics, self._indexes = settings, state, metrics, indexes
        self._loading = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self._hung = set[Path]()

    def listed(self) -> list[Listed]:
        """Every bundle by its manifest, newest first, then those that are broken. Reads the disk.

        Raises:
            BundleError: the folder of bundles cannot be listed.
        """
        return list_bundles(self._settings)

    async def load_newest(self) -> None:
        """Serves the newest bundle whose checksums are right and whose network the engine can run.

        Raises:
            BundleError: there is none; the message says what is wrong with each.
            EngineError, DecodersFailed: the engine or the decode workers do not start.
        """
        reasons: list[str] = []
        for listed in await asyncio.to_thread(self.listed):
            try:
                await self._serve(listed.path)
            except (BundleError, UnusableNetwork, LoadTooLong) as error:
                reasons.append(str(error))
                continue
            for reason in reasons:
                logger.warning("a newer bundle is not served: %s", reason)
            return
        raise none_usable(self._settings, reasons)

    async def load(self, name: str, version: str) -> str:
        """Verifies and warms a bundle, then serves it. Requests in work are answered by the bundle they began with.

        Returns:
            Its fingerprint.

        Raises:
            Problem: 404, there is none of that name and version.
            LoadConflict: there are two of them, one is being loaded already, or it cannot be served.
        """
        async with self._alone(f"{name} {version}"):
            return await self._serve(await asyncio.to_thread(self._path_of, name, version))

    async def load_from(self, path: Path) -> None:
        """Like `load`, for the bundle in `path`, which from then on is the one that the settings name.

        Raises:
            LoadConflict: one is being loaded already, or it cannot be served.
        """
        async with self._alone(str(path)):
            await self._serve(path)
        self._settings = self._settings.model_copy(update={"bundle": path, "bundles": None})

    @asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        """One bundle is loaded at a time."""
        if self._loading.locked():
            raise LoadConflict("another bundle is being loaded; try again when it is done")
        async with self._loading:
            try:
                yield
            except RankoneError as error:
                raise LoadConflict(f"{name} cannot be served, and what was served still is: {error}") from error

    async def close(self) -> None:
        """Stops serving; returns when every runtime has been closed."""
        if (last := self._state.replace(None)) is not None:
            await self._state.retire(last)
        if self._retiring:
            await asyncio.wait(self._retiring)

    def _path_of(self, name: str, version: str) -> Path:
        found = [
            listed.path
            for listed in self.listed()
            if listed.manifest is not None and (listed.manifest.name, listed.manifest.version) == (name, version)
        ]
        if not found:
            raise Problem(404, f"there is no bundle {name} {version}; GET /models lists what there is")
        if len(found) > 1:
            raise LoadConflict(f"{' and '.join(path.name for path in found)} are both {name} {version}")
        return found[0]

    async def _serve(self, path: Path) -> str:
        """Verifies, warms and serves a bundle; returns its fingerprint.

        Raises:
            BundleError, EngineError, DecodersFailed: it cannot be served.
            LoadTooLong: it takes too long, as a network that never ends does. Its thread cannot be stopped.
        """
        if path in self._hung:
            raise LoadTooLong(f"{path} took too long to load before; start the service again to try it once more")
        try:
            async with asyncio.timeout(self._settings.load_timeout_s) as timer:
                bundle = await self._open(path)
                loaded = await runtime.load(bundle, self._settings, self._metrics, self._indexes)
        except TimeoutError:
            if not timer.expired():
                raise
            self._hung.add(path)
            raise LoadTooLong(
                f"{path} did not load within {self._settings.load_timeout_s:g} s (RANKONE_LOAD_TIMEOUT_S); what it does still "
                "runs until the service ends"
            ) from None
        manifest = bundle.manifest
        logger.info(
            "serving %s %s by %s on %s", manifest.name, manifest.version, loaded.engine.name, loaded.engine.provider
        )
        self._metrics.model.info(
            {"name": manifest.name, "version": manifest.version, "fingerprint": bundle.fingerprint}
        )
        if (before := self._state.replace(loaded)) is not None:
            retiring = asyncio.create_task(self._retire(before))
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)
        return bundle.fingerprint

    async def _retire(self, before: Runtime) -> None:
        try:
            await self._state.retire(before)
        except Exception:
            logger.exception("closing the bundle that was served before failed")

    async def _open(self, path: Path) -> Bundle:
        """Verifies a bundle, in a thread that can be left behind if the disk never answers."""
        thread = EngineThread(self._metrics.deaths.labels("engine").inc)
        try:
            return await thread.run(open_bundle, path)
        finally:
            thread.close()
