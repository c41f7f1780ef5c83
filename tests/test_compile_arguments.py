"""Arguments of compiled functions: their layouts, their gradients, writes into them, results that look into them."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from twins import assert_same, check_function, check_twins, drawn, snapshot

import fastbp
import fastbp.nn.functional as F
from fastbp import nn, optim

# ---- layouts --------------------------------------------------------------------------------------------------------


def odd_ones(shape: tuple[int, ...], order: tuple[int, ...]) -> fastbp.Tensor:
    """A tensor whose axes were permuted: those of size 1 have strides that no packed array has."""
    return drawn(*shape).permute(order)


@pytest.mark.parametrize(
    ("shape", "order"),
    [((2, 1, 2, 2), (0, 2, 1, 3)), ((1, 3, 4), (1, 0, 2)), ((5, 1, 1, 3), (0, 2, 1, 3)), ((3, 4, 1), (0, 2, 1))],
)
@pytest.mark.parametrize("columns", [1, 5])
def test_products_of_operands_with_axes_of_size_one(
    shape: tuple[int, ...], order: tuple[int, ...], columns: int
) -> None:
    x = odd_ones(shape, order)
    w = drawn(x.shape[-1], columns, seed=1)

    def products(x: Any, w: Any) -> Any:
        return x @ w, F.linear(x, w.t()), F.linear(x, w.t()).tanh() + 1, (x * 2) @ w

    compiled = fastbp.compile(products)
    for _ in range(2):
        assert_same(snapshot(compiled(x, w)), snapshot(products(x, w)), "products")


@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_through_sequences_of_one_step(transposed: bool) -> None:
    """(batch, 1, features) as sequence models take them, and turned."""

    def make() -> SimpleNamespace:
        layer = nn.Linear(6, 4)
        world = SimpleNamespace(layer=layer, optimizer=optim.SGD(layer.parameters(), lr=0.1))

        def step(x: Any) -> Any:
            world.optimizer.zero_grad()
            loss = layer(x.transpose(1, 2) if transposed else x.transpose(0, 1)).square().mean()
            loss.backward()
            world.optimizer.step()
            return loss

        world.step = step
        return world

    shape = (3, 6, 1) if transposed else (5, 1, 6)
    check_twins(make, [lambda k=k: (drawn(*shape, seed=k),) for k in range(3)])


def test_an_array_with_odd_strides() -> None:
    base = np.arange(24.0).reshape(4, 1, 6)
    array = np.lib.stride_tricks.as_strided(base, base.shape, (base.strides[0], 88, base.strides[2]))
    w = drawn(6, 3, dtype=np.float64)
    assert_same(snapshot(fastbp.compile(lambda x: x @ w)(array)), snapshot(fastbp.from_numpy(array) @ w), "product")


# ---- gradients that an optimizer reads from memory that moves -------------------------------------------------------


def linear_loss(world: Any, x: Any) -> None:
    (world.p * x).sum().backward()


def assigned(world: Any, x: Any) -> None:
    world.p.grad = x


def returned(world: Any, x: Any) -> Any:
    (world.p * x).square().sum().backward()
    return world.p.grad


@pytest.mark.parametrize("gradient", [linear_loss, assigned, returned])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_update_reads_the_gradient_of_its_own_call(gradient: Any, momentum: float) -> None:
    kept: list[Any] = []

    def make() -> SimpleNamespace:
        p = fastbp.zeros(3, requires_grad=True)
        world = SimpleNamespace(p=p, optimizer=optim.SGD([p], lr=0.5, momentum=momentum))

        def step(x: Any) -> Any:
            world.optimizer.zero_grad()
            result = gradient(world, x)
            world.optimizer.step()
            return result

        world.step = step
        return world

    def arguments(k: int) -> tuple[Any]:
        kept.append(drawn(3, seed=k))  # the next argument lies elsewhere
        return (kept[-1],)

    check_twins(make, [lambda k=k: arguments(k) for k in range(4)])


def test_a_pass_reads_each_batch() -> None:
    from fastbp.utils.data import DataLoader, TensorDataset

    data = drawn(12, 3)
    p = [fastbp.zeros(3, requires_grad=True) for _ in range(2)]
    optimizers = [optim.SGD([one], lr=0.5) for one in p]

    def stepper(number: int) -> Any:
        def step(x: Any) -> None:
            optimizers[number].zero_grad()
            (p[number] * x.sum(0)).sum().backward()
            optimizers[number].step()

        return step

    fastbp.compile(stepper(0)).epoch(DataLoader(TensorDataset(data), batch_size=4))
    for (batch,) in DataLoader(TensorDataset(data), batch_size=4):
        stepper(1)(batch)
    assert_same(snapshot(p[0]), snapshot(p[1]), "parameter")


def test_a_returned_gradient_is_the_gradient() -> None:
    p = fastbp.ones(3, requires_grad=True)

    @fastbp.compile
    def step(x: Any) -> Any:
        p.grad = None
        (p * x).sum().backward()
        return p.grad

    first = step(fastbp.ones(3))
    assert first is p.grad
    second = step(fastbp.full((3,), 2.0))
    assert second is p.grad and first.tolist() == [1, 1, 1]


# ---- gradients of arguments -----------------------------------------------------------------------------------------


def collect(x: Any) -> Any:
    (x * x).sum().backward()


def clear_and_collect(x: Any) -> Any:
    x.grad = None
    (x * x).sum().backward()


def collect_twice(x: Any) -> Any:
    (x * x).sum().backward()
    first = x.grad.clone()
    (x * 3).sum().backward()
    return first, x.grad + 1


def replace(x: Any) -> Any:
    x.grad = x.detach() * 5


def halve(x: Any) -> Any:
    if x.grad is not None:
        x.grad.mul_(0.5)
    (x * x).sum().backward()


def clear_after(x: Any) -> Any:
    (x * x).sum().backward()
    got = x.grad
    x.grad = None
    return got


@pytest.mark.parametrize("function", [collect, clear_and_collect, collect_twice, replace, halve, clear_after])
@pytest.mark.parametrize("before", [None, "zeros", "held", "kept from the last call"])
def test_gradients_of_arguments(function: Any, before: str | None) -> None:
    worlds = []
    for call in (function, fastbp.compile(function)):
        x, other, held, seen = fastbp.ones(3, requires_grad=True), fastbp.full((3,), 2.0, requires_grad=True), [], []
        for k in range(5):
            one = (x, other)[k % 2]
            if before == "zeros":
                one.grad = fastbp.zeros(3)
            elif before == "held":
                held.append(fastbp.full((3,), float(k)))
                one.grad = held[-1]
            elif before is None:
                one.grad = None
            result = call(one)
            seen.append(snapshot([result, x, other, held]))
            if before == "held":
                held.clear()
        worlds.append(seen)
    assert_same(worlds[1], worlds[0], function.__name__)


def test_one_leaf_as_two_arguments_and_two_leaves() -> None:
    def product(a: Any, b: Any) -> None:
        (a * b.exp()).sum().backward()

    compiled = fastbp.compile(product)
    for pair in ("same", "different", "same"):
        worlds = []
        for call in (product, compiled):
            a, b = drawn(3).requires_grad_(), drawn(3, seed=1).requires_grad_()
            b = a if pair == "same" else b
            call(a, b)
            call(a, b)
            worlds.append(snapshot([a, b]))
        assert_same(worlds[1], worlds[0], pair)


def test_a_parameter_of_the_function_as_its_argument() -> None:
    worlds = []
    for wrap in (lambda f: f, fastbp.compile):
        p, x = drawn(3).requires_grad_(), drawn(3, seed=1).requires_grad_()

        def product(a: Any, p: Any = p) -> None:
            (a * p.exp()).sum().backward()

        call = wrap(product)
        call(x)
        call(p)
        call(x)
        worlds.append(snapshot([p, x]))
    assert_same(worlds[1], worlds[0], "gradients")


def test_a_computed_argument_passes_its_gradient_on() -> None:
    def function(x: Any) -> Any:
        handle = x.register_hook(lambda g: g * 2)
        (x * x).sum().backward()
        handle.remove()
        return x.is_leaf

    compiled = fastbp.compile(function)
    worlds = []
    for call in (function, compiled, compiled):
        w = drawn(3).requires_grad_()
        worlds.append([call(w * 3), call(w.detach().requires_grad_()), snapshot(w)])
    assert_same(worlds[1], worlds[0], "first")
    assert_same(worlds[2], worlds[0], "second")


@pytest.mark.filterwarnings("ignore:compile. .* runs eagerly from now on. it registers a hook:UserWarning")
@pytest.mark.parametrize("what", ["leaf", "computed", "outside"])
def test_a_hook_that_the_function_leaves_behind(what: str) -> None:
    worlds = []
    for wrap in (lambda f: f, fastbp.compile):
        p, w = drawn(3, seed=1).requires_grad_(), drawn(3).requires_grad_()

        def function(x: Any, p: Any = p) -> None:
            (p if what == "outside" else x).register_hook(lambda g: g * 2)
            (x * x * p).sum().backward(retain_graph=True)

        call, seen = wrap(function), []
        for _ in range(4):
            x = w * 3 if what == "computed" else w
            call(x)
            x.sum().backward()
            seen.append(snapshot([w, p]))
        worlds.append(seen)
    assert_same(worlds[1], worlds[0], what)


@pytest.mark.parametrize("retain", [True, False])
def test_the_history_of_an_argument_is_retained_as_the_function_says(retain: bool) -> None:
    function = lambda x: (x * x).sum().backward(retain_graph=retain)  # noqa: E731
    compiled = fastbp.compile(function)
    for call in (function, compiled, compiled):
        w = drawn(3).requires_grad_()
        x = w.exp()
        call(x)
        if retain:
            call(x)
            x.sum().backward()
            assert_same(snapshot(w.grad), snapshot(4 * x.detach() ** 2 + x.detach()), "gradient")
        else:
            with pytest.raises(RuntimeError, match="second time"):
                x.sum().backward()


def test_an_argument_that_retains_its_gradient() -> None:
    worlds = []
    for call in (collect, fastbp.compile(collect)):
        w = drawn(3).requires_grad_()
        for _ in range(2):
            x = w * 2
            x.retain_grad()
            call(x)
        worlds.append(snapshot([w, x.grad]))
    assert_same(worlds[1], worlds[0], "gradients")


# ---- writes into arguments ------------------------------------------------------------------------------------------


def test_a_computed_argument_is_written_in_place() -> None:
    def function(t: Any) -> Any:
        t.mul_(2)
        return t * 3

    compiled = fastbp.compile(function)
    worlds = []
    for call in (function, compiled):
        a = fastbp.full((2,), 2.0, requires_grad=True)
        b = a * 1
        result = call(b)
        (result.sum() + b.sum()).backward()
        worlds.append(snapshot([a, b, result]))
    assert_same(worlds[1], worlds[0], "written argument")


def test_an_argument_takes_up_a_history() -> None:
    p = fastbp.ones(2, requires_grad=True)

    def function(t: Any) -> Any:
        t.add_(p)
        return t.sum()

    compiled = fastbp.compile(function)
    worlds = []
    for call in (function, compiled):
        p.grad = None
        b = fastbp.zeros(2)
        (call(b) + b.square().sum()).backward()
        worlds.append(snapshot([p, b]))
    assert_same(worlds[1], worlds[0], "written argument")


# ---- results that look into memory from outside ---------------------------------------------------------------------


def test_views_of_arguments_are_views() -> None:
    compiled = fastbp.compile(lambda x: (x, x[1:], x.t(), x.detach(), x.reshape(-1)[::2], x * 2))
    for k in range(2):
        x = drawn(3, 3, seed=k)
        same, *views, computed = compiled(x)
        assert same is x
        before = computed.tolist()
        for view in views:
            view.add_(1)
        wanted = drawn(3, 3, seed=k)
        for view in (wanted[1:], wanted.t(), wanted.detach(), wanted.reshape(-1)[::2]):
            view.add_(1)
        assert x.tolist() == wanted.tolist() and computed.tolist() == before


def test_views_that_require_grad_have_the_history_of_views() -> None:
    w = drawn(2, 3).requires_grad_()
    function = lambda x: (x[1:], w.t()[:, 1], (x @ w).sum())  # noqa: E731
    compiled = fastbp.compile(function)
    worlds = []
    for call in (function, compiled, compiled):
        x = drawn(4, 2, seed=1).requires_grad_()
        w.grad = None
        a, b, total = call(x)
        (a.square().sum() + b.exp().sum() + total).backward()
        worlds.append(snapshot([x, w, a, b, str(a.grad_fn), str(b.grad_fn)]))
    assert_same(worlds[1], worlds[0], "first")
    assert_same(worlds[2], worlds[0], "second")


def test_a_view_of_an_argument_that_was_written() -> None:
    def function(x: Any) -> Any:
        part = x[1]
        part.mul_(2)
        return part, x[0]

    check_function(function, drawn(3, 2))
    x = drawn(3, 2)
    fastbp.compile(function)(x)[0].zero_()
    assert x[1].tolist() == [0, 0]


def replace_data(p: Any) -> None:
    p.data = fastbp.full((3,), 5.0)


def cast_and_back(p: Any) -> None:
    p.data = p.data.double()
    p.data = p.data.float()


def grow(p: Any) -> None:
    p.data = fastbp.full((4,), 7.0)


@pytest.mark.parametrize("change", [replace_data, cast_and_back, grow])
@pytest.mark.parametrize("look", ["slice", "detach", "data", "expand", "twice"])
def test_views_of_state_that_was_replaced(change: Any, look: str) -> None:
    p = fastbp.ones(3)
    looks = {
        "slice": lambda: p[1:],
        "detach": lambda: p.detach(),
        "data": lambda: p.data,
        "expand": lambda: p.expand(2, *p.shape)[:, :2],
        "twice": lambda: (p[1:], p[:1], p.sum()),
    }
    compiled = fastbp.compile(looks[look])
    compiled()
    for _ in range(2):
        change(p)
        found = compiled()
        assert_same(snapshot(found), snapshot(looks[look]()), look)
    view = found[0] if look == "twice" else found
    view.fill_(3.0) if look != "expand" else p.fill_(3.0)
    assert p[-1].item() == 3.0 and view.reshape(-1)[-1].item() == 3.0


def test_a_module_that_was_converted() -> None:
    layer = nn.Linear(2, 2)
    compiled = fastbp.compile(lambda: layer.weight.detach())
    compiled()
    layer.double()
    assert_same(snapshot(compiled()), snapshot(layer.weight.detach()), "float64")
    layer.float()
    assert_same(snapshot(compiled()), snapshot(layer.weight.detach()), "float32")


def test_a_result_that_is_returned_twice_is_one() -> None:
    def function(x: Any) -> Any:
        y = x * 2
        return y, {"again": y}

    compiled = fastbp.compile(function)
    x = drawn(3).requires_grad_()
    y, found = compiled(x)
    assert found["again"] is y
    (y.sum() + found["again"].square().sum()).backward()
    assert_same(snapshot(x.grad), snapshot(2 + 8 * x.detach()), "gradient")


def test_objects_from_outside_stay_what_they_are() -> None:
    p, part = fastbp.ones(4), fastbp.ones(4)[1:]
    compiled = fastbp.compile(lambda: (p, part, 3, "text", None))
    for _ in range(2):
        found = compiled()
        assert found[0] is p and found[1] is part and found[2:] == (3, "text", None)
    p.data = fastbp.zeros(4)
    assert compiled()[0] is p


# ---- tensors and generators of a capture ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        lambda t: t.uniform_(),
        lambda t: t.normal_(),
        lambda t: t.random_(0, 5),
        lambda t: t.bernoulli_(0.5),
        lambda t: t.exponential_(),
        lambda t: t.zero_(),
        lambda t: fastbp.exp(fastbp.ones(2), out=t),
        lambda t: fastbp.compile(lambda x: x * 2)(t),
        lambda t: DOUBLED(t),
        lambda t: nn.init.normal_(t),
        lambda t: nn.functional.dropout(t),
        lambda t: nn.functional.dropout(t, inplace=True),
    ],
)
def test_a_tensor_that_was_kept_from_a_capture_is_not_touched(use: Any) -> None:
    kept: list[Any] = []

    def function(x: Any) -> Any:
        kept.append(x * 2)
        return x + 1

    with pytest.warns(UserWarning, match="keeps a tensor"):
        fastbp.compile(function)(fastbp.ones(2))
    numbers = fastbp.get_rng_state()
    with pytest.raises(RuntimeError, match="has no values"):
        use(kept[0])
    assert fastbp.get_rng_state().tolist() == numbers.tolist()  # nor has anything been drawn for it


DOUBLED = fastbp.compile(lambda x: x * 2)
DOUBLED(fastbp.ones(2))


def test_a_plan_holds_the_generators_that_it_draws_from() -> None:
    import gc

    def make() -> Any:
        generator = fastbp.Generator().manual_seed(5)
        return fastbp.compile(lambda: fastbp.rand(3, generator=generator))

    call = make()
    found = [call()]
    call._function = None  # the closure goes, the plan stays
    gc.collect()
    found.append(call())
    generator = fastbp.Generator().manual_seed(5)
    assert_same(snapshot(found), snapshot([fastbp.rand(3, generator=generator) for _ in range(2)]), "numbers")


def test_a_generator_that_the_function_makes_is_refused() -> None:
    with pytest.raises(RuntimeError, match="make it outside"):
        fastbp.compile(lambda: fastbp.rand(3, generator=fastbp.Generator()))()


def test_numbers_of_numpy_are_told_apart_by_sign() -> None:
    for kind in (np.float64, np.float32, complex):
        compiled = fastbp.compile(lambda x, k: x * (k.real if isinstance(k, complex) else float(k)))
        signs = [np.signbit(compiled(fastbp.ones(1), kind(k)).numpy()).item() for k in (0.0, -0.0)]
        assert signs == [False, True]


def test_a_compiled_module_is_copied_with_its_parameters() -> None:
    model, x = nn.Linear(3, 2), drawn(4, 3)
    compiled = fastbp.compile(model)
    before = compiled(x).detach().clone()
    other = copy.deepcopy(compiled)
    with fastbp.no_grad():
        for p in other.parameters():
            p.zero_()
    assert fastbp.equal(compiled(x), before) and other(x).count_nonzero() == 0
    assert fastbp.equal(pickle.loads(pickle.dumps(compiled))(x), before)


def test_one_tensor_as_two_arguments_of_which_one_is_written() -> None:
    def function(a: Any, b: Any) -> Any:
        before = b.sum()
        a.add_(1)
        return before, b.sum()

    compiled = fastbp.compile(function)
    for pair in ("same", "apart", "same", "view"):
        worlds = []
        for call in (function, compiled):
            x, y = fastbp.zeros(2), fastbp.zeros(2)
            worlds.append(snapshot([call(x, {"same": x, "apart": y, "view": x.view(2)}[pair]), x, y]))
        assert_same(worlds[1], worlds[0], pair)


# ---- what a function asks about -------------------------------------------------------------------------------------


def test_what_is_asked_about_a_tensor_from_outside() -> None:
    p, q = fastbp.ones(3, requires_grad=True), fastbp.ones(2)

    def function(x: Any) -> Any:
        total = x * q.shape[0] + (1 if q.dtype == fastbp.float32 else 2)
        return total + 10 if p.requires_grad else total

    compiled = fastbp.compile(function)
    x = fastbp.ones(2)
    for change in (
        lambda: None,
        lambda: p.requires_grad_(False),
        lambda: setattr(q, "data", fastbp.ones(5)),
        lambda: setattr(q, "data", fastbp.ones(5).double()),
        lambda: p.requires_grad_(True),
    ):
        change()
        assert compiled(x).tolist() == function(x).tolist()


def test_passes_of_functions_that_return_tensors_from_outside_and_of_data_that_require_grad() -> None:
    from fastbp.utils.data import DataLoader, TensorDataset

    worlds = []
    for compiled in (False, True):
        p = fastbp.zeros(1)
        data = fastbp.arange(10.0).reshape(10, 1).requires_grad_()

        def function(x: Any, p: Any = p) -> Any:
            x.square().sum().backward()
            p.copy_(x.detach().sum().reshape(1))
            return p

        loader = DataLoader(TensorDataset(data), batch_size=4)
        if compiled:
            found = fastbp.compile(function).epoch(loader)
        else:
            found = fastbp.stack([function(*batch).clone() for batch in loader])
        worlds.append(snapshot([found, data, p]))
    assert_same(worlds[1], worlds[0], "pass")
