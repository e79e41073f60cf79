"""Who may associate."""

import pytest

from scp.accept.access import AccessList, plain_address, plain_title
from scp.config.schema import AccessSection, Peer

LISTED = AccessList(
    AccessSection(
        anyone=False,
        peers=(
            Peer(ae_title="CT1", address="10.0.0.0/24"),
            Peer(ae_title="ROAMING"),
            Peer(address="2001:db8::1"),
        ),
    )
)


@pytest.mark.parametrize(
    ("title", "address", "admitted"),
    [
        ("CT1", "10.0.0.9", True),
        ("CT1", "10.0.1.9", False),
        ("CT2", "10.0.0.9", False),
        ("ROAMING", "192.0.2.1", True),
        ("ROAMING", "2001:db8::2", True),
        ("ANY", "2001:db8::1", True),
        ("ANY", "2001:db8::2", False),
        ("", "10.0.0.9", False),
    ],
)
def test_a_peer_of_the_list_is_admitted(title: str, address: str, admitted: bool) -> None:
    assert LISTED.admits(title, address) is admitted


def test_anyone_is_admitted_where_the_configuration_says_so() -> None:
    assert AccessList(AccessSection(anyone=True)).admits("NOBODY", "192.0.2.1")


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_an_address_is_given_as_people_write_it(address: str, plain: str) -> None:
    assert plain_address(address) == plain


@pytest.mark.parametrize(
    ("title", "plain"),
    [
        (b"CT1".ljust(16), b"CT1".ljust(16)),
        (b"CT1".ljust(16, b"\0"), b"CT1".ljust(16)),
        (b" CT 1 \0\0", b"CT 1".ljust(16)),
        (b"CT\\1\n\xe4", b"CT_1__".ljust(16)),
        (b" " * 16, b"UNKNOWN".ljust(16)),
    ],
)
def test_a_title_is_given_as_the_standard_allows_it(title: bytes, plain: bytes) -> None:
    assert plain_title(title) == plain
