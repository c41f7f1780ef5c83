"""In-place ops and views: what is written where, what histories become, what may not be written, as in PyTorch."""

from __future__ import annotations

import random

import numpy as np
import pytest

import fastbp
from fastbp import optim


def leaf(*values):
    return fastbp.tensor(list(values), dtype=fastbp.float64, requires_grad=True)


def counting(n=6):
    """A leaf 1, 2 ... n and a tensor of the same values that has a history."""
    x = fastbp.arange(1, n + 1, dtype=fastbp.float64).requires_grad_()
    return x, x * 1


# ---- values and types ----


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("add_", (2,), [1, 2.5, 6]),
        ("sub_", (2,), [-3, -1.5, 2]),
        ("mul_", (2,), [-2, 1, 8]),
        ("div_", (2,), [-0.5, 0.25, 2]),
        ("pow_", (2,), [1, 0.25, 16]),
        ("neg_", (), [1, -0.5, -4]),
        ("abs_", (), [1, 0.5, 4]),
        ("zero_", (), [0, 0, 0]),
        ("fill_", (3,), [3, 3, 3]),
        ("clamp_", (0, 1), [0, 0.5, 1]),
        ("relu_", (), [0, 0.5, 4]),
        ("floor_", (), [-1, 0, 4]),
    ],
)
def test_values(name, arguments, expected):
    x = fastbp.tensor([-1, 0.5, 4])
    address, version = x.data_ptr(), x._version
    assert getattr(x, name)(*arguments) is x
    assert x.tolist() == expected
    assert x.data_ptr() == address
    assert x._version == version + 1


def test_alpha_and_values():
    x = fastbp.ones(2)
    x.add_(fastbp.tensor([1.0, 2]), alpha=10)
    assert x.tolist() == [11, 21]
    x.sub_(fastbp.tensor([1.0, 2]), alpha=10)
    assert x.tolist() == [1, 1]


def test_operators_keep_the_object():
    x = y = fastbp.tensor([2.0, 3])
    x += 1
    x *= 2
    x -= 4
    x /= 2
    assert x is y
    assert y.tolist() == [1, 2]


def test_broadcast_into_the_target_but_never_of_it():
    x = fastbp.zeros(2, 3)
    x.add_(fastbp.tensor([1.0, 2, 3]))
    assert x.tolist() == [[1, 2, 3]] * 2
    with pytest.raises(RuntimeError, match=r"output with shape .* doesn't match the broadcast shape"):
        fastbp.zeros(3).add_(x)


@pytest.mark.parametrize(
    ("dtype", "operand"),
    [
        (fastbp.int64, 1.5),
        (fastbp.int64, fastbp.ones(2)),
        (fastbp.bool, 1),
        (fastbp.bool, fastbp.ones(2, dtype=fastbp.int64)),
        (fastbp.int32, fastbp.ones(2, dtype=fastbp.float64)),
    ],
)
def test_result_must_fit_the_target(dtype, operand):
    x = fastbp.ones(2, dtype=dtype)
    with pytest.raises(RuntimeError, match=r"result type \w+ can't be cast to the desired output type"):
        x.add_(operand)
    assert x.tolist() == [1, 1]
    assert x._version == 0


def test_true_division_of_integers_in_place():
    x = fastbp.ones(2, dtype=fastbp.int64)
    with pytest.raises(RuntimeError, match="can't be cast to the desired output type"):
        x.div_(2)
    assert x.tolist() == [1, 1]


def test_smaller_type_takes_larger_one():
    x = fastbp.ones(2, dtype=fastbp.float32)
    x.add_(fastbp.full((2,), 0.5, dtype=fastbp.float64))
    assert x.dtype == fastbp.float32
    assert x.tolist() == [1.5, 1.5]
    i = fastbp.ones(2, dtype=fastbp.int32)
    i.mul_(fastbp.full((2,), 3, dtype=fastbp.int64))
    assert (i.dtype, i.tolist()) == (fastbp.int32, [3, 3])


