"""Augmentation: geometry by hand, torchvision as the second opinion, laws by hypothesis."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import replace

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from ssl_core.training.augment import (
    CORNERS,
    MILD,
    S0,
    Augmentation,
    affine_warps,
    as_float,
    augment,
    crop_warps,
    expose,
    perspective_warps,
    sample_exposures,
    sample_warps,
    warp,
)

STILL = Augmentation(flip=0, rotation=0, translation=0, scale=(1.0, 1.0), perspective=0)
BILINEAR = tv.InterpolationMode.BILINEAR


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=seeded(seed))


def blobs(n=4, height=96, width=96):
    """Smooth pictures, different left from right and top from bottom, black near the border."""
    y = torch.linspace(-1, 1, height)[:, None]
    x = torch.linspace(-1, 1, width)[None, :]
    one = torch.exp(-((x - 0.15) ** 2 + (y + 0.1) ** 2) / 0.05)
    two = 0.6 * torch.exp(-((x + 0.25) ** 2 + (y - 0.2) ** 2) / 0.03)
    return (one + two).clamp(0, 1).expand(n, 1, height, width).contiguous()


def single(*, flip=False, degrees=0.0, scale=1.0, shift=(0.0, 0.0), aspect=1.0):
    return affine_warps(
        torch.tensor([flip]),
        torch.tensor([degrees], dtype=torch.float64),
        torch.tensor([scale], dtype=torch.float64),
        torch.tensor([shift], dtype=torch.float64),
        aspect=aspect,
    )


def assert_close(a, b, atol=1e-4):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


def place(matrices, x, y):
    """Where an output place takes its value from."""
    u, v, w = (matrices @ torch.tensor([x, y, 1.0], dtype=matrices.dtype)).unbind(-1)
    return torch.stack([u / w, v / w], dim=-1)


# Single transforms, by hand


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (7, 12)])
def test_a_flip_is_torch_flip(size):
    images = noise(1, 3, *size)
    assert_close(warp(images, single(flip=True)), images.flip(-1), atol=5e-6)


def test_a_flip_at_a_power_of_two_is_exact_and_so_is_a_flipped_mask_at_any_size():
    images, masks = noise(1, 1, 64, 32), (noise(1, 1, 23, 29) > 0.5).float()
    assert torch.equal(warp(images, single(flip=True)), images.flip(-1))
    assert torch.equal(warp(masks, single(flip=True), mode="nearest"), masks.flip(-1))


@pytest.mark.parametrize(("degrees", "turns"), [(90.0, 1), (180.0, 2), (-90.0, 3)])
def test_right_angles_are_torch_rot90_which_turns_counter_clockwise(degrees, turns):
    images = noise(1, 2, 15, 15)
    turned = warp(images, single(degrees=degrees))
    assert_close(turned, torch.rot90(images, turns, dims=(-2, -1)), atol=1e-5)


def test_a_turn_of_a_wide_picture_keeps_distances():
    wide = torch.zeros(1, 1, 9, 25)
    wide[0, 0, 4, 15] = 1.0  # three pixels right of the centre (4, 12)
    turned = warp(wide, single(degrees=90.0, aspect=25 / 9))
    assert turned[0, 0, 1, 12] == pytest.approx(1.0, abs=1e-5)  # three pixels above it
    assert turned.sum() == pytest.approx(1.0, abs=1e-5)


def test_a_positive_shift_moves_a_dot_right_and_down():
    dot = torch.zeros(1, 1, 10, 20)
    dot[0, 0, 2, 3] = 1.0
    moved = warp(dot, single(shift=(0.25, 0.3), aspect=2.0))
    assert moved[0, 0, 2 + 3, 3 + 5] == pytest.approx(1.0, abs=1e-5)
    assert moved.sum() == pytest.approx(1.0, abs=1e-5)


def test_a_scale_above_one_enlarges_about_the_centre():
    square = torch.zeros(1, 1, 16, 16)
    square[..., 6:10, 6:10] = 1.0
    grown = warp(square, single(scale=2.0), mode="nearest")
    expected = torch.zeros(1, 1, 16, 16)
    expected[..., 4:12, 4:12] = 1.0
    assert torch.equal(grown, expected)


def test_matrices_map_output_to_input_and_compose_first_transform_first():
    shift = single(shift=(0.5, 0.0))
    assert place(shift, 0.0, 0.0).tolist() == [[-1.0, 0.0]]  # the centre came from the left edge
    shifted_then_flipped = shift @ single(flip=True)
    assert place(shifted_then_flipped, 0.0, 0.0).tolist() == [[-1.0, 0.0]]
    assert place(shifted_then_flipped, -1.0, 0.0).tolist() == [[0.0, 0.0]]


def test_perspective_carries_the_corners_to_where_it_was_told():
    corners = torch.tensor(
        [[[-0.8, -0.9], [1.0, -0.7], [0.9, 0.8], [-1.0, 1.0]]], dtype=torch.float64
    )
    matrix = perspective_warps(corners)
    for (x, y), corner in zip(corners[0].tolist(), CORNERS, strict=True):
        assert_close(place(matrix, x, y)[0], torch.tensor(corner, dtype=torch.float64), atol=1e-12)


def test_perspective_with_corners_in_place_is_the_identity():
    assert torch.equal(perspective_warps(torch.tensor([CORNERS]))[0], torch.eye(3))


# torchvision as the second opinion


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (41, 23)])
@pytest.mark.parametrize("degrees", [-25.0, 7.0, 90.0])
def test_rotation_is_torchvisions(size, degrees):
    images = noise(1, 3, *size)
    ours = warp(images, single(degrees=degrees, aspect=size[1] / size[0]))
    assert_close(ours, tv.rotate(images, degrees, interpolation=BILINEAR))


@pytest.mark.parametrize("size", [(32, 32), (20, 40)])
def test_the_whole_affine_is_torchvisions(size):
    height, width = size
    images = noise(1, 3, height, width)
    ours = warp(
        images,
        single(degrees=-20.0, scale=1.1, shift=(3 / width, -2 / height), aspect=width / height),
    )
    theirs = tv.affine(
        images, angle=20.0, translate=[3, -2], scale=1.1, shear=[0.0], interpolation=BILINEAR
    )  # torchvision's affine counts clockwise, its rotate counter-clockwise
    assert_close(ours, theirs)


@pytest.mark.parametrize("size", [(32, 32), (20, 40)])
def test_perspective_is_torchvisions(size):
    height, width = size
    images = noise(1, 3, height, width)
    start = [[0, 0], [width, 0], [width, height], [0, height]]
    end = [[3, 1], [width - 2, 0], [width, height - 3], [1, height - 1]]
    corners = 2 * torch.tensor([end], dtype=torch.float64) / torch.tensor([width, height]) - 1
    theirs = tv.perspective(images, start, end, interpolation=BILINEAR)
    assert_close(warp(images, perspective_warps(corners)), theirs)


@pytest.mark.parametrize(("brightness", "contrast"), [(1.2, 1.0), (1.0, 0.7), (0.9, 1.1)])
def test_exposure_is_torchvisions_on_grey_pictures(brightness, contrast):
    grey = 0.3 + 0.4 * noise(2, 1, 9, 11).expand(2, 3, 9, 11)  # nothing saturates
    theirs = tv.adjust_contrast(tv.adjust_brightness(grey, brightness), contrast)
    factors = torch.tensor([[brightness, contrast]]).expand(2, 2)
    assert_close(expose(grey, factors), theirs)  # its grey weights sum to 0.9999


def test_exposure_by_hand_and_kept_within_bounds():
    picture = torch.tensor([0.2, 0.6]).view(1, 1, 1, 2)
    factors = torch.tensor([[1.0, 1.5]])
    # mean .4: .4 + 1.5 (.2 - .4) = .1 and .4 + 1.5 (.6 - .4) = .7
    assert_close(expose(picture, factors).flatten(), torch.tensor([0.1, 0.7]), atol=1e-6)
    assert expose(picture, torch.tensor([[2.0, 1.0]])).flatten().tolist() == [
        pytest.approx(0.4),
        1.0,
    ]


# One resampling equals many

PARTS = {
    "flip": dataclasses.replace(STILL, flip=0.5),
    "rotation": dataclasses.replace(STILL, rotation=25),
    "scale": dataclasses.replace(STILL, scale=(0.9, 1.1)),
    "translation": dataclasses.replace(STILL, translation=0.15),
    "perspective": dataclasses.replace(STILL, perspective=0.2),
}


def parts(n, aspect):
    """The same draws, one transform at a time: every sample takes the same 14 numbers."""
    return [sample_warps(n, spec, seeded(3), aspect=aspect) for spec in PARTS.values()]


@pytest.mark.parametrize("aspect", [1.0, 1.6])
def test_a_sampled_warp_is_the_product_of_its_parts_in_the_documented_order(aspect):
    flip, rotation, scale, translation, perspective = parts(16, aspect)
    composed = flip @ rotation @ scale @ translation @ perspective
    assert_close(sample_warps(16, S0, seeded(3), aspect=aspect), composed, atol=1e-12)
    assert len({tuple(m.flatten().tolist()) for m in composed}) == 16


@pytest.mark.parametrize("size", [(128, 128), (96, 144)])
def test_one_resampling_equals_the_transforms_one_after_the_other(size):
    images = blobs(16, *size)
    matrices = parts(16, size[1] / size[0])
    step_by_step = images
    for matrix in matrices:
        step_by_step = warp(step_by_step, matrix)
    at_once = augment(images, S0, seeded(3))
    assert (at_once - step_by_step).abs().max() < 0.03
    assert (at_once - step_by_step).abs().mean() < 0.002
    backwards = images
    for matrix in reversed(matrices):
        backwards = warp(backwards, matrix)
    assert (at_once - backwards).abs().max() > 0.2  # so the bound above can fail


def test_one_resampling_equals_torchvision_one_after_the_other():
    images = blobs(1, 128, 128)
    corners = torch.tensor(CORNERS, dtype=torch.float64) * torch.tensor([[0.8, 0.9]])
    matrix = single(flip=True, degrees=17.0, scale=0.95, shift=(0.125, -0.0625))
    ours = warp(images, matrix @ perspective_warps(corners[None]))
    end = ((corners + 1) * 64).tolist()
    theirs = tv.rotate(tv.hflip(images), 17.0, interpolation=BILINEAR)
    theirs = tv.affine(theirs, 0.0, [16, -8], 0.95, [0.0], interpolation=BILINEAR)
    theirs = tv.perspective(
        theirs, [[0, 0], [128, 0], [128, 128], [0, 128]], end, interpolation=BILINEAR
    )
    assert (ours - theirs).abs().max() < 0.02
    assert theirs.max() > 0.8


def test_one_resampling_keeps_more_detail_than_many():
    """Turning there and back in one warp is the picture; in two it is a blur."""
    images = noise(1, 1, 64, 64)
    there, back = single(degrees=20.0), single(degrees=-20.0)
    middle = (..., slice(20, 44), slice(20, 44))
    once = warp(images, there @ back) - images
    twice = warp(warp(images, there), back) - images
    assert once[middle].abs().max() < 1e-4
    assert twice[middle].abs().mean() > 0.05


def test_a_warp_works_at_every_size_of_one_aspect():
    matrix = sample_warps(4, S0, seeded(5))
    small, large = warp(blobs(4, 48, 48), matrix), warp(blobs(4, 192, 192), matrix)
    shrunk = torch.nn.functional.interpolate(large, (48, 48), mode="area")
    assert (small - shrunk).abs().mean() < 0.01
    assert (warp(blobs(4, 48, 48), matrix.flip(0)) - shrunk).abs().mean() > 0.02


def test_a_mask_follows_its_image_and_keeps_its_values():
    images = (blobs(8) > 0.5).float()
    matrices = sample_warps(8, S0, seeded(1))
    masks = warp(images * 3, matrices, mode="nearest")
    assert set(masks.unique().tolist()) == {0.0, 3.0}
    soft = warp(images, matrices)
    assert torch.equal(masks[soft > 0.75], torch.full_like(masks[soft > 0.75], 3.0))
    assert torch.equal(masks[soft < 0.25], torch.zeros_like(masks[soft < 0.25]))


def test_outside_is_black_unless_the_border_is_asked_for():
    bright, matrix = torch.ones(1, 1, 16, 16), single(shift=(0.5, 0.0))
    assert warp(bright, matrix)[0, 0, :, :8].max() == 0.0
    assert warp(bright, matrix, padding="border").min() == pytest.approx(1.0)


# Chance


def test_same_state_same_views_and_the_next_views_differ():
    images = noise(6, 3, 20, 24)
    generator = seeded(7)
    first, second = (augment(images, S0, generator) for _ in range(2))
    assert torch.equal(first, augment(images, S0, seeded(7)))
    assert not torch.equal(first, second)
    assert not torch.equal(first, augment(images, S0, seeded(8)))


@pytest.mark.parametrize("spec", [S0, MILD])
def test_every_sample_draws_its_own_parameters(spec):
    views = augment(blobs(12), spec, seeded())
    for a, b in itertools.combinations(views, 2):
        assert (a - b).abs().max() > 0.01


def test_nothing_is_drawn_from_the_global_generator():
    before = torch.random.get_rng_state()
    augment(noise(2, 1, 8, 8), dataclasses.replace(S0, contrast=0.1), seeded())
    assert torch.equal(before, torch.random.get_rng_state())


@given(seed=st.integers(0, 2**31), n=st.integers(0, 40), k=st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_a_samples_matrix_does_not_depend_on_the_batch_it_shares(seed, n, k):
    generator = seeded(seed)
    two = torch.cat([sample_warps(n, S0, generator), sample_warps(k, S0, generator)])
    assert_close(two, sample_warps(n + k, S0, seeded(seed)), atol=1e-12)


def test_a_view_does_not_depend_on_its_neighbours_pixels():
    images, others = noise(5, 1, 16, 16), noise(5, 1, 16, 16, seed=1)
    others[2] = images[2]
    spec = dataclasses.replace(S0, brightness=0.2, contrast=0.2)
    a, b = augment(images, spec, seeded()), augment(others, spec, seeded())
    assert torch.equal(a[2], b[2])
    assert not torch.equal(a[1], b[1])


affines = st.builds(
    Augmentation,
    flip=st.floats(0, 1),
    rotation=st.floats(0, 180),
    translation=st.floats(0, 1),
    scale=st.tuples(st.floats(0.1, 1), st.floats(1, 4)),
    perspective=st.just(0.0),
)


@given(spec=affines, seed=st.integers(0, 2**31), aspect=st.floats(0.3, 3))
@settings(max_examples=60, deadline=None)
def test_affine_parameters_stay_within_the_spec(spec, seed, aspect):
    matrices = sample_warps(32, spec, seeded(seed), aspect=aspect)
    to_square = torch.diag(torch.tensor([aspect, 1.0], dtype=torch.float64))
    linear = to_square @ matrices[:, :2, :2] @ to_square.inverse()
    determinant = torch.linalg.det(linear)
    scale = determinant.abs() ** -0.5
    assert spec.scale[0] - 1e-9 <= scale.min() <= scale.max() <= spec.scale[1] + 1e-9
    degrees = torch.rad2deg(torch.atan2(linear[:, 1, 0], linear[:, 1, 1]))
    assert degrees.abs().max() <= spec.rotation + 1e-6
    shift = -torch.linalg.solve(matrices[:, :2, :2], matrices[:, :2, 2]) / 2
    assert shift.abs().max() <= spec.translation + 1e-9
    rigid = linear @ linear.mT * (scale**2)[:, None, None]  # no shear, whatever the aspect
    assert_close(rigid, torch.eye(2, dtype=torch.float64).expand_as(rigid), atol=1e-9)
    assert torch.equal(matrices[:, 2], matrices.new_tensor([0, 0, 1]).expand(32, 3))


@given(perspective=st.floats(0.001, 0.45), seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_perspective_moves_corners_inwards_within_the_bound(perspective, seed):
    spec = dataclasses.replace(STILL, perspective=perspective, perspective_probability=1.0)
    matrices = sample_warps(32, spec, seeded(seed))
    for x, y in CORNERS:
        landed = place(torch.linalg.inv(matrices), x, y)
        inwards = 1 - landed * torch.tensor([x, y])
        assert inwards.min() > -1e-9
        assert inwards.max() < perspective + 1e-9


def test_no_perspective_allowed_looks_past_its_horizon():
    extremes = torch.tensor(list(itertools.product([0.0, 0.5, 1.0], repeat=8)))
    matrices = perspective_warps(torch.tensor(CORNERS) * (1 - 0.45 * extremes.view(-1, 4, 2)))
    corners = torch.nn.functional.pad(torch.tensor(CORNERS), (0, 1), value=1.0)
    depth = corners @ matrices[:, 2, :, None]
    assert depth.min() > 0.05


def test_parameters_fill_their_ranges_evenly():
    n = 4000
    matrices = sample_warps(n, dataclasses.replace(S0, perspective=0), seeded(11))
    flipped = torch.linalg.det(matrices[:, :2, :2]) < 0
    assert flipped.double().mean() == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(n))
    degrees = torch.rad2deg(torch.atan2(matrices[:, 1, 0], matrices[:, 1, 1]))
    assert degrees.mean() == pytest.approx(0, abs=5 * 25 / math.sqrt(3 * n))
    assert degrees.std() == pytest.approx(25 / math.sqrt(3), rel=0.05)
    assert degrees.abs().max() > 24.5
    plain = sample_warps(n, dataclasses.replace(STILL, perspective=0.2), seeded(12))
    still = (plain == torch.eye(3, dtype=torch.float64)).all(dim=(1, 2))
    assert still.double().mean() == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(n))


@given(brightness=st.floats(0, 1), contrast=st.floats(0, 1), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_exposures_stay_within_the_spec(brightness, contrast, seed):
    spec = dataclasses.replace(STILL, brightness=brightness, contrast=contrast)
    reach = (sample_exposures(64, spec, seeded(seed)) - 1).abs().amax(dim=0)
    assert reach[0] <= brightness
    assert reach[1] <= contrast


def test_always_and_never_mean_it():
    always = dataclasses.replace(STILL, flip=1.0)
    images = noise(64, 1, 8, 8)
    assert torch.equal(augment(images, always, seeded()), images.flip(-1))
    assert (sample_warps(64, S0, seeded())[:, 2, :2] != 0).any()
    never = dataclasses.replace(S0, perspective_probability=0.0)
    assert (sample_warps(64, never, seeded())[:, 2, :2] == 0).all()


# What goes in and comes out


def test_the_identity_changes_nothing_at_all():
    images = noise(3, 3, 11, 7)
    assert torch.equal(augment(images, STILL, seeded()), images)
    assert_close(warp(images, torch.eye(3).expand(3, 3, 3)), images, atol=1e-5)


def test_uint8_is_scaled_and_otherwise_the_same():
    pixels = (noise(4, 3, 16, 16) * 255).to(torch.uint8)
    assert torch.equal(augment(pixels, S0, seeded()), augment(pixels / 255, S0, seeded()))
    scaled = augment(torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8), STILL, seeded())
    assert scaled.dtype == torch.float32
    assert scaled.flatten().tolist() == pytest.approx([0.0, 0.2, 1.0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("spec", [S0, MILD, STILL])
def test_every_type_comes_out_as_float32_in_bounds(dtype, spec):
    images = (blobs(2) * (255 if dtype == torch.uint8 else 1)).to(dtype)
    view = augment(images, spec, seeded())
    assert view.dtype == torch.float32
    assert view.shape == images.shape
    assert view.min() >= 0
    assert view.max() <= 1 + 1e-6


@pytest.mark.parametrize("spec", [S0, MILD, STILL])
@pytest.mark.parametrize("n", [0, 1])
def test_a_batch_of_none_or_one(spec, n):
    assert augment(noise(n, 3, 9, 13), spec, seeded()).shape == (n, 3, 9, 13)


def test_the_given_images_are_left_alone():
    images = noise(3, 1, 12, 12)
    kept = images.clone()
    augment(images, MILD, seeded())
    assert torch.equal(images, kept)


def test_the_black_around_stays_black_when_the_exposure_changes():
    spec = dataclasses.replace(STILL, scale=(0.5, 0.5), brightness=0.5, contrast=0.9)
    views = augment(0.2 + 0.6 * noise(8, 1, 16, 16), spec, seeded())
    assert views[..., :3, :].max() == 0.0
    assert views[..., 6:10, 6:10].min() > 0.0


def test_channels_last_gives_the_same_values():
    images = noise(4, 3, 16, 20)
    last = images.contiguous(memory_format=torch.channels_last)
    assert_close(augment(last, MILD, seeded()), augment(images, MILD, seeded()), atol=1e-6)


def test_autocast_does_not_coarsen_the_warp():
    images = noise(4, 1, 64, 64)
    expected = augment(images, S0, seeded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = augment(images, S0, seeded())
    assert torch.equal(inside, expected)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.int64), torch.zeros(8, 8)],
)
def test_other_shapes_and_types_are_refused(images):
    with pytest.raises(ValueError, match="images must be"):
        augment(images, S0, seeded())
    with pytest.raises(ValueError, match="images must be"):
        as_float(images)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flip", 1.1),
        ("rotation", -1.0),
        ("translation", math.nan),
        ("perspective", 0.5),
        ("perspective_probability", 2.0),
        ("brightness", -0.1),
        ("contrast", math.inf),
        ("scale", (0.0, 1.0)),
        ("scale", (1.1, 0.9)),
        ("scale", (1.0, math.inf)),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"augmentation {field} is"):
        Augmentation(**{field: value})


def test_a_configuration_can_hold_one_and_its_misspelt_keys_are_refused():
    read = TypeAdapter(Augmentation).validate_python
    assert read({"scale": [0.8, 1.2]}) == Augmentation(scale=(0.8, 1.2))
    with pytest.raises(ValidationError, match="rotations"):
        read({"rotations": 5})
    with pytest.raises(ValidationError, match="give a number from 0 to 180"):
        read({"rotation": 181})


def test_the_presets_are_the_documented_ones():
    plain = (0.5, 25.0, 0.15, (0.9, 1.1), 0.2, 0.5, 0.0, 0.0, (1.0, 1.0), 0.0, 0.0)
    assert dataclasses.astuple(S0) == plain
    assert dataclasses.astuple(MILD) == (
        0.5,
        10.0,
        0.05,
        (0.9, 1.1),
        0.0,
        0.5,
        0.1,
        0.1,
        (1.0, 1.0),
        0.0,
        0.0,
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("spec", [S0, MILD])
def test_a_cuda_device_gives_the_same_views(spec):
    images = blobs(8)
    there = augment(images.cuda(), spec, seeded())
    assert there.is_cuda
    assert_close(there.cpu(), augment(images, spec, seeded()), atol=1e-3)


# --- crops -----------------------------------------------------------------------------------


def test_a_crop_by_hand():
    """The lower right quarter of the area, twice as large: its pixels, each four times."""
    image = torch.arange(16.0).view(1, 1, 4, 4) / 16
    matrix = crop_warps(torch.tensor([0.5]), torch.tensor([[1.0, 1.0]]))
    got = warp(image, matrix, mode="nearest")
    expected = image[..., 2:, 2:].repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(got, expected)


def test_crops_keep_their_share_of_the_area_and_stay_within():
    spec = replace(STILL, crop=(0.5, 0.9))
    matrices = sample_warps(500, spec, torch.Generator().manual_seed(0), aspect=1.5)
    area = matrices[:, 0, 0] * matrices[:, 1, 1]
    assert 0.5 <= area.min() < 0.52
    assert 0.88 < area.max() <= 0.9
    reach = matrices[:, :2, 2].abs() + matrices[:, 0, 0, None]
    assert reach.max() <= 1 + 1e-9
    first = sample_warps(3, spec, torch.Generator().manual_seed(0), aspect=1.5)
    assert torch.equal(first, matrices[:3])


@pytest.mark.parametrize("crop", [(0.0, 1.0), (0.9, 0.5), (0.5, 1.1)])
def test_a_crop_out_of_range_is_refused(crop):
    with pytest.raises(ValueError, match="augmentation crop is"):
        Augmentation(crop=crop)
