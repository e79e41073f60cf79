"""The proof finds whatever went wrong between the sources and the written object."""

from collections.abc import Callable
from pathlib import Path

import pytest

from scp.convert.enhanced.build import Draft, build
from scp.convert.enhanced.groups import Volume
from scp.convert.enhanced.originals import surroundings
from scp.convert.enhanced.prove import fingerprint, prove
from scp.convert.enhanced.record import FrameDigests, RecordWriter, private_block, read_record
from scp.convert.enhanced.refusals import NotCollapsedError
from scp.convert.enhanced.repairs import repair
from scp.convert.enhanced.uids import sop_instance_uid
from scp.convert.enhanced.unassigned import unassigned
from scp.convert.enhanced.writer import write
from scp.model import CollapseReason
from tests.convert.enhanced.series import one_volume, pet


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    return one_volume(pet(), tmp_path_factory.mktemp("in"))


def _prove(
    volume: Volume,
    folder: Path,
    *,
    draft_fault: Callable[[Draft], None] | None = None,
    file_fault: Callable[[bytes], bytes] | None = None,
    record_fault: Callable[[bytes], bytes] | None = None,
) -> str:
    """Write the object with something wrong, and have it proved."""
    instance = sop_instance_uid(volume)
    draft = build(volume, instance, "2.25.1")
    repair(draft, instance)
    around = [surroundings(h.source.path, h.native_bytes) for h in volume.headers]
    writer = RecordWriter()
    for frame in around:
        writer.add(frame)
    record = writer.finish()
    digests = [
        FrameDigests(dataset=h.source.dataset_sha256, pixels=h.source.pixel_sha256)
        for h in volume.headers
    ]
    draft.image.update(private_block(digests, record_fault(record) if record_fault else record))
    if draft_fault:
        draft_fault(draft)
    path = folder / "enhanced.dcm"
    with path.open("w+b") as file:
        end = write(file, draft, *unassigned(volume.headers, draft.unassigned))
    if file_fault:
        path.write_bytes(file_fault(path.read_bytes()))
    with path.open("rb") as file:
        return prove(file, end, volume, [fingerprint(frame) for frame in around], None)


def test_an_object_without_fault_is_proved(volume: Volume, tmp_path: Path) -> None:
    assert len(_prove(volume, tmp_path)) == 64


def _slope(draft: Draft) -> None:
    item = draft.frames[2].PixelValueTransformationSequence[0]
    item.RescaleSlope = f"{float(item.RescaleSlope) * 1.0001:.8f}"


def _position(draft: Draft) -> None:
    draft.frames[2].PlanePositionSequence[0].ImagePositionPatient[2] += 0.01


def _no_position(draft: Draft) -> None:
    del draft.frames[2].PlanePositionSequence


def _order(draft: Draft) -> None:
    first, second = (frame.ConversionSourceAttributesSequence[0] for frame in draft.frames[:2])
    first.ReferencedSOPInstanceUID, second.ReferencedSOPInstanceUID = (
        second.ReferencedSOPInstanceUID,
        first.ReferencedSOPInstanceUID,
    )


def _spacing(draft: Draft) -> None:
    draft.shared.PixelMeasuresSequence[0].PixelSpacing = ["1", "1"]


def _number(draft: Draft) -> None:
    draft.image.NumberOfFrames = 4


def _creator(draft: Draft) -> None:
    draft.image[0x00990010].value = "ANOTHER"


@pytest.mark.parametrize(
    "fault", [_slope, _position, _no_position, _order, _spacing, _number, _creator]
)
def test_a_header_that_says_something_else_is_found(
    volume: Volume, tmp_path: Path, fault: Callable[[Draft], None]
) -> None:
    with pytest.raises(NotCollapsedError) as found:
        _prove(volume, tmp_path, draft_fault=fault)

    assert found.value.reason == CollapseReason.PROOF_FAILED


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes((content[at] ^ 1,)) + content[at + 1 :]


def _pixel_data(content: bytes) -> int:
    return content.rindex(b"\xe0\x7f\x10\x00OB")


@pytest.mark.parametrize(
    "fault",
    [
        lambda content: _flipped(content, len(content) - 400),
        lambda content: _flipped(content, _pixel_data(content) + 24),  # in the offset table
        lambda content: _flipped(content, _pixel_data(content) + 13),
        lambda content: content[:-8],
        lambda content: content[: len(content) // 2],
        lambda content: content + b"\0\0",
        lambda content: content[: _pixel_data(content)],
        lambda content: b"",
    ],
    ids=["frame", "table", "item", "no end", "cut", "more", "no pixels", "empty"],
)
def test_bytes_that_changed_on_the_way_are_found(
    volume: Volume, tmp_path: Path, fault: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(NotCollapsedError) as found:
        _prove(volume, tmp_path, file_fault=fault)

    assert found.value.reason == CollapseReason.PROOF_FAILED


def _in_another_order(record: bytes) -> bytes:
    writer = RecordWriter()
    for frame in reversed(list(read_record(record, 5))):
        writer.add(frame)
    return writer.finish()


def _empty(_: bytes) -> bytes:
    return RecordWriter().finish()


@pytest.mark.parametrize(
    "fault",
    [
        lambda record: _flipped(record, len(record) // 2),
        lambda record: record[: len(record) // 2],
        _in_another_order,
        _empty,
        lambda _: b"",
    ],
    ids=["changed", "cut", "another order", "empty", "none"],
)
def test_a_record_that_gives_other_bytes_is_found(
    volume: Volume, tmp_path: Path, fault: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(NotCollapsedError) as found:
        _prove(volume, tmp_path, record_fault=fault)

    assert found.value.reason == CollapseReason.PROOF_FAILED
