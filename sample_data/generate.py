"""Draw the sample set: synthetic chest phantoms, no patient behind any of them.

`python sample_data/generate.py OUT --patients 600 --size 96 --seed 0` writes `OUT/images/*.jpg`
and `OUT/manifest.csv`. A phantom is drawn from formulas in body units (x and y in -1..1, y down,
the patient's right side at negative x), so any size shows the same anatomy.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

Array = npt.NDArray[np.float32]  # twice as fast as float64, and 8 bits come out
SIDES = (-1, 1)
JPEG_QUALITY = 88


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What all images of a patient share; lengths in body units."""

    chest: float  # half-width of the rib cage, inside
    apex: float  # y of the lung tops
    base: float  # y of the costophrenic angles at full inspiration
    dome: float  # height of the diaphragm above the angles
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
    """The findings as drawn; `heart` is the cardiothoracic ratio before magnification."""

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


@dataclass(frozen=True, slots=True)
class Phantom:
    """One image to be drawn."""

    name: str
    patient: str
    anatomy: Anatomy
    shot: Shot
    signs: Signs


def render(anatomy: Anatomy, shot: Shot, signs: Signs, size: int) -> npt.NDArray[np.uint8]:
    """Draw one phantom as `(size, size)` uint8; the same arguments give the same pixels."""
    rng = np.random.default_rng(shot.seed)
    x, y = _grid(shot, 2 * size)  # drawn at twice the size and averaged, against jagged edges
    air = _air(anatomy, shot, signs, x, y)
    thickness = _body(anatomy, x, y) * (1.0 - 0.74 * air) + _breasts(anatomy, x, y) * (y < 1.0)
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
    angle = anatomy.base - shot.inspiration - (0.045 if side < 0 else 0.0)
    return angle - anatomy.dome * (1.0 - np.clip(np.abs(u - top) / reach, 0.0, 1.0) ** 2.6)


def _fluid(
    anatomy: Anatomy, shot: Shot, side: int, level: float, u: Array, y: Array
) -> Array | float:
    """Opacity of an effusion, 0..1: from the angle upward, higher at the wall (the meniscus)."""
    if level == 0.0:
        return 0.0
    angle = anatomy.base - shot.inspiration - (0.045 if side < 0 else 0.0)
    climb = (0.05 + 0.2 * math.sqrt(level)) * np.clip(u / anatomy.chest, 0.0, 1.1) ** 4
    surface = angle + 0.03 - level * (anatomy.base - anatomy.apex) - climb
    haze = 0.03 if shot.view == "PA" else 0.08  # lying down, the fluid spreads behind the lung
    return (0.92 if shot.view == "PA" else 0.8) * _step(y - surface, haze)


def _heart_inside(anatomy: Anatomy, shot: Shot, ratio: float, x: Array, y: Array) -> Array:
    """Distance to the heart's outline, positive inside: two thirds of it left of the midline."""
    magnified = 1.0 if shot.view == "PA" else 1.09
    half = ratio * anatomy.chest * magnified * (1.0 + 0.35 * shot.inspiration)
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
    shoulder = 0.75 * np.clip(-0.35 - y, 0.0, 0.5) * np.clip(anatomy.apex + 0.9 + (y + 0.4), 0.0, 1.0)
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
    """From absorption to grey: levels set on the image itself, as a radiograph's are, then noise."""
    low, high = np.percentile(absorbed, (3, 97))
    level = np.clip((absorbed - low) / (high - low), 0.0, 1.15) ** shot.exposure
    dark, bright = shot.window
    grain = rng.standard_normal(level.shape, dtype=np.float32)
    grain = 0.6 * grain + 0.9 * gaussian_filter(grain, 0.8)
    cloud = rng.standard_normal(level.shape, dtype=np.float32)
    cloud = gaussian_filter(cloud, level.shape[0] / 14)
    grey = dark + (bright - dark) * (level + 0.035 * cloud / cloud.std()) + shot.noise * grain
    return np.asarray(np.clip(np.rint(255.0 * grey), 0, 255), dtype=np.uint8)


def draw_patient(number: int, seed: int) -> Iterator[Phantom]:
    """The 1 to 4 phantoms of one patient; they depend on `(seed, number)` alone."""
    rng = np.random.default_rng([seed, number])
    anatomy = _draw_anatomy(rng)
    nodules = _draw_nodules(rng)
    state: dict[str, bool] = {}
    leans_ap = rng.random() < 0.4
    usual_heart = rng.normal(0.0, 0.55)
    for image in range(rng.choice([1, 2, 3, 4], p=[0.42, 0.31, 0.17, 0.1])):
        state = _draw_state(rng, state)
        shot = _draw_shot(rng, leans_ap)
        signs = _draw_signs(rng, state, usual_heart, nodules)
        name = hashlib.blake2b(f"{seed}/{number}/{image}".encode(), digest_size=5).hexdigest()
        yield Phantom(name, f"P{number:04d}", anatomy, shot, signs)


