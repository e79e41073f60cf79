"""All of a coordinator but its process: from what a receiver lands to the ledger row."""

import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from scp.buffer.job import Job
from scp.buffer.store import SpoolStore
from scp.config.schema import Config
from scp.deliver.dicomfile import read_meta
from scp.deliver.ports import Receipt
from scp.deliver.send import item_of
from scp.durable import Disk
from scp.ledger.ports import SeriesHistory
from scp.model import Origin, StoreRequest
from scp.pipeline.collapser import Collapser
from scp.pipeline.committer import Committer
from scp.pipeline.converter import Converter
from scp.pipeline.destinations import taking_volumes
from scp.pipeline.intake import Intake
from scp.pipeline.notices import NoticeSender, notice_pair, read_notices
from tests.pipeline.parts import SECONDS, Parts
from tests.pipeline.workers import Crew

RECEIVER = "r0"


class Front(Parts):
    """Everything in one process but the workers; the receiver's store is here too."""

    def __init__(self, config: Config, crew: Crew, *, disk: Disk | None = None) -> None:
        super().__init__(config, disk=disk)
        self.crew = crew
        self.converter = Converter(config, self.layout, crew.pool, self.inbox)
        self.committer = Committer(
            self.folders,
            self.disk,
            self.converter,
            self.accounts,
            self.chores,
            self.timers.later,
            self.dispatch,
            Collapser(self.layout, crew.pool, self._look_up, taking_volumes(config)),
            config.series.conflict,
        )
        self.intake = Intake(config, self.layout, self.folders, self.converter, self.committer)
        self.receivers_end, self.notices = notice_pair()
        self.store = self.receiver(RECEIVER)

    def receiver(self, name: str) -> SpoolStore:
        """A receiver's part; its notices come when :meth:`turn` reads them."""
        return SpoolStore(
            self.layout,
            name,
            self.disk,
            NoticeSender(self.receivers_end, name),
            reserve_bytes=0,
            rules="rules-1",
        )

    def _look_up(
        self,
        series_instance_uid: str,
        then: Callable[[SeriesHistory], None],
        failed: Callable[[Exception], None],
    ) -> None:
        # As the coordinator does: a job may be committed, or go over to the ledger, meanwhile.
        before = self.dispatch.history_of(series_instance_uid)

        def answer(found: SeriesHistory) -> None:
            then(before | found | self.dispatch.history_of(series_instance_uid))

        self.chores.do(lambda: self.ledger.history_of(series_instance_uid), answer, failed)

    def close(self) -> None:
        if not self._is_open:
            return
        self.until(lambda: not self.crew.pool.busy and not self.crew.pool.queued)
        super().close()
        self.receivers_end.close()
        self.notices.close()

    # -- the loop ------------------------------------------------------------------------------

    def sources(self) -> list[Any]:
        return [*super().sources(), *self.crew.pool.connections(), self.notices]

    def ready(self, source: Any) -> None:
        if isinstance(source, Connection):
            self.crew.pool.readable(source)
        elif isinstance(source, socket.socket):
            for notice in read_notices(source):
                self.intake.take(notice)

    def turn(self, longest: float = 0.05) -> None:
        super().turn(longest)
        self.crew.pool.tick(time.monotonic())

    def miss_deadline(self) -> None:
        """As if the workers had had their tasks for too long."""
        self.crew.pool.tick(time.monotonic() + 1e6)

    def close_quiet(self, seconds: float = 20.0) -> None:
        """Close what is quiet ``seconds`` from now."""
        self.turn(0)
        self.intake.close_due(time.monotonic() + seconds)

    # -- what comes ----------------------------------------------------------------------------

    def land(
        self, path: Path, *, called: str = "DCMPRESS", calling: str = "CT1", receiver: str = ""
    ) -> None:
        """What a receiver does with one instance, until it is acknowledged."""
        item = item_of(path)
        assert not isinstance(item, Receipt)
        with path.open("rb") as file:
            start = read_meta(file.fileno()).dataset_start
        store = self.receiver(receiver) if receiver else self.store
        incoming = store.begin(
            StoreRequest(
                origin=Origin(
                    calling_ae_title=calling, called_ae_title=called, peer_address="127.0.0.1"
                ),
                sop_class_uid=item.identity.sop_class_uid,
                sop_instance_uid=item.identity.sop_instance_uid,
                transfer_syntax=item.transfer_syntax,
            )
        )
        incoming.write(path.read_bytes()[start:])
        incoming.commit()
        incoming.tidy()

    def receive(self, *paths: Path, **titles: str) -> None:
        """Land them, and have the coordinator know."""
        for path in paths:
            self.land(path, **titles)
        self.turn(0)

    # -- what became of it ---------------------------------------------------------------------

    def finish(self) -> list[Job]:
        """Close everything, until it is all delivered or held; the jobs, in order."""
        jobs: dict[str, Job] = {}
        deadline = time.monotonic() + SECONDS
        while True:
            self.close_quiet()
            self.turn()
            jobs |= {name: live.job for name, live in self._live().items()}
            busy = self.intake.open_instances or self.committer.instances_in_work
            if not busy and not self.dispatch.live:
                return [jobs[name] for name in sorted(jobs)]
            assert time.monotonic() < deadline, "it is not finished"

    def _live(self) -> dict[str, Any]:
        return self.dispatch.live | self.dispatch.held
