"""Street scenes drawn by code, with their exact truth; the docs and the tests use them in place of dataset pictures.

A pinhole camera at the origin looks along +z over flat ground; x is to the right, y is down, in metres. Every pixel's
ray meets the ground, a row of houses on either side, a parked car or the sky, whichever is nearest.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]

CAMERA_HEIGHT_M = 1.4
FOCAL_PX = 0.95  # in picture widths
PAVEMENT_M, LAWN_M, HOUSE_HEIGHT_M = 2.2, 4.0, 10.4
VISIBLE_M, BEYOND_M, HAZE_M = 200.0, 400.0, 250.0


@dataclass(frozen=True)
class Scene:
    """What to draw.

    Attributes:
        seed: of the textures.
        road_m: half the width of the road.
        bend: sideways drift of the road in metres per square metre ahead, times 1,000.
        side_road_z_m: where a side road leaves to the right, or None.
        cars: (x, z) of the middle of parked cars' nearest faces.
        light: 1 is day; dusk is about 0.3.
        wet: 0 dry to 1: the road mirrors the sky.
        shadow: 0 none to 1: the houses shade half of the road.
    """

    seed: int = 0
    road_m: float = 4.0
    bend: float = 0.0
    side_road_z_m: float | None = None
    cars: tuple[tuple[float, float], ...] = ()
    light: float = 1.0
    wet: float = 0.0
    shadow: float = 0.0


def draw(scene: Scene, height: int = 360, width: int = 480) -> tuple[UInt8Array, npt.NDArray[np.bool_]]:
    """A scene as (image_HWC, RGB uint8) and (road_HW, bool)."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    ray_x = (columns - width / 2) / (FOCAL_PX * width)
    ray_y = (rows - height * 0.45) / (FOCAL_PX * width)
    ground_m = CAMERA_HEIGHT_M / np.maximum(ray_y, CAMERA_HEIGHT_M / BEYOND_M)
    # The houses stand along the road: a ray meets their plane once it has gone that far sideways.
    house_side_m = scene.road_m + PAVEMENT_M + LAWN_M
    house_m = house_side_m / np.maximum(np.abs(ray_x), house_side_m / BEYOND_M)
    depth_m = np.minimum(ground_m, house_m)
    far = depth_m > VISIBLE_M
    image_HWC = _sky(ray_y, scene)

    is_house = (house_m < ground_m) & ~far & (house_m * ray_y > CAMERA_HEIGHT_M - HOUSE_HEIGHT_M)
    image_HWC[is_house] = _houses(house_m * ray_y, house_m, np.sign(ray_x), scene)[is_house]

    is_ground = (ground_m <= house_m) & ~far
    x_m = ray_x * depth_m - scene.bend * depth_m**2 / 1000
    ground_HWC, is_road = _ground(x_m, depth_m, scene)
    image_HWC[is_ground] = ground_HWC[is_ground]
    road_HW = is_ground & is_road

    haze = 1 - np.exp(-depth_m / HAZE_M)
    image_HWC = image_HWC + np.where(is_ground | is_house, haze, 0)[..., None] * (200 - image_HWC)
    for x_m_car, z_m_car in sorted(scene.cars, key=lambda car: -car[1]):
        _park(image_HWC, road_HW, (x_m_car, z_m_car), FOCAL_PX * width)
    rng = np.random.default_rng(scene.seed)
    image_HWC = 255 * (image_HWC / 255 * scene.light) ** (1 / 1.1) + rng.normal(0, 3, image_HWC.shape)
    return image_HWC.clip(0, 255).astype(np.uint8), road_HW


def _sky(ray_y: FloatArray, scene: Scene) -> FloatArray:
    towards_top = np.clip(-ray_y / 0.4, 0, 1)[..., None]
    clouds = 18 * _noise(ray_y * 9, ray_y * 2 + 5, scene.seed)[..., None]
    sky: FloatArray = np.array([215.0, 220, 228]) + towards_top * np.array([-60.0, -35, 10]) + clouds
    return sky


