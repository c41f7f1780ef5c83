"""autograd as PyTorch's: what is recorded, when a graph may be walked, hooks, what leaves and history look like."""

from __future__ import annotations

import copy
import pickle
import threading
import weakref

import pytest

import fastbp
from fastbp import autograd


def leaf(*values):
    return fastbp.tensor(list(values), dtype=fastbp.float64, requires_grad=True)


# ---- backward ----


def test_gradients_accumulate_until_cleared():
    x = leaf(1, 2)
    (x * x).sum().backward()
    assert x.grad.tolist() == [2, 4]
    (x * 3).sum().backward()
    assert x.grad.tolist() == [5, 7]
    x.grad = None
    assert x.grad is None
    (x * 3).sum().backward()
    assert x.grad.tolist() == [3, 3]


def test_gradient_argument_weighs_the_outputs():
    x = leaf(1, 2, 3)
    (x * x).backward(fastbp.tensor([1.0, 10, 100], dtype=fastbp.float64))
    assert x.grad.tolist() == [2, 40, 600]


def test_output_of_one_element_needs_no_gradient():
    x = leaf(4)
    (x * x).backward()
    assert x.grad.tolist() == [8]


def test_output_of_more_elements_needs_a_gradient():
    with pytest.raises(RuntimeError, match=r"grad can be implicitly created only for scalar outputs.*\(2,\)"):
        (leaf(1, 2) * 2).backward()


@pytest.mark.parametrize("shape", [(3,), (2, 1), ()])
def test_gradient_of_another_shape(shape):
    x = leaf(1, 2)
    with pytest.raises(RuntimeError, match="Mismatch in shape: grad_output"):
        (x * 2).backward(fastbp.ones(shape, dtype=fastbp.float64))
    assert x.grad is None


def test_tensor_without_history():
    with pytest.raises(RuntimeError, match="does not require grad and does not have a grad_fn"):
        fastbp.ones(1).backward()


def test_second_backward_needs_what_was_saved():
    x = leaf(1, 2)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match=r"backward through the graph a second time.*mul.*retain_graph=True"):
        y.backward()
    assert x.grad.tolist() == [2, 4]


def test_second_backward_where_nothing_was_saved():
    x = leaf(1, 2)
    y = (x + 1).sum()
    y.backward()
    y.backward()
    assert x.grad.tolist() == [2, 2]


def test_retain_graph():
    x = leaf(1, 2)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [4, 8]
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_inputs_limits_accumulation():
    x, w = leaf(1, 2), leaf(3, 4)
    (x * w).sum().backward(inputs=[x])
    assert x.grad.tolist() == [3, 4]
    assert w.grad is None
    (x * w).sum().backward(inputs=w)
    assert w.grad.tolist() == [1, 2]


def test_inputs_takes_what_is_no_leaf():
    x = leaf(1, 2)
    y = x * 2
    (y * y).sum().backward(inputs=[y])
    assert y.grad.tolist() == [4, 8]
    assert x.grad is None


def test_inputs_that_cannot_be():
    x = leaf(1)
    with pytest.raises(RuntimeError, match="cannot be empty"):
        (x * 2).backward(inputs=[])
    with pytest.raises(RuntimeError, match=r"require.*grad"):
        (x * 2).backward(inputs=[fastbp.ones(1)])


def test_backward_of_several_tensors_is_one_sweep():
    x = leaf(1, 2)
    y = x * x
    autograd.backward([y.sum(), (y * 2).sum()])
    assert x.grad.tolist() == [6, 12]
    with pytest.raises(RuntimeError, match="1 tensors and 2 gradients"):
        autograd.backward([leaf(1) * 2], [None, None])


def test_diamond():
    x = leaf(2)
    a = x * x
    b, c = a.exp(), a * 3
    (b * c).backward()
    e = float(fastbp.tensor(4.0, dtype=fastbp.float64).exp())
    assert x.grad.item() == pytest.approx(4 * (12 * e + 3 * e), rel=1e-12)


def test_leaf_that_is_used_many_times():
    x = leaf(3)
    total = x * 0
    for _ in range(1000):
        total = total + x
    total.backward()
    assert x.grad.tolist() == [1000]


