"""Gravitational lenses, simulated: `lens`, three classes in one channel, and `lens-pairs`, seen by two telescopes.

A galaxy far away is seen through the gravity of another one in front of it. `no_lens` is a galaxy in front and others
beside it, nothing bent; `smooth` an arc or ring; `substructure` an arc that a few small dark haloes have disturbed,
which shows as kinks and brighter knots of a pixel or two. Telling the last two apart takes resolution: it is the task
of the DeepLense entry (docs/deeplense.md), from formulas instead of files.

All angles are in arcseconds, x to the right and y downwards from the middle of the field. The physics, by name:

- Source: a Sersic profile, I(r) = I_e exp(-b_n ((r / R_e)^(1/n) - 1)), on ellipses of its own axis ratio.
- Lens: a singular isothermal ellipsoid (Kormann, Schneider and Bartelmann 1994) of Einstein radius b and axis ratio q.
  With f = sqrt(1 - q^2) and psi = sqrt(q^2 x^2 + y^2) along its axes its deflection is
  (b sqrt(q) / f) (arctan(f x / psi), arctanh(f y / psi)).
- External shear gamma at an angle phi: the deflection is gamma (cos 2phi, sin 2phi; sin 2phi, -cos 2phi) (x, y).
- Substructure: singular isothermal spheres of Einstein radius b_k, each of deflection b_k (x - x_k) / |x - x_k|.
- Lens equation beta = x - alpha(x): surface brightness is kept, so a pixel shows the source's at beta.
- Light of the lens: a Sersic profile of n = 4 on the ellipses of its mass, or none.
- Telescope: a Gaussian PSF, the mean over each pixel, Poisson noise of sky and objects, Gaussian noise of the detector,
  and eight bits.

A pair is one sky seen by two telescopes of other PSF, pixels and noise, the second on the ground: its LR is made by no
degradation of HR. Everything is drawn from a fixed seed, so that the images are the same in every run.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srbench.data.dataset import DatasetInfo
from srbench.data.source import Sample, Source
from srbench.errors import UsageError

LENS = DatasetInfo(
    name="lens",
    opener="open_lens",
    description="simulated gravitational lenses, three classes, one channel, 64 x 64",
    splits=("test", "train", "val"),
    protocol="lens",
)
LENS_PAIRS = DatasetInfo(
    name="lens-pairs",
    opener="open_lens_pairs",
    description="the same kind of lens seen by two telescopes, x2 or x4",
    argument="[FACTOR]",
    splits=("test", "train", "val"),
    paired=True,
)

CLASSES = ("no_lens", "smooth", "substructure")
PER_CLASS = {"train": 2000, "val": 200, "test": 500}
PAIRS_PER_CLASS = {"train": 100, "val": 34, "test": 100}
FACTORS = (2, 4)
NOTE = (
    "lens: simulated gravitational lenses, a demonstration of one-channel data; it says nothing about a real telescope"
)

_BLOCK = 8  # images simulated at a time: a few arrays of these fit into the cache of a processor
_KEPT_BLOCKS = 8
_SEED = 20210731
_REVISION = 1  # goes up whenever the pixels change under the same ids, so that cached crops are not mistaken for them
_STREAMS = {"train": 0, "val": 1, "test": 2}  # of random numbers; those of the pairs come after them
_MAX_SUBHALOS = 6
_MAX_GALAXIES = 3  # beside the lens, where nothing is lensed

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Telescope:
    """What turns a sky into pixels.

    Attributes:
        side: Height and width, pixels.
        pixel: Side of a pixel, arcseconds.
        psf_sigma: Standard deviation of the Gaussian PSF, arcseconds.
        photons: Photons a pixel that stand for a value of 1; the fewer, the more Poisson noise.
        read_noise: Standard deviation of the detector's noise, in units of the range [0, 1].
        sky: Value of the empty sky.
    """

    side: int
    pixel: float
    psf_sigma: float
    photons: float
    read_noise: float
    sky: float = 0.06


FIELD = 3.2  # arcseconds, side of the field
SPACE = Telescope(side=64, pixel=FIELD / 64, psf_sigma=0.04, photons=9000.0, read_noise=0.006)


def ground(factor: int) -> Telescope:
    """Return the second telescope, whose pixels are `factor` times as large, with more blur and other noise."""
    return Telescope(
        side=SPACE.side // factor,
        pixel=SPACE.pixel * factor,
        psf_sigma=0.55 * SPACE.pixel * factor + 0.04,
        photons=2500.0 * factor,
        read_noise=0.009,
    )


@dataclass(frozen=True)
class Skies:
    """What is in front of the telescope, N skies at once; every array begins with N.

    Attributes:
        label: Index into `CLASSES`, `(N,)`.
        einstein: Einstein radius b of the lens, arcseconds, 0 where nothing is lensed, `(N,)`.
        axis_ratio: q of the lens's mass and light, `(N,)`.
        angle: Of its long axis, radians, `(N,)`.
        shear: gamma cos 2phi and gamma sin 2phi, `(N, 2)`.
        lens_light: Its flux at R_e and R_e in arcseconds, `(N, 2)`; a flux of 0 is none.
        subhalos: x, y and Einstein radius b_k of each, arcseconds, `(N, K, 3)`; a radius of 0 is none.
        galaxies: x, y, R_e, n, axis ratio, angle and flux at R_e of each source, `(N, M, 7)`; a flux of 0 is none.
    """

    label: NDArray[np.int64]
    einstein: Floats
    axis_ratio: Floats
    angle: Floats
    shear: Floats
    lens_light: Floats
    subhalos: Floats
    galaxies: Floats


def draw_skies(label: NDArray[np.int64], generator: np.random.Generator) -> Skies:
    """Draw a sky for every label.

    Args:
        label: Indices into `CLASSES`, `(N,)`.
        generator: Where everything comes from; the draws do not depend on the labels.
    """
    n = len(label)

    def uniform(low: float, high: float, *shape: int) -> Floats:
        return generator.uniform(low, high, (n, *shape)).astype(np.float32)

    lensed = label > 0
    einstein = uniform(0.75, 1.1)
    axis_ratio, angle = uniform(0.65, 0.95), uniform(0, np.pi)
    gamma, phi = uniform(0, 0.06), uniform(0, np.pi)
    shear = np.stack([gamma * np.cos(2 * phi), gamma * np.sin(2 * phi)], axis=1)
    glow = uniform(0.02, 0.09) * (uniform(0, 1) < 0.8)  # one lens in five is too faint to be seen
    lens_light = np.stack([glow, uniform(0.25, 0.45)], axis=1)

    # Haloes count where there is light that they can bend: near the Einstein ring, at any angle.
    around = uniform(0, 2 * np.pi, _MAX_SUBHALOS)
    distance = einstein[:, None] * uniform(0.85, 1.15, _MAX_SUBHALOS)
    mass = uniform(0.02, 0.06, _MAX_SUBHALOS)
    count = generator.integers(3, _MAX_SUBHALOS + 1, n)
    there = (np.arange(_MAX_SUBHALOS) < count[:, None]) & (label == 2)[:, None]
    subhalos = np.stack([distance * np.cos(around), distance * np.sin(around), mass * there], axis=2)

    # Their mass is taken from the lens, or the rings of one class would be larger: averaged over a ring, the pull of a
    # halo on it is 2/pi of what it is in the halo's own direction.
    smooth_part = einstein - subhalos[:, :, 2].sum(axis=1) * np.float32(2 / np.pi)

    direction, offset = uniform(0, 2 * np.pi), uniform(0.0, 0.4) * einstein
    arc = np.stack(
        [
            offset * np.cos(direction),
            offset * np.sin(direction),
            uniform(0.10, 0.22),
            uniform(0.8, 1.6),
            uniform(0.5, 1.0),
            uniform(0, np.pi),
            uniform(0.12, 0.30),
        ],
        axis=1,
    )
    beside = np.stack(
        [
            uniform(-1.4, 1.4, _MAX_GALAXIES),
            uniform(-1.4, 1.4, _MAX_GALAXIES),
            uniform(0.12, 0.45, _MAX_GALAXIES),
            uniform(0.8, 2.0, _MAX_GALAXIES),
            uniform(0.2, 1.0, _MAX_GALAXIES),
            uniform(0, np.pi, _MAX_GALAXIES),
            uniform(0.08, 0.30, _MAX_GALAXIES),
        ],
        axis=2,
    )
    galaxies = np.where(lensed[:, None, None], np.pad(arc[:, None], ((0, 0), (0, _MAX_GALAXIES - 1), (0, 0))), beside)
    return Skies(
        label=label,
        einstein=np.where(lensed, smooth_part, 0).astype(np.float32),
        axis_ratio=axis_ratio,
        angle=angle,
        shear=shear.astype(np.float32),
        lens_light=lens_light.astype(np.float32),
        subhalos=subhalos.astype(np.float32),
        galaxies=galaxies.astype(np.float32),
    )


def deflection(skies: Skies, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the deflection alpha at positions `(P,)` of every sky, each component `(N, P)`, arcseconds."""
    cos, sin = np.cos(skies.angle)[:, None], np.sin(skies.angle)[:, None]
    along, across = cos * x + sin * y, cos * y - sin * x
    q = skies.axis_ratio[:, None]
    f = np.sqrt(1 - q**2)
    psi = np.sqrt(q**2 * along**2 + across**2) + np.float32(1e-6)
    strength = skies.einstein[:, None] * np.sqrt(q) / f
    towards = f * across / psi
    by_axis = strength * np.arctan(f * along / psi), strength * 0.5 * np.log((1 + towards) / (1 - towards))
    lensed = (skies.einstein > 0)[:, None]
    gamma_1, gamma_2 = skies.shear[:, :1] * lensed, skies.shear[:, 1:] * lensed
    alpha_x = cos * by_axis[0] - sin * by_axis[1] + gamma_1 * x + gamma_2 * y
    alpha_y = sin * by_axis[0] + cos * by_axis[1] + gamma_2 * x - gamma_1 * y
    for k in range(skies.subhalos.shape[1]):
        disturbed = np.flatnonzero(skies.subhalos[:, k, 2])
        if len(disturbed):
            halo = skies.subhalos[disturbed, k]
            dx, dy = x - halo[:, :1], y - halo[:, 1:2]
            pull = halo[:, 2:] / np.sqrt(dx**2 + dy**2 + np.float32(1e-12))
            alpha_x[disturbed] += pull * dx
            alpha_y[disturbed] += pull * dy
    return alpha_x, alpha_y


