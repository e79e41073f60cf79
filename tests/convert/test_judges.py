"""What judges that are not ours say about the results."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from scp.convert.decode import decode_for_peer
from tests.convert.images import (
    OPENJPEG,
    OPENJPH,
    convert,
    decoded,
    image,
    ramp,
    save,
    shipped,
)
from tests.convert.test_recode import rich

SHIPPED = [
    "CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_expb.dcm",
    "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "image_dfl.dcm", "SC_rgb_rle_2frame.dcm",
    "SC_rgb_small_odd.dcm", "examples_palette.dcm", "examples_jpeg2k.dcm", "examples_overlay.dcm",
    "examples_rgb_color.dcm", "ExplVR_BigEnd.dcm", "SC_rgb_jpeg_gdcm.dcm",
]  # fmt: skip


def errors(dciodvfy: str, path: Path) -> set[str]:
    run = subprocess.run(
        [dciodvfy, "-new", path], capture_output=True, check=False, errors="replace"
    )
    lines = (run.stdout + run.stderr).splitlines()
    return {line for line in lines if line.startswith("Error")}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target.dcm"


@pytest.mark.parametrize("name", SHIPPED)
def test_dciodvfy_finds_no_error_that_the_source_did_not_have(
    name: str, target: Path, environment_program: Callable[[str], str]
) -> None:
    dciodvfy = environment_program("dciodvfy")
    source = shipped(name)
    if name == "image_dfl.dcm":
        # It cannot inflate.
        source = target.with_name("inflated.dcm")
        decode_for_peer(shipped(name), source, "1.2.840.10008.1.2.1", decode_lossy=False)

    convert(shipped(name), target)

    assert errors(dciodvfy, target) - errors(dciodvfy, source) == set()


def test_dciodvfy_does_find_errors(
    tmp_path: Path, target: Path, environment_program: Callable[[str], str]
) -> None:
    dciodvfy = environment_program("dciodvfy")
    convert(shipped("examples_rgb_color.dcm"), target)
    wrong = tmp_path / "wrong.dcm"
    wrong.write_bytes(target.read_bytes().replace(b"\x28\0\x10\0US", b"\x28\0\x0f\0US"))

    assert errors(dciodvfy, wrong) - errors(dciodvfy, target)


@pytest.mark.parametrize("name", SHIPPED)
def test_dcmtk_reads_the_result_without_complaint(
    name: str, target: Path, dcmtk: Callable[[str], str]
) -> None:
    convert(shipped(name), target)

    before, after = (
        subprocess.run(
            [dcmtk("dcmdump"), "+E", path], capture_output=True, check=True, errors="replace"
        )
        for path in (shipped(name), target)
    )

    assert set(after.stderr.splitlines()) <= set(before.stderr.splitlines())
    assert "(7fe0,0010) OB (PixelSequence" in after.stdout


@pytest.mark.parametrize(
    "transfer_syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian], ids=["implicit", "big"]
)
def test_dcmtk_makes_the_same_of_a_recoded_header(
    tmp_path: Path, target: Path, dcmtk: Callable[[str], str], transfer_syntax: str
) -> None:
    source = save(rich(transfer_syntax), tmp_path / "source.dcm")
    decode_for_peer(source, target, "1.2.840.10008.1.2.1", decode_lossy=False)
    theirs = tmp_path / "theirs.dcm"
    subprocess.run([dcmtk("dcmconv"), "+te", source, theirs], check=True)

    ours_dump, their_dump = (
        subprocess.run(
            [dcmtk("dcmdump"), "+L", "-Un", path], capture_output=True, check=True,
            errors="replace",
        ).stdout
        for path in (target, theirs)
    )  # fmt: skip

    assert public(ours_dump) == public(their_dump)


def public(dump: str) -> list[str]:
    """The lines of public elements, without sizes, which depend on how private ones are written.

    DCMTK takes the first of a palette's three numbers for what decides between US and SS.
    """
    lines = dump[dump.index("# Dicom-Data-Set") :].splitlines()
    return [
        line.split("#")[0].split(" (Sequence with")[0]
        for line in lines
        if not line.lstrip().startswith(("(0019", "(0029", "(0031", "(0028,1101)", "#", "(fffe"))
    ]


@pytest.mark.parametrize("name", SHIPPED)
def test_two_decoders_agree(name: str, target: Path) -> None:
    convert(shipped(name), target)

    assert np.array_equal(decoded(target, OPENJPEG), decoded(target, OPENJPH))


def test_the_command_line_tool_of_openjph_agrees(
    tmp_path: Path, target: Path, dcmtk: Callable[[str], str]
) -> None:
    words = ramp(70, 90)
    convert(save(image(words, bits_stored=12), tmp_path / "source.dcm"), target)
    content = target.read_bytes()
    stream, picture = tmp_path / "frame.j2c", tmp_path / "frame.pgm"
    stream.write_bytes(
        content[content.index(b"\xff\x4f\xff\x51") : content.rindex(b"\xff\xd9") + 2]
    )

    subprocess.run([dcmtk("ojph_expand"), "-i", stream, "-o", picture], check=True,
                   capture_output=True)  # fmt: skip

    pixels = picture.read_bytes()[-words.nbytes :]
    assert np.array_equal(np.frombuffer(pixels, ">u2").reshape(words.shape), words)
