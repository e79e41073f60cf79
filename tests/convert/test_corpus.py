"""Real images: converted with equal pixels and header, or refused with a reason; nothing else."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from scp.convert.decode import decode_for_peer
from scp.convert.digests import digest
from scp.convert.refusals import NotConvertibleError
from scp.model import PassReason
from tests.convert.images import (
    OPENJPEG,
    OPENJPH,
    convert,
    decoded,
    header_differences,
    pixels,
)

FOLDERS = [
    "dcm_qa_ct", "dcm_qa_nih", "dicom-test-files", "highdicom", "ohif-dicomweb", "pydicom-data",
    "pydicom-pkg", "suyashkumar",
]  # fmt: skip
BIG_ENDIAN = "1.2.840.10008.1.2.2"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_real_file_is_converted_or_refused_with_a_reason(
    corpus: Path, tmp_path: Path, folder: str
) -> None:
    outcomes: Counter[str] = Counter()
    left: list[Path] = []
    for source in sorted(path for path in (corpus / folder).rglob("*") if path.is_file()):
        target = tmp_path / "target.dcm"
        try:
            result = convert(source, target)
        except NotConvertibleError as refusal:
            outcomes[refusal.reason] += 1
            left += list(target.parent.glob(target.name))
            continue
        raw = dcmread(source).file_meta.TransferSyntaxUID != BIG_ENDIAN
        again = decoded(target, OPENJPEG)
        assert np.array_equal(again, pixels(source)), source
        assert np.array_equal(again, decoded(target, OPENJPH)), source
        assert header_differences(source, target, raw=raw) == [], source
        assert result.source == digest(source), source
        outcomes["converted"] += 1

    assert outcomes.pop("converted") > 0
    assert left == []
    assert set(outcomes) <= set(PassReason)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_real_file_goes_to_a_peer_or_is_refused(
    corpus: Path, tmp_path: Path, folder: str
) -> None:
    for source in sorted(path for path in (corpus / folder).rglob("*") if path.is_file())[::4]:
        implicit, explicit = tmp_path / "implicit.dcm", tmp_path / "explicit.dcm"
        try:
            decode_for_peer(source, implicit, "1.2.840.10008.1.2", decode_lossy=True)
            decode_for_peer(implicit, explicit, "1.2.840.10008.1.2.1", decode_lossy=False)
        except NotConvertibleError:
            continue
        assert digest(implicit).normal == digest(explicit).normal, source
