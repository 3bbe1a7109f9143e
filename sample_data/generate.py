"""Draw the sample set: synthetic chest phantoms, no patient behind any of them.

`python sample_data/generate.py OUT --patients 640 --size 96 --seed 0` writes `OUT/images/*.jpg`
and `OUT/manifest.csv`. This file holds the chances; `phantom.py` draws.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

if __package__:
    from sample_data.phantom import SIDES, Anatomy, Nodule, Shot, Signs, render
else:  # run as a script
    from phantom import SIDES, Anatomy, Nodule, Shot, Signs, render

JPEG_QUALITY = 88


@dataclass(frozen=True, slots=True)
class Phantom:
    """One image to be drawn."""

    name: str
    patient: str
    anatomy: Anatomy
    shot: Shot
    signs: Signs


def draw_patient(number: int, seed: int) -> Iterator[Phantom]:
    """The 1 to 4 phantoms of one patient; they depend on `(seed, number)` alone."""
    rng = np.random.default_rng([seed, number])
    anatomy = _draw_anatomy(rng)
    nodules = _draw_nodules(rng)
    state: dict[str, bool] = {}
    leans_ap = rng.random() < 0.4
    usual_heart = rng.normal(0.0, 0.55)
    for image in range(rng.choice([1, 2, 3, 4], p=[0.5, 0.28, 0.14, 0.08])):
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
        sharp=(rng.uniform(1.9, 4.0), rng.uniform(1.9, 4.0)),
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
            radius=0.035 + 0.075 * rng.beta(1.0, 1.6),
            density=rng.uniform(0.2, 0.95),
        )
        for _ in range(rng.choice([1, 2, 3], p=[0.75, 0.18, 0.07]))
    )


def _draw_state(rng: np.random.Generator, before: dict[str, bool]) -> dict[str, bool]:
    """Which findings an image shows; between two images of a patient, each may change."""
    state = dict(before)
    if not before or rng.random() < 0.15:
        state["Cardiomegaly"] = bool(rng.random() < 0.27)
    if not before or rng.random() < 0.4:
        state["Effusion"] = bool(rng.random() < (0.44 if state["Cardiomegaly"] else 0.28))
    if not before or rng.random() < 0.2:
        state["Nodule"] = bool(rng.random() < 0.2)
    return state


def _draw_signs(
    rng: np.random.Generator, state: dict[str, bool], usual: float, nodules: tuple[Nodule, ...]
) -> Signs:
    """Sizes for the findings at hand: plain ones and ones that nobody would see."""
    mean, spread = (0.61, 0.055) if state["Cardiomegaly"] else (0.475, 0.032)
    level = 0.01 + 0.5 * rng.beta(0.8, 1.5)
    other = 0.01 + level * rng.uniform(0.3, 1.0)
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
    parser.add_argument("--patients", type=int, default=640)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    generate(args.out, args.patients, args.size, args.seed)


if __name__ == "__main__":
    main()
