"""Where the ledger is kept: what the section understands, and that no fault shows a password."""

import pytest

from scp.config.ledger import LedgerSection
from scp.config.load import parse
from scp.errors import ConfigError


def loaded(text: str) -> LedgerSection:
    return parse(text.encode(), "x.yaml").ledger


def test_without_a_word_it_is_sqlite_and_kept_for_400_days() -> None:
    section = loaded("")

    assert section.url is None
    assert section.keep == 400 * 86400


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://dcmpress@db.example/dcmpress",
        "postgresql+pg8000://dcmpress:secret@[::1]:5433/dcmpress",
        "postgres:///dcmpress?host=/run/postgresql",
    ],
)
def test_a_server_is_named_by_a_url(url: str) -> None:
    section = loaded(f"ledger: {{url: '{url}', keep: forever}}")

    assert section.url == url
    assert section.keep is None
    assert url not in repr(section)


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("{url: 'mysql://u:hunter2@h/d'}", "1:15: ledger.url: no URL like postgresql://"),
        ("{url: 'postgresql://u:hunter2@h:port/d'}", "ledger.url: no URL like"),
        ("{url: 'postgresql://u:hunter2@h'}", "ledger.url: it names no database"),
        ("{url: 'postgresql://u:hunter2@/d'}", "ledger.url: it needs a host"),
        ("{url: 'postgresql://u:hunter2@h/d?sslmode=on'}", "sslmode is not known here"),
        ("{url: 'postgresql://u:hunter2@h/d', password: {file: p}}", "in the url already"),
        ("{password: {file: hunter2}}", "for a server: name it with url"),
        ("{password: hunter2}", "ledger.password: no secret stands here: write {file: PATH}"),
        ("{keep: 5m}", "ledger.keep: '5m' is too short: at least 1d, or forever"),
        ("{keep: 400}", "ledger.keep: '400' is no duration"),
        ("{kept: 400d}", "unknown key 'kept' in ledger: did you mean 'keep'?"),
        ("{url: 'postgresql://h/d', password: {fil: p}}", "unknown key 'fil' in ledger.password"),
    ],
)
def test_what_is_wrong_is_said_without_the_url(written: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(f"ledger: {written}")

    assert fault in str(caught.value)
    assert "hunter2" not in str(caught.value)
