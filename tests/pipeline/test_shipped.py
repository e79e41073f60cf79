"""What becomes of every file that pydicom ships: real ones, of many makers, with many faults."""

import warnings
from pathlib import Path

import numpy as np
import pydicom.data
import pytest

from scp.convert.gpu_backend import codecs_for
from scp.pipeline.tasks import ConvertTask, Outcome
from scp.pipeline.worker import Workbench
from tests.convert.images import OPENJPEG, OPENJPH, decoded, pixels
from tests.pipeline.parts import config_for

FILES = Path(pydicom.data.__file__).parent / "test_files"
CONVERTED = """
    CT_small MR_small MR_small_RLE MR_small_bigendian MR_small_expb MR_small_implicit
    MR_small_jp2klossless MR_small_jpeg_ls_lossless MR_small_padded ExplVR_BigEnd
    SC_rgb_jpeg_dcmd SC_rgb_jpeg_gdcm SC_rgb_rle SC_rgb_rle_16bit SC_rgb_rle_16bit_2frame
    SC_rgb_rle_2frame SC_rgb_small_odd SC_rgb_small_odd_big_endian examples_jpeg2k examples_overlay
    examples_palette examples_rgb_color image_dfl
"""
PASSED = {
    "no_pixel_data": """
        UN_sequence empty_charset_LEI no_meta_group_length priv_SQ reportsi
        reportsi_with_empty_number_tags rtplan test-SR waveform_ecg
    """,
    "lossy_source": """
        693_J2KI JPEG-lossy JPEG2000-embedded-sequence-delimiter JPEG2000 JPEGLSNearLossless_08
        JPEGLSNearLossless_16 JPGExtended SC_jpeg_no_color_transform SC_jpeg_no_color_transform_2
        SC_rgb_dcmtk_+eb+cr SC_rgb_dcmtk_+eb+cy+n1 SC_rgb_dcmtk_+eb+cy+n2 SC_rgb_dcmtk_+eb+cy+np
        SC_rgb_dcmtk_+eb+cy+s2 SC_rgb_dcmtk_+eb+cy+s4 SC_rgb_gdcm_KY SC_rgb_jls_lossy_line
        SC_rgb_jls_lossy_sample SC_rgb_jpeg_app14_dcmd SC_rgb_jpeg_dcmtk SC_rgb_jpeg_lossy_gdcm
        SC_rgb_small_odd_jpeg examples_ybr_color
    """,
    "pixel_attribute_missing": "nested_priv_SQ",
    "bits_allocated": """
        SC_rgb_rle_32bit SC_rgb_rle_32bit_2frame badVR liver_1frame liver_expb_1frame rtdose
        rtdose_1frame rtdose_expb rtdose_expb_1frame rtdose_rle rtdose_rle_1frame
    """,
    "photometric_interpretation": "SC_ybr_full_422_uncompressed",
    "pixel_data_short": "MR_truncated",
    "codestream_mismatch": "J2K_pixelrep_mismatch",
    "decoder_failed": "GDCMJ2K_TextGBR",  # A JP2 file, where a codestream belongs (PS3.5 8.2.4).
    "unreadable": """
        ExplVR_BigEndNoMeta ExplVR_LitEndNoMeta SC_rgb_jpeg meta_missing_tsyntax no_meta
        rtplan_truncated rtstruct
    """,
}
EXPECTED = dict.fromkeys(CONVERTED.split(), "") | {
    name: reason for reason, names in PASSED.items() for name in names.split()
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    config = config_for(tmp_path_factory.mktemp("data"))
    return Workbench(config, codecs_for(config.codec, None), lambda _: None)


def test_every_shipped_file_is_converted_or_passed_for_the_reason_that_it_gives(
    bench: Workbench, tmp_path: Path
) -> None:
    sources = {path.stem: path for path in FILES.glob("*.dcm")}
    assert EXPECTED.keys() <= sources.keys()
    found: dict[str, str] = {}
    for name, source in sources.items():
        target = tmp_path / f"{name}.dcm"

        made = bench.do(ConvertTask(source=source, target=target))

        assert isinstance(made, Outcome)
        found[name] = made.reason
        assert target.exists() == made.is_converted
        if made.is_converted:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = pixels(source)
            assert np.array_equal(decoded(target, OPENJPEG), expected), name
            assert np.array_equal(decoded(target, OPENJPH), expected), name
    # Newer versions ship more, of which this knows nothing.
    assert {name: found[name] for name in EXPECTED} == EXPECTED