def test_copy_converts_and_broadcasts():
    x = fastbp.zeros(2, 3, dtype=fastbp.int64)
    x.copy_(fastbp.tensor([1.7, -2.7, 3]))
    assert x.tolist() == [[1, -2, 3]] * 2
    with pytest.raises(RuntimeError, match="size"):
        x.copy_(fastbp.ones(2))


def test_writes_that_overlap_their_source():
    x = fastbp.arange(5)
    x.add_(x)
    assert x.tolist() == [0, 2, 4, 6, 8]
    y = fastbp.arange(4.0).reshape(2, 2)
    y.add_(y.t())
    assert y.tolist() == [[0, 3], [3, 6]]


def test_assignment():
    x = fastbp.zeros(3, 4, dtype=fastbp.int64)
    x[1] = 5
    x[:, 0] = fastbp.tensor([1, 2, 3])
    x[-1, 1::2] = np.array([7, 8])
    x[0, 1:3] = fastbp.tensor([[9]])
    assert x.tolist() == [[1, 9, 9, 0], [2, 5, 5, 5], [3, 7, 0, 8]]
    x[x > 6] = 0
    x[[0, 2], [0, 0]] = -1
    x[..., 3] = True
    assert x.tolist() == [[-1, 0, 0, 1], [2, 5, 5, 1], [-1, 0, 0, 1]]


# ---- versions ----


def test_versions_count_writes_and_are_shared_by_views():
    x = fastbp.zeros(4)
    v, d = x[1:], x.detach()
    assert x._version == 0
    x.add_(1)
    v[0] = 3
    d.zero_()
    x[x > 5] = 1
    assert x._version == v._version == d._version == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.add_(1),
        lambda y: y[0].zero_(),
        lambda y: y[:1].mul_(2),
        lambda y: y.__setitem__(0, 7),
        lambda y: y.__setitem__(y > 0, 7),
        lambda y: y.detach().add_(1),
        lambda y: y.reshape(1, 2).detach().zero_(),
    ],
    ids=["op", "element", "slice", "setitem", "mask", "detach", "detached view"],
)
def test_change_of_a_saved_input_is_found_and_the_op_named(change):
    x, y = counting(2)
    z = (y * y).sum()
    change(y)
    with pytest.raises(
        RuntimeError, match=r"modified by an inplace operation.*\bmul\b.*is at version 1; expected version 0"
    ):
        z.backward()
    assert x.grad is None


def test_change_under_no_grad_is_found():
    x = leaf(1, 2)
    z = (x * x).sum()
    with fastbp.no_grad():
        x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()


def test_change_of_a_saved_output_is_found():
    x = leaf(1, 2)
    y = x.exp()
    z = y.sum()
    y.add_(1)
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation.*the output of exp"):
        z.backward()


def test_change_by_an_optimizer_is_found():
    x = leaf(1, 2)
    optimizer = optim.SGD([x], lr=0.5)
    z = (x * x).sum()
    z.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()


def test_change_of_what_no_rule_reads_is_fine():
    x, y = counting(2)
    z = y.exp() + y
    y.zero_()
    z.sum().backward()
    assert x.grad.tolist() == pytest.approx([np.exp(1) + 1, np.exp(2) + 1], rel=1e-12)


def test_change_after_backward_is_fine():
    x = leaf(1, 2)
    for _ in range(3):
        (x * x).sum().backward()
        with fastbp.no_grad():
            x.sub_(x.grad, alpha=0.25)
            x.grad.zero_()
    assert x.tolist() == [0.125, 0.25]


# ---- leaves ----