def _draw_anatomy(rng: np.random.Generator) -> Anatomy:
    female = rng.random() < 0.5
    build = rng.normal()  # broad against slender
    return Anatomy(
        chest=(0.64 if female else 0.69) + 0.03 * build + rng.normal(0.0, 0.015),
        apex=-0.76 + rng.normal(0.0, 0.03),
        base=(0.58 if female else 0.63) - 0.02 * build + rng.normal(0.0, 0.035),
        dome=0.2 + rng.normal(0.0, 0.03),
        wall=float(np.clip(0.15 + 0.06 * build + rng.normal(0.0, 0.03), 0.04, 0.32)),
        breast=float(np.clip(rng.normal(0.13, 0.06), 0.0, 0.3)) if female else 0.0,
        mediastinum=0.13 + rng.normal(0.0, 0.012),
        heart_drop=0.24 + rng.normal(0.0, 0.025),
        heart_tall=0.74 + rng.normal(0.0, 0.05),
        rib_gap=0.142 + rng.normal(0.0, 0.007),
        rib_slope=0.22 + rng.normal(0.0, 0.05),
        rib_width=0.024 + rng.normal(0.0, 0.0025),
        texture=int(rng.integers(2**32)),
    )


def _draw_nodules(rng: np.random.Generator) -> tuple[Nodule, ...]:
    """Where and how this patient's nodules are, should an image show them."""
    return tuple(
        Nodule(
            side=int(rng.choice(SIDES)),
            across=rng.uniform(0.42, 0.85),
            down=rng.uniform(0.1, 0.9),
            radius=0.04 + 0.05 * rng.beta(1.3, 2.0),
            density=rng.uniform(0.3, 0.85),
        )
        for _ in range(rng.choice([1, 2, 3], p=[0.75, 0.18, 0.07]))
    )


def _draw_state(rng: np.random.Generator, before: dict[str, bool]) -> dict[str, bool]:
    """Which findings an image shows; between two images of a patient, each may change."""
    state = dict(before)
    if not before or rng.random() < 0.15:
        state["Cardiomegaly"] = bool(rng.random() < 0.25)
    if not before or rng.random() < 0.4:
        state["Effusion"] = bool(rng.random() < (0.42 if state["Cardiomegaly"] else 0.26))
    if not before or rng.random() < 0.2:
        state["Nodule"] = bool(rng.random() < 0.2)
    return state


def _draw_signs(
    rng: np.random.Generator, state: dict[str, bool], usual: float, nodules: tuple[Nodule, ...]
) -> Signs:
    """Sizes for the findings at hand: plain ones and ones that nobody would see."""
    mean, spread = (0.585, 0.045) if state["Cardiomegaly"] else (0.475, 0.032)
    level = 0.03 + 0.4 * rng.beta(1.1, 2.6)
    other = 0.02 + level * rng.uniform(0.3, 1.0)
    right, left = rng.choice([(1, 0), (0, 1), (1, 1)], p=[0.36, 0.34, 0.3])
    sizes = (level * right, (other if right else level) * left)
    return Signs(
        heart=mean + spread * (usual + rng.normal(0.0, 0.83)),
        enlarged=state["Cardiomegaly"],
        effusion=sizes if state["Effusion"] else (0.0, 0.0),
        nodules=nodules if state["Nodule"] else (),
    )


def _draw_shot(rng: np.random.Generator, leans_ap: bool) -> Shot:
    view = "AP" if rng.random() < (0.75 if leans_ap else 0.12) else "PA"
    ap = view == "AP"
    dark = rng.uniform(0.02, 0.16)
    return Shot(
        view=view,
        tilt=rng.normal(0.0, 0.05 if ap else 0.025),
        turn=rng.normal(0.0, 0.03 if ap else 0.015),
        scale=rng.uniform(1.1, 1.27) * (1.04 if ap else 1.0),
        shift=(rng.normal(0.0, 0.04), rng.normal(0.06, 0.04)),
        inspiration=float(np.clip(rng.normal(0.12 if ap else 0.03, 0.04), -0.03, 0.25)),
        exposure=float(np.exp(rng.normal(0.0, 0.22))),
        window=(dark, rng.uniform(0.74, 0.98)),
        blur=rng.uniform(0.6, 1.0) if ap else rng.uniform(0.3, 0.65),
        noise=rng.uniform(0.015, 0.04) if ap else rng.uniform(0.008, 0.028),
        wires=int(rng.choice([0, 1, 2], p=[0.4, 0.35, 0.25])) if ap else 0,
        seed=int(rng.integers(2**32)),
    )


def generate(out: Path, patients: int, size: int, seed: int) -> None:
    """Write `out/images/*.jpg` and `out/manifest.csv`; a longer set begins with the shorter one."""
    folder = out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(patients):
        for item in draw_patient(number, seed):
            pixels = render(item.anatomy, item.shot, item.signs, size)
            path = f"images/{item.name}.jpg"
            Image.fromarray(pixels).save(out / path, quality=JPEG_QUALITY, optimize=True)
            rows.append((path, item.patient, item.shot.view, item.signs.findings))
    with (out / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "patient_id", "view", "findings"))
        writer.writerows(rows)


def main() -> None:
    """Read the command line and generate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--patients", type=int, default=600)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    generate(args.out, args.patients, args.size, args.seed)


if __name__ == "__main__":
    main()
