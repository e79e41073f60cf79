"""A worker over files that lie: the original and a reason, whatever they are; and no defect of ours."""

import contextlib
import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scp.convert.gpu_backend import codecs_for
from scp.pipeline.tasks import ConvertTask, Outcome
from scp.pipeline.worker import Workbench
from tests.convert.hostile import HOSTILE, harmless
from tests.convert.images import OPENJPEG, decoded, shipped
from tests.pipeline.parts import config_for

NAMES = (
    "CT_small.dcm", "MR_small_implicit.dcm", "MR_small_expb.dcm", "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_small_odd.dcm",
    "SC_rgb_rle_2frame.dcm", "image_dfl.dcm", "examples_palette.dcm", "nested_priv_SQ.dcm",
    "liver_1frame.dcm", "test-SR.dcm", "rtdose_rle.dcm", "J2K_pixelrep_mismatch.dcm",
)  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    config = config_for(tmp_path_factory.mktemp("data"))
    return Workbench(config, codecs_for(config.codec, None), lambda _: None)


def outcome(bench: Workbench, content: bytes, folder: Path) -> Outcome:
    """What becomes of it; checked is what holds for every file."""
    source, target = folder / "source.dcm", folder / "target.dcm"
    source.write_bytes(content)

    made = bench.do(ConvertTask(source=source, target=target))

    assert isinstance(made, Outcome)
    assert source.read_bytes() == content
    assert "defect" not in made.detail, made.detail
    assert made.is_converted == (made.reason == "")
    if made.is_converted:
        assert made.verified_by
        assert made.result_sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    else:
        assert not target.exists()
    assert {path.name for path in folder.iterdir()} <= {"source.dcm", "target.dcm"}
    return made


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_lies_is_delivered_as_it_is_with_a_reason(
    bench: Workbench, tmp_path: Path, name: str
) -> None:
    make, reason = HOSTILE[name]
    content = make()

    made = outcome(bench, content, tmp_path)

    assert (made.reason, made.detail) == (reason, made.detail)
    if "meta group" not in name and "preamble" not in name:
        assert made.result_sha256 == hashlib.sha256(content).hexdigest()
        assert made.dataset_sha256


@pytest.mark.parametrize("name", harmless())
def test_what_only_looks_bad_is_converted(bench: Workbench, tmp_path: Path, name: str) -> None:
    made = outcome(bench, harmless()[name], tmp_path)

    assert (made.reason, made.detail) == ("", "")


@settings(max_examples=400)
@given(
    name=st.sampled_from(NAMES),
    at=st.floats(0, 1),
    in_the_header=st.booleans(),
    damage=st.one_of(
        st.binary(min_size=1, max_size=4),
        st.sampled_from((b"\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xfe\xff\xdd\xe0")),
    ),
    what=st.sampled_from(("replaced", "put in", "taken out", "cut")),
)
def test_any_damage_is_an_outcome_and_no_defect(
    tmp_path_factory: pytest.TempPathFactory, bench: Workbench,
    name: str, at: float, in_the_header: bool, damage: bytes, what: str,
) -> None:  # fmt: skip
    content = shipped(name).read_bytes()
    size = min(len(content), 3000) if in_the_header else len(content)
    place = int(at * size)
    after = {
        "replaced": content[place + len(damage) :],
        "put in": content[place:],
        "taken out": content[place + len(damage) :],
        "cut": b"",
    }[what]
    middle = damage if what in ("replaced", "put in") else b""
    folder = tmp_path_factory.mktemp("damaged")

    made = outcome(bench, content[:place] + middle + after, folder)

    if made.is_converted:
        with contextlib.suppress(KeyError, AttributeError, NotImplementedError, ValueError):
            assert decoded(folder / "target.dcm", OPENJPEG).size
