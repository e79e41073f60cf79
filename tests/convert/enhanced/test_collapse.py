"""The object that a series becomes: its frames, labels and tables, the same at every run."""

import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import generate_frames

from scp.convert.enhanced.build import build
from scp.convert.enhanced.collapse import collapse
from scp.convert.enhanced.groups import Volume, partition
from scp.convert.enhanced.refusals import NotCollapsedError
from scp.convert.enhanced.repairs import repair
from scp.convert.enhanced.unassigned import unassigned as unassigned_of
from scp.convert.enhanced.writer import write
from scp.convert.transcode import LOSSLESS, LOSSLESS_RPCL
from scp.model import CollapseReason
from tests.convert.enhanced.library import errors_of, highdicom_alone
from tests.convert.enhanced.series import (
    COLUMNS,
    ROWS,
    Series,
    changed,
    collapsed,
    collapsed_series,
    ct,
    eight_bits,
    group,
    implicit,
    mr,
    one_volume,
    opened,
    pet,
    repeated,
    slices,
    source_uids,
    split,
    unassigned,
)

MAKERS = pytest.mark.parametrize("make", [ct, mr, pet])


@MAKERS
def test_every_frame_is_the_codestream_that_was_verified(
    tmp_path: Path, make: Callable[[], Series]
) -> None:
    volume = one_volume(make(), tmp_path)

    collapse(volume, tmp_path / "enhanced.dcm", restore_record="none")

    image = dcmread(tmp_path / "enhanced.dcm")
    frames = list(generate_frames(image.PixelData, number_of_frames=5))
    for frame, header in zip(frames, volume.headers, strict=True):
        single = dcmread(header.source.encoded)
        assert frame == next(generate_frames(single.PixelData, number_of_frames=1))


@MAKERS
def test_every_frame_decodes_to_its_source_by_openjpeg_and_by_pydicom(
    tmp_path: Path, make: Callable[[], Series]
) -> None:
    sources = {dataset.SOPInstanceUID: dataset for dataset in make()}

    image = opened(sources.values(), tmp_path)

    assert sorted(source_uids(image)) == sorted(sources)
    frames = generate_frames(image.PixelData, number_of_frames=5)
    for uid, frame, pixels in zip(source_uids(image), frames, image.pixel_array, strict=True):
        expected = sources[uid].pixel_array
        assert np.array_equal(imagecodecs.jpeg2k_decode(frame), expected)
        assert np.array_equal(pixels, expected)
        assert pixels.dtype == expected.dtype


def test_frames_of_an_odd_number_of_bytes_keep_their_pixels(tmp_path: Path) -> None:
    series = eight_bits(4, 33, 35)

    image = opened(series, tmp_path)

    assert image.pixel_array.shape == (4, 33, 35)
    for uid, pixels in zip(source_uids(image), image.pixel_array, strict=True):
        (source,) = (dataset for dataset in series if dataset.SOPInstanceUID == uid)
        expected = np.frombuffer(source.PixelData, np.uint8, 33 * 35).reshape(33, 35)
        assert np.array_equal(pixels, expected)


def test_what_the_sources_say_of_spacing_and_time_stays_beside_what_was_found(
    tmp_path: Path,
) -> None:
    series = repeated(
        lambda: mr(3),
        2,
        SpacingBetweenSlices=lambda *_: "7.75",
        TemporalPositionIndex=lambda time, _: 40 + time,
    )

    image = opened(series, tmp_path)

    assert group(image, 0, "PixelMeasuresSequence").SpacingBetweenSlices != 7.75
    assert unassigned(image, 0).SpacingBetweenSlices == 7.75
    assert group(image, 5, "FrameContentSequence").TemporalPositionIndex == 2
    assert unassigned(image, 5).TemporalPositionIndex == 41


def test_the_better_label_needs_every_frame_to_have_earned_it(tmp_path: Path) -> None:
    volume = one_volume(ct(), tmp_path)
    lesser = replace(volume.headers[2], transfer_syntax=LOSSLESS)
    mixed = replace(volume, headers=(*volume.headers[:2], lesser, *volume.headers[3:]))
    target = tmp_path / "enhanced.dcm"

    assert collapse(volume, target, restore_record="none").transfer_syntax == LOSSLESS_RPCL
    assert collapse(mixed, target, restore_record="none").transfer_syntax == LOSSLESS
    assert dcmread(target).file_meta.TransferSyntaxUID == LOSSLESS


