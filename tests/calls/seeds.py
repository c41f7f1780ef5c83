"""Calls that succeed where trying would hardly find one: by the target, as they are written."""

SEEDS: dict[str, list[str]] = {
    "fastbp.Tensor.__format__": ["T(()).__format__('.3f')", "T((2,)).__format__('')"],
    "fastbp.Tensor.__iand__": ["T((2, 3), 'bool').__iand__(T((2, 3), 'bool'))"],
    "fastbp.Tensor.__ior__": ["T((2, 3), 'int64').__ior__(3)"],
    "fastbp.Tensor.__ixor__": ["T((2, 3), 'int64').__ixor__(T((3,), 'int64'))"],
    "fastbp.Tensor.__index__": ["T((), 'int64').__index__()"],
    "fastbp.Tensor.bincount": ["T((6,), 'int64', 0, 4).bincount(T((6,)), 5)"],
    "fastbp.Tensor.cholesky": ["(T((3, 3)) * 0 + 4 * fastbp.eye(3)).cholesky()"],
    "fastbp.linalg.cholesky": ["fastbp.linalg.cholesky(T((3, 3)) * 0 + 4 * fastbp.eye(3), upper=False)"],
    "fastbp.Tensor.expand_as": ["T((3, 1)).expand_as(T((3, 4)))"],
    "fastbp.Tensor.type_as": ["T((3, 1)).type_as(T((3, 4), 'int64'))"],
    "fastbp.Tensor.index_add": ["T((4, 3)).index_add(0, T((2,), 'int64', 0, 4), T((2, 3)), alpha=2)"],
    "fastbp.Tensor.index_add_": ["T((4, 3)).index_add_(-2, T((2,), 'int64', 0, 4), T((2, 3)))"],
    "fastbp.index_add": ["fastbp.index_add(T((4, 3)), 0, T((2,), 'int64', 0, 4), T((2, 3)))"],
    "fastbp.Tensor.index_put": ["T((4, 3)).index_put((T((2,), 'int64', 0, 4),), T((2, 3)), True)"],
    "fastbp.Tensor.index_put_": ["T((4, 3)).index_put_((T((2,), 'int64', 0, 4), T((2,), 'int64', 0, 3)), T((2,)))"],
    "fastbp.index_put": ["fastbp.index_put(T((4, 3)), (T((2,), 'int64', 0, 4),), T((3,)), accumulate=True)"],
    "fastbp.Tensor.mv": ["T((2, 3)).mv(T((3,)))"],
    "fastbp.mv": ["fastbp.mv(T((2, 3)), T((3,)))"],
    "fastbp.bmm": ["fastbp.bmm(T((2, 3, 4)), T((2, 4, 2)))"],
    "fastbp.Tensor.vdot": ["T((3,)).vdot(T((3,)))"],
    "fastbp.Tensor.unflatten": ["T((6, 2)).unflatten(0, (2, 3))"],
    "fastbp.Tensor.scatter": ["T((3, 4)).scatter(1, T((3, 2), 'int64', 0, 4), T((3, 2)))"],
    "fastbp.Tensor.scatter_": ["T((3, 4)).scatter_(1, T((3, 2), 'int64', 0, 4), 1.5)"],
    "fastbp.Tensor.scatter_add_": ["T((3, 4)).scatter_add_(1, T((3, 2), 'int64', 0, 4), T((3, 2)))"],
    "fastbp.Tensor.gather": ["T((3, 4)).gather(1, T((3, 2), 'int64', 0, 4))"],
    "fastbp.Tensor.masked_scatter_": ["T((3, 4)).masked_scatter_(T((3, 4), 'bool'), T((20,)))"],
    "fastbp.Tensor.__setitem__": [
        "T((3, 4)).__setitem__((slice(None), T((2,), 'int64', 0, 4)), T((3, 2)))",
        "T((3, 4)).__setitem__(T((3, 4), 'bool'), 2)",
        "T((3, 4)).__setitem__((..., None, [0, 1], slice(0, 3, 2)), T((1, 2)))",
    ],
    "fastbp.Tensor.__getitem__": [
        "T((3, 4, 5)).__getitem__((T((2,), 'int64', 0, 3), slice(None), [1, 2]))",
        "T((3, 4), grad=True).__getitem__((None, ..., T((4,), 'bool')))",
    ],
    "fastbp.nll_loss": [
        "fastbp.nll_loss(T((2, 3), grad=True), T((2,), 'int64', 0, 3), weight=T((3,)), reduction='sum')"
    ],
    "fastbp.cross_entropy": [
        "fastbp.cross_entropy(T((2, 3), grad=True), T((2,), 'int64', 0, 3), weight=T((3,), 'float32', 0, 1))",
        "fastbp.cross_entropy(T((2, 3, 4)), T((2, 4), 'int64', 0, 3), ignore_index=1, label_smoothing=0.1)",
    ],
    "fastbp.nn.NLLLoss.forward": ["nn.NLLLoss().forward(T((2, 3)), T((2,), 'int64', 0, 3))"],
    "fastbp.nn.CrossEntropyLoss.forward": ["nn.CrossEntropyLoss().forward(T((2, 3)), T((2,), 'int64', 0, 3))"],
    "fastbp.einsum": [
        "fastbp.einsum('bij,bjk->bik', T((2, 3, 4)), T((2, 4, 2)))",
        "fastbp.einsum('...ij->...ji', T((2, 3, 4)))",
        "fastbp.einsum(T((2, 3)), [0, 1], T((3, 2)), [1, 2], [0, 2])",
    ],
    "fastbp.backward": ["fastbp.backward(T((3,), grad=True).sum())", "fastbp.backward([non_leaf()], [T((2, 3))])"],
    "fastbp.explain": ["fastbp.explain((T((2, 3), grad=True) ** 2).sum())"],
    "fastbp._core._apply": [
        "_core._apply('exp', [T((2, 3))])",
        "_core._apply('sum', [T((2, 3))], {'dims': (1,)})",
        "_core._apply('cumsum', [T((2, 3))], {'dim': 1, 'flag': 1})",
        "_core._apply('softmax_grad', [T((2, 3)), T((2, 3))], {'dim': 0})",
        "_core._apply('embed', [T((2, 2))], {'size': (3, 4, 5), 'start': (1, 0, 4), 'step': (1, 2, 1), "
        "'count': (2, 2, 1), 'dropped': (2,)})",
        "_core._apply('slice_assign', [T((3, 6)), T((2, 3))], {'start': (1, 0), 'step': (1, 2), 'count': (2, 3), "
        "'size': (3, 6)})",
        "_core._apply('reshape', [T((2, 3))], {'shape': (6,)})",
    ],
    "fastbp._core._factorize": [
        "_core._factorize('cholesky', T((3, 3)) * 0 + 4 * fastbp.eye(3))",
        "_core._factorize('qr', T((4, 3)))",
    ],
    "fastbp._core.adam_step": [
        "_core.adam_step([T((3,))], [T((3,))], [T((3,))], [T((3,), 'float32', 0, 1)], None, "
        "[{'step': fastbp.tensor(1.0)}], 0.1, 0.9, 0.99, 1e-8)"
    ],
    "fastbp._core.sgd_step": ["_core.sgd_step([T((3,))], [T((3,))], None, [{}], 0.1)"],
    "fastbp._core.apply_function": ["_core.apply_function(OwnFunction, (T((3,), grad=True),))"],
    "fastbp.compiler.Compiled.__call__": [
        "compiled_step().__call__(T((2, 3)), T((2, 2)))",
        "fastbp.compile(lambda x, *r: x * 2).__call__(T((2, 3), grad=True), 1, 'a')",
        "fastbp.compile(lambda x: (x.exp(), [x.sum()])).__call__(T((2, 3)))",
        "fastbp.compile(nn.Linear(3, 2)).__call__(T((4, 3)))",
    ],
    "fastbp._core.CompiledCall.__call__": ["compiled_step()._calls.__call__(T((2, 3)), T((2, 2)))"],
    "fastbp.compiler.Compiled.epoch": ["fastbp.compile(lambda x, y: (x * x).sum()).epoch(a_loader())"],
    "fastbp.compiler.Compiled.profile": ["compiled_step().profile(T((2, 3)), T((2, 2)), repeat=1)"],
    "fastbp.compile": ["fastbp.compile(nn.Linear(3, 2), memory_budget=10**6)", "fastbp.compile(lambda x: x)"],
    "fastbp.func.functional_call": [
        "func.functional_call(nn.Linear(3, 2), {'weight': T((2, 3)), 'bias': T((2,))}, (T((4, 3)),))"
    ],
    "fastbp.func.stack_module_state": ["func.stack_module_state([nn.Linear(3, 2), nn.Linear(3, 2)])"],
    "fastbp.func.vmap": ["func.vmap(lambda x: x * 2)", "func.vmap(lambda x, y: x @ y, in_dims=(0, None))"],
    "fastbp.grad": ["fastbp.autograd.grad(non_leaf().sum(), [T((2, 3), grad=True)], allow_unused=True)"],
    "fastbp.optim.Optimizer.add_param_group": [
        "optimizer_of(optim.Adam).add_param_group({'params': [nn.Parameter(T((2,)))]})"
    ],
    "fastbp.optim.Optimizer.load_state_dict": [
        "optimizer_of(optim.Adam).load_state_dict(optimizer_of(optim.Adam).state_dict())",
        "optimizer_of(optim.SGD).load_state_dict({'state': {}, 'param_groups': [{'params': [0, 1], 'lr': 1}]})",
    ],
    "fastbp.nn.Module.load_state_dict": ["nn.Linear(3, 2).load_state_dict({'weight': T((2, 3)), 'bias': A((2,))})"],
    "fastbp.sparse_derivatives.sparse_jacobian": [
        "fastbp.sparse_derivatives.sparse_jacobian(lambda x: x * x, T((4,)))"
    ],
    "fastbp.sparse_derivatives.sparse_hessian": [
        "fastbp.sparse_derivatives.sparse_hessian(lambda x: (x**3).sum(), T((4,)))"
    ],
    "fastbp.sparse_derivatives.jacobian_pattern": [
        "fastbp.sparse_derivatives.jacobian_pattern(lambda x: x.exp(), T((4,)))"
    ],
    "fastbp.sparse_derivatives.sparse_jacobian_plan": [
        "fastbp.sparse_derivatives.sparse_jacobian_plan(lambda x: x * x, T((4,)))"
    ],
    "fastbp.testing.check_grads": ["fastbp.testing.check_grads(lambda x: x * x, (T((2,), 'float64'),))"],
    "fastbp.utils.checkpoint.checkpoint": ["fastbp.utils.checkpoint.checkpoint(nn.Linear(3, 2), T((2, 3), grad=True))"],
    "fastbp._core.vmap_level.__enter__": ["_core.vmap_level(3, 'error').__enter__()"],
    "fastbp._core.GraphRecord.slopes": ["_core.GraphRecord(T((), grad=True) * 2).slopes(b'111')"],
    "fastbp._core.Plan.fits": ["a_plan().fits([T((2, 3)), T((2, 2))])"],
}
