"""A node's first process: it holds the ports and the data folder, and keeps the others running."""

import contextlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from scp.accept.seats import Seats, make_table
from scp.buffer.jobs import sweep
from scp.buffer.layout import Layout, lock_data
from scp.choose.rules import RuleSet
from scp.config.schema import Config
from scp.durable import Disk
from scp.errors import DiskFailedError, NodeError, StorageFullError
from scp.pipeline import processes
from scp.pipeline.forks import STOPS, Fork, fork, hold_standard_streams
from scp.pipeline.notices import NoticeSender, notice_pair
from scp.pipeline.processes import Orders
from scp.pipeline.receiver import count_of
from scp.pipeline.sockets import bind, check_certificates
from scp.telemetry import LogFormat

logger = logging.getLogger(__name__)

_LOCK_SECONDS = 10.0
_RECOVERY_SECONDS = 600.0
_COORDINATOR_STOP_SECONDS = 30.0
_STABLE_SECONDS = 60.0
"""A child that lived so long starts again at once; one that did not waits ever longer."""
_LONGEST_WAIT_SECONDS = 30.0
_BEHIND_SECONDS = 0.2
"""Until a coordinator that has no room for more notices is told again."""
_RECOVERIES = 5
"""Tries in a row before the node gives up; what started it, systemd for one, may start it again."""
_BACKLOG = 512


@dataclass(slots=True)
class Child:
    """The coordinator or a receiver, one life after the other."""

    module: str
    name: str
    process: Fork | None = None
    started: float | None = None
    """Of its last life; None once its end was counted."""
    failures: int = 0
    start_at: float | None = None
    """When it is to be started again."""
    is_told_of: bool = True
    """Whether the coordinator knows of its last death."""

    def patience(self, now: float) -> float:
        """Seconds until it is started again, which died, or could not be started."""
        if self.started is not None and now - self.started >= _STABLE_SECONDS:
            self.failures = 0
        self.started = None
        self.failures += 1
        return patience_after(self.failures)


