"""Kernels of the run-length encoder."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def source_positions(low: float, high: float, first_px: int, last_px: int, size: int) -> np.ndarray:
    """Where the pixels of one axis of a pasted mask come from.

    Args:
        low: Where the box begins on this axis.
        high: Where it ends; a box without extent takes everything from the middle of the mask, as stock does.
        first_px: First pixel of the pasted region.
        last_px: One past its last.
        size: Cells of the mask on this axis.

    Returns:
        ``(last_px - first_px,)`` float64 positions in mask cells, cell i at i; NaN where stock gets NaN.
    """
    positions = np.empty(max(last_px - first_px, 0))
    for i in range(positions.size):
        offset, extent = first_px + i + 0.5 - low, high - low
        without_extent = np.nan if offset == 0 else 0.5
        fraction = offset / extent if extent != 0 else without_extent
        positions[i] = fraction * size - 0.5
    return positions


@numba.njit(cache=True, nogil=True)
def _note(switches: np.ndarray, count: int, position: int) -> int:
    """Add a switch if there is room for it; how many there are now, room or not."""
    if count < switches.size:
        switches[count] = position
    return count + 1


@numba.njit(cache=True, nogil=True)
def _interpolate_column(mask: np.ndarray, x: float, line: np.ndarray) -> None:
    """Fill ``line[1:-1]`` with the rows of a mask at the horizontal position ``x``; beyond its cells is zero."""
    height, width = mask.shape
    line[:] = 0
    if x > -1 and x < width:
        cell = int(np.floor(x))
        for k in range(height):
            if cell >= 0:
                line[k + 1] += mask[k, cell] * (cell + 1 - x)
            if cell + 1 < width:
                line[k + 1] += mask[k, cell + 1] * (x - cell)


@numba.njit(cache=True, nogil=True)
def _cells(rows: np.ndarray, height: int) -> np.ndarray:
    """The cell above each row's position, from -1; -2 for rows that see nothing of the mask."""
    cells = np.full(rows.size, -2)
    for i in range(rows.size):
        if rows[i] > -1 and rows[i] < height:
            cells[i] = int(np.floor(rows[i]))
    return cells


@numba.njit(cache=True, nogil=True)
def boxed_switches(
    mask: np.ndarray,
    columns: np.ndarray,
    rows: np.ndarray,
    corner: tuple[int, int],
    size: tuple[int, int],
    limits: tuple[float, float],
    doubts: np.ndarray,
    answers: np.ndarray,
    switches: np.ndarray,
) -> tuple[int, int]:
    """Switches of a mask pasted into its box by bilinear interpolation and cut at a threshold.

    Down a column, values between two rows of the mask lie on a straight line: ends on one side need no look between.

    Args:
        mask: ``(h, w)`` float32 probabilities, zero outside.
        columns: Source position of each pixel column of the region, from :func:`source_positions`.
        rows: Source position of each of its pixel rows.
        corner: First pixel column and row of the region.
        size: Height and width of the image.
        limits: Up to the first a value is off for sure, from the second up it is on; between them lies the threshold.
        doubts: ``(D, 2)`` int64, filled with the (y, x) between the limits as far as there is room.
        answers: ``(A,)`` bool, the bits of the first A doubts; later ones are off.
        switches: ``(S,)`` int64, filled as far as there is room.

    Returns:
        How many switches and how many doubts there are, room or not.
    """
    (left, top), (height, width), (off_below, on_from) = corner, size, limits
    line, cells = np.zeros(mask.shape[0] + 2), _cells(rows, mask.shape[0])
    count, doubt, on = 0, 0, False
    for column in range(columns.size):
        start = (left + column) * height
        _interpolate_column(mask, columns[column], line)
        if top > 0 and on:
            count, on = _note(switches, count, start), False
        i = 0
        while i < rows.size:
            cell, first = cells[i], i
            while i < rows.size and cells[i] == cell:
                i += 1
            upper, lower = (line[cell + 1], line[cell + 2]) if cell >= -1 else (0.0, 0.0)
            certain = min(upper, lower) >= on_from or max(upper, lower) < off_below
            for j in range(first, first + 1 if certain else i):
                weight = rows[j] - cell if cell >= -1 else 0.0
                value = upper * (1 - weight) + lower * weight
                bit = value >= on_from
                if not bit and value >= off_below:
                    bit = answers[doubt] if doubt < answers.size else False
                    if doubt < doubts.shape[0]:
                        doubts[doubt, 0], doubts[doubt, 1] = top + j, left + column
                    doubt += 1
                if bit != on:
                    count, on = _note(switches, count, start + top + j), bit
        if top + rows.size < height and on:
            count, on = _note(switches, count, start + top + rows.size), False
    if on and left + columns.size < width:
        count = _note(switches, count, (left + columns.size) * height)
    return count, doubt


@numba.njit(cache=True, nogil=True)
def differences(
    first_words: np.ndarray, second_words: np.ndarray, first: np.ndarray, second: np.ndarray, places: np.ndarray
) -> int:
    """Where two runs of bytes differ, compared eight bytes at a time.

    Args:
        first_words: ``(N // 8,)`` uint64, the first run as words.
        second_words: ``(N // 8,)`` uint64.
        first: ``(N,)`` uint8.
        second: ``(N,)`` uint8.
        places: int64, filled with indices as far as there is room.

    Returns:
        How many there are, room or not.
    """
    count = 0
    for word in range(first_words.size):
        if first_words[word] != second_words[word]:
            for i in range(8 * word, 8 * word + 8):
                if first[i] != second[i]:
                    count = _note(places, count, i)
    for i in range(8 * first_words.size, first.size):
        if first[i] != second[i]:
            count = _note(places, count, i)
    return count


@numba.njit(cache=True, nogil=True)
def compressed(switches: np.ndarray, pixels: int, text: np.ndarray) -> int:
    """COCO's compressed counts: run lengths as differences from the one before last, in 5-bit characters.

    The format is that of ``rleToString`` in cocoapi's ``maskApi.c``.

    Args:
        switches: ``(S,)`` int64, rising.
        pixels: Of the image.
        text: uint8 with room for 7 characters a run, that is ``7 * (S + 1)``.

    Returns:
        How many characters were written.
    """
    length, last, before = 0, 0, 0
    position = 0
    for i in range(switches.size + 1):
        end = switches[i] if i < switches.size else pixels
        run = end - position
        position = end
        # The first three counts stand as they are, later ones are relative to the same colour's last.
        value = run - before if i > 2 else run
        before, last = last, run
        more = True
        while more:
            character = value & 0x1F
            value >>= 5
            more = value != -1 if character & 0x10 else value != 0
            if more:
                character |= 0x20
            text[length] = character + 48
            length += 1
    return length
