"""TLM is added where it is missing, and tells the truth."""

import numpy as np
import pytest

from scp.config.schema import Htj2kSection
from scp.convert.codestream import earns_rpcl, parse_codestream
from scp.convert.tlm import with_tlm
from scp.errors import CodecError
from tests.convert.gpus import format_of, without_tlm
from tests.convert.images import ENCODER, NOISE, OPENJPEG

FORMAT = format_of(NOISE, 12)
WRITTEN = ENCODER.encode(NOISE[:1], FORMAT, Htj2kSection())[0]
"""By OpenJPH: with TLM, and a tile-part for each resolution."""


def test_a_codestream_without_tlm_earns_the_label_with_it() -> None:
    bare = without_tlm(WRITTEN)
    assert not earns_rpcl(parse_codestream(bare), FORMAT)

    edited = with_tlm(bare)

    parsed = parse_codestream(edited)
    assert earns_rpcl(parsed, FORMAT)
    assert parsed.tlm == parse_codestream(WRITTEN).tlm
    assert np.array_equal(OPENJPEG.decode([edited], FORMAT), NOISE[:1])


def test_tlm_goes_before_the_first_tile_part_and_nothing_else_changes() -> None:
    bare = without_tlm(WRITTEN)

    edited = with_tlm(bare)

    first = bare.index(b"\xff\x90\0\x0a")
    added = len(edited) - len(bare)
    assert edited[:first] == bare[:first]
    assert edited[first : first + 2] == b"\xff\x55"
    assert edited[first + added :] == bare[first:]


def test_a_codestream_that_has_tlm_stays_as_it_is() -> None:
    assert with_tlm(WRITTEN) == WRITTEN


def test_a_tile_part_of_unknown_length_is_listed_with_its_true_length() -> None:
    bare = without_tlm(ENCODER.encode(NOISE[:1], FORMAT, Htj2kSection(progression="LRCP"))[0])
    at = bare.index(b"\xff\x90\0\x0a") + 6
    unknown = bare[:at] + bytes(4) + bare[at + 4 :] + b"\0"

    edited = with_tlm(unknown)

    parsed = parse_codestream(edited)
    assert parsed.tlm == parsed.tile_parts
    assert sum(part.length for part in parsed.tlm) == len(bare) - at + 6 - 2


@pytest.mark.parametrize("damaged", [b"", b"nothing of the kind", WRITTEN[:-30], WRITTEN[:50]])
def test_what_is_no_whole_codestream_is_refused(damaged: bytes) -> None:
    with pytest.raises(CodecError):
        with_tlm(damaged)