def test_graph_shared_by_two_losses():
    x = leaf(1, 2)
    shared = (x * x).exp()
    one, two = shared.sum(), (shared * 2).sum()
    one.backward(retain_graph=True)
    first = x.grad.clone()
    two.backward()
    assert x.grad.tolist() == pytest.approx((first * 3).tolist(), rel=1e-12)


def test_gradients_of_two_leaves_are_separate_memory():
    x, w = leaf(1, 2), leaf(3, 4)
    (x + w).sum().backward()
    x.grad.add_(1)
    assert x.grad.tolist() == [2, 2]
    assert w.grad.tolist() == [1, 1]


def test_gradient_given_by_the_user_is_not_kept():
    x = leaf(1, 2)
    given = fastbp.ones(2, dtype=fastbp.float64)
    (x + 0).backward(given)
    given.zero_()
    assert x.grad.tolist() == [1, 1]


def test_accumulation_is_in_place():
    x = leaf(1, 2)
    (x * 2).sum().backward()
    kept = x.grad
    (x * 2).sum().backward()
    assert kept.tolist() == [4, 4]
    assert x.grad is kept


# ---- autograd.grad ----


def test_grad_returns_and_does_not_accumulate():
    x, w = leaf(1, 2), leaf(3, 4)
    result = autograd.grad((x * w).sum(), (x, w))
    assert isinstance(result, tuple)
    assert [g.tolist() for g in result] == [[3, 4], [1, 2]]
    assert x.grad is None
    assert w.grad is None


def test_grad_outputs():
    x = leaf(1, 2)
    (g,) = autograd.grad([x * x, x * 3], x, grad_outputs=[fastbp.ones(2, dtype=fastbp.float64)] * 2)
    assert g.tolist() == [5, 7]
    with pytest.raises(RuntimeError, match="1 outputs and 2 grad_outputs"):
        autograd.grad([x * x], x, grad_outputs=[None, None])


def test_grad_by_an_intermediate():
    x = leaf(1, 2)
    y = x * 2
    (g,) = autograd.grad((y * y).sum(), y)
    assert g.tolist() == [4, 8]


def test_grad_by_an_output_itself():
    y = leaf(3) * 2
    assert autograd.grad(y, y)[0].tolist() == [1]


def test_grad_by_one_input_twice():
    x = leaf(3)
    assert [g.tolist() for g in autograd.grad(x * x, [x, x])] == [[6], [6]]


def test_unused_input():
    x, other = leaf(1), leaf(1, 2)
    with pytest.raises(RuntimeError, match=r"appears to not have been used in the graph. Set allow_unused=True"):
        autograd.grad(x * x, [x, other])
    assert autograd.grad(x * x, [x, other], allow_unused=True)[1] is None
    assert autograd.grad(x * x, [x, other], materialize_grads=True)[1].tolist() == [0, 0]


def test_grad_frees_and_retains_like_backward():
    x = leaf(2)
    y = x * x
    autograd.grad(y, x, retain_graph=True)
    autograd.grad(y, x)
    with pytest.raises(RuntimeError, match="second time"):
        autograd.grad(y, x)


def test_higher_derivatives():
    x = leaf(2)
    y = x**4
    expected = [4 * 2**3, 12 * 2**2, 24 * 2, 24]
    for value in expected:
        (y,) = autograd.grad(y, x, create_graph=True)
        assert y.requires_grad
        assert y.item() == pytest.approx(value, rel=1e-12)


def test_gradient_penalty():
    """A loss of a gradient's norm: backward through backward, to a leaf that the gradient depends on."""
    x, w = leaf(1, 2), leaf(3, 4)
    (g,) = autograd.grad((w * x * x).sum(), x, create_graph=True)
    (g * g).sum().backward()
    # g = 2 w x, so that the penalty is 4 w^2 x^2
    assert w.grad.tolist() == [8 * 3 * 1, 8 * 4 * 4]
    assert x.grad.tolist() == [8 * 9 * 1, 8 * 16 * 2]


