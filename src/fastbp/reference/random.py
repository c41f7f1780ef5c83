"""Philox4x32-10, the counter-based generator, by its definition, and the uniform numbers made of its words.

Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11.
A counter-based generator has no state to carry along: the n-th block of numbers is a function of n and a key.
"""

from __future__ import annotations

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # the golden ratio and the root of 3, less 1
ROUNDS = 10
WORD = 0xFFFFFFFF

Counter = tuple[int, int, int, int]
Key = tuple[int, int]


def philox4x32(counter: Counter, key: Key, rounds: int = ROUNDS) -> Counter:
    """Encrypt a counter of four 32-bit words under a key of two.

    Parameters
    ----------
    counter : tuple of 4 int
        Words from the least significant to the most, each in [0, 2**32).
    key : tuple of 2 int
        Words of the key.
    rounds : int
        10 by definition; fewer are of interest to tests only.

    Returns
    -------
    tuple of 4 int
        Four random words.

    Raises
    ------
    ValueError
        If a word does not fit into 32 bits.

    Examples
    --------
    >>> [hex(word) for word in philox4x32((0, 0, 0, 0), (0, 0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    if any(not 0 <= word <= WORD for word in (*counter, *key)):
        raise ValueError("philox4x32: a word does not fit into 32 bits")
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        left, right = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (right >> 32) ^ c1 ^ k0, right & WORD, (left >> 32) ^ c3 ^ k1, left & WORD
        k0, k1 = (k0 + KEY_STEPS[0]) & WORD, (k1 + KEY_STEPS[1]) & WORD
    return c0, c1, c2, c3


def uniform_float32(word: int) -> float:
    """A float32 in [0, 1) of the upper 24 bits of a 32-bit word: every result is exact.

    Examples
    --------
    >>> uniform_float32(0x80000000)
    0.5
    """
    return (word >> 8) * 2.0**-24


def uniform_float64(high: int, low: int) -> float:
    """A float64 in [0, 1) of the upper 53 bits of two 32-bit words: every result is exact.

    Examples
    --------
    >>> uniform_float64(0x80000000, 0)
    0.5
    """
    return ((high << 32 | low) >> 11) * 2.0**-53
