"""Versions that come and go in the model directory: each is made ready beside what serves, and only then takes over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator

from isolatent_export import Bundle, BundleError
from isolatent_serve.registry import Model, Refusal, Registry
from isolatent_serve.repository import Candidate, Repository

log = logging.getLogger("isolatent_serve")

SETTLE_SECONDS = 0.5
"""A folder that has gone may be about to be replaced: it counts as removed when it is missing twice, this far apart."""

Load = Callable[[Bundle], Awaitable[Model]]
"""Makes a model ready, elsewhere than on the event loop. Raises BundleError when it must not be served."""
Retire = Callable[[Model], None]
"""Ends a model that new requests cannot find any more, once the earlier ones have finished."""


class Rollout:
    """Keeps `models` at the newest good version of each name in the directory. One `update` at a time."""

    def __init__(self, repository: Repository, models: Registry, load: Load, retire: Retire) -> None:
        self.repository = repository
        self._models = models
        self._load = load
        self._retire = retire
        self._given = {model.manifest.name: model.bundle.path for model in models}
        self._served: dict[str, Candidate] = {}
        self._refused: dict[Candidate, str] = {}
        self._unreadable = ""

    async def update(self, *, again: bool = False) -> None:
        """Look at the directory and follow it; try what was refused `again`, though its files are the same.

        Raises nothing for what is wrong there: the log and `models` say it.
        """
        if again:
            self._refused.clear()
        try:
            found = await self._look()
        except OSError as error:  # say, a file system that is away for a moment: no reason to unload anything
            self._say_unreadable(str(error))
            return
        self._unreadable = ""
        for name, candidates in found.items():
            await self._follow(name, candidates)
            self._models.refuse(name, list(self._refusals(name, candidates)))
        for name in self._served.keys() - found.keys():
            self._unload(name)
        for name in self._models.refused.keys() - found.keys():
            self._models.refuse(name, [])
            del self._models.refused[name]
        there = {candidate for candidates in found.values() for candidate in candidates}
        self._refused = {candidate: reason for candidate, reason in self._refused.items() if candidate in there}

    async def _look(self) -> dict[str, list[Candidate]]:
        found = await asyncio.to_thread(self.repository.scan)
        paths = {candidate.path for candidates in found.values() for candidate in candidates}
        if any(candidate.path not in paths for candidate in self._served.values()):
            await asyncio.sleep(SETTLE_SECONDS)
            found = await asyncio.to_thread(self.repository.scan)
        return found

    async def _follow(self, name: str, candidates: Iterable[Candidate]) -> None:
        """Serve the newest of `candidates` that is good; if none is, what serves goes on."""
        served = self._served.get(name)
        for candidate in candidates:
            if candidate == served:
                return
            if candidate not in self._refused and await self._try(candidate):
                self._served[name] = candidate
                return
            if served and candidate.path == served.path:  # its files were changed for the worse: it is in memory
                return

    async def _try(self, candidate: Candidate) -> bool:
        """Whether `candidate` serves now."""
        try:
            self._require_not_given(candidate)
            bundle = await asyncio.to_thread(candidate.open)
            if self._is_loaded(candidate, bundle):
                await asyncio.to_thread(bundle.require_intact)
                return True
            model = await self._load(bundle)
        except Exception as error:  # of a bundle that is none, anything may be wrong
            self._refuse(candidate, error)
            return False
        self._switch(model)
        return True

    def _require_not_given(self, candidate: Candidate) -> None:
        given = self._given.get(candidate.name)
        if given is not None:
            raise BundleError(
                f"{candidate.path}: {candidate.name} is given on the command line as {given}; leave that out, restart"
            )

    def _is_loaded(self, candidate: Candidate, bundle: Bundle) -> bool:
        """Whether it is what serves, hashes of all files included: they were only touched."""
        served = self._served.get(candidate.name)
        if not served or served.path != candidate.path:
            return False
        return self._models.find(candidate.name).manifest == bundle.manifest

    def _switch(self, model: Model) -> None:
        before = self._models.put(model)
        if before:
            self._retire(before)

    def _unload(self, name: str) -> None:
        del self._served[name]
        log.warning("model %s: no version is left in %s; unloaded", name, self.repository.path)
        self._retire(self._models.remove(name))

    def _refuse(self, candidate: Candidate, error: Exception) -> None:
        text = str(error) if isinstance(error, BundleError) else f"{candidate.path}: {error!r}"
        self._refused[candidate] = reason = self.repository.shorten(text)
        served = self._served.get(candidate.name)
        goes_on = f"; version {self._models.find(candidate.name).manifest.version} goes on" if served else ""
        log.error("model %s: refused %s%s", candidate.name, reason, goes_on)

    def _refusals(self, name: str, candidates: Iterable[Candidate]) -> Iterator[Refusal]:
        for candidate in candidates:
            if candidate in self._refused:
                yield Refusal(candidate.version, self._refused[candidate])
            if self._served.get(name) and self._served[name].path == candidate.path:
                return

    def _say_unreadable(self, reason: str) -> None:
        if reason != self._unreadable:
            log.error("the model directory cannot be read, what serves goes on: %s", reason)
        self._unreadable = reason
