"""The queue's promises: nothing lost, nothing reported too early, nothing repeated needlessly."""

import errno
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from scp.config.schema import FolderDestination
from scp.deliver.breaker import Backoff
from scp.deliver.dicom import DicomDestination
from scp.deliver.events import Delivery, Event, Finished, Progress, Waiting
from scp.deliver.folder import FolderDestinationWriter
from scp.deliver.policy import Policy
from scp.deliver.ports import Destination, Receipt, Verdict
from scp.deliver.queue import GATHER_SECONDS, GATHERED, DestinationQueue
from scp.deliver.receipts import load, release_held
from scp.durable import Disk, DurableFile
from scp.errors import DeliveryError, PeerRejectedError, PeerUnavailableError
from scp.model import DeliveryItem, Identity
from tests.buffer.recorder import HookedDisk
from tests.deliver.files import ct_items, no_decoder
from tests.deliver.peers import HandPeer

QUICK = Backoff(first_seconds=0.01, longest_seconds=0.05, limited_seconds=(0.01,) * 4)
SLOW = Backoff(first_seconds=1000.0, longest_seconds=1000.0, limited_seconds=(1000.0,) * 4)

type Script = Callable[[DeliveryItem, int], Verdict]
"""What becomes of an instance at its n-th try, from 1; may raise."""


@dataclass
class Scripted:
    """A destination that answers as a test says."""

    script: Script = lambda item, number: Verdict.DELIVERED
    tries: Counter[str] = field(default_factory=Counter)
    order: list[str] = field(default_factory=list)
    attempts: int = 0

    def deliver(
        self, items: Sequence[DeliveryItem], should_stop: Callable[[], bool]
    ) -> Iterator[Receipt]:
        self.attempts += 1
        for item in items:
            if should_stop():
                return
            self.order.append(item.instance)
            self.tries[item.instance] += 1
            verdict = self.script(item, self.tries[item.instance])
            detail = "" if verdict.is_done else f"it is {verdict}"
            yield Receipt(instance=item.instance, verdict=verdict, status="", detail=detail)

    def check(self) -> str:
        return "scripted"