def _houses(y_m: FloatArray, z_m: FloatArray, side: FloatArray, scene: Scene) -> FloatArray:
    number = np.floor(z_m / 11) + 40 * side
    shade = 105 + 70 * _hash(number, scene.seed)
    tint = np.stack([np.ones_like(shade), 0.75 + 0.2 * _hash(number, 7), 0.6 + 0.3 * _hash(number, 9)], axis=-1)
    image = shade[..., None] * tint
    window = (np.abs((z_m % 2.75) - 1.4) < 0.55) & (np.abs(((y_m + 20) % 3) - 1.5) < 0.75)
    image[window] = (55, 62, 74)
    return image * (0.93 + 0.07 * _noise(z_m * 3, y_m * 3, scene.seed)[..., None])


def _ground(x_m: FloatArray, z_m: FloatArray, scene: Scene) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    is_road = np.abs(x_m) < scene.road_m
    if scene.side_road_z_m is not None:
        is_road |= (x_m > 0) & (np.abs(z_m - scene.side_road_z_m) < 3.5)
    is_pavement = ~is_road & (np.abs(x_m) < scene.road_m + PAVEMENT_M)
    is_kerb = ~is_road & (np.abs(x_m) < scene.road_m + 0.15)
    grain = _noise(x_m * 6, z_m * 6, scene.seed) * 0.5 + _noise(x_m * 1.1, z_m * 0.3, scene.seed + 1) * 0.5
    image = np.array([88.0, 118, 62]) * (0.8 + 0.4 * grain[..., None])
    image[is_pavement] = (np.array([158.0, 152, 146]) * (0.94 + 0.12 * grain[..., None]))[is_pavement]
    slab = is_pavement & ((z_m % 0.9 < 0.05) | (x_m % 0.9 < 0.05)) & (z_m < 15)
    image[slab] *= 0.85
    image[is_kerb] = (182, 180, 176)
    asphalt = np.array([100.0, 101, 104]) * (0.88 + 0.24 * grain[..., None])
    mirrored = scene.wet * np.clip(1 - 6 / z_m, 0, 1)[..., None]
    asphalt = asphalt * (1 - 0.35 * scene.wet) * (1 - mirrored) + mirrored * np.array([190.0, 196, 205])
    image[is_road] = asphalt[is_road]
    middle = (np.abs(x_m) < 0.08) & (z_m % 6 < 3)
    edge = np.abs(np.abs(x_m) - scene.road_m + 0.35) < 0.06
    image[is_road & (middle | edge)] = (206, 205, 198)
    image[(x_m > 0.2 * scene.road_m) & (scene.shadow > 0)] *= 1 - 0.6 * scene.shadow
    return image, is_road


def _park(image_HWC: FloatArray, road_HW: npt.NDArray[np.bool_], car: tuple[float, float], focal_px: float) -> None:
    """Draw the back of a car on the ground, over what was there."""
    height, width = road_HW.shape
    x_m, z_m = car
    for half_m, top_m, bottom_m, colour in (
        (0.9, 0.95, 0.25, (150, 32, 36)),
        (0.75, 1.45, 0.95, (140, 30, 34)),
        (0.62, 1.36, 0.98, (52, 58, 66)),
        (0.85, 0.3, 0.0, (22, 22, 24)),
    ):
        left, right = (round(width / 2 + focal_px * (x_m + s * half_m) / z_m) for s in (-1, 1))
        top, bottom = (round(height * 0.45 + focal_px * (CAMERA_HEIGHT_M - y) / z_m) for y in (top_m, bottom_m))
        where = (slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0)))
        image_HWC[where] = colour
        road_HW[where] = False


def _hash(number: FloatArray, seed: int) -> FloatArray:
    """A fixed pseudo-random number in [0, 1) for each whole number."""
    fraction: FloatArray = np.modf(np.abs(np.sin(number * 12.9898 + seed * 78.233)) * 43758.5453)[0]
    return fraction


def _noise(x: FloatArray, y: FloatArray, seed: int) -> FloatArray:
    """Smooth value noise in [0, 1) over the plane."""
    column, row = np.floor(x), np.floor(y)
    u, v = x - column, y - row
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    corners = [_hash(column + i + 57 * (row + j), seed) for j in (0, 1) for i in (0, 1)]
    upper, lower = corners[0] * (1 - u) + corners[1] * u, corners[2] * (1 - u) + corners[3] * u
    return upper * (1 - v) + lower * v
