"""The parser of codestream headers, and the label that it grants."""

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scp.config.schema import Htj2kSection
from scp.convert.codestream import (
    Codestream,
    TilePart,
    decompositions_for,
    earns_rpcl,
    parse_codestream,
    why_not_lossless,
    why_not_rpcl,
)
from scp.convert.ports import FrameFormat
from scp.errors import CodecError
from tests.convert.images import ENCODER

FORM = FrameFormat(
    rows=100,
    columns=130,
    samples=1,
    bits_allocated=16,
    bits_stored=12,
    is_signed=False,
    colour_transform=False,
)


def codestream(form: FrameFormat = FORM, parameters: Htj2kSection | None = None) -> bytes:
    frames = np.zeros((1, form.rows, form.columns, form.samples), f"<u{form.bits_allocated // 8}")
    return ENCODER.encode(frames, form, parameters or Htj2kSection())[0]


STREAM = codestream()


def test_the_headers_say_what_was_encoded() -> None:
    parsed = parse_codestream(STREAM)

    assert (parsed.rows, parsed.columns, parsed.components) == (100, 130, 1)
    assert (parsed.precision, parsed.is_signed) == (12, False)
    assert (parsed.progression, parsed.decompositions) == ("RPCL", 5)
    assert parsed.code_block == (64, 64)
    assert parsed.is_reversible
    assert parsed.is_ht
    assert not parsed.colour_transform
    assert parsed.tiles == 1


def test_tlm_repeats_the_lengths_of_the_tile_parts_one_a_resolution() -> None:
    parsed = parse_codestream(STREAM)

    assert len(parsed.tile_parts) == 6
    assert parsed.tlm == parsed.tile_parts


def test_padding_to_even_length_is_no_part_of_the_codestream() -> None:
    assert parse_codestream(STREAM + b"\0") == parse_codestream(STREAM)


def test_other_bytes_behind_the_end_are_refused() -> None:
    with pytest.raises(CodecError, match="after EOC"):
        parse_codestream(STREAM + b"\1")


def test_the_main_header_alone_can_be_read_of_a_cut_codestream() -> None:
    parsed = parse_codestream(STREAM[: STREAM.index(b"\xff\x90") + 2], main_header_only=True)

    assert parsed.columns == 130
    assert parsed.tile_parts == ()


@given(st.binary(max_size=300))
def test_garbage_is_a_codec_error(garbage: bytes) -> None:
    for data in (garbage, b"\xff\x4f\xff\x51" + garbage):
        with pytest.raises(CodecError):
            parse_codestream(data)


@given(st.integers(0, len(STREAM) - 1), st.binary(min_size=1, max_size=4))
def test_a_damaged_codestream_is_read_or_a_codec_error(at: int, damage: bytes) -> None:
    damaged = STREAM[:at] + damage + STREAM[at + len(damage) :]

    try:
        parse_codestream(damaged)
    except CodecError:
        return


@given(st.integers(0, len(STREAM) - 1))
@example(len(STREAM) - 1)
def test_a_cut_codestream_is_a_codec_error(length: int) -> None:
    with pytest.raises(CodecError):
        parse_codestream(STREAM[:length])


def test_a_chain_of_endless_tile_parts_is_cut_off() -> None:
    start = STREAM.index(b"\xff\x90")
    part = b"\xff\x90" + struct.pack(">HHLBB", 10, 0, 14, 0, 1) + b"\xff\x93"
    endless = STREAM[:start] + part * 140_000 + b"\xff\xd9"

    with pytest.raises(CodecError, match="too many"):
        parse_codestream(endless)


def test_what_the_encoder_writes_earns_the_rpcl_label() -> None:
    assert earns_rpcl(parse_codestream(STREAM), FORM)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"is_ht": False}, "not HT"),
        ({"is_reversible": False}, "not reversible"),
        ({"columns": 131}, "width"),
        ({"rows": 99}, "height"),
        ({"components": 3}, "components"),
        ({"is_subsampled": True}, "subsampled"),
        ({"is_signed": True}, "sign"),
        ({"precision": 11}, "precision"),
        ({"precision": 17}, "precision"),
        ({"colour_transform": True}, "colour transform"),
    ],
)
def test_no_label_at_all_where(changes: dict[str, object], why: str) -> None:
    parsed: Codestream = replace(parse_codestream(STREAM), **changes)  # type: ignore[arg-type]

    assert why in why_not_lossless(parsed, FORM)
    assert not earns_rpcl(parsed, FORM)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"precision": 16}, "precision"),
        ({"progression": "LRCP"}, "RPCL"),
        ({"has_overrides": True}, "deviates"),
        ({"tiles": 2}, "tile"),
        ({"decompositions": 1}, "wide"),
        ({"tlm": ()}, "no TLM"),
        ({"tlm": (TilePart(tile=0, length=1),)}, "contradicts"),
    ],
)
def test_only_the_plain_lossless_label_where(changes: dict[str, object], why: str) -> None:
    parsed: Codestream = replace(parse_codestream(STREAM), **changes)  # type: ignore[arg-type]

    assert why_not_lossless(parsed, FORM) == ""
    assert why in why_not_rpcl(parsed, FORM)


def test_a_tall_image_needs_a_base_resolution_that_is_low_enough() -> None:
    parsed = replace(parse_codestream(STREAM), rows=2049)

    assert "high" in why_not_rpcl(parsed, replace(FORM, rows=2049))


@pytest.mark.parametrize(
    ("rows", "columns", "needed"),
    [(1, 1, 0), (64, 64, 0), (64, 65, 1), (512, 512, 3), (513, 1, 4), (2048, 2048, 5),
     (2560, 3328, 6), (16384, 1, 8)],
)  # fmt: skip
def test_decompositions_bring_the_base_resolution_to_64(
    rows: int, columns: int, needed: int
) -> None:
    assert decompositions_for(rows, columns) == needed