@dataclass
class Running:
    """A queue, and what it reported."""

    queue: DestinationQueue
    events: list[Event]

    def of[T](self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    def finished(self, job: str = "job") -> Finished:
        wait_for(lambda: any(event.job == job for event in self.of(Finished)))
        return next(event for event in self.of(Finished) if event.job == job)


@contextmanager
def running(
    destination: Destination,
    backoff: Backoff = QUICK,
    disk: Disk | None = None,
    policy: Policy | None = None,
    lanes: Sequence[Destination] = (),
) -> Iterator[Running]:
    events: list[Event] = []
    queue = DestinationQueue(
        "pacs",
        lanes or [destination],
        disk or Disk(),
        events.append,
        policy=policy,
        backoff=backoff,
    )
    queue.start()
    try:
        yield Running(queue, events)
    finally:
        assert queue.stop(10)


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def has_tried_twice(node: Running) -> bool:
    return len(node.of(Waiting)) > 1 or bool(node.of(Finished))


def job(folder: Path, instances: Sequence[str], name: str = "job") -> Delivery:
    items = tuple(
        DeliveryItem(
            instance=each,
            identity=Identity(
                sop_class_uid="1.2",
                sop_instance_uid=f"1.2.{name}.{each}",
                study_instance_uid="1.2.4",
                series_instance_uid="1.2.5",
            ),
            path=folder / each,
            transfer_syntax="1.2",
            original=folder / each,
            original_transfer_syntax="1.2",
            sha256="",
        )
        for each in instances
    )
    return Delivery(job=name, receipts=folder / f"receipts-{name}", items=items)


# -- a good day ------------------------------------------------------------------------------------


def test_a_job_is_delivered_and_reported(tmp_path: Path) -> None:
    with running(Scripted()) as node:
        node.queue.add(job(tmp_path, "abc"))
        finished = node.finished()

    assert finished == Finished(job="job", destination="pacs", delivered=3, held={})
    reported = [each.instance for event in node.of(Progress) for each in event.receipts]
    assert reported == ["a", "b", "c"]
    assert list(load(tmp_path / "receipts-job").done) == ["a", "b", "c"]


def test_what_comes_one_by_one_waits_a_moment_for_company(tmp_path: Path) -> None:
    clock = [0.0]
    destination = Scripted()
    events: list[Event] = []
    queue = DestinationQueue(
        "pacs", [destination], Disk(), events.append, now=lambda: clock[0], backoff=QUICK
    )
    node = Running(queue, events)
    queue.start()
    try:
        queue.add(job(tmp_path, "a", "first"))
        node.finished("first")
        for name in ("second", "third"):
            queue.add(job(tmp_path, "a", name))
        assert destination.attempts == 1

        clock[0] += GATHER_SECONDS

        node.finished("third")
        assert destination.attempts == 2
        # Many need no more company, and who is urgent waits for none.
        queue.add(job(tmp_path, [str(number) for number in range(GATHERED)], "many"))
        node.finished("many")
        pressing = job(tmp_path, "a", "urgent")
        queue.add(replace(pressing, items=(replace(pressing.items[0], is_urgent=True),)))
        node.finished("urgent")
        assert destination.attempts == 4
    finally:
        assert queue.stop(10)


def test_who_adds_a_job_waits_for_no_disk(tmp_path: Path) -> None:
    syncing, go_on = threading.Event(), threading.Event()

    def hook(operation: str, path: Path) -> None:
        if operation == "sync_file" and path.name == "receipts-slow":
            syncing.set()
            assert go_on.wait(20)

    with running(Scripted(), disk=HookedDisk(hook)) as node:
        node.queue.add(job(tmp_path, "a", "slow"))
        assert syncing.wait(20)
        adding = threading.Thread(target=node.queue.add, args=(job(tmp_path, "a", "next"),))
        adding.start()
        adding.join(20)
        is_added = not adding.is_alive()
        go_on.set()
        adding.join()
        assert is_added
        assert node.finished("slow").delivered == node.finished("next").delivered == 1


def test_small_jobs_share_an_attempt(tmp_path: Path) -> None:
    destination = Scripted()
    events: list[Event] = []
    queue = DestinationQueue("pacs", [destination], Disk(), events.append)
    for name in ("one", "two", "three"):
        queue.add(job(tmp_path, "a", name))

    queue.start()
    wait_for(lambda: len([each for each in events if isinstance(each, Finished)]) == 3)
    queue.stop(10)

    assert destination.attempts == 1


def test_progress_is_reported_after_its_receipts_are_durable(tmp_path: Path) -> None:
    synced: set[str] = set()
    too_early: list[Event] = []

    class Watching(Disk):
        def sync_file(self, file: DurableFile) -> None:
            super().sync_file(file)
            synced.update(load(Path(file.path)).done)

    def report(event: Event) -> None:
        if isinstance(event, Progress) and {each.instance for each in event.receipts} - synced:
            too_early.append(event)
        if isinstance(event, Finished) and len(synced) < 200:
            too_early.append(event)

    queue = DestinationQueue("pacs", [Scripted()], Watching(), report)
    queue.add(job(tmp_path, [str(number) for number in range(200)]))
    queue.start()
    wait_for(lambda: not queue.snapshot().jobs)
    queue.stop(10)

    assert not too_early
    assert len(synced) == 200


def test_a_power_failure_repeats_no_more_than_64_instances(tmp_path: Path) -> None:
    unsynced = most = 0

    class Counting(Disk):
        def write(self, file: DurableFile, *pieces: bytes | bytearray | memoryview) -> None:
            nonlocal unsynced, most
            unsynced += 1
            most = max(most, unsynced)
            super().write(file, *pieces)

        def sync_file(self, file: DurableFile) -> None:
            nonlocal unsynced
            super().sync_file(file)
            unsynced = 0

    with running(Scripted(), disk=Counting()) as node:
        node.queue.add(job(tmp_path, [str(number) for number in range(300)]))
        node.finished()

    assert 1 < most <= 64


def test_a_delivery_is_one_line_of_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a").write_bytes(bytes(1000))
    caplog.set_level(logging.INFO)

    with running(Scripted(lambda item, number: Verdict.WARNING)) as node:
        node.queue.add(job(tmp_path, "a"))
        node.finished()

    (line,) = [each for each in caplog.messages if each.startswith("delivered")]
    assert line.startswith("delivered to pacs: 1 instances, 1000 bytes, 0.")
    assert line.endswith("1 warnings")


# -- instances that fail ---------------------------------------------------------------------------


def test_held_instances_do_not_keep_a_job_from_finishing(tmp_path: Path) -> None:
    def script(item: DeliveryItem, number: int) -> Verdict:
        return Verdict.HELD if item.instance == "b" else Verdict.DELIVERED

    with running(Scripted(script)) as node:
        node.queue.add(job(tmp_path, "abc"))
        finished = node.finished()

    assert finished.delivered == 2
    assert finished.held == {"b": "it is held"}


def test_a_limited_instance_is_tried_five_times_and_then_held(tmp_path: Path) -> None:
    def script(item: DeliveryItem, number: int) -> Verdict:
        return Verdict.LIMITED if item.instance == "b" else Verdict.DELIVERED

    destination = Scripted(script)
    with running(destination) as node:
        node.queue.add(job(tmp_path, "abc"))
        finished = node.finished()

    assert destination.tries == {"a": 1, "b": 5, "c": 1}
    assert finished.held == {"b": "it is limited (tried 5 times)"}
    assert len(node.of(Waiting)) == 4


def test_a_transient_instance_is_tried_until_it_is_taken(tmp_path: Path) -> None:
    def script(item: DeliveryItem, number: int) -> Verdict:
        return Verdict.DELIVERED if item.instance != "b" or number > 8 else Verdict.TRANSIENT

    destination = Scripted(script)
    with running(destination) as node:
        node.queue.add(job(tmp_path, "abc"))
        finished = node.finished()

    assert finished.delivered == 3
    assert destination.tries == {"a": 1, "b": 9, "c": 1}


def test_a_new_job_does_not_wait_behind_an_instance_that_fails(tmp_path: Path) -> None:
    def script(item: DeliveryItem, number: int) -> Verdict:
        return Verdict.TRANSIENT if item.instance == "bad" else Verdict.DELIVERED

    with running(Scripted(script), SLOW) as node:
        node.queue.add(job(tmp_path, ["bad"], "first"))
        wait_for(lambda: node.of(Waiting))
        node.queue.add(job(tmp_path, ["good"], "second"))

        assert node.finished("second").delivered == 1
        assert list(node.queue.snapshot().jobs) == ["first"]


def test_three_times_later_in_a_row_ends_the_attempt(tmp_path: Path) -> None:
    destination = Scripted(lambda item, number: Verdict.TRANSIENT)

    with running(destination, SLOW) as node:
        node.queue.add(job(tmp_path, "abcdefgh"))
        wait_for(lambda: node.of(Waiting))

    assert destination.order == ["a", "b", "c"]


def test_a_fault_in_the_destination_costs_only_its_instance(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def script(item: DeliveryItem, number: int) -> Verdict:
        if item.instance == "b":
            raise RuntimeError("a defect")
        return Verdict.DELIVERED

    with running(Scripted(script)) as node:
        node.queue.add(job(tmp_path, "abc"))
        finished = node.finished()

    assert finished.delivered == 2
    assert finished.held == {"b": "internal_error: RuntimeError (tried 5 times)"}
    assert "a defect" in caplog.text


# -- a destination that fails ----------------------------------------------------------------------


def test_an_unavailable_destination_is_tried_again_without_repeats(tmp_path: Path) -> None:
    def script(item: DeliveryItem, number: int) -> Verdict:
        if item.instance in "bd" and number < 4:
            raise PeerUnavailableError("nobody there")
        return Verdict.DELIVERED

    destination = Scripted(script)
    with running(destination) as node:
        node.queue.add(job(tmp_path, "abcde"))
        finished = node.finished()

    assert finished.delivered == 5
    assert destination.tries == {"a": 1, "b": 4, "c": 1, "d": 4, "e": 1}
    assert node.of(Waiting)[0].reason == "nobody there"


def test_all_jobs_wait_for_an_unavailable_destination(tmp_path: Path) -> None:
    def script(item: DeliveryItem, number: int) -> Verdict:
        raise PeerUnavailableError("nobody there")

    destination = Scripted(script)
    with running(destination, SLOW) as node:
        node.queue.add(job(tmp_path, "a", "first"))
        wait_for(lambda: node.of(Waiting))
        node.queue.add(job(tmp_path, "a", "second"))
        snapshot = node.queue.snapshot()

    assert destination.attempts == 1
    assert snapshot.jobs == {"first": 1, "second": 1}
    assert (snapshot.pending, snapshot.last_error) == (2, "nobody there")
    assert snapshot.oldest is not None
    assert snapshot.next_try is not None
    assert 700 < snapshot.next_try - time.time() <= 1000


def test_a_destination_that_rejects_gets_five_tries_and_then_all_is_held(tmp_path: Path) -> None:
    class Rejecting(Scripted):
        def deliver(
            self, items: Sequence[DeliveryItem], should_stop: Callable[[], bool]
        ) -> Iterator[Receipt]:
            self.attempts += 1
            raise PeerRejectedError("called AE title not recognised")

    destination = Rejecting()
    with running(destination) as node:
        node.queue.add(job(tmp_path, "abc"))
        finished = node.finished()

    assert destination.attempts == 5
    assert finished.held == dict.fromkeys("abc", "called AE title not recognised (tried 5 times)")


def test_many_jobs_that_fail_together_take_few_open_files(tmp_path: Path) -> None:
    names = [f"job-{number}" for number in range(300)]
    most = 0

    class Counting(Disk):
        def write(self, file: DurableFile, *pieces: bytes | bytearray | memoryview) -> None:
            nonlocal most
            super().write(file, *pieces)
            most = max(most, len(os.listdir("/proc/self/fd")))

    def reject(item: DeliveryItem, number: int) -> Verdict:
        raise PeerRejectedError("association rejected: called AE title not recognised")

    before = len(os.listdir("/proc/self/fd"))
    with running(Scripted(reject), disk=Counting()) as node:
        for name in names:
            node.queue.add(job(tmp_path, ["a"], name))
        held = [node.finished(name).held for name in names]

    assert all(each["a"].startswith("association rejected") for each in held)
    assert all(load(tmp_path / f"receipts-{name}").attempts == {"a": 5} for name in names)
    assert most - before < 100


def test_retrying_ends_every_wait(tmp_path: Path) -> None:
    def script(item: DeliveryItem, number: int) -> Verdict:
        if number == 1 and item.instance == "c":
            raise PeerUnavailableError("nobody there")
        return {"a": Verdict.TRANSIENT, "b": Verdict.LIMITED}.get(
            item.instance if number == 1 else "", Verdict.DELIVERED
        )

    with running(Scripted(script), SLOW) as node:
        node.queue.add(job(tmp_path, "abc"))
        wait_for(lambda: node.of(Waiting))
        node.queue.retry_now()

        assert node.finished().delivered == 3


def test_retrying_one_job_tries_what_is_held_of_it_and_leaves_the_others(tmp_path: Path) -> None:
    def script(item: DeliveryItem, number: int) -> Verdict:
        if number > 1:
            return Verdict.DELIVERED
        return Verdict.HELD if item.instance == "h" else Verdict.TRANSIENT

    destination = Scripted(script)
    with running(destination, SLOW) as node:
        node.queue.add(job(tmp_path, "hx", "first"))
        node.queue.add(job(tmp_path, "y", "second"))
        wait_for(lambda: {each.job for each in node.of(Waiting)} == {"first", "second"})
        node.queue.retry_now("first")

        assert node.finished("first").delivered == 2
    assert destination.tries == {"h": 2, "x": 2, "y": 1}


# -- policy, priority, probing, several lanes ------------------------------------------------------


def test_retrying_while_another_lane_notes_that_an_instance_is_held_sends_it_once_more_at_most(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noting = threading.Event()

    class Slow(Disk):
        """So that whatever may come between a receipt and what follows from it does."""

        def append_to(self, path: Path) -> DurableFile:
            if not noting.is_set():
                noting.set()
                time.sleep(0.3)
            return super().append_to(path)

    def script(item: DeliveryItem, number: int) -> Verdict:
        return Verdict.REFUSED if number == 1 else Verdict.DELIVERED

    destination = Scripted(script)
    with running(destination, disk=Slow(), lanes=[destination, destination]) as node:
        node.queue.add(job(tmp_path, "a"))
        assert noting.wait(20)
        node.queue.retry_now("job")
        finished = node.finished()

    # It may have come too late, when the job was finished.
    assert finished.delivered + len(finished.held) == 1
    assert destination.tries["a"] == 1 + finished.delivered
    assert len(node.of(Finished)) == 1
    assert not [each for each in caplog.messages if "unexpectedly" in each]


def test_what_a_destination_refuses_is_held_or_skipped_as_the_site_says(tmp_path: Path) -> None:
    def script(item: DeliveryItem, number: int) -> Verdict:
        return Verdict.REFUSED if item.instance == "b" else Verdict.DELIVERED

    with running(Scripted(script)) as node:
        node.queue.add(job(tmp_path, "ab", "holds"))
        held = node.finished("holds")
    with running(Scripted(script), policy=Policy(skips_refused=True)) as node:
        node.queue.add(job(tmp_path, "ab", "skips"))
        skipped = node.finished("skips")
        counted = node.queue.snapshot().skipped

    assert (held.held, held.skipped) == ({"b": "it is refused"}, {})
    assert (skipped.held, skipped.skipped) == ({}, {"b": "it is refused"})
    assert counted == {"it is refused": 1}
    assert list(load(tmp_path / "receipts-skips").skipped) == ["b"]


def test_a_sop_class_that_the_site_skips_is_not_offered(tmp_path: Path) -> None:
    destination = Scripted()
    with running(destination, policy=Policy(skip_sop_classes={"1.2"})) as node:
        node.queue.add(job(tmp_path, "ab"))
        finished = node.finished()

    assert destination.attempts == 0
    assert finished.skipped == dict.fromkeys("ab", "sop_class_skipped: 1.2")
    reported = [r.verdict for event in node.of(Progress) for r in event.receipts]
    assert reported == [Verdict.SKIPPED] * 2


def test_an_urgent_job_goes_before_those_that_came_earlier(tmp_path: Path) -> None:
    destination = Scripted()
    queue = DestinationQueue("pacs", [destination], Disk(), lambda event: None)
    queue.add(job(tmp_path, "ab", "first"))
    urgent = job(tmp_path, "u", "second")
    queue.add(replace(urgent, items=tuple(replace(i, is_urgent=True) for i in urgent.items)))

    queue.start()
    wait_for(lambda: not queue.snapshot().jobs)
    queue.stop(10)

    assert destination.order == ["u", "a", "b"]


@dataclass
class Probed(Scripted):
    """A destination that is down until it was probed a few times."""

    probes: int = 0
    is_up: bool = False
    up_after: int = 3

    def deliver(
        self, items: Sequence[DeliveryItem], should_stop: Callable[[], bool]
    ) -> Iterator[Receipt]:
        if not self.is_up:
            self.attempts += 1
            raise PeerUnavailableError("nobody there")
        yield from super().deliver(items, should_stop)

    def check(self) -> str:
        self.probes += 1
        self.is_up = self.probes >= self.up_after
        if not self.is_up:
            raise PeerUnavailableError("no echo")
        return "up"


def test_a_destination_that_failed_is_probed_before_it_gets_a_large_batch(tmp_path: Path) -> None:
    destination = Probed()
    with running(destination) as node:
        node.queue.add(job(tmp_path, [str(number) for number in range(50)]))
        assert node.finished().delivered == 50

    assert (destination.probes, destination.attempts) == (3, 2)


def test_a_small_batch_is_its_own_probe(tmp_path: Path) -> None:
    def script(item: DeliveryItem, number: int) -> Verdict:
        if number < 3:
            raise PeerUnavailableError("nobody there")
        return Verdict.DELIVERED

    destination = Scripted(script)
    with running(destination) as node:
        node.queue.add(job(tmp_path, "a"))
        node.finished()

    assert destination.attempts == 3


def test_a_destination_that_says_when_to_come_again_is_left_alone_until_then(
    tmp_path: Path,
) -> None:
    def script(item: DeliveryItem, number: int) -> Verdict:
        raise PeerUnavailableError("the server answers 503", 500.0)

    patient = Backoff(first_seconds=0.01, longest_seconds=1000.0)
    destination = Scripted(script)
    began = time.time()
    with running(destination, patient) as node:
        node.queue.add(job(tmp_path, "a"))
        wait_for(lambda: node.of(Waiting))
        (waiting,) = node.of(Waiting)
        next_try = node.queue.snapshot().next_try

    assert destination.attempts == 1
    assert next_try is not None
    assert min(waiting.retry_at, next_try) >= began + 499.0
    unavailable = load(tmp_path / "receipts-job").unavailable
    assert unavailable is not None
    assert unavailable.retry_at == waiting.retry_at


def test_silence_counts_from_the_last_answer_and_ends_with_the_attempt(tmp_path: Path) -> None:
    clock = [1000.0]
    asked, answers = threading.Event(), threading.Event()

    def script(item: DeliveryItem, number: int) -> Verdict:
        if item.instance == "a":
            clock[0] += 50.0
        else:
            asked.set()
            answers.wait(20)
        return Verdict.DELIVERED

    queue = DestinationQueue(
        "pacs", [Scripted(script)], Disk(), lambda event: None, wall=lambda: clock[0]
    )
    assert (queue.snapshot().silent_since, queue.snapshot().was_reached) == (None, False)
    queue.add(job(tmp_path, "ab"))
    queue.start()
    try:
        assert asked.wait(20)
        assert (queue.snapshot().silent_since, queue.snapshot().was_reached) == (1050.0, True)
        answers.set()
        wait_for(lambda: not queue.snapshot().is_sending)
        assert queue.snapshot().silent_since is None
    finally:
        answers.set()
        assert queue.stop(10)


def test_a_peer_that_does_not_verify_is_tried_all_the_same(tmp_path: Path) -> None:
    class Mute(Probed):
        def check(self) -> str:
            self.probes += 1
            self.is_up = True
            raise DeliveryError("the peer accepts the association, but no verification")

    destination = Mute()
    with running(destination) as node:
        node.queue.add(job(tmp_path, [str(number) for number in range(50)]))
        assert node.finished().delivered == 50

    assert destination.probes == 1


@dataclass
class Meeting(Scripted):
    """Answers its first instance only when all lanes have one."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(2))

    def deliver(
        self, items: Sequence[DeliveryItem], should_stop: Callable[[], bool]
    ) -> Iterator[Receipt]:
        self.barrier.wait(20)
        yield from super().deliver(items, should_stop)


def test_a_job_is_shared_among_lanes_and_no_instance_goes_twice(tmp_path: Path) -> None:
    barrier = threading.Barrier(2)
    lanes = [Meeting(barrier=barrier), Meeting(barrier=barrier)]
    instances = [str(number) for number in range(100)]

    events: list[Event] = []
    queue = DestinationQueue("pacs", lanes, Disk(), events.append)
    queue.add(job(tmp_path, instances))
    queue.start()
    wait_for(lambda: any(isinstance(event, Finished) for event in events))
    queue.stop(10)

    assert [len(lane.order) for lane in lanes] == [50, 50]
    assert sorted(lanes[0].order + lanes[1].order) == sorted(instances)
    assert sorted(load(tmp_path / "receipts-job").done) == sorted(instances)


def test_a_peer_that_takes_fewer_associations_than_allowed_keeps_those_it_takes(
    tmp_path: Path,
) -> None:
    free, rejected = threading.Semaphore(1), threading.Event()

    class Crowded(Scripted):
        def deliver(
            self, items: Sequence[DeliveryItem], should_stop: Callable[[], bool]
        ) -> Iterator[Receipt]:
            self.attempts += 1
            if not free.acquire(blocking=False):
                rejected.set()
                raise PeerUnavailableError("association rejected: local limit exceeded")
            try:
                for receipt in super().deliver(items, should_stop):
                    yield receipt
                    assert rejected.wait(20)
            finally:
                free.release()

    lanes = [Crowded(), Crowded()]
    with running(lanes[0], SLOW, lanes=lanes) as node:
        node.queue.add(job(tmp_path, [str(number) for number in range(20)]))
        finished = node.finished()

    assert finished.delivered == 20
    assert not node.of(Waiting)


# -- stopping, restarting, removing ----------------------------------------------------------------


def test_what_a_stop_interrupts_goes_on_without_repeats(tmp_path: Path) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def script(item: DeliveryItem, number: int) -> Verdict:
        if item.instance == "c":
            reached.set()
            assert go_on.wait(10)
        return Verdict.DELIVERED

    first, second = Scripted(script), Scripted()
    with running(first) as node:
        node.queue.add(job(tmp_path, "abcde"))
        assert reached.wait(10)
        threading.Timer(0.05, go_on.set).start()
    with running(second) as node:
        node.queue.add(job(tmp_path, "abcde"))
        finished = node.finished()

    assert (first.order, second.order) == (["a", "b", "c"], ["d", "e"])
    assert finished.delivered == 5


def test_a_stop_that_takes_too_long_says_so(tmp_path: Path) -> None:
    go_on, reached = threading.Event(), threading.Event()

    def script(item: DeliveryItem, number: int) -> Verdict:
        reached.set()
        go_on.wait(10)
        return Verdict.DELIVERED

    with running(Scripted(script)) as node:
        node.queue.add(job(tmp_path, "a"))
        assert reached.wait(10)
        stopped = node.queue.stop(0.05)
        go_on.set()

    assert not stopped


def test_waits_survive_a_restart(tmp_path: Path) -> None:
    def script(item: DeliveryItem, number: int) -> Verdict:
        raise PeerUnavailableError("nobody there")

    with running(Scripted(script), SLOW) as node:
        node.queue.add(job(tmp_path, "a"))
        wait_for(lambda: node.of(Waiting))
        (before,) = node.of(Waiting)
    after = Scripted()
    with running(after, SLOW) as node:
        node.queue.add(job(tmp_path, "a"))
        snapshot = node.queue.snapshot()

    assert after.attempts == 0
    assert snapshot.next_try == pytest.approx(before.retry_at, abs=5)
    assert snapshot.last_error == "nobody there"


def test_tries_are_counted_over_restarts(tmp_path: Path) -> None:
    def script(item: DeliveryItem, number: int) -> Verdict:
        return Verdict.LIMITED

    total = 0
    for _ in range(3):
        destination = Scripted(script)
        with running(destination) as node:
            node.queue.add(job(tmp_path, "a"))
            wait_for(partial(has_tried_twice, node))
        total += destination.tries["a"]

    assert total == 5


def test_a_job_that_was_done_before_is_finished_at_once(tmp_path: Path) -> None:
    with running(Scripted()) as node:
        node.queue.add(job(tmp_path, "ab"))
        node.finished()
    again = Scripted()
    with running(again) as node:
        node.queue.add(job(tmp_path, "ab"))
        finished = node.finished()

    assert finished.delivered == 2
    assert again.attempts == 0


def test_a_held_job_that_is_released_is_tried_again(tmp_path: Path) -> None:
    with running(Scripted(lambda item, number: Verdict.HELD)) as node:
        node.queue.add(job(tmp_path, "ab"))
        assert len(node.finished().held) == 2
    release_held(Disk(), tmp_path / "receipts-job", time.time())
    with running(Scripted()) as node:
        node.queue.add(job(tmp_path, "ab"))

        assert node.finished().delivered == 2


def test_the_same_job_added_twice_is_delivered_once(tmp_path: Path) -> None:
    destination = Scripted()
    with running(destination) as node:
        node.queue.add(job(tmp_path, "ab"))
        node.queue.add(job(tmp_path, "ab"))
        node.finished()

    assert destination.tries == {"a": 1, "b": 1}


# -- a disk that fails -----------------------------------------------------------------------------


def test_nothing_is_reported_while_receipts_cannot_be_written(tmp_path: Path) -> None:
    class Failing(Disk):
        is_broken = True

        def sync_file(self, file: DurableFile) -> None:
            if self.is_broken:
                with self._watched("fsync"):
                    raise OSError(errno.EIO, "broken")
            super().sync_file(file)

    disk, destination = Failing(), Scripted()
    with running(destination, disk=disk) as node:
        node.queue.add(job(tmp_path, "ab"))
        wait_for(lambda: "receipts" in node.queue.snapshot().last_error)
        early = list(node.of(Progress)) + list(node.of(Finished))
        disk.is_broken = False
        finished = node.finished()

    assert not early
    assert finished.delivered == 2
    assert destination.tries == {"a": 1, "b": 1}
    assert list(load(tmp_path / "receipts-job").done) == ["a", "b"]


def test_a_job_whose_folder_is_gone_keeps_no_other_from_being_delivered(tmp_path: Path) -> None:
    destination, folder = Scripted(), tmp_path / "gone"
    with running(destination) as node:
        node.queue.add(job(folder, "ab", "lost"))
        wait_for(lambda: set(destination.tries) == {"a", "b"})
        node.queue.add(job(tmp_path, "cd", "next"))
        finished = node.finished("next")
        early = [event.job for event in node.events]
        folder.mkdir()
        found = node.finished("lost")

    assert finished.delivered == found.delivered == 2
    assert "lost" not in early
    assert destination.tries == dict.fromkeys("abcd", 1)
    assert list(load(folder / "receipts-lost").done) == ["a", "b"]


# -- with real destinations ------------------------------------------------------------------------


def test_a_series_reaches_a_folder(tmp_path: Path) -> None:
    items = ct_items(tmp_path / "spool", 10)
    section = FolderDestination(kind="folder", path=tmp_path / "archive")
    delivery = Delivery(job="job", receipts=tmp_path / "receipts", items=tuple(items))

    with running(FolderDestinationWriter("archive", section, Disk())) as node:
        node.queue.add(delivery)
        finished = node.finished()

    assert finished.delivered == 10
    assert len(list((tmp_path / "archive").rglob("*.dcm"))) == 10


def test_a_name_that_a_folder_refuses_holds_its_instance_and_no_other(tmp_path: Path) -> None:
    items = ct_items(tmp_path / "spool", 3)
    study = items[1].identity.study_instance_uid
    items[1] = replace(items[1], identity=replace(items[1].identity, study_instance_uid="1.2"))
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "1.2").symlink_to("1.2")
    section = FolderDestination(kind="folder", path=tmp_path / "archive")
    delivery = Delivery(job="job", receipts=tmp_path / "receipts", items=tuple(items))

    with running(FolderDestinationWriter("archive", section, Disk())) as node:
        node.queue.add(delivery)
        finished = node.finished()

    assert finished.delivered == len(list((tmp_path / "archive" / study).rglob("*.dcm"))) == 2
    reason = f"name_refused: {os.strerror(errno.ELOOP)} (tried 5 times)"
    assert finished.held == {items[1].instance: reason}


def test_a_series_reaches_a_peer_that_breaks_off_again_and_again(tmp_path: Path) -> None:
    items = ct_items(tmp_path / "spool", 10)
    delivery = Delivery(job="job", receipts=tmp_path / "receipts", items=tuple(items))

    with HandPeer(answer=lambda number: "abort" if number % 3 == 1 else 0) as peer:
        destination = DicomDestination("pacs", peer.section(), no_decoder)
        with running(destination) as node:
            node.queue.add(delivery)
            finished = node.finished()

    assert finished.delivered == 10
    arrived = Counter(each.sop_instance_uid for each in peer.stored)
    assert arrived.keys() == {each.identity.sop_instance_uid for each in items}


def test_a_sop_class_at_which_the_peer_breaks_off_does_not_keep_other_jobs_waiting(
    tmp_path: Path,
) -> None:
    private = "1.2.826.0.1.3680043.9.9999.1"
    items = ct_items(tmp_path / "spool", 8)
    bad = [replace(i, identity=replace(i.identity, sop_class_uid=private)) for i in items[:5]]

    with HandPeer(breaks_at=frozenset({private})) as peer:
        queue_of = [Delivery(job="bad", receipts=tmp_path / "r-bad", items=tuple(bad))]
        queue_of += [
            Delivery(job=str(n), receipts=tmp_path / f"r-{n}", items=(each,))
            for n, each in enumerate(items[5:])
        ]
        events: list[Event] = []
        lane = DicomDestination("pacs", peer.section(), no_decoder)
        queue = DestinationQueue("pacs", [lane], Disk(), events.append, backoff=SLOW)
        for each in queue_of:
            queue.add(each)
        queue.start()
        try:
            node = Running(queue, events)
            assert [node.finished(str(n)).delivered for n in range(3)] == [1, 1, 1]
            assert queue.snapshot().jobs == {"bad": 5}
        finally:
            assert queue.stop(10)


def test_an_instance_that_breaks_every_association_does_not_keep_new_jobs_waiting(
    tmp_path: Path,
) -> None:
    items = ct_items(tmp_path / "spool", 3)
    poison = items[0].identity.sop_instance_uid
    peer = HandPeer()
    peer.answer = lambda number: "abort" if peer.stored[number].sop_instance_uid == poison else 0

    with peer:
        destination = DicomDestination("pacs", peer.section(), no_decoder)
        with running(destination, SLOW) as node:
            node.queue.add(Delivery(job="first", receipts=tmp_path / "r1", items=tuple(items[:2])))
            wait_for(lambda: node.of(Waiting))
            node.queue.add(Delivery(job="second", receipts=tmp_path / "r2", items=(items[2],)))

            assert node.finished("second").delivered == 1
    assert list(load(tmp_path / "r1").done) == [items[1].instance]
