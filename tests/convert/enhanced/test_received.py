"""Series that came as HTJ2K: frames are not encoded twice, and the instances come back byte for byte."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRLittleEndian, HTJ2KLossless, HTJ2KLosslessRPCL

from scp.convert.enhanced.collapse import collapse
from scp.convert.enhanced.groups import partition
from scp.convert.enhanced.record import RestoreRecord
from scp.convert.enhanced.restore import restore, verify_collapsed
from scp.convert.enhanced.slices import SourceSlice
from tests.convert.enhanced.series import Series, ct, eight_bits, mr, pet, received, slices

SERIES: dict[str, Callable[[], Series]] = {
    "CT": ct,
    "MR": mr,
    "PET": pet,
    "odd frames": lambda: eight_bits(3, 5, 7),
}


def made_of(sources: list[SourceSlice], folder: Path, record: RestoreRecord = "embedded") -> Path:
    (volume,) = partition(sources).volumes
    collapse(volume, folder / "enhanced.dcm", restore_record=record)
    return folder / "enhanced.dcm"


def codestreams(path: Path) -> list[bytes]:
    dataset = dcmread(path)
    count = int(dataset.get("NumberOfFrames") or 1)
    return list(generate_frames(dataset.PixelData, number_of_frames=count))


def files(sources: list[SourceSlice]) -> list[bytes]:
    return sorted(source.path.read_bytes() for source in sources)


def restored(enhanced: Path, out: Path, *, is_exact: bool = True) -> list[bytes]:
    for each in restore(enhanced, out):
        assert (each.fault, each.warning, each.is_byte_identical) == ("", "", is_exact)
    return sorted(path.read_bytes() for path in out.iterdir())


@pytest.mark.parametrize("make", SERIES.values(), ids=SERIES.keys())
@pytest.mark.parametrize("record", ["embedded", "sidecar"])
def test_codestreams_are_taken_over_and_files_come_back_byte_for_byte(
    tmp_path: Path, make: Callable[[], Series], record: RestoreRecord
) -> None:
    sources = received(make(), tmp_path)

    enhanced = made_of(sources, tmp_path, record)

    assert sorted(codestreams(enhanced)) == sorted(codestreams(s.path)[0] for s in sources)
    assert dcmread(enhanced).file_meta.TransferSyntaxUID == HTJ2KLosslessRPCL
    assert all(each.is_whole and not each.fault for each in verify_collapsed(enhanced))
    assert restored(enhanced, tmp_path / "out") == files(sources)


def test_native_and_received_frames_of_one_series_are_one_object(tmp_path: Path) -> None:
    series = ct(6)
    native = slices(series[::2], tmp_path / "a")
    others = received(series[1::2], tmp_path / "b")
    sources = [
        SourceSlice(
            name=f"{number}",
            path=each.path,
            encoded=each.encoded,
            dataset_sha256=each.dataset_sha256,
            pixel_sha256=each.pixel_sha256,
            transfer_syntax=each.transfer_syntax,
        )
        for number, each in enumerate([*native, *others])
    ]

    enhanced = made_of(sources, tmp_path)

    assert dcmread(enhanced).NumberOfFrames == 6
    assert restored(enhanced, tmp_path / "out") == files(sources)


def test_the_object_is_labelled_as_its_codestreams_are_not_as_its_sources_say(
    tmp_path: Path,
) -> None:
    sources = received(ct(3), tmp_path)
    plain = SourceSlice(
        name=sources[1].name,
        path=sources[1].path,
        encoded=sources[1].encoded,
        dataset_sha256=sources[1].dataset_sha256,
        pixel_sha256=sources[1].pixel_sha256,
        transfer_syntax=HTJ2KLossless,
    )

    enhanced = made_of([sources[0], plain, sources[2]], tmp_path)

    assert dcmread(enhanced).file_meta.TransferSyntaxUID == HTJ2KLossless
    assert restored(enhanced, tmp_path / "out") == files(sources)


def test_of_an_object_that_somebody_decoded_the_instances_come_back_native(
    tmp_path: Path,
) -> None:
    sources = received(ct(3), tmp_path)
    enhanced = made_of(sources, tmp_path)
    image = dcmread(enhanced)
    image.decompress(generate_instance_uid=False)
    image.save_as(enhanced)

    restored(enhanced, tmp_path / "out", is_exact=False)

    assert [each.fault for each in verify_collapsed(enhanced)] == [""] * 3
    assert not any(each.is_whole for each in verify_collapsed(enhanced))
    for source in sources:
        before = dcmread(source.path)
        after = dcmread(tmp_path / "out" / f"{before.SOPInstanceUID}.dcm")
        assert after.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert np.array_equal(before.pixel_array, after.pixel_array)
        del before.PixelData, after.PixelData
        assert before == after


def test_one_other_pixel_in_a_frame_that_was_kept_loses_that_frame_only(tmp_path: Path) -> None:
    sources = received(ct(3), tmp_path)
    enhanced = made_of(sources, tmp_path)
    content = bytearray(enhanced.read_bytes())
    middle = codestreams(enhanced)[1]
    content[content.index(middle) + len(middle) // 2] ^= 0x10
    enhanced.write_bytes(content)

    found = list(restore(enhanced, tmp_path / "out"))

    assert [bool(each.fault) for each in found] == [False, True, False]
