"""nn: modules, containers, hooks, state, losses and initialisation behave as in PyTorch."""

from __future__ import annotations

import copy
import math
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import fastbp
import fastbp.nn.functional as F
from fastbp import nn


class Net(nn.Module):
    """Two layers, one shared buffer and one that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(3, 4)
        self.scale = nn.Parameter(fastbp.ones(1))
        self.output = nn.Linear(4, 2, bias=False)
        self.register_buffer("count", fastbp.zeros(1))
        self.register_buffer("cache", fastbp.zeros(2), persistent=False)

    def forward(self, x):
        return self.output(self.hidden(x).tanh()) * self.scale


NAMES = ["scale", "hidden.weight", "hidden.bias", "output.weight"]


def values(tensor) -> list:
    return tensor.detach().numpy().tolist()


# ----------------------------------------------------------------------------------------------- Parameter


def test_parameter_shares_memory_and_prints_as_in_pytorch():
    data = fastbp.ones(2)
    parameter = nn.Parameter(data)
    assert isinstance(parameter, fastbp.Tensor) and isinstance(parameter, nn.Parameter)
    assert parameter.requires_grad and parameter.is_leaf
    data.fill_(3.0)
    assert values(parameter) == [3.0, 3.0]
    assert repr(parameter) == "Parameter containing:\ntensor([3., 3.], requires_grad=True)"
    assert not nn.Parameter(data, requires_grad=False).requires_grad


def test_parameter_results_are_plain_tensors():
    parameter = nn.Parameter(fastbp.ones(2))
    assert type(parameter * 2) is fastbp.Tensor
    assert type(parameter.detach()) is fastbp.Tensor


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_parameter_and_module_copies_are_independent(duplicate):
    net = Net()
    net.hidden.bias.requires_grad_(False)
    twin = duplicate(net)
    assert isinstance(twin.scale, nn.Parameter)
    assert not twin.hidden.bias.requires_grad and twin.hidden.weight.requires_grad
    assert [name for name, _ in twin.named_parameters()] == NAMES
    with fastbp.no_grad():
        twin.scale.fill_(5.0)
    assert values(net.scale) == [1.0]


def test_deepcopy_keeps_shared_parameters_shared():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    twin = copy.deepcopy(net)
    assert twin[1].weight is twin[0].weight and twin[0].weight is not net[0].weight


# ----------------------------------------------------------------------------------------------- registration


def test_registered_attributes_are_in_the_instance_dictionary():
    net = Net()
    for name in ("hidden", "scale", "output", "count"):
        assert name in vars(net)
    assert "__getattr__" not in vars(nn.Module)
    assert list(net._parameters) == ["scale"] and list(net._modules) == ["hidden", "output"]
    assert list(net._buffers) == ["count", "cache"]
    with pytest.raises(TypeError):
        net._parameters["scale"] = None


def test_names_are_in_order_of_registration():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert [name for name, _ in net.named_parameters(prefix="net", recurse=False)] == ["net.scale"]
    assert [name for name, _ in net.named_children()] == ["hidden", "output"]
    assert [name for name, _ in net.named_modules()] == ["", "hidden", "output"]
    assert [name for name, _ in net.named_buffers()] == ["count", "cache"]
    assert len(list(net.parameters())) == 4 and len(list(net.buffers())) == 2 and len(list(net.modules())) == 3


def test_what_is_shared_is_met_once():
    shared = nn.Linear(2, 2)
    net = nn.Sequential(shared, shared)
    assert len(list(net.parameters())) == 2
    assert len(list(net.modules())) == 2 and len(list(net.children())) == 1
    assert len(list(net.named_parameters(remove_duplicate=False))) == 4
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_assignment_changes_registration():
    net = Net()
    with pytest.raises(TypeError, match=r"cannot assign .* as parameter 'scale'"):
        net.scale = fastbp.ones(1)
    with pytest.raises(TypeError, match="cannot assign 'int' as child module 'hidden'"):
        net.hidden = 3
    with pytest.raises(TypeError, match="cannot assign 'float' as buffer 'count'"):
        net.count = 1.0
    net.count = fastbp.ones(3)
    assert list(net.state_dict()["count"].shape) == [3]
    net.scale = None
    assert net.scale is None and "scale" in net._parameters and "scale" not in net.state_dict()
    net.scale = nn.Parameter(fastbp.ones(2))
    assert [name for name, _ in net.named_parameters()] == NAMES
    net.hidden = nn.Parameter(fastbp.ones(2))  # Another kind: the module is no longer a child.
    assert [name for name, _ in net.named_parameters()] == ["scale", "hidden", "output.weight"]
    assert list(net._modules) == ["output"]
    del net.hidden
    assert not hasattr(net, "hidden") and "hidden" not in net._parameters
    net.plain = 3
    net.plain = nn.Linear(1, 1)
    assert "plain" in net._modules


def test_assignment_before_init_raises():
    class NoInit(nn.Module):
        def __init__(self, value):
            self.value = value

    assert NoInit(3).value == 3
    with pytest.raises(AttributeError, match=r"cannot assign parameters before Module.__init__\(\) call"):
        NoInit(nn.Parameter(fastbp.ones(1)))
    with pytest.raises(AttributeError, match=r"cannot assign module before Module.__init__\(\) call"):
        NoInit(nn.ReLU())


def test_register_checks_names_and_types():
    net = Net()
    for register, value in (
        (net.register_parameter, nn.Parameter(fastbp.ones(1))),
        (net.register_buffer, fastbp.ones(1)),
        (net.add_module, nn.ReLU()),
    ):
        for name in ("", "a.b", "forward"):
            with pytest.raises(KeyError):
                register(name, value)
        with pytest.raises(TypeError):
            register("fresh", 3)
        assert not hasattr(net, "fresh")


def test_missing_attribute_and_forward():
    with pytest.raises(AttributeError, match="'Module' object has no attribute 'weight'"):
        nn.Module().weight  # noqa: B018
    with pytest.raises(NotImplementedError, match='missing the required "forward" function'):
        nn.Module()(1)


def test_get_by_dotted_name():
    net = nn.Sequential(Net())
    assert net.get_submodule("0.hidden") is net[0].hidden and net.get_submodule("") is net
    assert net.get_parameter("0.hidden.weight") is net[0].hidden.weight
    assert net.get_buffer("0.count") is net[0].count
    for get, name in ((net.get_submodule, "1"), (net.get_parameter, "0.count"), (net.get_buffer, "0.scale")):
        with pytest.raises(AttributeError):
            get(name)


# ----------------------------------------------------------------------------------------------- state


def test_state_dict_shares_memory_and_loads():
    net, other = Net(), Net()
    state = net.state_dict()
    assert list(state) == ["scale", "count", "hidden.weight", "hidden.bias", "output.weight"]
    assert not state["scale"].requires_grad and net.state_dict(keep_vars=True)["scale"] is net.scale
    state["count"].fill_(7.0)
    assert values(net.count) == [7.0]
    weight = other.hidden.weight
    result = other.load_state_dict(state)
    assert result.missing_keys == [] and result.unexpected_keys == []
    assert repr(result) == "<All keys matched successfully>"
    assert other.hidden.weight is weight
    x = fastbp.ones(2, 3)
    assert values(net(x)) == values(other(x))
    assert net.state_dict(prefix="p.").keys() == {"p." + name for name in state}


def test_load_state_dict_takes_arrays_and_converts_dtypes():
    net = nn.Linear(2, 1)
    net.load_state_dict({"weight": np.array([[1.0, 2.0]]), "bias": np.array([3])})
    assert net.weight.dtype == fastbp.float32
    assert values(net.weight) == [[1.0, 2.0]] and values(net.bias) == [3.0]


def test_load_state_dict_strictness():
    net = nn.Linear(2, 1)
    result = net.load_state_dict({"weight": fastbp.ones(1, 2), "more": fastbp.ones(1)}, strict=False)
    assert result.missing_keys == ["bias"] and result.unexpected_keys == ["more"]
    assert values(net.weight) == [[1.0, 1.0]]
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict({"weight": fastbp.zeros(3, 2), "more": fastbp.ones(1)})
    text = str(caught.value)
    assert text.startswith("Error(s) in loading state_dict for Linear:\n\t")
    assert 'Missing key(s) in state_dict: "bias". ' in text
    assert 'Unexpected key(s) in state_dict: "more". ' in text
    assert "size mismatch for weight: copying a param with shape (3, 2) from checkpoint" in text


def test_load_state_dict_loads_nothing_on_a_mismatch():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = {name: values(tensor) for name, tensor in net.state_dict().items()}
    bad = {name: fastbp.ones(2, 2) if "weight" in name else fastbp.ones(2) for name in before}
    bad["1.bias"] = fastbp.ones(3)
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=r"size mismatch for 1\.bias"):
            net.load_state_dict(bad, strict=strict)
        assert {name: values(tensor) for name, tensor in net.state_dict().items()} == before
    bad["1.bias"] = "text"
    with pytest.raises(RuntimeError, match=r"1\.bias"):
        net.load_state_dict(bad)
    with pytest.raises(TypeError):
        net.load_state_dict([])
    assert {name: values(tensor) for name, tensor in net.state_dict().items()} == before


def test_load_state_dict_assign():
    net = nn.Linear(2, 1)
    weight = fastbp.ones(1, 2, dtype=fastbp.float64)
    net.load_state_dict({"weight": weight, "bias": fastbp.zeros(1)}, assign=True)
    assert isinstance(net.weight, nn.Parameter) and net.weight.dtype == fastbp.float64
    weight.fill_(2.0)
    assert values(net.weight) == [[2.0, 2.0]]


# ----------------------------------------------------------------------------------------------- modes


def test_train_and_eval():
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2))
    assert net.training and net[0].training
    assert net.eval() is net
    assert not net.training and not net[0].training and not net[1].training
    assert net.train()[0].training
    with pytest.raises(ValueError, match="boolean"):
        net.train(1)


def test_apply_visits_children_first():
    visited = []
    net = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh()))
    assert net.apply(lambda module: visited.append(module)) is net
    assert visited == [net[0], net[1][0], net[1], net]


def test_requires_grad_and_zero_grad():
    net = Net()
    net(fastbp.ones(1, 3)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert all(not parameter.grad.numpy().any() for parameter in net.parameters())
    net.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())
    net.requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert not net(fastbp.ones(1, 3)).requires_grad


def test_dtype_conversion_keeps_identity_and_gradients():
    net = Net()
    net.register_buffer("steps", fastbp.zeros(1, dtype=fastbp.int64))
    net(fastbp.ones(1, 3)).sum().backward()
    parameters = list(net.parameters())
    gradient = values(net.scale.grad)
    assert net.double() is net
    assert all(a is b for a, b in zip(parameters, net.parameters(), strict=True))
    assert all(parameter.dtype == parameter.grad.dtype == fastbp.float64 for parameter in parameters)
    assert values(net.scale.grad) == gradient
    assert net.count.dtype == fastbp.float64 and net.steps.dtype == fastbp.int64
    net(fastbp.ones(1, 3, dtype=fastbp.float64)).sum().backward()
    assert net.float().scale.dtype == fastbp.float32
    assert net.to(fastbp.float64).scale.dtype == fastbp.float64
    assert net.to("cpu").scale.dtype == fastbp.float64
    assert net.to("cpu", fastbp.float32).scale.dtype == fastbp.float32
    assert net.to(dtype=fastbp.float64).scale.dtype == fastbp.float64
    with pytest.raises(TypeError, match="floating point"):
        net.to(fastbp.int64)
    assert net.cpu() is net


# ----------------------------------------------------------------------------------------------- hooks


def test_forward_hooks_run_in_order_and_replace():
    net, log = nn.Linear(1, 1), []
    nn.init.ones_(net.weight)
    nn.init.zeros_(net.bias)

    def pre(module, args):
        log.append(("pre", values(args[0])))
        return args[0] + 1  # Not a tuple: becomes the only argument.

    def post(module, args, output):
        log.append(("post", values(output)))
        return output * 10

    first = net.register_forward_pre_hook(pre)
    second = net.register_forward_hook(post)
    early = net.register_forward_hook(lambda module, args, output: log.append("early"), prepend=True)
    assert values(net(fastbp.zeros(1))) == [10.0]
    assert log == [("pre", [0.0]), "early", ("post", [1.0])]
    first.remove()
    first.remove()
    early.remove()
    assert values(net(fastbp.ones(1))) == [10.0]
    with second:
        pass
    assert values(net(fastbp.ones(1))) == [1.0]


def test_forward_hooks_with_kwargs():
    class Scaled(nn.Module):
        def forward(self, x, factor=1.0):
            if factor < 0:
                raise ValueError("negative")
            return x * factor

    net, log = Scaled(), []
    net.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {"factor": kwargs["factor"] + 1}), with_kwargs=True
    )
    net.register_forward_hook(lambda module, args, kwargs, output: log.append(kwargs), with_kwargs=True)
    net.register_forward_hook(lambda module, args, output: log.append(output), always_call=True)
    assert net(fastbp.ones(1), factor=2.0).item() == 3.0
    assert log[0] == {"factor": 3.0}
    with pytest.raises(ValueError, match="negative"):
        net(fastbp.ones(1), factor=-5.0)
    assert log[-1] is None and len(log) == 3


def test_full_backward_hook_sees_this_calls_gradients():
    net, seen = nn.Linear(2, 1, bias=False), []
    nn.init.constant_(net.weight, 3.0)
    handle = net.register_full_backward_hook(
        lambda module, grad_input, grad_output: seen.append((grad_input, grad_output))
    )
    x = fastbp.ones(1, 2, requires_grad=True)
    (net(x) * 2 + x.sum() * 100).sum().backward()
    ((grad_input,), (grad_output,)) = seen[0]
    assert values(grad_output) == [[2.0]] and values(grad_input) == [[6.0, 6.0]]
    assert values(x.grad) == [[106.0, 106.0]] and values(net.weight.grad) == [[2.0, 2.0]]

    net(fastbp.ones(1, 2)).sum().backward()  # No input requires a gradient.
    assert seen[1][0] == (None,) and values(seen[1][1][0]) == [[1.0]]
    handle.remove()
    net.register_full_backward_hook(lambda module, grad_input, grad_output: (grad_input[0] * 0,))
    x.grad = None
    net(x).sum().backward()
    assert values(x.grad) == [[0.0, 0.0]] and len(seen) == 2


# ----------------------------------------------------------------------------------------------- printing


def test_repr_is_pytorchs():
    net = nn.Sequential(OrderedDict(first=nn.Linear(2, 3), act=nn.ReLU(inplace=True), rest=nn.Sequential(nn.Flatten())))
    assert repr(net) == (
        "Sequential(\n"
        "  (first): Linear(in_features=2, out_features=3, bias=True)\n"
        "  (act): ReLU(inplace=True)\n"
        "  (rest): Sequential(\n"
        "    (0): Flatten(start_dim=1, end_dim=-1)\n"
        "  )\n"
        ")"
    )


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (nn.Module(), "Module()"),
        (nn.Sequential(), "Sequential()"),
        (nn.ModuleList(), "ModuleList()"),
        (nn.Identity(3, a=4), "Identity()"),
        (nn.Linear(2, 3, bias=False), "Linear(in_features=2, out_features=3, bias=False)"),
        (nn.ReLU(), "ReLU()"),
        (nn.LeakyReLU(0.2), "LeakyReLU(negative_slope=0.2)"),
        (nn.ELU(), "ELU(alpha=1.0)"),
        (nn.GELU("tanh"), "GELU(approximate='tanh')"),
        (nn.Softplus(), "Softplus(beta=1.0, threshold=20.0)"),
        (nn.Hardtanh(inplace=True), "Hardtanh(min_val=-1.0, max_val=1.0, inplace=True)"),
        (nn.ReLU6(), "ReLU6()"),
        (nn.Softmax(dim=1), "Softmax(dim=1)"),
        (nn.Dropout(0.2), "Dropout(p=0.2, inplace=False)"),
        (nn.CrossEntropyLoss(), "CrossEntropyLoss()"),
        (
            nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.Tanh()]),
            "ModuleList(\n  (0-1): 2 x Linear(in_features=2, out_features=2, bias=True)\n  (2): Tanh()\n)",
        ),
        (nn.ModuleDict({"a": nn.SiLU()}), "ModuleDict(\n  (a): SiLU()\n)"),
    ],
)
def test_repr_of_modules(module, text):
    assert repr(module) == text


# ----------------------------------------------------------------------------------------------- containers


def test_sequential_is_a_sequence():
    a, b, c = nn.Linear(1, 1), nn.ReLU(), nn.Tanh()
    net = nn.Sequential(a, b)
    assert net.append(c) is net
    assert len(net) == 3 and list(net) == [a, b, c] and net[0] is a and net[-1] is c
    assert list(net[1:]) == [b, c] and isinstance(net[1:], nn.Sequential)
    net[1] = nn.Sigmoid()
    assert isinstance(net[1], nn.Sigmoid) and len(net) == 3
    del net[0]
    assert [name for name, _ in net.named_children()] == ["0", "1"]
    net.insert(0, a)
    assert net[0] is a and net.pop(-1) is c and len(net) == 2
    assert len(net + nn.Sequential(c)) == 3
    for index in (2, -3):
        with pytest.raises(IndexError):
            net[index]
    with pytest.raises(TypeError, match="int is not a Module subclass"):
        nn.Sequential(3)


def test_sequential_applies_in_order():
    double, shift = nn.Linear(1, 1), nn.Linear(1, 1)
    double.load_state_dict({"weight": np.array([[2.0]]), "bias": np.array([0.0])})
    shift.load_state_dict({"weight": np.array([[1.0]]), "bias": np.array([1.0])})
    assert nn.Sequential(double, shift)(fastbp.ones(1)).item() == 3.0
    assert nn.Sequential(shift, double)(fastbp.ones(1)).item() == 4.0


def test_sequential_respects_hooks_and_own_calls():
    class Doubling(nn.Identity):
        def __call__(self, x):
            return 2 * super().__call__(x)

    class More(Doubling):
        pass

    net = nn.Sequential(More(), nn.Identity(), nn.Identity())
    assert net(1) == 2
    net[1].register_forward_hook(lambda module, args, output: output + 5)
    net[2].forward = lambda x: x * 10
    assert net(1) == 70


def test_module_list_and_dict():
    layers = nn.ModuleList([nn.Linear(1, 1)])
    layers += [nn.ReLU()]
    layers.extend([nn.Tanh()])
    assert len(layers) == 3 and isinstance(layers[1:], nn.ModuleList) and isinstance(layers[-1], nn.Tanh)
    more = layers + nn.ModuleList([nn.ReLU()])
    assert isinstance(more, nn.ModuleList) and len(more) == 4
    heads = nn.ModuleDict({"a": nn.Linear(1, 1)})
    heads["b"] = nn.ReLU()
    heads.update([("c", nn.Tanh())])
    assert list(heads) == list(heads.keys()) == ["a", "b", "c"] and "b" in heads and len(heads) == 3
    assert [type(module) for module in heads.values()] == [nn.Linear, nn.ReLU, nn.Tanh]
    assert isinstance(heads.pop("b"), nn.ReLU) and dict(heads.items()).keys() == {"a", "c"}
    assert [name for name, _ in heads.named_parameters()] == ["a.weight", "a.bias"]
    with pytest.raises(KeyError):
        heads["b"]
    heads.clear()
    assert len(heads) == 0


def test_parameter_list():
    parameters = nn.ParameterList([fastbp.ones(2, 3)])
    parameters.append(nn.Parameter(fastbp.zeros(1)))
    assert len(parameters) == 2 and all(isinstance(parameter, nn.Parameter) for parameter in parameters)
    assert [name for name, _ in parameters.named_parameters()] == ["0", "1"]
    assert parameters[-1] is parameters[1] and len(parameters[:1]) == 1
    parameters[1] = fastbp.ones(4)
    assert list(parameters[1].shape) == [4]
    with pytest.raises(IndexError):
        parameters[2]
    with pytest.raises(TypeError):
        parameters.append(3)


# ----------------------------------------------------------------------------------------------- layers


def test_linear_computes_and_differentiates():
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": np.array([[2.0, -1.0]]), "bias": np.array([0.5])})
    x = fastbp.tensor([[1.0, 3.0], [0.0, 1.0]], requires_grad=True)
    y = layer(x)
    assert values(y) == [[-0.5], [-0.5]]
    y.sum().backward()
    assert values(x.grad) == [[2.0, -1.0], [2.0, -1.0]]
    assert values(layer.weight.grad) == [[1.0, 4.0]] and values(layer.bias.grad) == [2.0]
    assert nn.Linear(2, 1, dtype=fastbp.float64).weight.dtype == fastbp.float64
    assert nn.Linear(2, 3, bias=False).bias is None


def test_linear_starts_in_pytorchs_interval():
    layer = nn.Linear(100, 50)
    for parameter in (layer.weight, layer.bias):
        magnitudes = np.abs(parameter.detach().numpy())
        assert 0.08 < magnitudes.max() <= 0.1


def test_identity_and_flatten():
    x = fastbp.zeros(2, 3, 4, 5)
    assert nn.Identity()(x) is x
    assert list(nn.Flatten()(x).shape) == [2, 60]
    assert list(nn.Flatten(0, 1)(x).shape) == [6, 4, 5]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("module", "function", "formula"),
    [
        (nn.ReLU(), F.relu, lambda x: max(x, 0.0)),
        (nn.ReLU6(), F.relu6, lambda x: min(max(x, 0.0), 6.0)),
        (nn.LeakyReLU(), F.leaky_relu, lambda x: x if x > 0 else 0.01 * x),
        (nn.ELU(), F.elu, lambda x: x if x > 0 else math.expm1(x)),
        (nn.GELU(), F.gelu, lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2)))),
        (
            nn.GELU(approximate="tanh"),
            lambda x: F.gelu(x, approximate="tanh"),
            lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        ),
        (nn.SiLU(), F.silu, lambda x: x * sigmoid(x)),
        (nn.Softplus(), F.softplus, lambda x: math.log1p(math.exp(x)) if x <= 20 else x),
        (
            nn.Softplus(2.0, 5.0),
            lambda x: F.softplus(x, 2.0, 5.0),
            lambda x: math.log1p(math.exp(2 * x)) / 2 if 2 * x <= 5 else x,
        ),
        (nn.Mish(), F.mish, lambda x: x * math.tanh(math.log1p(math.exp(x)))),
        (nn.Hardtanh(), F.hardtanh, lambda x: min(max(x, -1.0), 1.0)),
        (nn.Hardtanh(-2.0, 3.0), lambda x: F.hardtanh(x, -2.0, 3.0), lambda x: min(max(x, -2.0), 3.0)),
        (nn.Tanh(), F.tanh, math.tanh),
        (nn.Sigmoid(), F.sigmoid, sigmoid),
        (nn.LogSigmoid(), F.logsigmoid, lambda x: math.log(sigmoid(x))),
    ],
    ids=lambda value: repr(value) if isinstance(value, nn.Module) else "",
)
def test_activations(module, function, formula):
    points = [-7.0, -2.5, -0.75, 0.25, 1.0, 2.5, 7.0, 25.0]
    expected = [formula(x) for x in points]
    x = fastbp.tensor(points, dtype=fastbp.float64)
    # Elementary functions in float64: a few units in the last place, at most amplified by one subtraction.
    np.testing.assert_allclose(values(module(x)), expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(values(function(x)), expected, rtol=1e-12, atol=1e-15)


def test_softmax_modules():
    x = fastbp.tensor([[0.0, math.log(3.0)]], dtype=fastbp.float64)
    np.testing.assert_allclose(values(nn.Softmax(dim=1)(x)), [[0.25, 0.75]], rtol=1e-15)
    np.testing.assert_allclose(values(nn.LogSoftmax(dim=-1)(x)), np.log([[0.25, 0.75]]), rtol=1e-14)
    with pytest.warns(UserWarning, match="Implicit dimension choice"):
        np.testing.assert_allclose(values(nn.Softmax()(x)), [[0.25, 0.75]], rtol=1e-15)
    assert F.softmax(fastbp.zeros(2), dim=0, dtype=fastbp.float64).dtype == fastbp.float64
    with pytest.raises(ValueError, match="max_val"):
        nn.Hardtanh(1.0, 1.0)


def test_inplace_writes_the_input():
    x = fastbp.tensor([-1.0, 2.0])
    assert nn.ReLU(inplace=True)(x) is x
    assert values(x) == [0.0, 2.0]
    dropped = fastbp.ones(3)
    assert nn.Dropout(1.0, inplace=True)(dropped) is dropped and values(dropped) == [0.0] * 3


@pytest.mark.parametrize("kind", [nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.Mish, nn.Hardtanh])
def test_inplace_activations_differentiate_as_others(kind):
    gradients = []
    for inplace in (False, True):
        weight = nn.Parameter(fastbp.tensor([-1.0, 0.25, 2.0]))
        hidden = weight * 3
        output = kind(inplace=inplace)(hidden)
        assert (output is hidden) is inplace
        (output * output).sum().backward()
        gradients.append(values(weight.grad))
    assert gradients[0] == gradients[1]


def test_dropout():
    fastbp.manual_seed(0)
    dropout, x = nn.Dropout(0.25), fastbp.ones(10_000)
    y = dropout(x).numpy()
    assert set(np.unique(y).tolist()) == {0.0, np.float32(1 / 0.75).item()}
    # Standard deviation of the share of zeros: sqrt(0.25 * 0.75 / 10000) = 0.0043.
    assert abs((y == 0).mean() - 0.25) < 0.02
    assert dropout.eval()(x) is x
    assert not F.dropout(x, 1.0).numpy().any()
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            nn.Dropout(wrong)
        with pytest.raises(ValueError, match="between 0 and 1"):
            F.dropout(x, wrong)


# ----------------------------------------------------------------------------------------------- losses

DIFFERENCES = ([1.0, 2.0, -3.0], [1.5, 0.0, -3.0])  # input - target = -0.5, 2, 0


@pytest.mark.parametrize(
    ("module", "elements"),
    [
        (nn.MSELoss, [0.25, 4.0, 0.0]),
        (nn.L1Loss, [0.5, 2.0, 0.0]),
        (nn.SmoothL1Loss, [0.125, 1.5, 0.0]),
        (lambda reduction: nn.SmoothL1Loss(reduction=reduction, beta=4.0), [0.03125, 0.5, 0.0]),
        (nn.HuberLoss, [0.125, 1.5, 0.0]),
        (lambda reduction: nn.HuberLoss(reduction, delta=0.25), [0.09375, 0.46875, 0.0]),
    ],
)
def test_elementwise_losses(module, elements):
    x, y = (fastbp.tensor(side) for side in DIFFERENCES)
    assert values(module(reduction="none")(x, y)) == elements
    assert module(reduction="sum")(x, y).item() == sum(elements)
    assert module(reduction="mean")(x, y).item() == pytest.approx(sum(elements) / 3, rel=1e-6)


def test_elementwise_losses_warn_of_broadcasting():
    with pytest.warns(UserWarning, match="different to the input size"):
        F.mse_loss(fastbp.zeros(3, 1), fastbp.zeros(3))


def test_reduction_is_checked_and_old_flags_are_known():
    x, y = fastbp.tensor([1.0]), fastbp.tensor([3.0])
    with pytest.raises(ValueError):
        F.mse_loss(x, y, reduction="average")
    assert nn.MSELoss(size_average=False).reduction == "sum"
    assert nn.MSELoss(reduce=False).reduction == "none"
    assert nn.MSELoss(size_average=True).reduction == "mean"
    assert values(F.l1_loss(x, y, reduce=False)) == [2.0]


def test_binary_cross_entropy():
    p, y = fastbp.tensor([0.25, 0.5, 1.0]), fastbp.tensor([1.0, 0.0, 0.0])
    expected = [math.log(4), math.log(2), 100.0]  # log(1 - 1) is limited to -100.
    np.testing.assert_allclose(values(nn.BCELoss(reduction="none")(p, y)), expected, rtol=1e-6)
    assert nn.BCELoss()(p, y).item() == pytest.approx(sum(expected) / 3, rel=1e-6)
    weighted = nn.BCELoss(weight=fastbp.tensor([2.0, 1.0, 0.0]), reduction="sum")(p, y)
    assert weighted.item() == pytest.approx(2 * math.log(4) + math.log(2), rel=1e-6)
    with pytest.raises(ValueError, match="different to the input size"):
        nn.BCELoss()(p, y[:2])


def test_binary_cross_entropy_with_logits():
    x, y = fastbp.tensor([0.0, math.log(3.0), -200.0]), fastbp.tensor([1.0, 0.0, 1.0])
    expected = [math.log(2), math.log(4), 200.0]
    np.testing.assert_allclose(values(nn.BCEWithLogitsLoss(reduction="none")(x, y)), expected, rtol=1e-6)
    weighted = nn.BCEWithLogitsLoss(pos_weight=fastbp.tensor([3.0, 3.0, 1.0]), reduction="none")(x, y)
    np.testing.assert_allclose(values(weighted), [3 * math.log(2), math.log(4), 200.0], rtol=1e-6)
    with pytest.raises(ValueError, match="must be the same as input size"):
        F.binary_cross_entropy_with_logits(x, y[:2])


def test_cross_entropy_and_nll_with_all_arguments():
    log = math.log
    logits = fastbp.tensor([[0.0, log(3.0)], [log(4.0), 0.0], [0.0, 0.0]], dtype=fastbp.float64)
    target = fastbp.tensor([1, 1, 0])
    losses = [log(4 / 3), log(5.0), log(2.0)]
    np.testing.assert_allclose(values(nn.CrossEntropyLoss(reduction="none")(logits, target)), losses, rtol=1e-12)
    assert nn.CrossEntropyLoss()(logits, target).item() == pytest.approx(sum(losses) / 3, rel=1e-12)
    assert nn.NLLLoss()(F.log_softmax(logits, 1), target).item() == pytest.approx(sum(losses) / 3, rel=1e-12)

    weight = fastbp.tensor([2.0, 1.0], dtype=fastbp.float64)
    weighted = (losses[0] + losses[1] + 2 * losses[2]) / 4
    assert nn.CrossEntropyLoss(weight)(logits, target).item() == pytest.approx(weighted, rel=1e-12)
    ignoring = nn.CrossEntropyLoss(weight, ignore_index=0)(logits, target).item()
    assert ignoring == pytest.approx((losses[0] + losses[1]) / 2, rel=1e-12)
    assert values(F.cross_entropy(logits, target, ignore_index=0, reduction="none"))[2] == 0.0

    # Smoothing mixes the loss with the mean over the classes of -log p.
    others = [log(4.0), log(5 / 4), log(2.0)]
    smooth = sum(0.9 * a + 0.1 * (a + b) / 2 for a, b in zip(losses, others, strict=True)) / 3
    assert nn.CrossEntropyLoss(label_smoothing=0.1)(logits, target).item() == pytest.approx(smooth, rel=1e-12)

    shares = fastbp.tensor([[0.5, 0.5], [0.0, 1.0], [1.0, 0.0]], dtype=fastbp.float64)
    mixed = ((losses[0] + others[0]) / 2 + losses[1] + losses[2]) / 3
    assert F.cross_entropy(logits, shares).item() == pytest.approx(mixed, rel=1e-12)


# ----------------------------------------------------------------------------------------------- init


def test_init_constants():
    x = nn.Parameter(fastbp.empty(2, 3))
    assert nn.init.constant_(x, 2.5) is x and values(x) == [[2.5] * 3] * 2
    assert values(nn.init.zeros_(x)) == [[0.0] * 3] * 2 and values(nn.init.ones_(x)) == [[1.0] * 3] * 2
    assert values(nn.init.eye_(x)) == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert x.requires_grad and x.is_leaf
    with pytest.raises(ValueError, match="2 dimensions"):
        nn.init.eye_(fastbp.empty(3))


def test_calculate_gain():
    assert nn.init.calculate_gain("tanh") == 5 / 3 and nn.init.calculate_gain("relu") == math.sqrt(2)
    assert nn.init.calculate_gain("leaky_relu", 0.5) == math.sqrt(2 / 1.25)
    assert nn.init.calculate_gain("conv2d") == nn.init.calculate_gain("sigmoid") == 1
    for wrong in (("unknown",), ("leaky_relu", "steep")):
        with pytest.raises(ValueError):
            nn.init.calculate_gain(*wrong)


@pytest.mark.parametrize(
    ("fill", "bound", "std"),
    [
        (lambda x: nn.init.uniform_(x, -3, 3), 3.0, 3 / math.sqrt(3)),
        (lambda x: nn.init.normal_(x, 0, 2), None, 2.0),
        (lambda x: nn.init.xavier_uniform_(x, gain=2), 2 * math.sqrt(6 / 500), 2 * math.sqrt(2 / 500)),
        (nn.init.xavier_normal_, None, math.sqrt(2 / 500)),
        (nn.init.kaiming_uniform_, math.sqrt(6 / 300), math.sqrt(2 / 300)),
        (lambda x: nn.init.kaiming_normal_(x, mode="fan_out", nonlinearity="relu"), None, math.sqrt(2 / 200)),
        (lambda x: nn.init.kaiming_uniform_(x, a=math.sqrt(5)), 1 / math.sqrt(300), 1 / math.sqrt(900)),
    ],
)
def test_random_init_has_the_right_spread(fill, bound, std):
    fastbp.manual_seed(1)
    x = fastbp.empty(200, 300)
    assert fill(x) is x
    drawn = x.numpy()
    # 60,000 draws: the relative standard error of the deviation is below 0.3%, that of the mean 0.4% of std.
    assert drawn.std() == pytest.approx(std, rel=0.02)
    assert abs(drawn.mean()) < 0.02 * std
    if bound is not None:
        assert 0.999 * bound < np.abs(drawn).max() <= bound * (1 + 1e-6)


def test_random_init_takes_a_generator_and_checks_arguments():
    draws = []
    for _ in range(2):
        generator = fastbp.Generator().manual_seed(7)
        x = fastbp.empty(4, 5)
        for fill in (
            nn.init.uniform_,
            nn.init.normal_,
            nn.init.orthogonal_,
            nn.init.trunc_normal_,
            nn.init.xavier_normal_,
        ):
            fill(x, generator=generator)
            draws.append(values(x))
    assert draws[:5] == draws[5:]
    with pytest.raises(ValueError, match="fewer than 2 dimensions"):
        nn.init.xavier_uniform_(fastbp.empty(3))
    with pytest.raises(ValueError, match="Mode"):
        nn.init.kaiming_normal_(fastbp.empty(3, 3), mode="fan")


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (6, 2), (4, 2, 3)])
def test_orthogonal(shape):
    x = nn.init.orthogonal_(fastbp.empty(*shape, dtype=fastbp.float64), gain=2).numpy().reshape(shape[0], -1)
    product = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-12)


@pytest.mark.parametrize(
    ("low", "high", "mean"),
    [
        (-2.0, 2.0, 0.0),
        (-1.0, 3.0, 0.2827862),
        # In a tail the mean is known by integration: E[z | 5 < z < 6] and the narrow interval's middle.
        (5.0, 6.0, 5.1843),
        (1.0, 1.01, 1.00498),
    ],
)
def test_trunc_normal(low, high, mean):
    fastbp.manual_seed(2)
    drawn = nn.init.trunc_normal_(fastbp.empty(40_000, dtype=fastbp.float64), 0.0, 1.0, low, high).numpy()
    assert low <= drawn.min() and drawn.max() <= high
    # The standard error of the mean is at most 0.9 / sqrt(40000) = 0.0045, and less in the narrow intervals.
    assert drawn.mean() == pytest.approx(mean, abs=0.02 * (high - low))
    with pytest.raises(ValueError, match="a < b"):
        nn.init.trunc_normal_(fastbp.empty(2), a=1, b=1)


# ----------------------------------------------------------------------------------------------- utils


def with_gradients(*gradients) -> list:
    parameters = []
    for gradient in gradients:
        parameter = nn.Parameter(fastbp.zeros(2))
        parameter.grad = None if gradient is None else fastbp.tensor(gradient)
        parameters.append(parameter)
    return parameters


def test_clip_grad_norm():
    parameters = with_gradients([3.0, 0.0], None, [0.0, 4.0])
    total = nn.utils.clip_grad_norm_(parameters, max_norm=1.0)
    assert total.item() == 5.0
    np.testing.assert_allclose(values(parameters[0].grad), [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(values(parameters[2].grad), [0.0, 0.8], rtol=1e-6)
    small = with_gradients([0.3, 0.0])
    nn.utils.clip_grad_norm_(iter(small), 1.0)
    assert values(small[0].grad) == [np.float32(0.3).item(), 0.0]
    assert nn.utils.clip_grad_norm_(with_gradients([3.0, -7.0]), 1.0, norm_type=float("inf")).item() == 7.0
    assert nn.utils.clip_grad_norm_(with_gradients([3.0, -7.0])[0], 1.0, norm_type=1).item() == 10.0
    assert nn.utils.clip_grad_norm_([], 1.0).item() == 0.0
    bad = with_gradients([float("inf"), 1.0])
    with pytest.raises(RuntimeError, match="non-finite"):
        nn.utils.clip_grad_norm_(bad, 1.0, error_if_nonfinite=True)
    assert values(bad[0].grad) == [math.inf, 1.0]


def test_clip_grad_value():
    parameters = with_gradients([3.0, -0.5], None)
    nn.utils.clip_grad_value_(parameters, 1.0)
    assert values(parameters[0].grad) == [1.0, -0.5]


def test_parameters_as_a_vector():
    net = nn.Linear(2, 1)
    vector = nn.utils.parameters_to_vector(net.parameters())
    assert list(vector.shape) == [3] and vector.requires_grad
    nn.utils.vector_to_parameters(fastbp.tensor([1.0, 2.0, 3.0]), net.parameters())
    assert values(net.weight) == [[1.0, 2.0]] and values(net.bias) == [3.0]
    with pytest.raises(ValueError, match="2 elements"):
        nn.utils.vector_to_parameters(fastbp.ones(2), net.parameters())
    with pytest.raises(TypeError):
        nn.utils.vector_to_parameters([1.0], net.parameters())
    assert values(net.weight) == [[1.0, 2.0]]
