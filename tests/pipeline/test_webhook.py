"""Notices posted to a real HTTP server."""

import logging
from pathlib import Path

import pytest

from scp.config.remote import NoticesSection
from scp.pipeline.alarms import Notice
from scp.pipeline.webhook import WAITING, Webhook
from tests.e2e.node import until
from tests.pipeline.hook import Hook


def notice(subject: str = "pacs") -> Notice:
    return Notice(
        kind="held",
        subject=subject,
        state="raised",
        text="instances are held",
        facts={"instances": 2},
        since=0.0,
        at=3600.0,
    )


def webhook(url: str, *, tries: int = 3, **more: object) -> Webhook:
    section = NoticesSection.model_validate({"webhook": url, **more})
    return Webhook(section, "NODE", (0.01,) * tries)


def test_a_notice_is_posted_as_documented(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    with Hook() as hook:
        sender = webhook(hook.url, token={"file": tmp_path / "token"})
        sender.tell(notice())
        until(lambda: bool(hook.posted), "nothing is posted")
        sender.stop(10)

    assert hook.tries == [("/hook?key=1", "Bearer abc")]
    assert hook.posted == [
        {
            "version": 1,
            "node": "NODE",
            "notice": "held",
            "subject": "pacs",
            "state": "raised",
            "text": "instances are held",
            "facts": {"instances": 2},
            "since": "1970-01-01T00:00:00+00:00",
            "at": "1970-01-01T01:00:00+00:00",
        }
    ]


def test_notices_come_in_order_and_those_not_taken_are_tried_again() -> None:
    with Hook(status=503) as hook:
        sender = webhook(hook.url, tries=1000)
        sender.tell(notice("a"))
        sender.tell(notice("b"))
        until(lambda: len(hook.tries) > 2, "it is not tried again")
        hook.status = 200
        until(lambda: len(hook.posted) == 2, "nothing is posted")
        sender.stop(10)

    assert [subject for _, subject, _ in hook.notices()] == ["a", "b"]


def test_what_is_never_taken_is_given_up_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with Hook(status=500) as hook, caplog.at_level(logging.ERROR):
        sender = webhook(hook.url, tries=2)
        for subject in "abc":
            sender.tell(notice(subject))
        until(lambda: len(hook.tries) == 9, "it is not tried three times each")
        sender.stop(10)

    assert hook.posted == []
    assert [record.message for record in caplog.records] == [
        "the webhook does not take notices, they are in the log: it answers 500"
    ]


def test_nobody_waits_for_a_webhook_that_is_not_there() -> None:
    sender = webhook("http://127.0.0.1:1/", tries=0)
    for number in range(WAITING + 50):
        sender.tell(notice(str(number)))
    sender.stop(10)

    assert not sender._thread.is_alive()


def test_a_token_that_no_header_may_have_is_said_and_never_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "token").write_text("abc-secret\nsecond-secret\n")
    with Hook() as hook, caplog.at_level(logging.DEBUG):
        sender = webhook(hook.url, token={"file": tmp_path / "token"})
        sender.tell(notice())
        until(lambda: "notices" in caplog.text, "nothing is said")
        sender.stop(10)

    assert not hook.tries
    assert f"the secret in {tmp_path / 'token'} is no token" in caplog.text
    assert "abc-secret" not in caplog.text
    assert "second-secret" not in caplog.text
