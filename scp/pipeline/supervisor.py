"""A node's first process: it holds the ports and the data folder, and keeps the others running."""

import logging
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from scp.buffer.jobs import sweep
from scp.buffer.layout import Layout, lock_data
from scp.choose.rules import RuleSet
from scp.config.schema import Config
from scp.durable import Disk
from scp.errors import NodeError
from scp.pipeline import processes
from scp.pipeline.notices import NoticeSender, notice_pair
from scp.pipeline.processes import Orders
from scp.pipeline.sockets import bind, check_certificates
from scp.telemetry import LogFormat

logger = logging.getLogger(__name__)

RECEIVER = "r0"
_LOCK_SECONDS = 10.0
_RECOVERY_SECONDS = 600.0
_COORDINATOR_STOP_SECONDS = 30.0
_STABLE_SECONDS = 60.0
"""A child that lived so long starts again at once; one that did not waits ever longer."""
_LONGEST_WAIT_SECONDS = 30.0
_RECOVERIES = 5
"""Tries in a row before the node gives up; what started it, systemd for one, may start it again."""
_BACKLOG = 512


@dataclass(slots=True)
class _Child:
    module: str
    name: str
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    descriptor: int = field(default=-1)


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
        self._coordinator = _Child("scp.pipeline.coordinator", "coordinator")
        self._receiver = _Child("scp.pipeline.receiver", RECEIVER)
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
                self._start_receiver()
                announce(self._config)
            while not self._stop_asked:
                self._wait_for_event()
        finally:
            self._shut_down()

    # -- start ---------------------------------------------------------------------------------

    def _start_up(self) -> None:
        self._layout.make(self._disk)
        self._lock = lock_data(self._layout, _LOCK_SECONDS)
        self._bind()
        self._notice_sender, self._notice_reader = notice_pair()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
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
        try:
            self._start(self._coordinator, (self._notice_reader.fileno(), ready_write))
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
                    raise NodeError("the coordinator could not recover the spool; the log says why")
                if time.monotonic() >= deadline:
                    raise NodeError(f"recovery took more than {_RECOVERY_SECONDS:.0f} seconds")
                self._drain_wakeups()
        finally:
            self._selector.unregister(ready_read)
            os.close(ready_read)

    def _start_receiver(self) -> None:
        sweep_receiver(self._layout, self._disk)
        listening = [listener.fileno() for listener in self._listeners]
        self._start(self._receiver, (self._notice_sender.fileno(), *listening))

    def _start(self, child: _Child, sockets: tuple[int, ...]) -> None:
        child.process = processes.start(
            child.module,
            Orders(
                config=self._config,
                rules=self._rules,
                name=child.name,
                parent=os.getpid(),
                log_format=self._log_format,
                log_level=self._log_level,
                lock=self._lock,
                sockets=sockets,
            ),
        )
        child.started = time.monotonic()
        child.descriptor = os.pidfd_open(child.process.pid)
        self._selector.register(child.descriptor, selectors.EVENT_READ, child)

    # -- run -----------------------------------------------------------------------------------

    def _wait_for_event(self) -> None:
        for key, _ in self._selector.select():
            if key.data is None:
                self._drain_wakeups()
            elif key.data is self._receiver:
                self._receiver_died()
            elif key.data is self._coordinator:
                self._coordinator_died()
                return

    def _receiver_died(self) -> None:
        """Only what was being received is lost, and none of it was acknowledged."""
        self._reap(self._receiver)
        NoticeSender(self._notice_sender, RECEIVER).gone()
        self._pause(self._receiver)
        if not self._stop_asked:
            self._start_receiver()

    def _coordinator_died(self) -> None:
        """Nothing may be acknowledged that nobody watches: stop receiving, recover, go on."""
        self._reap(self._coordinator)
        if self._receiver.process is not None:
            self._receiver.process.kill()
            self._reap(self._receiver)
        while not self._recovered():
            pass
        if not self._stop_asked:
            self._start_receiver()

    def _recovered(self) -> bool:
        """Start another coordinator, after a pause; False: it died over it and is worth another try."""
        for end in (self._notice_sender, self._notice_reader):
            end.close()
        self._notice_sender, self._notice_reader = notice_pair()
        self._pause(self._coordinator)
        if self._stop_asked:
            return True
        sweep(self._layout, self._disk, receivers=[RECEIVER])
        try:
            self._start_coordinator()
        except NodeError as error:
            if self._coordinator.failures > _RECOVERIES:
                raise
            logger.error("%s; tried again", error)
            self._end(self._coordinator, 0)
            return False
        return True

    def _pause(self, child: _Child) -> None:
        """Wait before a child that keeps dying is started again; a signal cuts the wait short."""
        if time.monotonic() - child.started >= _STABLE_SECONDS:
            child.failures = 0
        seconds = min(_LONGEST_WAIT_SECONDS, 2.0**child.failures - 1)
        child.failures += 1
        deadline = time.monotonic() + seconds
        while not self._stop_asked and (left := deadline - time.monotonic()) > 0:
            self._selector.select(left)
            self._drain_wakeups()

    def _reap(self, child: _Child) -> None:
        assert child.process is not None
        code = child.process.wait()
        self._selector.unregister(child.descriptor)
        os.close(child.descriptor)
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
        self._end(self._receiver, self._config.limits.drain_seconds + 5)
        self._end(self._coordinator, _COORDINATOR_STOP_SECONDS)
        signal.set_wakeup_fd(-1)
        os.close(self._lock)

    def _end(self, child: _Child, seconds: float) -> None:
        if child.process is None:
            return
        child.process.terminate()
        try:
            child.process.wait(seconds)
        except subprocess.TimeoutExpired:
            logger.error("the %s did not stop in %.0f seconds, killed", child.name, seconds)
            child.process.kill()
        self._reap(child)


def sweep_receiver(layout: Layout, disk: Disk) -> None:
    """Delete what the dead receiver was receiving; nothing of it was acknowledged."""
    disk.remove_tree(layout.incoming / RECEIVER)


def serve(config: Config, *, log_format: LogFormat, log_level: str) -> None:
    """Run a node until SIGTERM or SIGINT.

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