def test_what_is_reported_is_what_lies_there(tmp_path: Path) -> None:
    volume = one_volume(ct(), tmp_path)
    target = tmp_path / "enhanced.dcm"

    made = collapse(volume, target, restore_record="embedded")

    image = dcmread(target)
    assert made.sop_instance_uid == image.SOPInstanceUID
    assert made.sop_instance_uid == image.file_meta.MediaStorageSOPInstanceUID
    assert made.series_instance_uid == image.SeriesInstanceUID
    assert made.sop_class_uid == image.SOPClassUID == "1.2.840.10008.5.1.4.1.1.2.2"
    assert made.result_bytes == target.stat().st_size
    assert made.frames == tuple(zip(volume.names, range(1, 6), strict=True))
    assert made.sidecar is None
    assert image.SeriesInstanceUID != volume.headers[0].text(0x0020000E)


def test_time_is_outside_and_space_inside(tmp_path: Path) -> None:
    image = opened(
        repeated(lambda: mr(3), 2, TemporalPositionIdentifier=lambda t, _: t + 1), tmp_path
    )

    contents = [group(image, frame, "FrameContentSequence") for frame in range(6)]
    assert [list(content.DimensionIndexValues) for content in contents] == [
        [1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3],
    ]  # fmt: skip
    assert [content.TemporalPositionIndex for content in contents] == [1, 1, 1, 2, 2, 2]
    assert [content.InStackPositionNumber for content in contents] == [1, 2, 3, 1, 2, 3]
    assert image.DimensionOrganizationType == "3D_TEMPORAL"
    assert [item.DimensionIndexPointer for item in image.DimensionIndexSequence] == [
        0x00209128,
        0x00209057,
    ]


def test_a_tilted_stack_does_not_claim_to_be_a_block(tmp_path: Path) -> None:
    straight = opened(ct(), tmp_path / "straight")
    tilted = opened(
        ct(ImageOrientationPatient=[1, 0, 0, 0, 0.939693, 0.34202]), tmp_path / "tilted"
    )

    assert straight.DimensionOrganizationType == "3D"
    assert "DimensionOrganizationType" not in tilted


@pytest.mark.parametrize("ends", [1, 2**32])
def test_large_objects_have_an_extended_offset_table(tmp_path: Path, ends: int) -> None:
    volume = one_volume(ct(), tmp_path)
    draft = build(volume, "2.25.1", "2.25.2")
    repair(draft, "2.25.1")
    target = tmp_path / "enhanced.dcm"
    with target.open("w+b") as file:
        shared, per_frame = unassigned_of(volume.headers, draft.unassigned)
        write(file, draft, shared, per_frame, basic_table_ends=ends)

    image = dcmread(target)

    assert ("ExtendedOffsetTable" in image) == (ends == 1)
    sizes = [header.frame[1] for header in volume.headers]
    assert any(size % 2 for size in sizes)
    if ends == 1:
        assert list(struct.unpack("<5Q", image.ExtendedOffsetTableLengths)) == sizes
    expected = [dcmread(header.source.path).pixel_array for header in volume.headers]
    assert np.array_equal(image.pixel_array, np.stack(expected))


def _everything(dataset: object) -> dict[int, bytes]:
    """Every element with its written value, sequences as their text."""
    return {
        int(element.tag): str(element.value).encode()
        for element in dataset  # type: ignore[attr-defined]
        if element.tag.group < 0x7FE0
    }


@MAKERS
@pytest.mark.parametrize("form", [list, implicit])
def test_no_value_of_a_source_is_lost(
    tmp_path: Path, make: Callable[..., Series], form: Callable[[Series], Series]
) -> None:
    series = form(
        make(
            ImageType=["DERIVED", "SECONDARY", "AXIAL", "FILTERED", "MORE"],
            SeriesDescription=lambda i: f"part {i}",
            TriggerTime="12.5",
        )
    )
    series[1].add_new(0x00091099, "LO", "a block that one slice alone has")
    series[1].add_new(0x00090010, "LO", "ONE SLICE")
    series[2].add_new(0x00080009, "LO", "a public element that no dictionary knows")
    volume = one_volume(series, tmp_path)
    # Equal to what was received, which the tests of transcoding show, and with VRs.
    sources = [dcmread(header.source.encoded) for header in volume.headers]

    collapse(volume, tmp_path / "enhanced.dcm", restore_record="none")

    image = dcmread(tmp_path / "enhanced.dcm")
    for frame, source in enumerate(sources):
        kept = _everything(unassigned(image, frame))
        values = b"\0".join(
            str(element.value).encode()
            for element in [
                *image.iterall(),
                *image.PerFrameFunctionalGroupsSequence[frame].iterall(),
            ]
        )
        for tag, value in _everything(source).items():
            assert kept.get(tag) == value or value in values, f"{tag:08X}"


