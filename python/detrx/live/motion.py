"""Where boxes go: a Kalman filter with constant velocity over centre x, centre y, width / height and height.

Noise as in DeepSORT (Wojke et al., 2017), a share of the height. Nothing couples the four values, so the filter of
eight states falls into four of two, kept here for all boxes as arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

STEP = 1 / 30
"""Seconds that velocities and noise are counted in."""
_POSITION, _VELOCITY = 1 / 20, 1 / 160
"""Standard deviations of a step, as shares of the height."""
_ASPECT = (1e-2, 1e-5, 1e-1)
"""Of width / height: a step's, its velocity's, a measurement's."""


def to_states(boxes: NDArray[Any]) -> NDArray[np.float64]:
    """(N, 4) corners as centre x, centre y, width / height, height."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3).astype(np.float64)
    centres = (boxes[:, :2].astype(np.float64) + boxes[:, 2:]) / 2
    return np.column_stack((centres, sides[:, 0] / sides[:, 1], sides[:, 1]))


class Motion:
    """The states of N boxes."""

    def __init__(self, boxes: NDArray[Any]) -> None:
        """From (N, 4) corners in pixels, at rest."""
        self.at = to_states(boxes)
        self.speed = np.zeros_like(self.at)
        """(N, 4) change in a STEP."""
        self._own = (2 * self._noise(_POSITION, _ASPECT[0])) ** 2
        self._both = np.zeros_like(self.at)
        self._moving = (10 * self._noise(_VELOCITY, _ASPECT[1])) ** 2

    def __len__(self) -> int:
        return len(self.at)

    def boxes(self) -> NDArray[np.float64]:
        """(N, 4) corners."""
        half = np.column_stack((self.at[:, 2] * self.at[:, 3], self.at[:, 3])) / 2
        return np.hstack((self.at[:, :2] - half, self.at[:, :2] + half))

    def keep(self, which: NDArray[Any]) -> None:
        """Only these go on, by mask or indices."""
        for name in ("at", "speed", "_own", "_both", "_moving"):
            setattr(self, name, getattr(self, name)[which])

    def join(self, other: Motion) -> None:
        """Append the boxes of another."""
        for name in ("at", "speed", "_own", "_both", "_moving"):
            setattr(self, name, np.concatenate((getattr(self, name), getattr(other, name))))

    def predict(self, seconds: float, *, unseen: NDArray[np.bool_]) -> None:
        """Move on in time. The shape of those that were not seen last stays: its guessed growth runs away."""
        steps = seconds / STEP
        self.speed[unseen, 2:] = 0
        drift = (self._noise(_POSITION, _ASPECT[0]) ** 2, self._noise(_VELOCITY, _ASPECT[1]) ** 2)
        self.at = self.at + steps * self.speed
        self.at[:, 2:] = np.maximum(self.at[:, 2:], 1e-3)
        self._own = self._own + steps * (2 * self._both + drift[0]) + steps**2 * self._moving
        self._both = self._both + steps * self._moving
        self._moving = self._moving + steps * drift[1]

    def correct(self, which: NDArray[Any], boxes: NDArray[Any]) -> None:
        """Take in the (K, 4) boxes where these K were found."""
        noise = self._noise(_POSITION, _ASPECT[2])[which] ** 2
        own, both = self._own[which], self._both[which]
        miss = to_states(boxes) - self.at[which]
        trust, push = own / (own + noise), both / (own + noise)
        self.at[which] += trust * miss
        self.speed[which] += push * miss
        self._own[which] = (1 - trust) * own
        self._both[which] = (1 - trust) * both
        self._moving[which] -= push * both

    def _noise(self, share: float, aspect: float) -> NDArray[np.float64]:
        """(N, 4) standard deviations."""
        found = np.repeat(share * self.at[:, 3:], 4, axis=1)
        found[:, 2] = aspect
        return found