def test_backward_with_create_graph_gives_differentiable_gradients():
    x = leaf(3)
    (x * x * x).backward(create_graph=True)
    assert x.grad.requires_grad
    first = x.grad
    x.grad = None
    first.backward()
    assert x.grad.tolist() == [18]


def test_results_without_create_graph_are_plain():
    x = leaf(3)
    (g,) = autograd.grad(x * x, x)
    assert not g.requires_grad
    assert g.is_leaf


# ---- recording on and off ----


def test_modes_nest():
    x = leaf(1)
    with fastbp.no_grad():
        assert not (x * 2).requires_grad
        with fastbp.enable_grad():
            assert (x * 2).requires_grad
            with fastbp.set_grad_enabled(False):
                assert not (x * 2).requires_grad
            assert fastbp.is_grad_enabled()
        assert not fastbp.is_grad_enabled()
    assert fastbp.is_grad_enabled()


def test_mode_is_restored_after_an_error():
    with pytest.raises(ZeroDivisionError), fastbp.no_grad():
        raise ZeroDivisionError
    assert fastbp.is_grad_enabled()


def test_leaf_made_under_no_grad_can_require_grad():
    with fastbp.no_grad():
        assert leaf(1).requires_grad


def test_set_grad_enabled_without_with():
    fastbp.set_grad_enabled(False)
    try:
        assert not (leaf(1) * 2).requires_grad
    finally:
        fastbp.set_grad_enabled(True)
    assert (leaf(1) * 2).requires_grad


def test_inference_mode():
    x = leaf(1)
    with fastbp.inference_mode():
        assert not (x * 2).requires_grad
    with fastbp.inference_mode(False):
        assert (x * 2).requires_grad


@pytest.mark.parametrize("switch", [fastbp.no_grad, fastbp.no_grad(), fastbp.inference_mode, fastbp.inference_mode()])
def test_decorators(switch):
    @switch
    def f(x):
        """Twice x."""
        return x * 2

    assert not f(leaf(1)).requires_grad
    assert (f.__name__, f.__doc__) == ("f", "Twice x.")
    assert fastbp.is_grad_enabled()


def test_decorated_function_that_raises():
    @fastbp.no_grad()
    def f():
        raise KeyError("x")

    with pytest.raises(KeyError):
        f()
    assert fastbp.is_grad_enabled()


def test_decorated_recursion():
    @fastbp.no_grad()
    def f(n):
        assert not fastbp.is_grad_enabled()
        return n if n == 0 else f(n - 1)

    f(5)
    assert fastbp.is_grad_enabled()


def test_decorated_generator_switches_only_while_it_runs():
    @fastbp.no_grad()
    def g(x):
        for _ in range(3):
            yield x * 2

    for y in g(leaf(1)):
        assert not y.requires_grad
        assert fastbp.is_grad_enabled()


