"""Cross sections of a body that nobody has: smooth shapes, and noise as a detector makes it."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_NOISE_POOL: Final = 1 << 21
"""Samples to draw from; fresh noise for every slice would take most of the time."""

type Plane = NDArray[np.float32]


class Scene:
    """Ellipses of tissue that drift from slice to slice, and a pool of noise to draw from."""

    def __init__(self, rows: int, columns: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self._shape = rows, columns
        pool = max(_NOISE_POOL, 2 * rows * columns)
        self._pool = generator.standard_normal(pool, dtype=np.float32)
        self._seed = seed
        self._y = np.linspace(-1.0, 1.0, rows, dtype=np.float32)[:, np.newaxis]
        self._x = np.linspace(-1.0, 1.0, columns, dtype=np.float32)[np.newaxis, :]
        waves = np.sin(5.0 * self._x + 2.0 * self._y) * np.cos(4.0 * self._y - 3.0 * self._x)
        self._texture: Plane = waves.astype(np.float32)
        self._centres = generator.uniform(-0.45, 0.45, (6, 2))
        self._radii = generator.uniform(0.08, 0.25, (6, 2))

    def body(self, depth: float, *, air: float, tissue: float) -> Plane:
        """A cross section at ``depth`` from 0 to 1, shape (rows, columns), noiseless."""
        plane: Plane = np.full(self._shape, air, np.float32)
        width = 0.82 - 0.15 * depth
        inside = (self._x / width) ** 2 + (self._y / (width - 0.12)) ** 2
        span = tissue - air
        body = inside < 1.0
        plane[body] = (tissue + 0.03 * span * self._texture)[body]
        plane[(inside > 0.93) & body] -= 0.12 * span
        for number, (centre, radius) in enumerate(zip(self._centres, self._radii, strict=True)):
            x, y = centre + 0.06 * np.sin(6.0 * depth + number)
            organ = ((self._x - x) / radius[0]) ** 2 + ((self._y - y) / radius[1]) ** 2
            plane[organ < 1.0] += (-0.45, 0.05, 0.4, -0.08, 0.12, 0.03)[number] * span
        return plane

    def noise(self, sigma: float, index: int) -> Plane:
        """Gaussian noise, shape (rows, columns), another for each ``index``."""
        size = self._shape[0] * self._shape[1]
        start = ((self._seed * 31 + index) * 1_000_003) % (len(self._pool) - size)
        noise: Plane = self._pool[start : start + size].reshape(self._shape) * np.float32(sigma)
        return noise
