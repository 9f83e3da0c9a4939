"""Made-up pictures that no examination yields: what `familiar.safetensors` is fitted against, so that no photograph is needed.

Dead leaves (Lee, Mumford and Huang 2001) have the occlusions and the scales of natural scenes, clouds their 1/f spectrum; the
rest is what screens and scanners show beside an image. Pure functions of a random generator; each gives [S, S, 3] uint8.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Rgb = NDArray[np.uint8]
Random = np.random.Generator


def dead_leaves(rng: Random, side: int) -> Rgb:
    """Discs, boxes and triangles that hide each other, sizes by a power law, each flat, shaded or textured."""
    image = Image.fromarray(clouds(rng, side))
    textures = [Image.fromarray(clouds(rng, side)) for _ in range(3)]
    tint = _palette(rng)
    for _ in range(int(rng.integers(60, 400))):
        radius = side * min(0.35, 0.01 / max(float(rng.random()), 1e-3) ** 0.7)
        x, y = rng.random(2) * side
        turn = rng.random() * 2 * np.pi
        corners = int(rng.choice([3, 4, 4, 5, 24]))
        squeeze = rng.uniform(0.3, 1.0)
        angles = turn + np.arange(corners) * 2 * np.pi / corners
        outline = [(x + radius * np.cos(a), y + squeeze * radius * np.sin(a)) for a in angles]
        mask = Image.new("L", (side, side), 0)
        ImageDraw.Draw(mask).polygon(outline, fill=255)
        colour = tint(rng)
        fill = Image.new("RGB", (side, side), tuple(int(c) for c in colour))
        if rng.random() < 0.35:
            fill = Image.blend(fill, textures[int(rng.integers(3))], float(rng.uniform(0.1, 0.5)))
        image.paste(fill, (0, 0), mask)
    if rng.random() < 0.6:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 2.0))))
    return _shaded(rng, np.asarray(image))


def clouds(rng: Random, side: int) -> Rgb:
    """Noise with the spectrum 1/f^a, grey or coloured."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1 / side
    slope = rng.uniform(0.7, 1.6)
    planes = []
    for _ in range(3):
        phase = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
        planes.append(np.fft.irfft2(phase * frequency**-slope, s=(side, side)))
    stack = np.stack(planes, axis=2)
    stack = (1 - (mix := rng.random() * 0.7)) * stack[..., :1] + mix * stack
    stack = stack / (stack.std() + 1e-9) * rng.uniform(15, 60) + _palette(rng)(rng)
    picture: Rgb = np.clip(stack, 0, 255).astype(np.uint8)
    return picture


def writing(rng: Random, side: int) -> Rgb:
    """Lines of random letters on paper or a screen, with boxes."""
    dark, light = sorted(rng.integers(0, 256, 2))
    paper, ink = (light, dark) if rng.random() < 0.7 else (dark, light)
    if abs(int(paper) - int(ink)) < 60:
        paper, ink = 235, 20
    image = Image.new("L", (side, side), int(paper))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 6))):
        x, y, w, h = rng.integers(0, side, 4)
        draw.rectangle((x, y, x + w // 2, y + h // 2), outline=int(ink), fill=int(rng.integers(0, 256)))
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789    .,;:"))
    step, size = int(rng.integers(10, 40)), int(rng.integers(8, 32))
    for y in range(int(rng.integers(0, 20)), side, step):
        if rng.random() < 0.85:
            text = "".join(rng.choice(letters, int(rng.integers(5, 60))))
            draw.text((int(rng.integers(0, 30)), y), text, fill=int(ink), font_size=size)
    return _shaded(rng, np.repeat(np.asarray(image)[..., None], 3, axis=2))


def pattern(rng: Random, side: int) -> Rgb:
    """Flat fields, gradients, stripes, checks, blocks and white noise."""
    y, x = np.mgrid[0:side, 0:side] / side
    a, k = rng.random() * 2 * np.pi, rng.uniform(1, 40)
    ramp = np.cos(a) * x + np.sin(a) * y
    blocks = int(rng.integers(3, 32))
    planes: list[Callable[[], NDArray[np.float64]]] = [
        lambda: np.full((side, side), rng.random()),
        lambda: ramp,
        lambda: np.hypot(x - rng.random(), y - rng.random()),
        lambda: 0.5 + 0.5 * np.sin(ramp * k * 6),
        lambda: ((np.floor(x * k) + np.floor(y * k)) % 2).astype(np.float64),
        lambda: np.kron(rng.random((blocks, blocks)), np.ones((side // blocks + 1,) * 2))[:side, :side],
        lambda: rng.random((side, side)),
    ]
    plane = planes[int(rng.integers(len(planes)))]()
    span = np.ptp(plane)
    plane = (plane - plane.min()) / span if span > 0 else plane
    low, high = (_palette(rng)(rng) for _ in range(2))
    picture: Rgb = np.clip(low + plane[..., None] * (high - low), 0, 255).astype(np.uint8)
    return picture


KINDS: tuple[Callable[[Random, int], Rgb], ...] = (
    dead_leaves,
    dead_leaves,
    dead_leaves,
    clouds,
    writing,
    pattern,
)


def foreign_picture(rng: Random, side: int) -> Rgb:
    """One made-up picture [side, side, 3] of any kind."""
    return KINDS[int(rng.integers(len(KINDS)))](rng, side)


def _palette(rng: Random) -> Callable[[Random], NDArray[np.float64]]:
    """A source of colours: grey in two of five pictures, else around one hue or of any hue."""
    kind, centre, spread = rng.random(), rng.random(3) * 255, rng.uniform(20, 90)
    if kind < 0.4:
        return lambda r: np.full(3, r.random() * 255)
    if kind < 0.7:
        return lambda r: np.clip(centre + r.normal(size=3) * spread * 0.4 + r.normal() * spread, 0, 255)
    return lambda r: r.random(3) * 255


def _shaded(rng: Random, image: Rgb) -> Rgb:
    """Uneven light and grain, as a camera gives them."""
    side = image.shape[0]
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    a = rng.random() * 2 * np.pi
    light = 1 + rng.uniform(0, 0.8) * (np.cos(a) * x + np.sin(a) * y)
    grain = rng.normal(size=image.shape[:2]) * rng.uniform(0, 8)
    picture: Rgb = np.clip(image * light[..., None] + grain[..., None], 0, 255).astype(np.uint8)
    return picture
