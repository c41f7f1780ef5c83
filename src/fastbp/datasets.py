"""datasets: a small set of real data that comes with the package, for examples and tests; no download."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from typing import Any, Literal

    from numpy.typing import NDArray

DIGITS_DESCRIPTION = """\
Optical Recognition of Handwritten Digits

1,797 images of 8 x 8 pixels, each pixel 0 (white) to 16 (black); 10 classes, the digits, of 174 to 183 images each.
A pixel counts the black points in a 4 x 4 block of a 32 x 32 bitmap; the forms were filled in by 13 people.

Source: E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
https://doi.org/10.24432/C50P49. These are the images of its test set, the same 1,797 that scikit-learn ships.
Licence: Creative Commons Attribution 4.0 International (CC BY 4.0), https://creativecommons.org/licenses/by/4.0/.
"""


class Digits:
    """The digits as NumPy arrays.

    Attributes
    ----------
    data : ndarray
        float32 (1797, 64), the images row by row, values 0 to 16.
    images : ndarray
        float32 (1797, 8, 8), the same memory as `data`.
    target : ndarray
        int64 (1797,), the digit that each image shows.
    DESCR : str
        What the data are, their source and licence.
    """

    __slots__ = ("data", "images", "target")
    DESCR = DIGITS_DESCRIPTION

    def __init__(self, images: NDArray[Any], target: NDArray[Any]) -> None:
        self.images = images
        self.data = images.reshape(len(images), -1)
        self.target = target

    def __repr__(self) -> str:
        return f"Digits({len(self.target)} images of 8 x 8 pixels, values 0 to 16)"


@overload
def load_digits(return_X_y: Literal[False] = False) -> Digits: ...


@overload
def load_digits(return_X_y: Literal[True]) -> tuple[NDArray[Any], NDArray[Any]]: ...


def load_digits(return_X_y: bool = False) -> Digits | tuple[NDArray[Any], NDArray[Any]]:
    """Read the handwritten digits that come with fastbp.

    Parameters
    ----------
    return_X_y : bool, optional
        Whether to return only (data, target). Default: False.

    Returns
    -------
    Digits, or (ndarray, ndarray)
        New arrays at each call.

    Examples
    --------
    >>> digits = fastbp.datasets.load_digits()
    >>> digits.data.shape, digits.target[:5]
    ((1797, 64), array([0, 1, 2, 3, 4]))
    """
    import numpy

    with numpy.load(Path(__file__).with_name("data") / "digits.npz") as stored:
        digits = Digits(stored["images"].astype(numpy.float32), stored["target"].astype(numpy.int64))
    return (digits.data, digits.target) if return_X_y else digits
