"""A synthetic chest radiograph, drawn from formulas: what its parts are, and `render()`.

Lengths are in body units: x and y run from -1 to 1, y down, the patient's right side at negative
x, so that any size shows the same anatomy. Everything that absorbs is added up along the ray;
air in the lungs takes absorption away, and each finding displaces some of that air.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

Array = npt.NDArray[np.float32]  # twice as fast as float64, and 8 bits come out
SIDES = (-1, 1)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What all images of a patient share; lengths in body units."""

    chest: float  # half-width of the rib cage, inside
    apex: float  # y of the lung tops
    base: float  # y of the costophrenic angles at full inspiration
    dome: float  # height of the diaphragm above the angles
    sharp: tuple[float, float]  # how narrow the costophrenic angles are, right and left
    wall: float  # soft tissue outside the rib cage
    breast: float  # opacity of the breast shadows, 0 for none
    mediastinum: float  # half-width
    heart_drop: float  # y of the heart's centre above the right angle
    heart_tall: float  # height of the heart over its width
    rib_gap: float
    rib_slope: float
    rib_width: float
    texture: int  # seed of the vessel tree


@dataclass(frozen=True, slots=True)
class Shot:
    """How one image was taken: everything that may differ between two images of a patient."""

    view: str  # "PA" or "AP"
    tilt: float  # radians
    turn: float  # sideways shift of the midline against the chest
    scale: float
    shift: tuple[float, float]
    inspiration: float  # how far the diaphragm stays above full inspiration
    exposure: float  # gamma of the grey scale
    window: tuple[float, float]  # grey of the darkest and brightest parts, 0..1
    blur: float
    noise: float
    wires: int
    seed: int  # of noise and wires


@dataclass(frozen=True, slots=True)
class Nodule:
    """A round opacity; `side` and the fractions place it inside a lung."""

    side: int
    across: float  # 0 at the midline, 1 at the chest wall
    down: float  # 0 at the apex, 1 at the diaphragm
    radius: float
    density: float  # share of the air it replaces, 0..1


@dataclass(frozen=True, slots=True)
class Signs:
    """The findings as drawn; `heart` is its long axis over the chest's width, unmagnified."""

    heart: float
    enlarged: bool
    effusion: tuple[float, float]  # share of each lung's height under fluid, right and left
    nodules: tuple[Nodule, ...]

    @property
    def findings(self) -> str:
        """The manifest's word: findings joined by "|", or "No Finding"."""
        present = {
            "Effusion": any(self.effusion),
            "Cardiomegaly": self.enlarged,
            "Nodule": bool(self.nodules),
        }
        return "|".join(name for name, there in present.items() if there) or "No Finding"


def render(anatomy: Anatomy, shot: Shot, signs: Signs, size: int) -> npt.NDArray[np.uint8]:
    """Draw one phantom as `(size, size)` uint8; the same arguments give the same pixels."""
    rng = np.random.default_rng(shot.seed)
    x, y = _grid(shot, 2 * size)  # drawn at twice the size and averaged, against jagged edges
    air = _air(anatomy, shot, signs, x, y)
    thickness = _body(anatomy, x, y) * (1.0 - 0.74 * air) + _breasts(anatomy, x, y)
    bone = _bones(anatomy, shot, x, y)
    absorbed = 1.0 - np.exp(-1.35 * thickness - 0.6 * bone) + _wires(shot.wires, x, y, rng)
    small = absorbed.reshape(size, 2, size, 2).mean(axis=(1, 3))
    return _expose(gaussian_filter(small, shot.blur * size / 96), shot, rng)


def _grid(shot: Shot, size: int) -> tuple[Array, Array]:
    """Pixel centres in body units, `(size, size)` each."""
    line = ((np.arange(size) + 0.5) / size * 2.0 - 1.0).astype(np.float32)
    x, y = np.meshgrid((line - shot.shift[0]) / shot.scale, (line - shot.shift[1]) / shot.scale)
    cos, sin = math.cos(shot.tilt), math.sin(shot.tilt)
    return cos * x + sin * y, cos * y - sin * x