class Supervisor:
    """Runs one node until a signal stops it."""

    def __init__(
        self, config: Config, rules: str, *, log_format: LogFormat, log_level: str
    ) -> None:
        self._config = config
        self._rules = rules
        self._log_format = log_format
        self._log_level = log_level
        self._layout = Layout(config.node.data)
        self._disk = Disk()
        self._coordinator = Child("scp.pipeline.coordinator", "coordinator")
        self._receivers = [
            Child("scp.pipeline.receiver", f"r{number}") for number in range(count_of(config.node))
        ]
        self._stop_asked = False

    def run(self, announce: Callable[[Config], None]) -> None:
        """Start, serve, stop: returns after an orderly stop.

        ``announce`` gets the configuration with the ports that were taken, once they answer.

        Raises
        ------
        NodeError
            The node cannot start, or its parts die again and again.
        """
        self._start_up()
        try:
            self._start_coordinator()
            if not self._stop_asked:
                for listener in self._listeners:
                    listener.listen(_BACKLOG)
                self._start_receivers()
                announce(self._config)
            while not self._stop_asked:
                self._wait_for_event()
        finally:
            self._shut_down()

    # -- start ---------------------------------------------------------------------------------

    def _start_up(self) -> None:
        hold_standard_streams()
        try:
            self._layout.make(self._disk)
        except (OSError, DiskFailedError, StorageFullError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            folder = self._config.node.data
            raise NodeError(
                f"the node's data folder {folder} cannot be used: {why}; "
                "it needs room, and this user has to be able to write there"
            ) from error
        self._lock = lock_data(self._layout, _LOCK_SECONDS)
        self._bind()
        self._seats_table = make_table(self._config.limits.max_associations)
        self._seats = Seats(self._seats_table)
        self._notices = [notice_pair() for _ in self._receivers]
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in STOPS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # of nohup
                signal.signal(number, self._on_signal)
        sweep(self._layout, self._disk, receivers=[p.name for p in self._layout.incoming.iterdir()])

    def _bind(self) -> None:
        """Bind the ports without listening: peers are refused until recovery has finished."""
        self._listeners: list[socket.socket] = []
        bound = []
        for section in self._config.ports:
            check_certificates(section)
            listener = bind(section)
            self._listeners.append(listener)
            bound.append(section.model_copy(update={"port": listener.getsockname()[1]}))
        node = self._config.node.model_copy(update={"port": bound[0].port})
        self._config = self._config.model_copy(update={"node": node, "listeners": tuple(bound)})

    def _start_coordinator(self) -> None:
        """Start it and wait until it has recovered the spool."""
        ready_read, ready_write = os.pipe()
        readers = [reader.fileno() for _, reader in self._notices]
        try:
            self._start(self._coordinator, (ready_write, *readers))
        except NodeError:
            os.close(ready_read)
            raise
        finally:
            os.close(ready_write)
        self._selector.register(ready_read, selectors.EVENT_READ, None)
        try:
            deadline = time.monotonic() + _RECOVERY_SECONDS
            while not self._stop_asked:
                ready = [key.fd for key, _ in self._selector.select(deadline - time.monotonic())]
                if ready_read in ready:
                    if os.read(ready_read, 1):
                        return
                    raise NodeError("the coordinator could not start; the log says why")
                if time.monotonic() >= deadline:
                    raise NodeError(f"recovery took more than {_RECOVERY_SECONDS:.0f} seconds")
                self._drain_wakeups()
        finally:
            self._selector.unregister(ready_read)
            os.close(ready_read)

    def _start_receivers(self) -> None:
        """Beside a coordinator that is new, and knows of none before."""
        for receiver in self._receivers:
            receiver.is_told_of = True
            self._start_receiver(receiver)

    def _start_receiver(self, receiver: Child) -> None:
        """Start it, or try again later; the coordinator is told first that there was another."""
        if not receiver.is_told_of and not self._tell_of(receiver):
            receiver.start_at = time.monotonic() + _BEHIND_SECONDS
            return
        self._disk.remove_tree(self._layout.incoming / receiver.name)
        receiver.start_at = None
        place = self._receivers.index(receiver)
        sender, _ = self._notices[place]
        listening = [listener.fileno() for listener in self._listeners]
        try:
            self._start(receiver, (self._seats_table, sender.fileno(), *listening), place + 1)
        except NodeError as error:
            logger.error("%s; tried again", error)
            now = time.monotonic()
            receiver.start_at = now + receiver.patience(now)

    def _start(self, child: Child, sockets: tuple[int, ...], number: int = 0) -> None:
        orders = Orders(
            config=self._config,
            rules=self._rules,
            name=child.name,
            parent=os.getpid(),
            log_format=self._log_format,
            log_level=self._log_level,
            lock=self._lock,
            sockets=sockets,
            number=number,
        )
        child.started = time.monotonic()
        try:
            child.process = fork(child.module, orders)
        except OSError as error:
            raise NodeError(f"the {child.module} cannot be started: {error.strerror}") from error
        self._selector.register(child.process.descriptor, selectors.EVENT_READ, child)

    # -- run -----------------------------------------------------------------------------------

    def _wait_for_event(self) -> None:
        times = [each.start_at for each in self._receivers if each.start_at is not None]
        wait = max(min(times) - time.monotonic(), 0) if times else None
        for key, _ in self._selector.select(wait):
            if key.data is None:
                self._drain_wakeups()
            elif key.data in self._receivers:
                self._receiver_died(key.data)
            elif key.data is self._coordinator:
                self._coordinator_died()
                return
        for receiver in self._receivers:
            is_due = receiver.start_at is not None and receiver.start_at <= time.monotonic()
            if is_due and not self._stop_asked:
                self._start_receiver(receiver)

    def _receiver_died(self, receiver: Child) -> None:
        """Only what it was receiving is lost, and none of that was acknowledged; the others go on."""
        self._reap_receiver(receiver)
        self._tell_of(receiver)
        now = time.monotonic()
        receiver.start_at = now + receiver.patience(now)

    def _tell_of(self, receiver: Child) -> bool:
        """Have the coordinator know that it died; False: that has no room for it now."""
        sender, _ = self._notices[self._receivers.index(receiver)]
        receiver.is_told_of = NoticeSender(sender, receiver.name).gone()
        return receiver.is_told_of

    def _reap_receiver(self, receiver: Child) -> None:
        self._reap(receiver)
        self._seats.leave_all(self._receivers.index(receiver) + 1)

    def _coordinator_died(self) -> None:
        """Nothing may be acknowledged that nobody watches: stop receiving, recover, go on."""
        self._reap(self._coordinator)
        for receiver in self._receivers:
            if receiver.process is not None:
                receiver.process.kill()
                self._reap_receiver(receiver)
        while not self._recovered():
            pass
        if not self._stop_asked:
            self._start_receivers()

    def _recovered(self) -> bool:
        """Start another coordinator, after a pause; False: it died over it and is worth another try."""
        for pair in self._notices:
            for end in pair:
                end.close()
        self._notices = [notice_pair() for _ in self._receivers]
        self._pause(self._coordinator)
        if self._stop_asked:
            return True
        _reap_orphans()
        try:
            self._layout.make(self._disk)  # Somebody may have deleted what may be deleted.
            sweep(self._layout, self._disk, receivers=[each.name for each in self._receivers])
            self._start_coordinator()
        except (NodeError, OSError, StorageFullError) as error:
            if self._coordinator.failures > _RECOVERIES:
                raise
            logger.error("%s; tried again", error)
            self._end(self._coordinator, 0)
            return False
        return True

    def _pause(self, child: Child) -> None:
        """Wait before a child that keeps dying is started again; a signal cuts the wait short."""
        now = time.monotonic()
        deadline = now + child.patience(now)
        while not self._stop_asked and (left := deadline - time.monotonic()) > 0:
            self._selector.select(left)
            self._drain_wakeups()

    def _reap(self, child: Child) -> None:
        assert child.process is not None
        self._selector.unregister(child.process.descriptor)
        code = child.process.wait()
        child.process = None
        if not self._stop_asked:
            logger.error("the %s ended (%s)", child.module, processes.describe_exit(code))

    def _on_signal(self, number: int, frame: object) -> None:
        self._stop_asked = True

    def _drain_wakeups(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            return

    # -- stop ----------------------------------------------------------------------------------

    def _shut_down(self) -> None:
        """Close the ports, let associations finish, then the work at hand; the rest waits on disk."""
        self._stop_asked = True
        for listener in self._listeners:
            listener.close()
        running = [each for each in self._receivers if each.process is not None]
        for receiver in running:
            assert receiver.process is not None
            receiver.process.terminate()
        deadline = time.monotonic() + self._config.limits.drain_seconds + 5
        for receiver in running:
            self._end(receiver, max(deadline - time.monotonic(), 0))
        self._end(self._coordinator, _COORDINATOR_STOP_SECONDS)
        signal.set_wakeup_fd(-1)
        os.close(self._lock)

    def _end(self, child: Child, seconds: float) -> None:
        if child.process is None:
            return
        child.process.terminate()
        try:
            child.process.wait(seconds)
        except subprocess.TimeoutExpired:
            logger.error("the %s did not stop in %.0f seconds, killed", child.name, seconds)
            child.process.kill()
        self._reap(child)


def _reap_orphans() -> None:
    """What a coordinator had started and its death took along, where this process is a container's first.

    Called while it has no child of its own.
    """
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def patience_after(failures: int) -> float:
    """Seconds to wait after so many deaths in a row; none after the first."""
    return min(_LONGEST_WAIT_SECONDS, 2.0 ** min(failures - 1, 10) - 1)


def serve(config: Config, *, log_format: LogFormat, log_level: str) -> None:
    """Run a node until SIGTERM, SIGINT or SIGHUP.

    Raises
    ------
    NodeError
        It cannot start or go on.
    """
    rules = RuleSet(config.rules, config.default).identity

    def announce(bound: Config) -> None:
        for port in bound.ports:
            kind = ", TLS" if port.tls else ""
            logger.info(
                "%s listens on %s port %d%s", config.node.ae_title, port.bind, port.port, kind
            )

    Supervisor(config, rules, log_format=log_format, log_level=log_level).run(announce)
    logger.info("stopped")
