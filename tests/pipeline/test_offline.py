"""What a command does on the folders while the node is down."""

import os
import threading
from typing import Any

import pytest

from scp.buffer.layout import is_locked, lock_data
from scp.config.ledger import LedgerSection
from scp.deliver.ports import Receipt, Verdict
from scp.deliver.receipts import Answered, ReceiptLog, ReceiptState
from scp.errors import NodeError
from scp.ledger.ports import State
from scp.ledger.sql import SqlLedger
from scp.pipeline import offline
from scp.pipeline.control import Reply
from tests.e2e.peers import free_port
from tests.pipeline.conftest import MakeParts
from tests.pipeline.parts import Parts


@pytest.fixture
def parts(make_parts: MakeParts) -> Parts:
    """Of a node that is down: a job held, one that cannot be read, one half held, one that waits."""
    parts = make_parts()
    parts.held(parts.job("held", count=2, send_to=("left",)))
    parts.job("broken")
    (parts.folders.folder("broken") / "job.json").write_text("{")
    parts.dispatch.recover_jobs()
    parts.close()
    parts.job("waiting")
    (instance,) = parts.job("half", send_to=("archive", "left")).instances
    path = parts.folders.folder("half") / "receipts-left"
    log = ReceiptLog(parts.disk, path, ReceiptState(), wall=lambda: 5.0)
    refusal = Receipt(instance=instance.name, verdict=Verdict.HELD, status="A900", detail="refused")
    log.record(Answered(at=5.0, receipt=refusal))
    log.sync()
    log.close()
    return parts


def ask(parts: Parts, **request: Any) -> Reply:
    return offline.answer_offline(parts.config, parts.layout, request)


def test_retry_says_what_was_released_and_what_only_waits(parts: Parts) -> None:
    answer = ask(parts, command="retry", jobs=[])

    assert sorted(answer["jobs"]) == ["broken", "half", "held", "waiting"]
    assert sorted(answer["released"]) == ["half", "held"]
    assert parts.folders.held() == ["broken"]
    assert [job["job"] for job in ask(parts, command="held")["jobs"]] == ["broken"]


def test_only_retry_speaks_of_a_release(parts: Parts) -> None:
    assert "released" not in ask(parts, command="status")


def test_what_was_discarded_is_in_the_ledger_and_its_folder_gone(parts: Parts) -> None:
    assert ask(parts, command="discard", job="held", reason="a test") == {"instances": 2}

    ledger = SqlLedger.open_for_reading(parts.layout.ledger)
    assert ledger.totals().states[State.DISCARDED] == 2
    ledger.close()
    assert parts.folders.held() == ["broken"]
    assert list(parts.layout.trash.iterdir()) == []


def test_a_discard_that_the_ledger_does_not_take_is_not_forgotten(parts: Parts) -> None:
    url = f"postgresql://dcmpress@127.0.0.1:{free_port()}/dcmpress"
    away = parts.config.model_copy(update={"ledger": LedgerSection(url=url)})
    discard = {"command": "discard", "job": "held", "reason": "a test"}

    with pytest.raises(NodeError, match="the next start of the node records it"):
        offline.answer_offline(away, parts.layout, discard)
    status = offline.answer_offline(away, parts.layout, {"command": "status"})
    assert (status["held"], status["discarded"]) == (4, 0)  # Not before it is recorded.

    ask(parts, command="status")
    ledger = SqlLedger.open_for_reading(parts.layout.ledger)
    rows = ledger.recent(9)
    ledger.close()
    assert [(row.state, row.note) for row in rows] == [(State.DISCARDED, "a test")] * 2


def test_the_folder_is_free_again_after_an_answer_and_after_a_refusal(parts: Parts) -> None:
    ask(parts, command="status")
    assert "chores" not in {thread.name for thread in threading.enumerate()}
    assert not is_locked(parts.layout)

    with pytest.raises(NodeError, match="does not know"):
        ask(parts, command="no such command")

    assert not is_locked(parts.layout)


def test_nothing_is_done_while_a_node_has_the_folder(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "_LOCK_SECONDS", 0.0)
    lock = lock_data(parts.layout, 0.0)

    with pytest.raises(NodeError, match="another node"):
        ask(parts, command="retry", jobs=[])

    os.close(lock)
    assert parts.folders.held() == ["broken", "held"]
