"""The restore record: small, and never more than it says, whoever wrote it."""

import lzma
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scp.convert.enhanced.originals import Layout, Surroundings
from scp.convert.enhanced.record import RecordWriter, read_record, read_sidecar, sidecar
from scp.errors import MalformedError

FRAMES = st.lists(
    st.builds(
        Surroundings,
        layout=st.sampled_from(Layout),
        before=st.binary(max_size=300),
        after=st.binary(max_size=20),
    ),
    max_size=8,
)


def _record(frames: list[Surroundings]) -> bytes:
    writer = RecordWriter()
    for frame in frames:
        writer.add(frame)
    return writer.finish()


@given(FRAMES)
def test_what_was_put_in_comes_out(frames: list[Surroundings]) -> None:
    assert list(read_record(_record(frames), len(frames))) == frames


def test_headers_larger_than_any_window_of_zlib_cost_little_when_they_are_alike() -> None:
    generator = random.Random(1)
    header = generator.randbytes(80_000)
    frames = [
        Surroundings(layout=Layout.PLAIN, before=header + struct.pack("<L", n), after=b"")
        for n in range(50)
    ]

    assert len(_record(frames)) < 80_000 + 50 * 200


@given(FRAMES.filter(bool), st.data())
def test_a_record_that_is_cut_is_an_error_and_nothing_else(
    frames: list[Surroundings], data: st.DataObject
) -> None:
    record = _record(frames)
    cut = record[: data.draw(st.integers(0, len(record) - 1))]

    with pytest.raises(MalformedError):
        list(read_record(cut, len(frames)))


@given(FRAMES.filter(bool), st.data())
def test_a_record_that_changed_never_gives_other_bytes(
    frames: list[Surroundings], data: st.DataObject
) -> None:
    record = bytearray(_record(frames))
    record[data.draw(st.integers(0, len(record) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    try:
        found = list(read_record(bytes(record), len(frames)))
    except MalformedError:
        return
    assert found == frames


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_record_of_another_number_of_frames_is_an_error(difference: int) -> None:
    frames = [Surroundings(layout=Layout.PLAIN, before=b"before", after=b"after")] * 3

    with pytest.raises(MalformedError):
        list(read_record(_record(frames), 3 + difference))


def test_a_record_that_claims_gigabytes_is_refused_before_they_are_there() -> None:
    bomb = lzma.compress(struct.pack("<BLL", 0, 2**31, 2**31) + bytes(2**20))

    with pytest.raises(MalformedError):
        list(read_record(bomb, 1))


def test_a_sidecar_belongs_to_one_object() -> None:
    content = sidecar("2.25.1", b"record")

    assert read_sidecar(content, "2.25.1") == b"record"
    for other in ("2.25.2", "2.25.12", "2.25."):
        with pytest.raises(MalformedError, match="another object"):
            read_sidecar(content, other)
    with pytest.raises(MalformedError, match="no restore record"):
        read_sidecar(b"", "2.25.1")
