"""The demo: learns to read handwritten digits, reports accuracy and speed, and draws the result.

``python -m fastbp demo`` trains a 64-128-10 network on 1,438 of the 1,797 images that come with the package and tests
it on the other 359. The split is the same on every run, whatever the seed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import fastbp

from . import nn, optim
from .datasets import load_digits
from .nn import functional as F
from .utils.data import DataLoader, TensorDataset

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._core import Tensor

REQUIRED_ACCURACY = 0.97
SPLIT_SEED = 1998  # The year of the data.
TEST_SHARE = 0.2


class Split(NamedTuple):
    """Images scaled to 0..1, float32 (N, 64), and their digits, int64 (N,)."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


class EpochResult(NamedTuple):
    """Loss and accuracy (0..1) after an epoch, dropout switched off."""

    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float


class Misread(NamedTuple):
    """A test image that was read wrongly: pixels (8, 8) in 0..1 and the share of certainty in the wrong digit."""

    pixels: list[list[float]]
    digit: int
    read_as: int
    certainty: float


# ----------------------------------------------------------------------------------------------- training


def split_digits() -> Split:
    """Divide the digits into training and test images with the same share of each digit in both."""
    import numpy

    digits = load_digits()
    random = numpy.random.default_rng(SPLIT_SEED)
    is_test = numpy.zeros(len(digits.target), dtype=numpy.bool_)
    for digit in range(10):
        shuffled = random.permutation(numpy.flatnonzero(digits.target == digit))
        is_test[shuffled[: round(TEST_SHARE * len(shuffled))]] = True
    images = digits.data / 16
    parts = (images[~is_test], digits.target[~is_test], images[is_test], digits.target[is_test])
    return Split(*(fastbp.from_numpy(part) for part in parts))


def build_model() -> nn.Sequential:
    """The classifier: 64 pixels, 128 hidden units, 10 digits; dropout against learning the images by heart."""
    return nn.Sequential(
        nn.Dropout(0.1),
        nn.Linear(64, 128),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Linear(128, 10),
    )


def train(
    model: nn.Module, data: Split, epochs: int, batch_size: int, report: Callable[[int, EpochResult], None]
) -> tuple[list[EpochResult], float, int]:
    """Train `model` with Adam, calling ``report(epoch, result)`` after each epoch.

    Returns
    -------
    (history, seconds, steps)
        A result per epoch; the time spent in training steps, evaluation not counted; the number of steps.
    """
    loader = DataLoader(TensorDataset(data.train_x, data.train_y), batch_size=batch_size, shuffle=True)
    optimizer = optim.Adam(model.parameters(), lr=2e-3)
    history, seconds, steps = [], 0.0, 0
    for epoch in range(1, epochs + 1):
        model.train()
        start = time.perf_counter()
        for images, digits in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), digits).backward()
            optimizer.step()
            steps += 1
        seconds += time.perf_counter() - start
        on_train, on_test = evaluate(model, data.train_x, data.train_y), evaluate(model, data.test_x, data.test_y)
        history.append(EpochResult(*on_train, *on_test))
        report(epoch, history[-1])
    return history, seconds, steps


def evaluate(model: nn.Module, images: Tensor, digits: Tensor) -> tuple[float, float]:
    """Loss and accuracy (0..1) on `images`, dropout switched off."""
    model.eval()
    with fastbp.no_grad():
        logits = model(images)
        correct = (logits.argmax(1) == digits).sum().item()
        return F.cross_entropy(logits, digits).item(), correct / len(digits)


def find_misread(model: nn.Module, images: Tensor, digits: Tensor) -> list[Misread]:
    """The images that `model` reads wrongly, the surest mistakes first."""
    model.eval()
    with fastbp.no_grad():
        certainty = F.softmax(model(images), dim=1).numpy()
    read = certainty.argmax(1)
    truth, pixels = digits.numpy(), images.numpy().reshape(-1, 8, 8)
    wrong = [
        Misread(pixels[i].tolist(), int(truth[i]), int(read[i]), float(certainty[i, read[i]]))
        for i in (read != truth).nonzero()[0]
    ]
    return sorted(wrong, key=lambda item: -item.certainty)


# ----------------------------------------------------------------------------------------------- picture

WIDTH, HEIGHT = 1080, 600
INK, FAINT, RULE = "#1c2733", "#5f6c7b", "#e3e8ee"
TRAIN_COLOR, TEST_COLOR, LIMIT_COLOR = "#8fa3b8", "#0b63ce", "#c2410c"


