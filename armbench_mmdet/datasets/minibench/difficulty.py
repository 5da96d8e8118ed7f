"""The one place that says how hard minibench is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difficulty:
    """Named constants of the scene sampler; lengths are in tote lengths, areas in shares of the image.

    Attributes:
        count_weights: Integer weight of drawing 1, 2, 3, … objects for a tote of the mix subset.
        size_scale: Factor on every object's length, width and height.
        crowd_reference: Number of objects up to which objects keep their size; fuller totes get smaller ones.
        min_crowd_scale: Smallest factor that a full tote puts on its objects.
        stack_prob: Probability that an object is laid across another one on purpose.
        stack_overlap_frac: Range of the share of the footprint that then lies on the other.
        contact_prob: Probability that an object is pushed against the side of another one.
        wall_prob: Probability that an object is pushed against a wall.
        lean_prob: Probability that a thin object leans on a wall.
        min_visible_frac: Objects with a smaller share visible are taken out of the scene before painting.
        min_visible_area_frac: So are objects with a smaller visible area.
        min_contrast: Least difference (largest channel, 0…255) between an object's main colour and the floor.
        mix_fill_frac: Range of the share of the image width that the tote takes in mix and same-object.
        zoomed_fill_frac: The same for zoomed-out.
        noise_sigma: Range of the standard deviation of the sensor noise, in grey levels.
        blur_px: Range of the Gaussian blur's sigma at 256 px image height.
    """

    count_weights: tuple[int, ...] = (1, 2, 3, 5, 7, 9, 10, 10, 9, 8, 7, 6, 5, 4, 3, 2, 2, 1, 1, 1)
    size_scale: float = 1.0
    crowd_reference: int = 7
    min_crowd_scale: float = 0.74
    stack_prob: float = 0.14
    stack_overlap_frac: tuple[float, float] = (0.12, 0.40)
    contact_prob: float = 0.18
    wall_prob: float = 0.18
    lean_prob: float = 0.25
    min_visible_frac: float = 0.35
    min_visible_area_frac: float = 0.0009
    min_contrast: int = 65
    mix_fill_frac: tuple[float, float] = (0.90, 1.0)
    zoomed_fill_frac: tuple[float, float] = (0.45, 0.65)
    noise_sigma: tuple[float, float] = (1.5, 4.0)
    blur_px: tuple[float, float] = (0.0, 0.45)


DEFAULT = Difficulty()
