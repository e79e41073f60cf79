"""OpenJPH encodes without loss, and two decoders agree that it did."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scp.config.schema import Htj2kSection
from scp.convert.codec_cpu import container_type
from scp.convert.codestream import earns_rpcl, parse_codestream
from scp.convert.ports import FrameDecoder, FrameFormat
from scp.errors import CodecError
from tests.convert.images import ENCODER, OPENJPEG, OPENJPH, Array

SIZES = (1, 2, 3, 5, 17, 64, 65)
PLAIN = Htj2kSection()


def form_of(frames: Array, bits_stored: int, *, colour_transform: bool = False) -> FrameFormat:
    return FrameFormat(
        rows=frames.shape[1],
        columns=frames.shape[2],
        samples=frames.shape[3],
        bits_allocated=frames.dtype.itemsize * 8,
        bits_stored=bits_stored,
        is_signed=frames.dtype.kind == "i",
        colour_transform=colour_transform,
    )


def content(shape: tuple[int, ...], bits: int, signed: bool, kind: str, allocated: int) -> Array:
    """Zeros, noise, both extremes at random, or both in stripes, as words of ``bits``."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    source = np.random.default_rng(bits)
    match kind:
        case "zeros":
            made = np.zeros(shape, int)
        case "noise":
            made = source.integers(low, high + 1, shape)
        case "extremes":
            made = source.choice([low, high], shape)
        case _:
            made = np.where(np.indices(shape)[2] % 2 == 0, low, high)
    return made.astype(container_type(allocated, is_signed=signed))


@settings(max_examples=300)
@given(
    rows=st.sampled_from(SIZES),
    columns=st.sampled_from(SIZES),
    colour=st.sampled_from(("grey", "colour", "transformed")),
    bits=st.integers(2, 16),
    signed=st.booleans(),
    wide=st.booleans(),
    kind=st.sampled_from(("zeros", "noise", "extremes", "stripes")),
    decompositions=st.integers(0, 8),
)
def test_every_word_comes_back_by_both_decoders(
    rows: int, columns: int, colour: str, bits: int, signed: bool, wide: bool, kind: str,
    decompositions: int,
) -> None:  # fmt: skip
    samples = 1 if colour == "grey" else 3
    signed = signed and colour == "grey"
    allocated = 16 if wide or bits > 8 else 8
    frames = content((2, rows, columns, samples), bits, signed, kind, allocated)
    form = form_of(frames, bits, colour_transform=colour == "transformed")

    encoded = ENCODER.encode(frames, form, Htj2kSection(decompositions=decompositions))

    for decoder in (OPENJPEG, OPENJPH):
        back = decoder.decode(encoded, form)
        assert back.dtype == frames.dtype
        assert np.array_equal(back, frames), decoder.name
    assert all(earns_rpcl(parse_codestream(each), form) for each in encoded)


@pytest.mark.parametrize(("rows", "columns"), [(3, 513), (2049, 3), (600, 700), (40, 4097)])
@pytest.mark.parametrize("samples", [1, 3])
def test_large_frames_come_back_and_earn_the_label(rows: int, columns: int, samples: int) -> None:
    frames = content((1, rows, columns, samples), 12, False, "noise", 16)
    form = form_of(frames, 12, colour_transform=samples == 3)

    encoded = ENCODER.encode(frames, form, PLAIN)

    assert np.array_equal(OPENJPEG.decode(encoded, form), frames)
    assert earns_rpcl(parse_codestream(encoded[0]), form)


@pytest.mark.parametrize("progression", ["LRCP", "RLCP", "PCRL", "CPRL"])
def test_another_progression_is_lossless_but_does_not_earn_the_label(
    progression: Literal["LRCP", "RLCP", "PCRL", "CPRL"],
) -> None:
    frames = content((1, 70, 90, 1), 12, False, "noise", 16)
    form = form_of(frames, 12)

    encoded = ENCODER.encode(frames, form, Htj2kSection(progression=progression))

    parsed = parse_codestream(encoded[0])
    assert parsed.progression == progression
    assert not earns_rpcl(parsed, form)
    assert np.array_equal(OPENJPEG.decode(encoded, form), frames)


def test_the_code_block_is_as_configured() -> None:
    frames = content((1, 70, 90, 1), 12, False, "noise", 16)
    parameters = Htj2kSection(code_block=(32, 64))

    encoded = ENCODER.encode(frames, form_of(frames, 12), parameters)

    assert parse_codestream(encoded[0]).code_block == (32, 64)


def test_frames_that_are_not_as_described_are_refused() -> None:
    frames = content((1, 8, 8, 1), 12, False, "noise", 16)

    with pytest.raises(CodecError):
        ENCODER.encode(frames[:, :4], form_of(frames, 12), PLAIN)


def test_the_source_array_is_not_modified_and_may_be_read_only() -> None:
    frames = content((1, 20, 20, 3), 12, False, "noise", 16)
    before = frames.copy()
    frames.flags.writeable = False

    ENCODER.encode(frames, form_of(frames, 12, colour_transform=True), PLAIN)

    assert np.array_equal(frames, before)


@pytest.mark.parametrize("decoder", [OPENJPEG, OPENJPH], ids=["openjpeg", "openjph"])
@pytest.mark.parametrize("damage", ["cut", "empty", "size", "sign", "precision"])
def test_a_decoder_refuses_what_is_not_as_described(decoder: FrameDecoder, damage: str) -> None:
    frames = content((1, 40, 40, 1), 12, False, "noise", 16)
    form = form_of(frames, 12)
    encoded = ENCODER.encode(frames, form, PLAIN)[0]
    signed = frames.view("<i2")
    small = form_of(frames.astype("<u1"), 8)
    data, asked = {
        "cut": (encoded[:60], form),
        "empty": (b"", form),
        "size": (encoded, form_of(frames[:, :39], 12)),
        "sign": (encoded, form_of(signed, 12)),
        "precision": (encoded, small),
    }[damage]

    with pytest.raises(CodecError):
        decoder.decode([data], asked)


def test_the_names_tell_library_and_version() -> None:
    assert ENCODER.name.startswith("openjph 1")
    assert OPENJPEG.name.startswith("openjpeg 2.")
    assert OPENJPH.name.startswith("openjph 0.")
