"""Logs and counters."""

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest

from scp.telemetry import Counter, Counters, LogFormat, configure, context

logger = logging.getLogger("scp.accept")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("pydicom", "py.warnings", "pynetdicom", "highdicom"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def _log_to(log_format: LogFormat, level: str = "INFO") -> io.StringIO:
    stream = io.StringIO()
    configure(log_format, level, stream)
    return stream


def test_a_json_line_carries_the_message_the_context_and_the_extra_fields() -> None:
    stream = _log_to("json")

    with context(association="a1", series="5f3c"):
        logger.info("association of %s closed", "CT1", extra={"instances": 3})

    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "scp.accept",
        "message": "association of CT1 closed",
        "association": "a1",
        "series": "5f3c",
        "instances": 3,
    }


def test_ids_of_an_inner_context_end_with_it() -> None:
    stream = _log_to("json")

    with context(association="a1"):
        with context(association="a2"):
            pass
        logger.info("outer")
    logger.info("outside")

    outer, outside = map(json.loads, stream.getvalue().splitlines())
    assert outer["association"] == "a1"
    assert "association" not in outside


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_what_a_peer_sent_begins_no_line_of_its_own(log_format: LogFormat) -> None:
    stream = _log_to(log_format)

    logger.info("association of %s refused", "EVIL\n2026-01-05 12:00:00Z INFO fine\x1b[2J")

    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_an_exception_comes_with_its_traceback(log_format: LogFormat) -> None:
    stream = _log_to(log_format)

    try:
        raise OSError("disk on fire")
    except OSError:
        logger.exception("worker failed")

    assert "worker failed" in stream.getvalue()
    assert "Traceback" in stream.getvalue()
    assert "disk on fire" in stream.getvalue()


def test_libraries_that_quote_values_of_datasets_are_silent() -> None:
    stream = _log_to("console", "DEBUG")

    logging.getLogger("pydicom").error("invalid value 'Doe^John'")
    logging.getLogger("pynetdicom.dimse").info("(0010,0010) PN [Doe^John]")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("the value 'Doe^John' exceeds the maximum length", UserWarning, stacklevel=1)

    assert stream.getvalue() == ""


def test_configuring_again_replaces_the_former_handler() -> None:
    former = _log_to("console")

    latter = _log_to("json")
    logger.info("once")

    assert former.getvalue() == ""
    assert len(latter.getvalue().splitlines()) == 1


def test_counters_balance_when_every_instance_is_accounted_for() -> None:
    balanced = Counters(received=9, pending=1, delivered=4, held=2, skipped=1, discarded=1)

    assert balanced.is_balanced
    assert not Counters(received=9, delivered=8).is_balanced


def test_counters_as_json_have_an_integer_for_every_name() -> None:
    shown = Counters(received=1, delivered=1, passed_through=1, reasons={"no_pixel_data": 1})

    as_json = shown.as_json()

    assert as_json["reasons"] == {"no_pixel_data": 1}
    assert all(isinstance(as_json[name], int) for name in Counter)