@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.add_(1),
        lambda x: x.zero_(),
        lambda x: x.__setitem__(0, 9.0),
        lambda x: x.copy_(fastbp.ones(2)),
        lambda x: x.__setitem__(x > 0, 1.0),
        lambda x: x.__setitem__(fastbp.tensor([0]), 9.0),
        lambda x: x[:1].add_(1),
        lambda x: x.reshape(1, 2)[0].mul_(2),
    ],
    ids=["add_", "zero_", "setitem", "copy_", "mask", "index", "view", "view of a view"],
)
def test_leaf_that_requires_grad_is_not_written(write):
    x = leaf(1, 2)
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad is being used in an in-place operation"):
        write(x)
    assert x.tolist() == [1, 2]
    assert x.is_leaf
    with fastbp.no_grad():
        write(x)
    assert x.tolist() != [1, 2]
    assert x.requires_grad
    assert x.is_leaf


def test_leaf_that_does_not_may_become_a_result():
    x = leaf(1, 2)
    b = fastbp.zeros(2, dtype=fastbp.float64)
    b.add_(x * 3)
    assert b.requires_grad
    assert not b.is_leaf
    b.sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_rows_gathered_into_a_buffer():
    x = leaf(1, 2, 3)
    b = fastbp.zeros(3, 2, dtype=fastbp.float64)
    for i in range(3):
        b[i] = x[i] * fastbp.tensor([1.0, i], dtype=fastbp.float64)
    (b * b).sum().backward()
    assert b.tolist() == [[1, 0], [2, 2], [3, 6]]
    assert x.grad.tolist() == [2, 8, 30]


# ---- gradients of writes ----


def test_chain_of_writes():
    x, y = counting(3)
    y.mul_(2).add_(1).neg_()
    (y * y).sum().backward()
    assert y.tolist() == [-3, -5, -7]
    assert x.grad.tolist() == [12, 20, 28]


def test_gradient_to_what_is_written():
    x, y = counting(3)
    w = leaf(10)
    y[1] = w[0] * 2
    (y * y).sum().backward()
    assert x.grad.tolist() == [2, 0, 6]
    assert w.grad.tolist() == [80]


def test_overwritten_elements_get_no_gradient():
    x, y = counting(4)
    y[y > 2] = 0.0
    (y * 3).sum().backward()
    assert x.grad.tolist() == [3, 3, 0, 0]
    x, y = counting(4)
    y.zero_()
    y.sum().backward()
    assert x.grad.tolist() == [0, 0, 0, 0]


def test_copy_moves_the_gradient_to_the_source():
    x, y = counting(3)
    w = leaf(5)
    y.copy_(w)
    (y * fastbp.tensor([1.0, 2, 3], dtype=fastbp.float64)).sum().backward()
    assert x.grad.tolist() == [0, 0, 0]
    assert w.grad.tolist() == [6]


def test_view_writes_to_its_base():
    x, y = counting(3)
    v = y[0]
    v.mul_(5)
    (y * y).sum().backward()
    assert y.tolist() == [5, 2, 3]
    assert x.grad.tolist() == [50, 4, 6]
    assert v.grad_fn is not None


def test_base_writes_to_its_views():
    x, y = counting(3)
    v = y[1:]
    y.mul_(3)
    assert v.tolist() == [6, 9]
    (v * v).sum().backward()
    assert x.grad.tolist() == [0, 36, 54]


def test_named_views_of_views():
    x, y = counting(6)
    matrix = y.view(2, 3)
    turned = matrix.t()
    row = turned[1]
    row.mul_(10)
    assert y.tolist() == [1, 20, 3, 4, 50, 6]
    assert matrix.tolist() == [[1, 20, 3], [4, 50, 6]]
    ((y * y).sum() + (turned * turned).sum() + (matrix * matrix).sum()).backward()
    assert x.grad.tolist() == [6, 1200, 18, 24, 3000, 36]


def test_alternating_writes_to_base_and_view():
    x, y = counting(3)
    v = y[1:]
    v.mul_(2)
    y.mul_(3)
    (y * y).sum().backward()
    assert y.tolist() == [3, 12, 18]
    assert x.grad.tolist() == [18, 144, 216]


