"""Expressions of arguments that have the right type, by the name and the annotation of the parameter."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from calls.targets import Parameter

SHAPES = [
    "()",
    "(3,)",
    "(2, 3)",
    "(3, 3)",
    "(4, 4)",
    "(2, 3, 4)",
    "(2, 3, 3)",
    "(1, 1)",
    "(6,)",
    "(0,)",
    "(0, 3)",
    "(2, 1, 3)",
    "(70,)",
    "(5, 40)",
]
REAL = ["float32", "float32", "float32", "float64"]
DTYPES = [*REAL, "int64", "int32", "uint8", "bool"]

# By the parameter's name: what fits there, whatever the annotation is.
BY_NAME = {
    "reduction": ["'mean'", "'sum'", "'none'"],
    "indexing": ["'ij'", "'xy'"],
    "rounding_mode": ["None", "'floor'", "'trunc'"],
    "randomness": ["'error'", "'same'", "'different'"],
    "reduce": ["None", "'add'", "'multiply'"],
    "approximate": ["'none'", "'tanh'"],
    "equation": ["'ij,jk->ik'", "'ij->ji'", "'i,i->'", "'...i->...'"],
    "shifts": ["1", "(1,)", "(1, 2)"],
    "dims": ["(0, 1)", "(1, 0)", "0", "(0,)", "(2, 2)", "1"],
    "dim": ["0", "-1", "1", "0", "None", "(0, 1)"],
    "axis": ["0", "None"],
    "dim0": ["0"],
    "dim1": ["1", "0", "-1"],
    "dim2": ["1", "-1"],
    "p": ["0.5", "2", "1.0", "'fro'"],
    "ord": ["None", "2", "1", "'fro'"],
    "mode": ["True", "False", "'fan_in'", "'reduced'", "'complete'", "'reverse'"],
    "UPLO": ["'L'", "'U'"],
    "nonlinearity": ["'relu'", "'tanh'", "'leaky_relu'"],
    "size": ["(2, 3)", "(3,)", "()", "3"],
    "shape": ["(2, 3)", "(3, 2)", "(-1,)", "(6,)", "(2, 3, 4)"],
    "sizes": ["(2, 3)", "(3, 1)", "(-1,)"],
    "split_size_or_sections": ["1", "2", "[1, 2]"],
    "source": ["0", "(0, 1)", "T((6,))"],
    "destination": ["1", "(1, 0)"],
    "layout": ["None"],
    "memory_format": ["None"],
    "pin_memory": ["False"],
    "device": ["None", "'cpu'", "fastbp.device('cpu')"],
    "generator": ["None", "fastbp.Generator()"],
    "target": ["T(S)", "T((2,), 'int64', 0, 3)", "T(S, D, 0, 1)"],
    "index": ["T(S, 'int64', 0, 2)", "T((2,), 'int64', 0, 2)", "0", "1"],
    "indices": ["T(S, 'int64', 0, 2)", "T((2,), 'int64', 0, 2)", "(T((2,), 'int64', 0, 2),)"],
    "mask": ["T(S, 'bool')"],
    "condition": ["T(S, 'bool')"],
    "params": ["[nn.Parameter(T((2, 3)))]", "nn.Linear(3, 2).parameters()", "[T((3,), grad=True)]"],
    "parameters": ["[nn.Parameter(T((2, 3)))]", "nn.Linear(3, 2).parameters()"],
    "closure": ["None", "lambda: T((), grad=True)"],
    "state_dict": ["nn.Linear(3, 2).state_dict()", "optimizer_of(optim.Adam).state_dict()", "OwnModule().state_dict()"],
    "hook": ["lambda *a: None", "lambda g: g * 2", "lambda m, a, r: r"],
    "fn": ["lambda x: x * 2", "lambda m: None", "lambda x: (x * x).sum()"],
    "func": ["lambda x: x * x", "lambda x: (x * x).sum()", "lambda x, *r: x.exp()"],
    "function": ["lambda x: x * x", "lambda x: (x * x).sum()", "OwnModule()", "lambda *a: T((2, 3), grad=True).sum()"],
    "model": ["lambda x: x * 2", "OwnModule()"],
    "primals": ["(T(S),)", "T(S)"],
    "tangents": ["(T(S),)", "T(S)"],
    "cotangents": ["T(S)"],
    "v": ["T(S)", "(T(S),)", "None"],
    "inputs": ["T(S)", "(T(S),)", "T(S, grad=True)", "[T(S, grad=True)]"],
    "outputs": ["T(S, grad=True).sum()", "[T(S, grad=True).sum()]", "[non_leaf()]"],
    "grad_outputs": ["None", "T(S)"],
    "grad_tensors": ["None", "[T(S)]"],
    "in_dims": ["0", "(0,)", "None", "-1"],
    "out_dims": ["0", "-1"],
    "argnums": ["0", "(0,)"],
    "dataset": ["data.TensorDataset(T((4, 3)), T((4,)))", "[1, 2, 3]"],
    "data_source": ["[1, 2, 3]"],
    "loader": ["a_loader()"],
    "batch_size": ["2", "1", "None"],
    "sampler": ["None", "data.SequentialSampler([1, 2])", "[1, 0]"],
    "lengths": ["[1, 2]", "[0.5, 0.5]"],
    "datasets": ["[[1], [2, 3]]"],
    "lr": ["0.1", "0.01"],
    "betas": ["(0.9, 0.99)"],
    "module": ["OwnModule()", "nn.Linear(3, 2)"],
    "modules": ["[nn.ReLU()]", "{'a': nn.ReLU()}"],
    "capture": ["a_capture()"],
    "plan": ["a_plan()"],
    "root": ["T((), grad=True) * 2"],
    "low": ["0", "-2"],
    "high": ["5", "3"],
    "min": ["0", "-1.0", "None"],
    "max": ["1", "2.0", "None"],
    "start": ["0", "1"],
    "end": ["3", "2"],
    "step": ["1", "2"],
    "steps": ["3", "4"],
    "length": ["1", "2"],
    "num_classes": ["-1", "5"],
    "chunks": ["2"],
    "k": ["1", "2"],
    "n": ["3", "2"],
    "repeats": ["2", "T((3,), 'int64', 0, 3)"],
    "num_samples": ["1", "2"],
    "dtype": ["None", "fastbp.float64", "fastbp.float32", "fastbp.int64"],
    "out": ["None", "T(S)", "fastbp.empty(0)"],
    "requires_grad": ["False", "True"],
    "memo": ["{}"],
    "protocol": ["2", "4"],
    "memory_budget": ["None", "10**6"],
    "state": ["fastbp.Generator().get_state()", "{}"],
    "new_state": ["fastbp.get_rng_state()"],
    "seed": ["3", "0"],
    "new_shape": ["(2, 3)"],
    "path": ["'drawn'"],
    "filename": ["'written'"],
    "level": ["0", "1"],
    "ctx": ["a_context()"],
    "attributes": ["None", "{}"],
    "op": ["'add'", "'exp'"],
    "key": ["0", "slice(None)", "(slice(None), 0)", "'a'", "T((2,), 'int64', 0, 2)", "None", "..."],
    "value": ["1.0", "T(S)", "0", "True", "T((3,))"],
    "other": ["T(S)", "2", "1.5", "T(S, D)"],
    "kind": ["nn.Module", "None"],
    "error": ["None"],
    "trace": ["None"],
}

# Where the name says nothing: by a part of the annotation, the first that fits.
BY_ANNOTATION = [
    ("Callable", ["lambda *a: a[0]", "lambda x: (x * x).sum()", "lambda *a: None"]),
    ("_Hook", ["lambda g: g * 2"]),
    ("Sequence[Tensor", ["[T(S), T(S)]", "(T(S),)", "[T(S, grad=True)]"]),
    ("_Tensors", ["[T(S), T(S)]", "(T(S),)"]),
    ("Iterable[Tensor]", ["[T(S), T(S)]", "iter([T(S)])"]),
    ("list[Tensor]", ["[T(S), T(S)]", "[T(S, grad=True)]"]),
    ("_Operand", ["T(S, D)", "T(S, D)", "T(S)", "T(S, grad=True)", "2", "A((2, 3))"]),
    ("_Data", ["[1.0, 2.0]", "A((2, 3))", "T(S, D)", "3", "[[1, 2], [3, 4]]"]),
    ("_Key", ["0", "slice(0, 2)", "(0, slice(None))", "T((2,), 'int64', 0, 2)", "T(S, 'bool')", "[0, 1]"]),
    ("_Array", ["A((2, 3))", "A((3,), 'float64')"]),
    ("ndarray", ["A((2, 3))", "A((3,), 'float64')"]),
    ("NDArray", ["A((2, 3))"]),
    ("_Shape", ["(2, 3)", "(3,)", "3"]),
    ("_Sizes", ["(2, 3)", "3"]),
    ("_Dims", ["0", "-1", "(0, 1)", "(0,)"]),
    ("Tensor", ["T(S, D)", "T(S)", "T(S, grad=True)", "nn.Parameter(T(S))"]),
    ("Module", ["OwnModule()", "nn.Linear(3, 2)"]),
    ("DataLoader", ["a_loader()"]),
    ("Compiled", ["compiled_step()"]),
    ("Plan", ["a_plan()"]),
    ("Capture", ["a_capture()"]),
    ("GraphRecord", ["_core.GraphRecord(T((), grad=True) * 2)"]),
    ("Graph", ["fastbp.explain((T((2, 3), grad=True) ** 2).sum()).graph"]),
    ("Explanation", ["fastbp.explain((T((2, 3), grad=True) ** 2).sum())"]),
    ("Generator", ["fastbp.Generator()", "None"]),
    ("Dataset", ["data.TensorDataset(T((4, 3)))"]),
    ("Function", ["OwnFunction"]),
    ("_dtype", ["fastbp.float32", "fastbp.float64", "fastbp.int64"]),
    ("_Device", ["None", "'cpu'"]),
    ("dict", ["{}", "{'a': T((3,))}", "{0: 1}"]),
    ("Mapping", ["{}", "{'a': T((3,))}"]),
    ("list[str]", ["['a', 'b']", "[]"]),
    ("tuple[int, int]", ["(1, 2)", "(0, 1)"]),
    ("Sequence[int]", ["(1, 2)", "[0]"]),
    ("list", ["[]", "[1, 2]", "[T(S)]"]),
    ("tuple", ["()", "(1, 2)", "(T(S),)"]),
    ("Iterable", ["[]", "[1, 2]", "[T(S)]"]),
    ("Sequence", ["[1, 2]", "(T(S),)"]),
    ("str", ["'a'", "'sum'", "'add'"]),
    ("type", ["int", "nn.Linear"]),
    ("_Number", ["2", "0.5", "1.0", "True"]),
    ("float", ["0.5", "2.0", "1.0"]),
    ("int", ["0", "1", "2", "3", "-1"]),
    ("bool", ["True", "False"]),
]
ANYTHING = [
    "T(S)",
    "T(S, grad=True)",
    "1",
    "0.5",
    "'a'",
    "None",
    "[T(S)]",
    "(1, 2)",
    "lambda *a: a[0]",
    "{}",
    "OwnModule()",
]


@dataclass
class Context:
    """What the arguments of one call have in common: a shape and a dtype."""

    random: Random
    shape: str
    dtype: str

    @staticmethod
    def make(random: Random) -> Context:
        return Context(random, random.choice(SHAPES), random.choice(DTYPES if random.random() < 0.4 else REAL))

    def filled(self, text: str) -> str:
        shape = self.shape if self.random.random() < 0.9 else self.random.choice(SHAPES)
        return re.sub(r"\(S\b", "(" + shape, text).replace(", D", f", {self.dtype!r}")

    def argument(self, one: Parameter) -> str:
        """Something that may be right for a parameter."""
        draw = self.random
        if one.name in BY_NAME and draw.random() < 0.85:
            return self.filled(draw.choice(BY_NAME[one.name]))
        if one.default and draw.random() < 0.1 and "<" not in one.default and "fastbp" not in one.default:
            return one.default
        for part, values in BY_ANNOTATION:
            if part in one.annotation:
                return self.filled(draw.choice(values))
        return self.filled(draw.choice(ANYTHING))


# Instances of classes that are not made by a call with plain arguments: by the class's name.
MAKERS = {
    "Tensor": ["T(S, D)", "T(S)", "T(S)", "T(S, grad=True)", "non_leaf(S)"],
    "Parameter": ["nn.Parameter(T(S))"],
    "Module": ["OwnModule()", "nn.Linear(3, 2)", "nn.Sequential(nn.Linear(3, 3), nn.ReLU())"],
    "Generator": ["fastbp.Generator()"],
    "GradFunction": ["non_leaf().grad_fn", "T((2, 3), grad=True).sum().grad_fn"],
    "Size": ["T(S).shape", "fastbp.Size((2, 3))"],
    "dtype": ["fastbp.float32", "fastbp.int64", "fastbp.bool"],
    "device": ["fastbp.device('cpu')"],
    "device_type": ["fastbp.device('cpu')"],
    "FunctionContext": ["a_context()"],
    "RemovableHandle": ["T((3,), grad=True).register_hook(print)", "OwnModule().register_forward_hook(print)"],
    "Capture": ["a_capture()", "_core.Capture()"],
    "Plan": ["a_plan()"],
    "Compiled": ["compiled_step()", "fastbp.compile(lambda x: x * 2)", "fastbp.compile(OwnModule())"],
    "CompiledCall": ["compiled_step()._calls"],
    "grad_switch": ["fastbp.no_grad()", "fastbp.enable_grad()"],
    "entered_switch": ["fastbp.set_grad_enabled(True)"],
    "Optimizer": ["optimizer_of(optim.Adam)", "optimizer_of(optim.SGD)"],
    "Adam": ["optimizer_of(optim.Adam)"],
    "AdamW": ["optimizer_of(optim.AdamW)"],
    "SGD": ["optimizer_of(optim.SGD)"],
    "SymbolicNumber": ["a_symbolic_number()"],
    "SymbolicInteger": ["a_symbolic_number()"],
    "Function": ["OwnFunction()", "OwnFunction"],
    "DataLoader": ["a_loader()"],
    "Dataset": ["data.TensorDataset(T((4, 3)))"],
    "GraphRecord": ["_core.GraphRecord(T((), grad=True) * 2)"],
    "Explanation": ["fastbp.explain((T((2, 3), grad=True) ** 2).sum())"],
    "Graph": ["fastbp.explain((T((2, 3), grad=True) ** 2).sum()).graph"],
    "Digits": ["fastbp.datasets.load_digits()"],
    "RunEagerly": ["_core.RunEagerly('a')"],
    "Replay": ["_core.Replay.__new__(_core.Replay)"],
}