def draw_picture(history: Sequence[EpochResult], misread: Sequence[Misread], title: str, subtitle: str) -> str:
    """The learning curve and the misread digits as the text of an SVG file."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="Helvetica, Arial, sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(40, 46, title, size=23, weight="bold"),
        _text(40, 72, subtitle, size=14, color=FAINT),
        # Legend of the two charts.
        f'<path d="M84 108h26" stroke="{TRAIN_COLOR}" stroke-width="2.5"/>',
        _text(118, 113, "training images", size=13),
        f'<path d="M240 108h26" stroke="{TEST_COLOR}" stroke-width="2.5"/>',
        _text(274, 113, "test images", size=13),
    ]
    loss_curves = [[result.train_loss for result in history], [result.test_loss for result in history]]
    accuracy_curves = [
        [100 * result.train_accuracy for result in history],
        [100 * result.test_accuracy for result in history],
    ]
    parts += _chart(84, 132, 480, 170, loss_curves, "loss (cross entropy, log scale)", logarithmic=True)
    parts += _chart(84, 346, 480, 170, accuracy_curves, "accuracy (%)", limit=100 * REQUIRED_ACCURACY)
    parts.append(_text(324, 560, "epoch", size=13, color=FAINT, anchor="middle"))
    parts += _sheet(636, 113, misread)
    return "\n".join(parts) + "\n</svg>\n"


def _text(
    x: float, y: float, text: str, size: int = 12, color: str = INK, anchor: str = "start", weight: str = "normal"
) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{color}" text-anchor="{anchor}"'
        f' font-weight="{weight}">{text}</text>'
    )


def _chart(
    left: int,
    top: int,
    width: int,
    height: int,
    curves: list[list[float]],
    title: str,
    logarithmic: bool = False,
    limit: float | None = None,
) -> list[str]:
    """One chart over the epochs: axes with ticks, a curve for training and one for test, perhaps a limit."""
    from math import ceil, floor, log10

    values = [max(value, 1e-6) for curve in curves for value in curve]
    if logarithmic:
        exponents = range(floor(log10(min(values))), ceil(log10(max(values))) + 1)
        ticks = [factor * 10.0**exponent for exponent in exponents for factor in (1, 2, 5)]
        low = max((tick for tick in ticks if tick <= min(values)), default=ticks[0])
        high = min((tick for tick in ticks if tick >= max(values)), default=ticks[-1])
    else:
        low, high = 5 * floor(min(values) / 5), 100
        low = min(low, 90)
        every = next(step for step in (2, 5, 10, 20, 25) if (high - low) / step <= 6)
        ticks = list(range(high, low - 1, -every))
    scale = (lambda value: log10(max(value, 1e-6))) if logarithmic else float

    def x_at(epoch: float) -> float:
        return left + width * (epoch - 1) / max(len(curves[0]) - 1, 1)

    def y_at(value: float) -> float:
        return top + height * (1 - (scale(value) - scale(low)) / (scale(high) - scale(low)))

    parts = [_text(left + width, top - 8, title, size=13, color=FAINT, anchor="end")]
    for tick in ticks:
        if low <= tick <= high:
            y = y_at(tick)
            parts.append(f'<path d="M{left} {y:.1f}h{width}" stroke="{RULE}"/>')
            parts.append(_text(left - 9, y + 4, f"{tick:g}", color=FAINT, anchor="end"))
    parts.append(f'<path d="M{left} {top}v{height}h{width}" stroke="{FAINT}" fill="none"/>')
    count = len(curves[0])
    every = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if count / step <= 10)
    for epoch in sorted({1, *range(every, count + 1, every)}):
        parts.append(f'<path d="M{x_at(epoch):.1f} {top + height}v4" stroke="{FAINT}"/>')
        parts.append(_text(x_at(epoch), top + height + 18, str(epoch), color=FAINT, anchor="middle"))
    if limit is not None and limit >= low:
        y = y_at(limit)
        parts.append(f'<path d="M{left} {y:.1f}h{width}" stroke="{LIMIT_COLOR}" stroke-dasharray="5 4"/>')
        parts.append(_text(left + width, y + 16, f"required: {limit:g}%", color=LIMIT_COLOR, anchor="end"))
    for curve, color in zip(curves, (TRAIN_COLOR, TEST_COLOR), strict=True):
        points = " ".join(f"{x_at(i + 1):.1f},{y_at(value):.1f}" for i, value in enumerate(curve))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2.5" stroke-linejoin="round"/>'
        )
        parts.append(f'<circle cx="{x_at(count):.1f}" cy="{y_at(curve[-1]):.1f}" r="3.5" fill="{color}"/>')
    return parts


def _sheet(left: int, top: int, misread: Sequence[Misread]) -> list[str]:
    """Up to twelve misread images, each with what it was read as, how surely, and what it is."""
    if not misread:
        return [_text(left, top, "No test image was misread", size=15, weight="bold")]
    shown = misread[:12]
    heading = f"The {len(misread)} misread test images"
    if len(shown) < len(misread):
        heading = f"The {len(shown)} surest of {len(misread)} mistakes"
    # Few images are drawn larger.
    columns, pixel = (3, 14) if len(shown) <= 6 else (4, 10)
    pitch_x, pitch_y = 416 // columns, 8 * pixel + 76
    parts = [_text(left, top, heading, size=15, weight="bold")]
    for number, item in enumerate(shown):
        x, y = left + pitch_x * (number % columns), top + 19 + pitch_y * (number // columns)
        parts.append(f'<g transform="translate({x} {y})" shape-rendering="crispEdges">')
        for row, line in enumerate(item.pixels):
            for column, darkness in enumerate(line):
                shade = f"{round(255 - 235 * darkness):02x}"
                corner = f'x="{pixel * column}" y="{pixel * row}"'
                parts.append(f'<rect {corner} width="{pixel}" height="{pixel}" fill="#{shade * 3}"/>')
        parts.append(f'<rect width="{8 * pixel}" height="{8 * pixel}" fill="none" stroke="{RULE}"/></g>')
        caption = f"read {item.read_as}, is {item.digit}"
        parts.append(_text(x, y + 8 * pixel + 20, caption, size=14, color=LIMIT_COLOR, weight="bold"))
        parts.append(_text(x, y + 8 * pixel + 37, f"{item.certainty:.0%} sure", color=FAINT))
    return parts


# ----------------------------------------------------------------------------------------------- command line


def _progress(epochs: int) -> Callable[[int, EpochResult], None]:
    """A reporter on stderr: a bar that redraws itself on a terminal, else a line now and then."""
    is_terminal = sys.stderr.isatty()
    every = max(1, epochs // 8)

    def report(epoch: int, result: EpochResult) -> None:
        number = f"epoch {epoch:>{len(str(epochs))}}/{epochs}"
        figures = f"{number}  loss {result.test_loss:.3f}  test accuracy {result.test_accuracy:6.1%}"
        if is_terminal:
            filled = round(30 * epoch / epochs)
            bar = "#" * filled + "." * (30 - filled)
            print(f"\r[{bar}]  {figures}", end="\n" if epoch == epochs else "", file=sys.stderr, flush=True)
        elif epoch % every == 0 or epoch == epochs:
            print(figures, file=sys.stderr, flush=True)

    return report


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but is {number}")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    Parameters
    ----------
    arguments : sequence of str, optional
        Of the command line; default: those of the process.

    Returns
    -------
    int
        The exit status: 0, or 1 when the accuracy is below 97% or the picture could not be written.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fastbp demo",
        description="Train a classifier of handwritten digits, report accuracy and speed, draw the learning curve.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--epochs", type=_positive, default=40, help="passes over the training images")
    parser.add_argument("--batch-size", type=_positive, default=32, help="images per step")
    parser.add_argument("--seed", type=int, default=0, help="of weights, dropout and order of the images")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where the picture goes")
    parser.add_argument("--quiet", action="store_true", help="print only the accuracy")
    options = parser.parse_args(arguments)

    fastbp.manual_seed(options.seed)
    data, model = split_digits(), build_model()
    passes = f"{options.epochs} epoch" + ("s" if options.epochs > 1 else "")
    report = (lambda epoch, result: None) if options.quiet else _progress(options.epochs)
    history, seconds, steps = train(model, data, options.epochs, options.batch_size, report)
    misread = find_misread(model, data.test_x, data.test_y)
    accuracy, tested = history[-1].test_accuracy, len(data.test_y)
    examples = options.epochs * len(data.train_y)
    step_time = f"{1e6 * seconds / steps:.0f} us"
    speed = f"{steps:,} steps of {options.batch_size} images at {step_time}, {examples / seconds:,.0f} images/s"

    print(f"test accuracy  {accuracy:.1%}  ({tested - len(misread)} of {tested} images)")
    if not options.quiet:
        print(f"training       {seconds:.2f} s: {speed}")
    picture = draw_picture(
        history,
        misread,
        f"Handwritten digits: {accuracy:.1%} of {tested} test images read correctly",
        f"64-128-10 network, dropout, Adam, {passes}; {speed}",
    )
    path = options.out / "digits.svg"
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        path.write_text(picture, encoding="utf-8")
    except OSError as error:
        print(f"fastbp demo: cannot write the picture: {error}", file=sys.stderr)
        return 1
    if not options.quiet:
        print(f"picture        {path}")
    if accuracy < REQUIRED_ACCURACY:
        print(
            f"fastbp demo: the accuracy {accuracy:.1%} is below {REQUIRED_ACCURACY:.0%} after {passes}",
            file=sys.stderr,
        )
        return 1
    return 0
