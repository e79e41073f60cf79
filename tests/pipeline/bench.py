"""A converter with real workers and its cache, and instances for it."""

import time
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path

from scp.buffer.layout import Layout
from scp.choose.attributes import Attributes
from scp.choose.rules import Decision, Facts
from scp.deliver.ports import Receipt
from scp.deliver.send import item_of
from scp.durable import Disk
from scp.model import Deliver, Form, SpooledInstance
from scp.pipeline.converter import Converter
from scp.pipeline.threads import Inbox
from scp.pipeline.tracked import Tracked
from tests.convert.images import shipped
from tests.pipeline.jobs import EXPLICIT, ORIGIN
from tests.pipeline.parts import config_for
from tests.pipeline.workers import SECONDS, Crew


class Bench:
    """A converter, its workers and its cache; the test is the loop."""

    def __init__(self, folder: Path, crew: Crew, max_encoded_bytes: int = 2**30) -> None:
        config = config_for(folder, limits={"max_encoded_bytes": max_encoded_bytes})
        self.layout = Layout(config.node.data)
        self.layout.make(Disk())
        self.inbox = Inbox()
        self.crew = crew
        self.converter = Converter(config, self.layout, crew.pool, self.inbox)

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            self.crew.turn()
            self.inbox.run_posted()

    def miss_deadline(self) -> None:
        self.crew.pool.tick(time.monotonic() + 1e6)

    def wait_until_asked(self) -> None:
        """Until a call waits in the inbox."""
        assert wait([self.inbox.fileno()], SECONDS), "nobody asks"

    def cached(self) -> list[Path]:
        return list(self.layout.encoded.iterdir())


def track(
    path: Path, convert: Form = Form.HTJ2K, send_to: tuple[str, ...] = ("archive",)
) -> Tracked:
    item = item_of(path) if path.is_file() else item_of(shipped("CT_small.dcm"))
    assert not isinstance(item, Receipt)
    return Tracked(
        name=path.name,
        spooled=SpooledInstance(
            path=path,
            identity=item.identity,
            origin=ORIGIN,
            transfer_syntax=EXPLICIT,
            file_bytes=path.stat().st_size,
        ),
        received=0.0,
        facts=Facts(
            attributes=Attributes(), origin=ORIGIN, transfer_syntax=EXPLICIT, sop_class_uid="1.2"
        ),
        decision=Decision(
            rule="default", convert=convert, deliver=Deliver.WHEN_QUIET, send_to=send_to
        ),
    )