def test_steps_and_reversed_axes():
    x, y = counting(6)
    y[::2] = 0.0
    y.view(2, 3)[:, ::2] *= 2
    assert y.tolist() == [0, 2, 0, 8, 0, 12]
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 0, 2, 0, 2]


def test_view_of_a_tensor_that_is_gone_raises_or_agrees():
    """PyTorch's views keep their base; here the base's history may be gone, which must never give a wrong gradient."""
    x, y = counting(3)
    v, w = y[:2], y[1:]
    del y
    v.mul_(3)
    try:
        (w * w).sum().backward()
    except RuntimeError as error:
        assert "take the view again from its base" in str(error)
    else:
        assert x.grad.tolist() == [0, 36, 6]


# ---- what may not be written ----


def test_expanded_memory():
    x = fastbp.ones(1, 3).expand(2, 3)
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
        x.add_(1)
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
        x[:, 0] = 1
    assert x.tolist() == [[1, 1, 1]] * 2
    assert x.clone().add_(1).tolist() == [[2, 2, 2]] * 2


def test_failed_writes_leave_everything():
    x, y = counting(3)
    before, function = y.tolist(), y.grad_fn
    for write in (
        lambda: y.add_(fastbp.ones(2)),
        lambda: y.add_(fastbp.ones(2, 3)),
        lambda: y.__setitem__(5, 1.0),
        lambda: y.__setitem__(0, fastbp.ones(2)),
        lambda: y.__setitem__(0, "1"),
        lambda: y.copy_(fastbp.ones(4)),
        lambda: y.add_(None),
        lambda: y[1].mul_(fastbp.ones(2)),
    ):
        with pytest.raises((RuntimeError, IndexError, TypeError)):
            write()
    assert y.tolist() == before
    assert y._version == 0
    assert y.grad_fn == function
    (y * y).sum().backward()
    assert x.grad.tolist() == [2, 4, 6]


# ---- views ----


def test_views_share_memory_and_reshape_copies_where_it_must():
    x = fastbp.arange(6.0)
    for v in (
        x.view(2, 3),
        x.reshape(2, 3),
        x[2:],
        x[::2],
        x.unsqueeze(0),
        x.view(2, 3).t(),
        x.view(2, 3)[1],
        x.expand(2, 6),
    ):
        v = v.detach()
        before = x.tolist()
        with fastbp.no_grad():
            x.add_(1)
        assert max(v.reshape(-1).tolist()) <= 5 + 1 + before[0]
        assert v.reshape(-1)[0].item() in x.tolist()
    turned = fastbp.arange(6.0).view(2, 3).t()
    assert turned.reshape(6).data_ptr() != turned.data_ptr()
    with pytest.raises(RuntimeError, match="view"):
        turned.view(6)


def test_memory_layout():
    x = fastbp.zeros(2, 3, 4)
    assert x.stride() == (12, 4, 1)
    t = x.transpose(0, 2)
    assert (t.shape, t.stride(), t.is_contiguous()) == ((4, 3, 2), (1, 4, 12), False)
    assert t.contiguous().stride() == (6, 2, 1)
    assert x.contiguous() is x
    assert x[1, 2].storage_offset() == 20
    assert x.expand(5, 2, 3, 4).stride() == (0, 12, 4, 1)


# ---- programs of views and writes ----


def test_views_of_one_base_see_one_another():
    x, y = counting(4)
    a, b = y[:3], y[1:]
    a.mul_(2)
    b.mul_(3)
    assert y.tolist() == [2, 12, 18, 12]
    (a * a).sum().backward()
    assert x.grad.tolist() == [8, 144, 216, 0]


def test_views_of_views_without_a_name():
    x, y = counting(6)
    y.view(2, 3).t()[1].mul_(10)
    y[1:][1:][0] *= 2
    y.unsqueeze(0).squeeze(0).add_(1)
    (y * y).sum().backward()
    assert y.tolist() == [2, 21, 7, 5, 51, 7]
    assert x.grad.tolist() == [4, 420, 28, 10, 1020, 14]


