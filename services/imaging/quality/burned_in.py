"""Text burned into the pixels: names and numbers that no de-identification of attributes takes away."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True)
class Glyphs:
    """What counts as a line of text: the height of its characters in pixels, and how many there are at least."""

    lowest_px: int
    highest_px: int
    fewest_in_line: int


def text_in_stack(array: NDArray[np.floating], glyphs: Glyphs) -> int:
    """Characters that stand still at one value through all slices; 0 for none.

    Anatomy and noise change from slice to slice, an overlay does not. Needs six slices.
    """
    if len(array) < 6:
        return 0
    still = np.ptp(array, axis=0) == 0
    value = array[0]
    values, counts = np.unique(value[still], return_counts=True)
    if not values.size:
        return 0
    # What stands still over a large share of the picture is padding or a masked background.
    large = values[counts > 0.02 * value.size]
    ink = still & ~np.isin(value, large)
    return line_of_glyphs(ink, glyphs)


def text_in_picture(plane: NDArray[np.floating], glyphs: Glyphs) -> int:
    """Characters drawn at the brightest or darkest value of one picture; 0 for none."""
    counts = []
    for ink in (plane == plane.max(), plane == plane.min()):
        if 0 < ink.sum() < 0.05 * plane.size:
            counts.append(line_of_glyphs(ink, glyphs))
    return max(counts, default=0)


def line_of_glyphs(ink: NDArray[np.bool_], glyphs: Glyphs) -> int:
    """Most character-like spots that stand in one line of `ink` (rows, columns); 0 when fewer than a line has.

    Character-like: as high as `glyphs` allows, no wider than 1.5 times that, filling 15 to 95 % of its box. In one line:
    of similar height, on one base line, at most two heights apart.
    """
    labels, count = ndimage.label(ink, structure=np.ones((3, 3)))
    if not 0 < count < 5000:
        return 0
    sizes = np.bincount(labels.ravel())
    boxes = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        height, width = box[0].stop - box[0].start, box[1].stop - box[1].start
        filled = sizes[number] / (height * width)
        if (
            glyphs.lowest_px <= height <= glyphs.highest_px
            and 2 <= width <= 1.5 * glyphs.highest_px
            and 0.15 <= filled <= 0.95
        ):
            boxes.append((box[0].stop, box[1].start, box[1].stop, height))
    best = 0
    for base, _, _, height in boxes:
        line = sorted(b for b in boxes if abs(b[0] - base) <= 0.25 * height and abs(b[3] - height) <= 0.3 * height)
        line.sort(key=lambda entry: entry[1])
        best = max(best, _longest_run(line, 2 * height))
    return best if best >= glyphs.fewest_in_line else 0


def _longest_run(line: list[tuple[int, int, int, int]], gap: float) -> int:
    longest = run = 1 if line else 0
    for left, right in pairwise(line):
        run = run + 1 if right[1] - left[2] <= gap else 1
        longest = max(longest, run)
    return longest