def sersic(x: Floats, y: Floats, *, radius: Floats, index: Floats, axis_ratio: Floats, angle: Floats) -> Floats:
    """Return the Sersic profile at offsets `(N, P)` from its centre, 1 at the effective radius, `(N, P)`.

    Args:
        x: To the right, arcseconds.
        y: Downwards.
        radius: R_e along the geometric mean of the axes, arcseconds, `(N, 1)`.
        index: n, `(N, 1)`; b_n = 2 n - 1/3 + 0.009876 / n (Prugniel and Simien 1997).
        axis_ratio: Short by long axis, `(N, 1)`.
        angle: Of the long axis, radians, `(N, 1)`.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    along, across = cos * x + sin * y, cos * y - sin * x
    square = (axis_ratio * along**2 + across**2 / axis_ratio) / radius**2 + np.float32(1e-12)
    b = 2 * index - 1 / 3 + 0.009876 / index
    # numpy's power takes five times as long as its exp and log of 32 bits
    return np.exp(b * (1 - np.exp(np.log(square) * (0.5 / index))))


def surface_brightness(skies: Skies, fine: int) -> Floats:
    """Return the skies before any telescope, `(N, fine, fine)`, over `FIELD` arcseconds."""
    step = FIELD / fine
    axis = ((np.arange(fine) + 0.5) * step - FIELD / 2).astype(np.float32)
    y, x = (each.ravel() for each in np.meshgrid(axis, axis, indexing="ij"))
    alpha_x, alpha_y = deflection(skies, x, y)
    source_x, source_y = x - alpha_x, y - alpha_y
    light = np.zeros_like(source_x)
    for m in range(skies.galaxies.shape[1]):
        shining = np.flatnonzero(skies.galaxies[:, m, 6])
        if len(shining):
            each = skies.galaxies[shining, m]
            profile = sersic(
                source_x[shining] - each[:, :1],
                source_y[shining] - each[:, 1:2],
                radius=each[:, 2:3],
                index=each[:, 3:4],
                axis_ratio=each[:, 4:5],
                angle=each[:, 5:6],
            )
            light[shining] += each[:, 6:] * profile
    visible = np.flatnonzero(skies.lens_light[:, 0])
    if len(visible):
        flux, radius = skies.lens_light[visible, :1], skies.lens_light[visible, 1:]
        n = len(visible)
        light[visible] += flux * sersic(
            np.broadcast_to(x, (n, len(x))),
            np.broadcast_to(y, (n, len(y))),
            radius=radius,
            index=np.full((n, 1), 4, dtype=np.float32),
            axis_ratio=skies.axis_ratio[visible, None],
            angle=skies.angle[visible, None],
        )
    return light.reshape(-1, fine, fine)


def observe(light: Floats, telescope: Telescope, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return what a telescope records of skies `(N, fine, fine)`: `(N, side, side)`, uint8."""
    from scipy.ndimage import gaussian_filter1d

    fine = light.shape[-1]
    sigma = telescope.psf_sigma / (FIELD / fine)
    for axis in (1, 2):
        light = gaussian_filter1d(light, sigma, axis=axis, mode="nearest", truncate=4.0)
    block = fine // telescope.side
    pixels = light.reshape(len(light), telescope.side, block, telescope.side, block).mean(axis=(2, 4))
    expected = np.maximum(pixels, 0) + telescope.sky
    # Poisson noise of thousands of photons is Gaussian to well under its own uncertainty.
    sigma_2 = expected / telescope.photons + telescope.read_noise**2
    noisy = expected + np.sqrt(sigma_2) * generator.standard_normal(expected.shape, dtype=np.float32)
    return np.rint(noisy.clip(0, 1) * 255).astype(np.uint8)


