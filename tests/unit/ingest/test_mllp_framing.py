"""MLLP framing: whole messages out, however the stream is cut, and nothing lost in silence."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.mllp_framing import Deframer, Frame, frame

messages = st.lists(st.binary(min_size=1, max_size=60).filter(lambda m: not {0x0B, 0x1C} & set(m)), max_size=5)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(messages, st.lists(st.integers(0, 1000), max_size=12))
def test_every_cut_of_the_stream_gives_the_messages_that_were_sent(sent, cuts):
    deframer = Deframer(limit=100)
    received = [f for piece in pieces(b"".join(map(frame, sent)), cuts) for f in deframer.feed(piece)]
    assert received == [Frame(message) for message in sent]
    assert deframer.close() == []


@given(st.binary(max_size=200), st.lists(st.integers(0, 1000), max_size=12))
def test_any_bytes_give_the_same_frames_however_cut(data, cuts):
    whole, cut = Deframer(limit=50), Deframer(limit=50)
    expected = whole.feed(data) + whole.close()
    received = [f for piece in pieces(data, cuts) for f in cut.feed(piece)] + cut.close()
    assert received == expected
    assert all(len(f.content) <= 50 for f in expected)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"\x0bA\x1c\x0bB\x1c\x0d", [Frame(b"A"), Frame(b"B")]),
        (b"\x0bA\x0bB\x1c\x0d", [Frame(b"A", "truncated_frame"), Frame(b"B")]),
        (b"\x0bA", [Frame(b"A", "truncated_frame")]),
        (b"\r\n\x0bA\x1c\x0d\r\n", [Frame(b"A")]),
        (b"MSH|lost\r\x0bA\x1c\x0d", [Frame(b"MSH|lost\r", "outside_frame"), Frame(b"A")]),
        (b"\x0bA\x1cB\x1c\x0d", [Frame(b"A\x1cB")]),
        (b"\x0b" + b"A" * 9 + b"\x1c\x0d\x0bB\x1c\x0d", [Frame(b"A" * 8, "oversized"), Frame(b"B")]),
    ],
)
def test_broken_streams(stream, expected):
    deframer = Deframer(limit=8 if b"A" * 9 in stream else 100)
    assert deframer.feed(stream) + deframer.close() == expected