@MAKERS
def test_the_same_series_becomes_the_same_bytes_in_every_process(
    tmp_path: Path, make: Callable[..., Series]
) -> None:
    volume = one_volume(make(), tmp_path)
    program = (
        "import sys, pickle; from pathlib import Path;"
        "from scp.convert.enhanced.groups import partition;"
        "from scp.convert.enhanced.collapse import collapse;"
        "sources = pickle.loads(Path(sys.argv[1]).read_bytes());"
        "(volume,) = partition(sources).volumes;"
        "print(collapse(volume, Path(sys.argv[2]), restore_record='embedded').result_sha256)"
    )
    pickled = tmp_path / "sources"
    pickled.write_bytes(pickle.dumps([header.source for header in volume.headers]))
    digests = set()
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", program, str(pickled), str(tmp_path / f"of-seed-{seed}")],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": f"UTC-{seed}"},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(run.stdout.strip())

    here = collapse(volume, tmp_path / "here.dcm", restore_record="embedded")
    assert digests == {here.result_sha256}


def test_another_slice_makes_another_object_of_the_same_series(tmp_path: Path) -> None:
    volume = one_volume(ct(5), tmp_path / "five")
    less = one_volume(ct(4), tmp_path / "four")

    five, four = (
        collapse(each, tmp_path / "enhanced.dcm", restore_record="none") for each in (volume, less)
    )

    assert five.sop_instance_uid != four.sop_instance_uid
    assert five.series_instance_uid == four.series_instance_uid