class _Simulation:
    """The blocks of images that were asked for last; one thread simulates at a time."""

    def __init__(self, split: str, factor: int | None) -> None:
        self._split, self._factor = split, factor
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[int, int], tuple[NDArray[np.uint8], NDArray[np.uint8] | None]] = OrderedDict()

    def image(self, label: int, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Return HR `(64, 64)` and, of pairs, LR, uint8."""
        block = (label, number // _BLOCK)
        with self._lock:
            if block not in self._blocks:
                self._blocks[block] = self._simulated(*block)
            self._blocks.move_to_end(block)
            while len(self._blocks) > _KEPT_BLOCKS:
                self._blocks.popitem(last=False)
            hr, lr = self._blocks[block]
        return hr[number % _BLOCK], None if lr is None else lr[number % _BLOCK]

    def _simulated(self, label: int, block: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        stream = _STREAMS[self._split] + (0 if self._factor is None else 10)
        generator = np.random.default_rng([_SEED, stream, label, block])
        skies = draw_skies(np.full(_BLOCK, label, dtype=np.int64), generator)
        light = surface_brightness(skies, 2 * SPACE.side)
        hr = observe(light, SPACE, generator)
        return hr, None if self._factor is None else observe(light, ground(self._factor), generator)


class LensSource(Source):
    """One split of the simulated lenses, or of their pairs."""

    def __init__(self, split: str, factor: int | None = None) -> None:
        """Name the samples; nothing is simulated before it is read.

        Args:
            split: "train", "val" or "test".
            factor: HR side / LR side of real pairs; None leaves LR to the degradation.
        """
        self.name = "lens" if factor is None else "lens-pairs"
        self.spec = self.name if factor is None else f"{self.name}:{factor}"
        self.split, self.factor, self.paired = split, factor, factor is not None
        self.classes = CLASSES
        self.note = NOTE if factor is None else f"{NOTE}; HR and LR are what two telescopes record of one sky"
        count = (PER_CLASS if factor is None else PAIRS_PER_CLASS)[split]
        self.samples = tuple(
            Sample(f"{name}/{number:04d}", label) for label, name in enumerate(CLASSES) for number in range(count)
        )
        self._count = count
        self._simulation = _Simulation(split, factor)

    @property
    def channels(self) -> int:
        """Channels of the data: one."""
        return 1

    def read(self, index: int) -> Tensor:
        """Return image `index`, `(3, 64, 64)`, grey repeated, uint8."""
        return _repeated(self._image(index)[0])

    def read_lr(self, index: int) -> Tensor | None:
        """Return what the second telescope recorded of image `index`, grey repeated, uint8; None without pairs."""
        lr = self._image(index)[1]
        return None if lr is None else _repeated(lr)

    def stamps(self, indices: Sequence[int]) -> list[tuple[int | str | float, ...]]:
        """Return (bytes of the image, revision of the simulation): its pixels depend on nothing else."""
        return [(SPACE.side**2 + (self.factor or 0), _REVISION)] * len(indices)

    def _image(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        return self._simulation.image(*divmod(index, self._count))


def open_lens(split: str | None = None) -> LensSource:
    """Open a split of the simulated lenses, "test" where None.

    Raises:
        UsageError: If there is no split of that name.
    """
    return LensSource(LENS.choose_split(split))


def open_lens_pairs(argument: str | None, split: str | None = None) -> LensSource:
    """Open a split of the pairs, "test" where None; `argument` is the factor, 2 where None.

    Raises:
        UsageError: If there is no split of that name, or no such factor.
    """
    spec = "lens-pairs" if argument is None else f"lens-pairs:{argument}"
    factor = argument or str(FACTORS[0])
    if factor not in map(str, FACTORS):
        raise UsageError(f"--data {spec}: the factor is {' or '.join(map(str, FACTORS))}, got {argument!r}")
    return LensSource(LENS_PAIRS.choose_split(split, spec=spec), int(factor))


def _repeated(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.broadcast_to(pixels, (3, *pixels.shape)).copy())
