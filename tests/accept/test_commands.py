"""Command sets, checked against pynetdicom's own encoder and decoder."""

import contextlib
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dsutils import decode

from scp.accept.commands import (
    IS_COMMAND,
    IS_LAST,
    CommandField,
    decode_command,
    encode_command_pdus,
    encode_response,
)
from scp.errors import MalformedError
from tests.accept.raw_peer import CT, echo_command, store_command


def test_a_store_request_is_read_as_pynetdicom_writes_it() -> None:
    command = decode_command(store_command(instance="2.25.123", message_id=65535))

    assert command.field == CommandField.C_STORE_RQ
    assert command.message_id == 65535
    assert command.has_dataset
    assert command.sop_class_uid == CT
    assert command.sop_instance_uid == "2.25.123"


def test_an_echo_request_has_no_dataset() -> None:
    assert not decode_command(echo_command()).has_dataset


@pytest.mark.parametrize(
    ("encoded", "uid"),
    [(b"2.25.1\0\0", "2.25.1"), (b"2.25.1 ", "2.25.1"), (b"2.\xff", "2.\ufffd"), (b"", "")],
)
def test_a_uid_is_given_without_its_padding(encoded: bytes, uid: str) -> None:
    command = store_command(instance="2.25.77")
    element = b"\x00\x10" + len(b"2.25.77\0").to_bytes(4, "little") + b"2.25.77\0"
    changed = b"\x00\x10" + len(encoded).to_bytes(4, "little") + encoded
    assert element in command

    assert decode_command(command.replace(element, changed)).sop_instance_uid == uid


def test_a_response_is_read_by_pynetdicom() -> None:
    response = encode_response(decode_command(store_command(instance="2.25.123")), 0xA700)

    decoded = decode(BytesIO(response), True, True)

    assert decoded.CommandGroupLength == len(response) - 12
    assert decoded.AffectedSOPClassUID == CT
    assert decoded.CommandField == 0x8001
    assert decoded.MessageIDBeingRespondedTo == 7
    assert decoded.CommandDataSetType == 0x0101
    assert decoded.Status == 0xA700
    assert decoded.AffectedSOPInstanceUID == "2.25.123"


@given(st.binary(min_size=1, max_size=300), st.integers(0, 100))
def test_a_command_is_cut_into_pdus_that_the_peer_takes(command: bytes, most: int) -> None:
    pdus = encode_command_pdus(5, command, most)

    joined = b""
    controls = []
    while pdus:
        length = int.from_bytes(pdus[2:6], "big")
        assert most < 8 or length <= most
        assert length % 2 == 0 or 6 + length == len(pdus)  # The last is as odd as the command.
        assert (pdus[0], pdus[10]) == (4, 5)
        assert int.from_bytes(pdus[6:10], "big") == length - 4
        controls.append(pdus[11])
        joined += pdus[12 : 6 + length]
        pdus = pdus[6 + length :]
    assert joined == command
    assert controls == [IS_COMMAND] * (len(controls) - 1) + [IS_COMMAND | IS_LAST]


@given(st.integers(0, 200), st.binary(max_size=8))
def test_a_damaged_command_is_read_or_refused_by_one_error(place: int, damage: bytes) -> None:
    command = store_command()
    damaged = command[:place] + damage + command[place + len(damage) :]

    with contextlib.suppress(MalformedError):
        assert 0 <= decode_command(damaged).message_id < 2**16