def test_volumes_of_one_series_are_different_series(tmp_path: Path) -> None:
    found = split(ct(6, AcquisitionNumber=lambda i: 1 + i // 3), tmp_path)

    made = [
        collapse(volume, tmp_path / f"{volume.number}.dcm", restore_record="none")
        for volume in found.volumes
    ]

    assert len({each.series_instance_uid for each in made}) == 2
    assert len({each.sop_instance_uid for each in made}) == 2


@MAKERS
def test_dciodvfy_finds_nothing_that_highdicom_alone_would_not_have(
    tmp_path: Path, make: Callable[[], Series], environment_program: Callable[[str], str]
) -> None:
    series = make()
    target, _ = collapsed(series, tmp_path)
    theirs = tmp_path / "theirs.dcm"
    highdicom_alone(series).save_as(theirs)

    dciodvfy = environment_program("dciodvfy")
    assert errors_of(dciodvfy, target) <= errors_of(dciodvfy, theirs)


_EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions")


@MAKERS
@pytest.mark.parametrize("named", [(), _EQUIPMENT[:2], _EQUIPMENT], ids=["none", "two", "all"])
def test_an_object_says_no_more_of_the_scanner_than_its_sources(
    tmp_path: Path,
    make: Callable[[], Series],
    named: tuple[str, ...],
    environment_program: Callable[[str], str],
) -> None:
    """Enhanced General Equipment, where all of it is Type 1, is a module of usage U here (PS3.3 A.70 ff.).

    So what is absent is no ``type1_missing``: Manufacturer is Type 2 in General Equipment, the rest Type 3.
    """
    series = changed(make(), **dict.fromkeys(_EQUIPMENT[len(named) :]))
    path, _ = collapsed(series, tmp_path)
    highdicom_alone(series).save_as(tmp_path / "theirs.dcm")

    image = dcmread(path)
    assert {keyword for keyword in _EQUIPMENT if keyword in image} == {"Manufacturer", *named}
    assert all(image[keyword].value == series[0][keyword].value for keyword in named)
    assert bool(image.Manufacturer) == bool(named)
    dciodvfy = environment_program("dciodvfy")
    assert errors_of(dciodvfy, path) <= errors_of(dciodvfy, tmp_path / "theirs.dcm")
    assert not any("Equipment" in each for each in errors_of(dciodvfy, path))


@pytest.mark.filterwarnings("ignore:The value length")
def test_a_value_that_highdicom_refuses_is_a_reason_and_leaves_nothing(tmp_path: Path) -> None:
    volume = one_volume(ct(Manufacturer="X" * 65), tmp_path)
    target = tmp_path / "enhanced.dcm"

    with pytest.raises(NotCollapsedError) as refused:
        collapse(volume, target, restore_record="sidecar")

    assert refused.value.reason == CollapseReason.LIBRARY_REFUSED
    assert "X" not in refused.value.detail
    assert list(tmp_path.glob("enhanced*")) == []


def test_a_knee_whose_side_nobody_tells_stays_single(tmp_path: Path) -> None:
    volume = one_volume(mr(BodyPartExamined="KNEE"), tmp_path)

    with pytest.raises(NotCollapsedError) as refused:
        collapse(volume, tmp_path / "enhanced.dcm", restore_record="none")

    assert refused.value.reason == CollapseReason.TYPE1_MISSING
    assert refused.value.detail == "FrameLaterality"


def test_a_private_element_without_creator_is_kept_by_the_record_alone(tmp_path: Path) -> None:
    series = ct()
    series[0].add_new(0x00431001, "LO", "nobody's")
    volume: Volume = one_volume(series, tmp_path)

    collapse(volume, tmp_path / "enhanced.dcm", restore_record="embedded")

    image = dcmread(tmp_path / "enhanced.dcm")
    assert all(0x00431001 not in unassigned(image, frame) for frame in range(5))
    with pytest.raises(NotCollapsedError) as refused:
        collapse(volume, tmp_path / "enhanced.dcm", restore_record="none")
    assert refused.value.reason == CollapseReason.HEADER_NOT_KEPT


def test_a_private_element_of_each_frame_has_its_creator_beside_it(tmp_path: Path) -> None:
    series = ct()
    for index, dataset in enumerate(series):
        dataset.private_block(0x0019, "DCMPRESS GENERATOR").add_new(0x07, "DS", str(index))

    image = opened(series, tmp_path)

    found = {
        str(
            frame.UnassignedPerFrameConvertedAttributesSequence[0]
            .private_block(0x0019, "DCMPRESS GENERATOR")[0x07]
            .value
        )
        for frame in image.PerFrameFunctionalGroupsSequence
    }
    assert found == {"0", "1", "2", "3", "4"}


def test_a_source_with_another_vr_does_not_bring_it_along(tmp_path: Path) -> None:
    series = ct()
    for dataset in series:
        dataset.add_new(0x00280303, "SH", "MODIFIED")

    assert opened(series, tmp_path)[0x00280303].VR == "CS"


def test_a_disk_without_room_is_a_reason(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    volume = one_volume(ct(), tmp_path)
    link = tmp_path / "enhanced.dcm"
    link.symlink_to(full)  # The file is removed when nothing comes of it, and that is to stay.

    with pytest.raises(NotCollapsedError) as refused:
        collapse(volume, link, restore_record="none")

    assert refused.value.reason == CollapseReason.NO_ROOM
    assert not link.is_symlink()


def test_the_matrix_is_that_of_the_sources(tmp_path: Path) -> None:
    image = opened(ct(), tmp_path)

    assert (image.Rows, image.Columns, int(image.NumberOfFrames)) == (ROWS, COLUMNS, 5)


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (None, "Müller^Jürgen".encode("latin-1")),  # without any character set
        ("ISO_IR 192", "Müller^Jürgen".encode("latin-1")),  # claims UTF-8
        ("ISO_IR 192", "Müller^Jürgen".encode()),
        (["", "ISO 2022 IR 87"], b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
    ],
)
def test_a_name_keeps_its_bytes_whatever_its_character_set(
    tmp_path: Path, character_set: object, name: bytes
) -> None:
    placeholder = b"PLACEHOLDER".ljust(len(name) + len(name) % 2, b"*")
    series = ct(
        SpecificCharacterSet=character_set,
        PatientName=placeholder.decode(),
        ImageComments=placeholder.decode(),
    )
    sources = slices(series, tmp_path)
    for source in sources:
        for path in (source.path, source.encoded):
            content = path.read_bytes()
            path.write_bytes(content.replace(placeholder, name.ljust(len(placeholder))))
    (volume,) = partition([replace(source, encoded_sha256="") for source in sources]).volumes

    collapse(volume, tmp_path / "enhanced.dcm", restore_record="none")

    content = (tmp_path / "enhanced.dcm").read_bytes()
    tag = bytes.fromhex("10001000") + b"PN"
    assert content[content.index(tag) + 8 :].startswith(name)
    comments = bytes.fromhex("20000040") + b"LT"
    assert content[content.index(comments) + 8 :].startswith(name)


@pytest.mark.filterwarnings("ignore:The value length")
def test_a_closed_series_becomes_objects_and_the_rest_has_reasons(tmp_path: Path) -> None:
    series = ct(8, AcquisitionNumber=lambda i: 1 + (i > 3))
    series[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    for dataset in series[4:]:
        dataset.Manufacturer = "X" * 65
    sources = slices(series, tmp_path / "in")

    objects, refused = collapsed_series(sources, tmp_path)

    ((path, one),) = objects
    assert path.exists()
    assert sorted(name for name, _ in one.frames) == ["1", "2", "3"]
    assert sorted((each.name, each.reason.value) for each in refused) == [
        ("0", "localizer"),
        *((name, "library_refused") for name in "4567"),
    ]
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == [path.name]