def _step(distance: Array, width: float) -> Array:
    """A soft edge: 0 below -1.5 widths, 0.5 at zero, 1 above 1.5 widths."""
    t = np.clip(distance / (3.0 * width) + 0.5, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _air(anatomy: Anatomy, shot: Shot, signs: Signs, x: Array, y: Array) -> Array:
    """Share of air in the path, 0..1: lungs less everything that displaces their air."""
    heart = _step(_heart_inside(anatomy, shot, signs.heart, x, y), 0.035)
    middle = x - shot.turn
    narrow = anatomy.mediastinum * (1.0 + 0.5 * np.clip(-0.35 - y, 0.0, 0.5))
    solid = np.maximum(heart, _step(narrow + _knob(anatomy, middle, y) - np.abs(middle), 0.022))
    air = np.zeros_like(x)
    for side, level in zip(SIDES, signs.effusion, strict=True):
        u = side * x
        lung = _step(_outer(anatomy, y) - u, 0.016) * _step(u + 0.02, 0.01)
        lung *= _step(_diaphragm(anatomy, shot, side, u) - y, 0.016)
        air += lung * (1.0 - _fluid(anatomy, shot, side, level, u, y))
    air *= (1.0 - 0.9 * solid) * (1.0 - _vessels(anatomy, shot, x, y))
    for nodule in signs.nodules:
        air *= 1.0 - _nodule(anatomy, shot, nodule, x, y)
    return air


def _outer(anatomy: Anatomy, y: Array) -> Array:
    """Half-width of the rib cage at height y: rounded at the top, slightly flared below."""
    middle = 0.05
    fall = np.clip((middle - y) / (middle - anatomy.apex), 0.0, 1.0)
    return anatomy.chest * ((1.0 - fall**2.3) ** (1 / 2.0) + 0.1 * np.clip(y - middle, 0.0, 1.0))


def _diaphragm(anatomy: Anatomy, shot: Shot, side: int, u: Array) -> Array:
    """y of the diaphragm at distance u from the midline; the right half stands higher."""
    top = 0.4 * anatomy.chest
    reach = np.where(u > top, 1.06 * anatomy.chest - top, 1.5 * top)
    away = np.clip(np.abs(u - top) / reach, 0.0, 1.0)
    return _angle(anatomy, shot, side) - anatomy.dome * (1.0 - away ** anatomy.sharp[side > 0])


def _angle(anatomy: Anatomy, shot: Shot, side: int) -> float:
    """y of the costophrenic angle, the lowest point of a lung."""
    return anatomy.base - shot.inspiration - (0.045 if side < 0 else 0.0)


def _fluid(
    anatomy: Anatomy, shot: Shot, side: int, level: float, u: Array, y: Array
) -> Array | float:
    """Opacity of an effusion, 0..1: from the angle upward, higher at the wall (the meniscus)."""
    if level == 0.0:
        return 0.0
    climb = (0.05 + 0.2 * math.sqrt(level)) * np.clip(u / anatomy.chest, 0.0, 1.1) ** 4
    surface = _angle(anatomy, shot, side) + 0.03 - level * (anatomy.base - anatomy.apex) - climb
    haze = 0.03 if shot.view == "PA" else 0.08  # lying down, the fluid spreads behind the lung
    return (0.92 if shot.view == "PA" else 0.8) * _step(y - surface, haze)


def _heart_inside(anatomy: Anatomy, shot: Shot, share: float, x: Array, y: Array) -> Array:
    """Distance to the heart's outline, positive inside: two thirds of it left of the midline."""
    magnified = 1.0 if shot.view == "PA" else 1.09
    half = share * anatomy.chest * magnified * (1.0 + 0.35 * shot.inspiration)
    a, b = x - shot.turn - 0.36 * half, y - (anatomy.base - shot.inspiration - anatomy.heart_drop)
    along, across = 0.86 * a + 0.5 * b, 0.86 * b - 0.5 * a
    return half * (1.0 - np.hypot(along / half, across / (half * anatomy.heart_tall)))


def _knob(anatomy: Anatomy, middle: Array, y: Array) -> Array:
    """How far the aortic arch and the hila bulge out of the mediastinum."""
    arch = 0.07 * np.exp(-(((y + 0.38) / 0.08) ** 2)) * (middle > 0)
    hila = 0.07 * np.exp(-(((y + 0.13) / 0.13) ** 2))
    return arch + hila


def _vessels(anatomy: Anatomy, shot: Shot, x: Array, y: Array) -> Array:
    """Air lost to vessels, 0..1: branches that thin out from the hila, and some seen end-on."""
    rng = np.random.default_rng(anatomy.texture)
    lost = np.zeros_like(x)
    for side in SIDES:
        u, v = side * (x - shot.turn) - 0.12, y + 0.12 + 0.6 * shot.inspiration
        far, toward = np.hypot(u, v), np.arctan2(v, u)
        narrow = far / (0.022 * np.exp(-1.6 * far))
        for spoke in range(-4, 5):
            bent = toward - 0.34 * spoke - rng.normal(0.0, 0.12) - rng.normal(0.0, 0.5) * far
            lost += 0.25 * np.exp(-((narrow * bent) ** 2) - 2.2 * far) * (far > 0.03)
        for _ in range(rng.poisson(2.0)):
            away, turned = rng.uniform(0.1, 0.42), rng.uniform(-1.3, 1.3)
            a, b = u - away * math.cos(turned), v - away * math.sin(turned)
            lost += rng.uniform(0.15, 0.5) * np.exp(-(a**2 + b**2) / 0.018**2)
    return np.clip(lost, 0.0, 0.8)


def _nodule(anatomy: Anatomy, shot: Shot, nodule: Nodule, x: Array, y: Array) -> Array:
    """Air that a nodule displaces, 0..1, at every pixel."""
    bottom = anatomy.base - shot.inspiration - 0.8 * anatomy.dome
    down = anatomy.apex + 0.1 + nodule.down * (bottom - anatomy.apex - 0.14)
    across = nodule.side * nodule.across * float(_outer(anatomy, np.array(down, x.dtype)))
    near = np.hypot(x - across, y - down)
    return nodule.density * _step(nodule.radius - near, 0.3 * nodule.radius)


def _body(anatomy: Anatomy, x: Array, y: Array) -> Array:
    """Thickness of the patient along the ray, about 1 at the middle, 0 outside."""
    shoulder = (
        0.75 * np.clip(-0.35 - y, 0.0, 0.5) * np.clip(anatomy.apex + 0.9 + (y + 0.4), 0.0, 1.0)
    )
    half = anatomy.chest * 1.06 + anatomy.wall + shoulder
    neck = _step(y - anatomy.apex + 0.17 - 0.28 * np.abs(x) ** 1.5, 0.03)
    neck = np.maximum(neck, _step(0.2 - np.abs(x), 0.03))
    return neck * np.sqrt(np.clip(1.0 - (x / half) ** 4, 0.0, 1.0)) * (1.0 + 0.8 * anatomy.wall)


def _breasts(anatomy: Anatomy, x: Array, y: Array) -> Array:
    """Opacity of the breast shadows over the lower lungs."""
    far = np.hypot((np.abs(x) - 0.56 * anatomy.chest) / 0.33, (y - 0.22) / 0.3)
    return anatomy.breast * _step(1.0 - far, 0.12) * np.clip(0.6 + y, 0.3, 1.0)


def _bones(anatomy: Anatomy, shot: Shot, x: Array, y: Array) -> Array:
    """Opacity of spine, ribs, clavicles."""
    middle = x - shot.turn
    disc = 0.75 + 0.25 * np.cos(2 * np.pi * y / (0.8 * anatomy.rib_gap))
    bone = 0.55 * disc * _step(0.085 - np.abs(middle), 0.02)
    cage = _outer(anatomy, y)
    for side in SIDES:
        u = side * x
        inside = _step(cage + 0.035 - u, 0.012) * _step(u - 0.06, 0.02)
        bone += inside * (_back_ribs(anatomy, u, y) + _front_ribs(anatomy, u, y))
        bone += _clavicle(anatomy, shot, side * middle, y)
    return bone


def _rib(distance: Array, width: float) -> Array:
    """Profile of a rib: a flat band with brighter rims."""
    off = np.abs(distance) / width
    return 0.6 * _step(1.0 - off, 0.15) + 0.4 * np.exp(-11.0 * (off - 0.8) ** 2)


def _back_ribs(anatomy: Anatomy, u: Array, y: Array) -> Array:
    share = np.clip(u / anatomy.chest, 0.0, 1.2)
    drop = anatomy.rib_slope * share**2
    below_first = y - anatomy.apex - 0.03 + 0.1 * np.sin(np.pi * share) - 0.5 * drop
    gap = anatomy.rib_gap + 0.09 * drop
    nearest = np.clip(np.rint(below_first / gap), 0, 9)
    return 0.55 * _rib(below_first - nearest * gap, anatomy.rib_width)


def _front_ribs(anatomy: Anatomy, u: Array, y: Array) -> Array:
    share = np.clip(u / anatomy.chest, 0.0, 1.0)
    below_first = y - anatomy.apex - 0.16 - 0.42 * (1.0 - share) ** 1.3
    gap = 1.15 * anatomy.rib_gap
    nearest = np.clip(np.rint(below_first / gap), 0, 5)
    fades = _step(share - 0.38 - 0.03 * nearest, 0.05)  # cartilage near the breastbone is clear
    return 0.3 * fades * _rib(below_first - nearest * gap, 1.15 * anatomy.rib_width)


def _clavicle(anatomy: Anatomy, shot: Shot, u: Array, y: Array) -> Array:
    raised = 0.07 if shot.view == "AP" else 0.0
    centre = anatomy.apex + 0.17 - raised - 0.22 * u + 0.05 * np.sin(6.0 * u)
    return 0.6 * _rib(y - centre, 0.026) * _step(u - 0.07, 0.02) * _step(0.75 - u, 0.03)


def _wires(count: int, x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Thin bright leads across the chest."""
    lead = np.zeros_like(x)
    for _ in range(count):
        start, lean, bend = rng.uniform(-0.5, 0.5), rng.normal(0.0, 0.5), rng.normal(0.0, 0.3)
        off = (x - start - lean * y - bend * y**2) / math.sqrt(1.0 + lean**2)
        end = rng.uniform(-0.3, 0.5)
        lead += 0.16 * np.exp(-((off / 0.011) ** 2)) * _step(end - y, 0.01)
    return lead


def _expose(absorbed: Array, shot: Shot, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """From absorption to grey: levels set on the image itself, then noise."""
    low, high = np.percentile(absorbed, (3, 97))
    level = np.clip((absorbed - low) / (high - low), 0.0, 1.15) ** shot.exposure
    dark, bright = shot.window
    grain = rng.standard_normal(level.shape, dtype=np.float32)
    grain = 0.6 * grain + 0.9 * gaussian_filter(grain, 0.8)
    cloud = rng.standard_normal(level.shape, dtype=np.float32)
    cloud = gaussian_filter(cloud, level.shape[0] / 14)
    grey = dark + (bright - dark) * (level + 0.035 * cloud / cloud.std()) + shot.noise * grain
    return np.asarray(np.clip(np.rint(255.0 * grey), 0, 255), dtype=np.uint8)
