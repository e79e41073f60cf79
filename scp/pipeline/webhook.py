"""Notices to a webhook: JSON by POST, from a thread of its own, which nothing waits for."""

import contextlib
import json
import logging
import queue
import threading
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from scp.config.remote import NoticesSection
from scp.config.secrets import ClientTls
from scp.deliver.web import WebClient, bearer, nobody
from scp.errors import DeliveryError
from scp.pipeline.alarms import Notice

logger = logging.getLogger(__name__)

WAITING: Final = 100
"""Notices at most; the oldest goes for a new one."""
TRY_AGAIN_SECONDS: Final = (1.0, 5.0, 30.0, 120.0, 300.0)
_CONNECT_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 20.0


class Webhook:
    """Posts notices in order; what is not taken after some tries is given up."""

    def __init__(
        self,
        section: NoticesSection,
        node: str,
        try_again_seconds: tuple[float, ...] = TRY_AGAIN_SECONDS,
    ) -> None:
        """``node`` is the AE title under which the receiver knows us."""
        assert section.webhook is not None
        parts = urlsplit(section.webhook)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._client = WebClient(
            f"{parts.scheme}://{parts.netloc}",
            ClientTls(ca=section.ca),
            connect_seconds=_CONNECT_SECONDS,
            answer_seconds=_ANSWER_SECONDS,
            authorization=nobody if section.token is None else bearer(section.token),
        )
        self._node = node
        self._try_again_seconds = try_again_seconds
        self._waiting: queue.Queue[Notice | None] = queue.Queue(WAITING)
        self._stop = threading.Event()
        self._has_failed = False
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)
        self._thread.start()

    def tell(self, notice: Notice) -> None:
        """Post it soon; never waits."""
        self._put(notice)

    def stop(self, timeout: float) -> None:
        """End; what waits gets one more try."""
        self._stop.set()
        self._put(None)
        self._thread.join(timeout)

    def _put(self, notice: Notice | None) -> None:
        while True:
            try:
                self._waiting.put_nowait(notice)
                return
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._waiting.get_nowait()

    def _run(self) -> None:
        while True:
            notice = self._waiting.get()
            if notice is None:
                return
            try:
                self._post(notice)
            except Exception:
                logger.exception("a notice failed unexpectedly")
            finally:
                self._client.close()

    def _post(self, notice: Notice) -> None:
        body = json.dumps(payload(notice, self._node)).encode()
        for wait in (*self._try_again_seconds, None):
            why = self._attempt(body)
            if not why:
                if self._has_failed:
                    logger.info("the webhook takes notices again")
                self._has_failed = False
                return
            if not self._has_failed:
                logger.error("the webhook does not take notices, they are in the log: %s", why)
            self._has_failed = True
            if wait is None or self._stop.wait(wait):
                return

    def _attempt(self, body: bytes) -> str:
        """Why it was not taken; empty: it was."""
        try:
            answer = self._client.request(
                "POST",
                self._target,
                body=[body],
                size=len(body),
                headers={"Content-Type": "application/json"},
            )
        except DeliveryError as error:
            return str(error)
        return "" if 200 <= answer.status < 300 else f"it answers {answer.status}"


def payload(notice: Notice, node: str) -> dict[str, Any]:
    """What is posted; docs/notices.md describes it, and keys are never renamed."""
    return {
        "version": 1,
        "node": node,
        "notice": notice.kind,
        "subject": notice.subject,
        "state": notice.state,
        "text": notice.text,
        "facts": notice.facts,
        "since": _iso(notice.since),
        "at": _iso(notice.at),
    }


def _iso(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="seconds")