def test_write_after_a_write_through_another_shape():
    x, y = counting(2)
    y.unsqueeze(0)[0].add_(1)
    y[1].mul_(5)
    (y * y).sum().backward()
    assert y.tolist() == [2, 15]
    assert x.grad.tolist() == [4, 150]


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("clamp_", (2, 3), [0, 1, 1, 0]),
        ("square_", (), [2, 4, 6, 8]),
        ("pow_", (3,), [3, 12, 27, 48]),
        ("log_", (), [1, 1 / 2, 1 / 3, 1 / 4]),
        ("relu_", (), [1, 1, 1, 1]),
    ],
)
def test_ops_that_read_what_they_overwrite(name, arguments, expected):
    x, y = counting(4)
    getattr(y, name)(*arguments)
    y.sum().backward()
    assert x.grad.tolist() == pytest.approx(expected, rel=1e-12)


def test_gradient_to_the_factor():
    x, y = counting(3)
    w = leaf(4)
    y.mul_(w)
    y[0].mul_(w[0])
    y.sum().backward()
    assert y.tolist() == [16, 8, 12]
    assert x.grad.tolist() == [16, 4, 4]
    assert w.grad.tolist() == [2 * 4 * 1 + 2 + 3]


def random_program(x, w, seed):
    """A number computed from x and w by random views and writes; the same program for the same seed."""
    choose = random.Random(seed)
    live = [x * 1]

    def view(t):
        if t.ndim == 0:
            return t
        kind = choose.randrange(6)
        if kind == 0:
            return t[choose.randrange(t.shape[0])]
        if kind == 1:
            return t[choose.randrange(max(1, t.shape[0] - 1)) :]
        if kind == 2:
            return t.transpose(0, -1)
        if kind == 3:
            return t.unsqueeze(choose.randint(0, t.ndim))
        if kind == 4 and t.is_contiguous() and t.numel() % 2 == 0:
            return t.view(2, -1)
        return t[..., ::2]

    for _ in range(choose.randint(2, 7)):
        t = choose.choice(live)
        if choose.randrange(7) < 3:
            for _ in range(choose.randint(1, 3)):
                t = view(t)
            live.append(t)
            continue
        if choose.random() < 0.5:
            for _ in range(choose.randint(1, 2)):
                t = view(t)
        s = w[choose.randrange(2)]
        kind = choose.randrange(5)
        if kind == 0:
            t.mul_(s)
        elif kind == 1:
            t.add_(s)
        elif kind == 2:
            t.sin_()
        elif kind == 3 and t.ndim:
            t[0] = s
        else:
            t.copy_(s * 3)
    return sum(((t.sin() * (i + 1)).sum() for i, t in enumerate(live)), fastbp.zeros((), dtype=fastbp.float64))


@pytest.mark.parametrize("seed", range(100))
def test_random_programs_of_views_and_writes(seed):
    """The derivative along a random direction, against a central difference: neither truth knows of views."""
    generator = np.random.default_rng(seed)
    x0, w0 = generator.uniform(0.5, 1.5, 12), generator.uniform(0.5, 1.5, 2)
    dx, dw = generator.normal(size=12), generator.normal(size=2)
    x, w = fastbp.tensor(x0).requires_grad_(), fastbp.tensor(w0).requires_grad_()
    random_program(x, w, seed).backward()
    slope = sum(float((t.grad * fastbp.tensor(d)).sum()) for t, d in ((x, dx), (w, dw)) if t.grad is not None)
    h = 1e-5
    high, low = (random_program(fastbp.tensor(x0 + k * dx), fastbp.tensor(w0 + k * dw), seed).item() for k in (h, -h))
    # Error: h^2 f'''/6, with f''' up to some 1e3 in products of seven factors, and below 1e-9 by rounding.
    assert slope == pytest.approx((high - low) / (2 * h), rel=1e-6, abs=1e-6)
