"""The models that a server offers, and the newest generation of a desk among them.

A new generation is loaded beside the one that answers, and takes over between two requests: what runs ends on the model it began with.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from letheon.core.errors import LetheonError, SubjectError, nearest
from letheon.core.subject import Subject

from .engine import Engine
from .errors import ServeError, place_of
from .reading import Reader
from .replies import ModelCard
from .settings import ServeSettings

if TYPE_CHECKING:
    from letheon.ledger.desk import Desk
    from letheon.ledger.records import Generation

log = logging.getLogger("letheon.serve")
Load = Callable[[Path], Subject]


class Offer:
    """A model by name."""

    def __init__(self, name: str, subject: Subject, settings: ServeSettings):
        self.engine = Engine(subject, settings)
        self.reader = Reader(self.engine, settings)
        self.card = ModelCard(id=name, created=int(time.time()))


class Offered:
    """All models of a server.

    Args:
        models: subjects by name.
        settings: limits.
        desk: its current generation is offered too, under the name of its folder.
        load: makes a subject of a folder.

    Raises:
        LetheonError: the desk's model cannot be loaded, or is not the one that was written down.
    """

    def __init__(self, models: Mapping[str, Subject], settings: ServeSettings, desk: Desk | None = None, load: Load | None = None):
        self.settings, self.desk, self.load = settings, desk, load or _load
        self._offers = {name: Offer(name, subject, settings) for name, subject in models.items()}
        self._retired: list[Engine] = []
        self._number: int | None = None
        if desk is not None:
            self.desk_name = Path(desk.folder).resolve().name
            self._take(desk.current())

    @property
    def cards(self) -> list[ModelCard]:
        """What can be asked."""
        return [offer.card for offer in self._offers.values()]

    def get(self, name: str) -> Offer:
        """The model of this name. Raises ServeError where there is none."""
        if name not in self._offers:
            near = nearest(name, self._offers)
            hint = f"did you mean `{near}`?" if near else "see /v1/models"
            raise ServeError(404, f"This server has no model of that name: {hint}", param="model", code="model_not_found")
        return self._offers[name]

    async def follow(self) -> None:
        """Take over new generations of the desk, for ever."""
        told: str | None = None
        while self.desk is not None:
            await asyncio.sleep(self.settings.poll_seconds)
            try:
                generation = await asyncio.to_thread(self.desk.current)
                if generation.number != self._number:
                    await asyncio.to_thread(self._take, generation)
                told = None
            except Exception as error:  # no room in memory, say: the old one answers on, and the next look may find it mended
                why = str(error) if isinstance(error, LetheonError) else f"{type(error).__name__} in {place_of(error)}"
                if why != told:
                    log.error("The desk's new generation is not taken over: %s", why)
                told = why

    def _take(self, generation: Generation) -> None:
        folder = self.desk.model_folder(generation)  # type: ignore[union-attr]
        subject = self.load(folder)
        if subject.digest != generation.digest:
            what = f"{folder} is not the model that the ledger calls generation {generation.number}: their digests differ"
            raise SubjectError(what, "It was changed after it was made; restore it from a copy")
        offer, before = Offer(self.desk_name, subject, self.settings), self._offers.get(self.desk_name)
        self._offers[self.desk_name], self._number = offer, generation.number
        if before is not None:
            self._retired = [engine for engine in (*self._retired, before.engine) if engine.running]
            before.engine.close()
            log.info("Generation %d of the desk has taken over", generation.number)

    async def close(self) -> None:
        """End all engines; answers that are still being written are given up."""
        for engine in (*self._retired, *(offer.engine for offer in self._offers.values())):
            engine.close(drop=True)
            await asyncio.to_thread(engine.close, wait=True)


def _load(folder: Path) -> Subject:
    from letheon.subjects.hf import load

    return load(folder)