def test_mode_belongs_to_a_thread():
    seen = []
    with fastbp.no_grad():
        thread = threading.Thread(target=lambda: seen.append(fastbp.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


# ---- hooks ----


def test_hooks_run_in_order_and_replace_the_gradient():
    x, seen = leaf(1), []
    y = x * 2
    y.register_hook(lambda g: g * 3)
    y.register_hook(lambda g: seen.append(g.item()))
    (y * 5).backward()
    assert seen == [15]
    assert x.grad.tolist() == [30]


def test_hook_of_a_leaf_sees_each_backward_once():
    x, seen = leaf(1), []
    x.register_hook(lambda g: seen.append(g.item()))
    (x * 2 + x * 3).backward()
    (x * 7).backward()
    assert seen == [5, 7]


def test_removed_hook():
    x = leaf(1)
    handle = x.register_hook(lambda g: g * 100)
    handle.remove()
    handle.remove()
    (x * 2).backward()
    assert x.grad.tolist() == [2]


def test_hook_needs_a_gradient():
    with pytest.raises(RuntimeError, match="cannot register a hook on a tensor that doesn't require grad"):
        fastbp.ones(1).register_hook(print)


def test_hook_that_raises_stops_the_sweep_and_leaves_no_scratch():
    x, w = leaf(1), leaf(2)
    y = x * 2

    def failing(g):
        raise KeyError("in the hook")

    handle = y.register_hook(failing)
    loss = (y * w).sum()
    with pytest.raises(KeyError, match="in the hook"):
        loss.backward(retain_graph=True)
    assert x.grad is None
    handle.remove()
    w.grad = None
    loss.backward()
    assert x.grad.tolist() == [4]
    assert w.grad.tolist() == [2]


def test_hook_that_gives_another_shape():
    x = leaf(1, 2)
    x.register_hook(lambda g: fastbp.ones(3))
    with pytest.raises(RuntimeError, match="hook"):
        (x * 2).sum().backward()
    assert x.grad is None


def test_backward_within_a_hook():
    """A sweep inside a hook has its own pending gradients, even over the same leaf."""
    x, z = leaf(2), leaf(3)
    y = x * x

    @fastbp.enable_grad()
    def nested(g):
        (z * z * x.detach()).backward()
        inner = leaf(5)
        (inner * inner).backward()
        assert inner.grad.tolist() == [10]

    y.register_hook(nested)
    (y * 3 + x).backward()
    assert x.grad.tolist() == [13]
    assert z.grad.tolist() == [12]


def test_nested_backward_through_the_same_graph():
    x = leaf(2)
    y = x * x
    seen = []

    @fastbp.enable_grad()
    def nested(g):
        seen.append(autograd.grad(x * x * x, x)[0].item())

    y.register_hook(nested)
    (y * 3 + x * 5).backward()
    assert seen == [12]
    assert x.grad.tolist() == [17]


def test_recording_within_a_hook_follows_create_graph():
    x, seen = leaf(2), []
    x.register_hook(lambda g: seen.append(fastbp.is_grad_enabled()))
    (x * x).backward()
    (x * x).backward(create_graph=True)
    assert seen == [False, True]


def test_retain_grad():
    x = leaf(1, 2)
    y = x * 2
    y.retain_grad()
    y.retain_grad()
    assert y.retains_grad
    (y * y).sum().backward()
    assert y.grad.tolist() == [4, 8]
    assert x.grad.tolist() == [8, 16]
    with pytest.raises(RuntimeError, match="can't retain_grad on Tensor that has requires_grad=False"):
        fastbp.ones(1).retain_grad()


def test_retain_grad_on_a_leaf_changes_nothing():
    x = leaf(1)
    x.retain_grad()
    assert not x.retains_grad


def test_retained_gradient_is_what_the_hooks_made_of_it():
    x = leaf(1)
    y = x * 2
    y.retain_grad()
    y.register_hook(lambda g: g * 3)
    y.backward()
    assert y.grad.tolist() == [3]


# ---- leaves and history ----


def test_leaves():
    x = leaf(1)
    assert x.is_leaf
    assert x.grad_fn is None
    assert fastbp.ones(1).is_leaf
    assert (fastbp.ones(1) * 2).is_leaf
    assert not (x * 2).is_leaf


def test_detach_shares_elements_and_not_history():
    x = leaf(1, 2)
    y = x * 2
    d = y.detach()
    assert d.is_leaf
    assert not d.requires_grad
    assert d.data_ptr() == y.data_ptr()
    (y * d).sum().backward()
    assert x.grad.tolist() == [4, 8]


def test_detach_in_place():
    x = leaf(1)
    y = x * 2
    assert y.detach_() is y
    assert y.is_leaf
    assert not y.requires_grad


def test_data():
    x = leaf(1, 2)
    assert not x.data.requires_grad
    x.data.mul_(3)
    assert x.tolist() == [3, 6]
    x.data = fastbp.tensor([7.0, 8, 9], dtype=fastbp.float64)
    assert x.tolist() == [7, 8, 9]
    assert x.requires_grad
    (x * x).sum().backward()
    assert x.grad.tolist() == [14, 16, 18]


def test_requires_grad_of_leaves_alone_can_be_changed():
    x = fastbp.ones(2)
    assert x.requires_grad_() is x
    assert x.requires_grad
    x.requires_grad = False
    assert not (x * 2).requires_grad
    y = x.requires_grad_() * 2
    with pytest.raises(RuntimeError, match="you can only change requires_grad flags of leaf variables"):
        y.requires_grad = False


@pytest.mark.parametrize("dtype", [fastbp.int64, fastbp.int32, fastbp.uint8, fastbp.bool])
def test_integers_cannot_require_grad(dtype):
    with pytest.raises(RuntimeError, match="floating point"):
        fastbp.ones(2, dtype=dtype).requires_grad_()
    with pytest.raises(RuntimeError, match="floating point"):
        fastbp.ones(2, dtype=dtype, requires_grad=True)


def test_integer_results_have_no_history():
    x = leaf(1, 3)
    assert not x.argmax().requires_grad
    assert not (x > 2).requires_grad
    assert not x.long().requires_grad


def test_names_of_functions():
    x = leaf(1, 2)
    node = (x * 2).exp().sum().grad_fn
    names = []
    while node is not None:
        names.append(node.name())
        node = node.next_functions[0][0] if node.next_functions else None
    assert names[:3] == ["SumBackward0", "ExpBackward0", "MulBackward0"]
    assert names[3].endswith("AccumulateGrad")


def test_next_functions():
    x = leaf(1)
    y = x * fastbp.ones(1, dtype=fastbp.float64)
    (accumulate, number), second = y.grad_fn.next_functions
    assert number == 0
    assert accumulate.variable is x
    assert second[0] is None
    assert y.grad_fn == y.grad_fn
    assert y.exp().grad_fn.next_functions[0][0] == y.grad_fn


def test_gradient_is_one_object():
    x = leaf(1)
    (x * 2).backward()
    assert x.grad is x.grad
    g = fastbp.ones(1, dtype=fastbp.float64)
    x.grad = g
    assert x.grad is g


def test_gradients_that_cannot_be_assigned():
    x = leaf(1, 2)
    (x * 2).sum().backward()
    with pytest.raises(RuntimeError, match=r"assign.*grad"):
        x.grad = fastbp.ones(3, dtype=fastbp.float64)
    with pytest.raises(RuntimeError, match=r"assign.*grad"):
        x.grad = fastbp.ones(2)
    with pytest.raises(TypeError, match="assigned grad expected to be a Tensor or None"):
        x.grad = 1.0
    assert x.grad.tolist() == [2, 2]


def test_gradient_outlives_its_tensor():
    x = leaf(1, 2)
    (x * 2).sum().backward()
    g = x.grad
    del x
    assert g.tolist() == [2, 2]


def test_graph_keeps_leaves_alive():
    x = leaf(1, 2)
    y = (x * x).sum()
    seen = []
    x.register_hook(lambda g: seen.append(g.tolist()))
    del x
    y.backward()
    assert seen == [[2, 4]]


def test_tensors_can_be_weakly_referenced():
    x = leaf(1)
    r = weakref.ref(x)
    assert r() is x
    del x
    assert r() is None


def test_deepcopy():
    x = leaf(1, 2)
    same = copy.deepcopy([x, x])
    assert same[0] is same[1]
    assert same[0] is not x
    assert same[0].requires_grad
    same[0].data.zero_()
    assert x.tolist() == [1, 2]
    with pytest.raises(RuntimeError, match=r"Only Tensors created explicitly by the user .* support the deepcopy"):
        copy.deepcopy(x * 2)


def test_deepcopy_copies_the_gradient():
    x = leaf(1, 2)
    (x * 3).sum().backward()
    other = copy.deepcopy(x)
    other.grad.zero_()
    assert x.grad.tolist() == [3, 3]


def test_copy_shares_elements():
    x = leaf(1, 2)
    other = copy.copy(x)
    assert other is not x
    assert other.requires_grad
    assert other.data_ptr() == x.data_ptr()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(protocol):
    x = leaf(1, 2)
    back = pickle.loads(pickle.dumps(x, protocol))
    assert back.tolist() == [1, 2]
    assert back.dtype == fastbp.float64
    assert back.requires_grad
    back.data.zero_()
    assert x.tolist() == [1, 2]
    for plain in (fastbp.arange(3), fastbp.ones(2, 0), fastbp.tensor(True), fastbp.arange(6).reshape(2, 3).t()):
        back = pickle.loads(pickle.dumps(plain, protocol))
        assert back.tolist() == plain.tolist()
        assert (back.dtype, back.shape, back.requires_grad) == (plain.dtype, plain.shape, False)


def test_threads_each_with_their_own_graph():
    failures = []

    def work(n):
        try:
            for _ in range(50):
                x = leaf(*range(1, n + 2))
                y = (x * x).exp().log().sum()
                y.backward()
                assert x.grad.tolist() == pytest.approx([2 * v for v in range(1, n + 2)], rel=1e-9)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_threads_over_one_leaf():
    x = leaf(1, 2)
    threads = [threading.Thread(target=lambda: (x * 3).sum().backward()) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert x.grad.tolist() == [24, 24]


# ---- the order of hooks, and hooks after accumulation ----


def test_hooks_run_in_order_and_see_what_those_before_returned():
    x = leaf(1, 2)
    h = x * 2
    log = []
    h.register_hook(lambda g: log.append(("first", g.tolist())))
    h.register_hook(lambda g: g * 10)
    h.retain_grad()
    third = h.register_hook(lambda g: log.append(("third", g.tolist())))
    x.register_hook(lambda g: log.append(("leaf", g.tolist())))
    x.register_post_accumulate_grad_hook(lambda t: log.append(("after", t.grad.tolist())))
    x.register_hook(lambda g: g + 1)
    y = (h * h).sum() + x.sum()
    y.backward(retain_graph=True)
    assert log == [
        ("first", [4, 8]),
        ("third", [40, 80]),
        ("leaf", [81, 161]),
        ("after", [82, 162]),
    ]
    assert h.grad.tolist() == [40, 80], "retain_grad keeps what the hooks made, whenever it was asked for"
    log.clear()
    third.remove()
    y.backward()
    assert log == [("first", [4, 8]), ("leaf", [81, 161]), ("after", [164, 324])]


def test_hooks_after_accumulation_run_for_accumulated_gradients_alone():
    x = leaf(3)
    seen = []
    handle = x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.item()))
    autograd.grad(x * 2, x)
    assert seen == []
    autograd.backward(x * 2, inputs=[x])
    (x * x * 2).backward()
    assert seen == [2, 14]
    handle.remove()
    (x * 2).backward()
    assert seen == [2, 14]


def test_a_hook_after_accumulation_may_use_the_gradient_up():
    w = leaf(3)

    def step(t):
        with fastbp.no_grad():
            t.sub_(t.grad * 0.5)
        t.grad = None

    w.register_post_accumulate_grad_hook(step)
    (w * w).sum().backward()
    assert w.tolist() == [0] and w.grad is None


def test_hooks_after_accumulation_are_refused_elsewhere():
    x = leaf(1)
    with pytest.raises(RuntimeError, match="post accumulate grad hooks cannot be registered on non-leaf tensors"):
        (x * 2).register_post_accumulate_grad_hook(print)
    with pytest.raises(RuntimeError, match="cannot register a hook on a tensor that doesn't require gradient"):
        x.detach().register_post_accumulate_grad_hook(print)
    x.register_post_accumulate_grad_hook(lambda t: {}["planted"])
    with pytest.raises(KeyError, match="planted"):
        (x * 2).sum().backward()


def test_a_forward_pass_within_a_hook_leaves_the_sweep_alone():
    x = fastbp.tensor([2.0], requires_grad=True, dtype=fastbp.float64)
    one = fastbp.ones(1, dtype=fastbp.float64)
    with fastbp._core.keep_values():
        a = x * 3
        b = a.sin()
        c = b * a
    inside = []

    def hook(g):
        inside.append(fastbp._core.forward_gradient([c], [x], [one])[0].item())

    b.register_hook(hook)
    expected = fastbp._core.forward_gradient([c], [x], [one])[0].item()
    (g,) = fastbp.autograd.grad(c, x, retain_graph=True)
    c.backward()
    assert inside == [expected, expected]
    # Both modes add the same two products, in either order.
    assert g.item() == x.grad.item() == pytest.approx(expected, rel=1e-15)
