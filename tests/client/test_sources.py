"""What is sent: as many bytes as was said, or an error before the last of them."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from mhnos_runtime.client.errors import SourceChanged
from mhnos_runtime.client.sources import READ_BYTES, exactly, read_up_to


@given(st.lists(st.binary(max_size=5), max_size=6), st.integers(0, 30))
def test_all_comes_or_the_last_piece_is_missing(pieces: list[bytes], size: int) -> None:
    whole = b"".join(pieces)
    taken = bytearray()
    try:
        for piece in exactly(pieces, size):
            taken += piece
    except SourceChanged:
        assert len(whole) != size
        assert len(taken) < size or size == 0
    else:
        assert bytes(taken) == whole
        assert len(whole) == size
    assert whole.startswith(taken)


def test_a_file_is_read_from_where_it_stands() -> None:
    file = io.BytesIO(bytes(2 * READ_BYTES + 5))
    file.seek(3)
    assert [len(piece) for piece in read_up_to(file, 2 * READ_BYTES + 1)] == [READ_BYTES, READ_BYTES, 1]
    assert [len(piece) for piece in read_up_to(file, 100)] == [1], "it has no more"
