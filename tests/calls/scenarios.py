"""Programs that are more than one call: hooks, functions of the user's, compiled functions and optimizers between whose
calls something goes wrong. `{W}` is something wrong, `{V}` a tensor, `{N}` a number that may be right."""

from __future__ import annotations

import re
from random import Random

from calls.arguments import Context
from calls.wrong import wrong

MODEL = "m = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))"
OPTIMIZERS = [
    "o = optim.Adam(m.parameters(), lr=0.1)",
    "o = optim.SGD(m.parameters(), lr=0.1, momentum=0.9)",
    "o = optim.AdamW(m.parameters(), lr=0.1, amsgrad=True)",
]
CALL = "s(T((2, 3)), T((2, 2)))"
TRAINING = ["MODEL", "OPTIMIZER", "s = fastbp.compile(step_function(m, o))", CALL]


def statements(block: str) -> list[str]:
    """Its lines; one that is indented belongs to the one before."""
    return re.split(r"\n(?! )", block.strip("\n"))


# What may happen between two calls of a compiled step.
EVENTS = statements("""
m[0].weight.data = {W}
m[0].weight.grad = {W}
m[0].weight = {W}
m[0].bias = nn.Parameter({V})
del m[0].weight
o.param_groups[0]['lr'] = {W}
o.param_groups = {W}
o.param_groups[0]['params'] = {W}
o.param_groups[0]['betas'] = {W}
o.state.clear()
next(iter(o.state.values()))['exp_avg'] = {W}
next(iter(o.state.values()))['step'] = {W}
next(iter(o.state.values())).clear()
o.state = {W}
m[0].weight.data = T((7, 3))
m[0].weight.requires_grad_(False)
m[1] = {W}
m.forward = {W}
m[0].register_forward_hook(lambda *a: {W})
m.double()
m[0].weight.register_hook(lambda g: {W})
o.load_state_dict({W})
s.plan
s(T((2, 3)), {W})
s({W}, {W})
s({V}, {V})
p = s.plan; del s; gc.collect(); repr(p)
s = copy.deepcopy(s)
m[0].weight.unsqueeze_(0)
m[0].weight.detach_()
m[0].weight.grad.data = {V}
del m[0].weight.grad
[setattr(p, 'grad', None) for p in m.parameters()]
o.zero_grad(set_to_none=False)
m[0].weight.data = m[2].weight.data
m[0].weight.grad = m[0].weight.data
m[0]._parameters['weight'] = {W}
m._modules = {W}
s.__dict__.clear()
s._function = {W}
s._calls.drop()
vars(s)['_entries'] = {W}
""")
BLOCKS = """
f = function_of(lambda ctx, *a: {W}, lambda ctx, *g: {W})
r = f.apply(T((2, 3), grad=True), {W})
r.sum().backward()

f = function_of(lambda ctx, x: x * 2, lambda ctx, *g: {W})
r = f.apply(T((2, 3), grad=True))
r.sum().backward()

f = function_of(lambda ctx, x: (x * 2, {W}), lambda ctx, *g: (g[0], {W}))
r = f.apply(T((2, 3), grad=True))
r[0].sum().backward()

f = function_of(lambda x, *a: x * 2, lambda ctx, *g: {W}, lambda ctx, inputs, output: ctx.save_for_backward({W}))
r = f.apply(T((2, 3), grad=True), {W})
r.sum().backward()

x = T((2, 3), grad=True)
f = function_of(lambda ctx, x: (ctx.mark_dirty(x), x.mul_(2))[1], lambda ctx, g: {W})
r = f.apply(x * 1)
r.sum().backward()

f = function_of(lambda ctx, x: (ctx.mark_non_differentiable({W}), ctx.set_materialize_grads({W}), x * 2)[2],
    lambda ctx, g: g)
r = f.apply(T((2, 3), grad=True))
r.sum().backward()

c = []
f = function_of(lambda ctx, x: (c.append(ctx), ctx.save_for_backward(x), x * 2)[2], lambda ctx,
    g: (c[0].saved_tensors, g)[1])
r = f.apply(T((2, 3), grad=True))
c[0].save_for_backward({W})
r.sum().backward()
c[0].saved_tensors
c[0].needs_input_grad

f = function_of(lambda ctx, x: x * 2, lambda ctx, g: g)
r = func.vmap(lambda x: f.apply(x, {W}))(T((2, 3), grad=True))
r.sum().backward()

f = function_of(lambda ctx, x: x * 2, lambda ctx, g: {W})
s = fastbp.compile(lambda x: f.apply(x).sum().backward())
r = s(T((2, 3), grad=True))
s(T((2, 3), grad=True))

x = T((2, 3), grad=True)
h = x.register_hook(lambda g: {W})
r = (x * 2).sum()
r.backward()
h.remove()
r.backward()

x = T((2, 3), grad=True)
y = x * 2
y.register_hook(lambda g: y.sum().backward())
r = y.exp().sum()
r.backward()

x = T((2, 3), grad=True)
y = x * 2
y.register_hook(lambda g: (rebound(x), rebound(g), g)[2])
r = y.exp().sum()
r.backward()

x = T((2, 3), grad=True)
h = x.register_hook(lambda g: (h.remove(), setattr(x, 'grad', {W}))[0])
r = (x * x).sum()
r.backward()
x.grad

x = T((2, 3), grad=True)
x.register_post_accumulate_grad_hook(lambda p: {W})
x.register_post_accumulate_grad_hook({W})
r = (x * x).sum()
r.backward()

x = T((2, 3), grad=True)
x.register_post_accumulate_grad_hook(lambda p: setattr(p, 'data', {W}))
r = (x * x).sum()
r.backward()

m = nn.Linear(3, 2)
m.register_forward_hook({W})
m.register_forward_pre_hook(lambda *a: {W})
r = m(T((2, 3)))

m = nn.Linear(3, 2)
m.register_full_backward_hook(lambda *a: {W})
r = m(T((2, 3), grad=True))
r.sum().backward()

x = T((2, 3), grad=True)
y = x.exp()
y.retain_grad()
y.register_hook(lambda g: {V})
r = y.sum()
r.backward()
y.grad

x = T((2, 3), grad=True)
y = x * {V}
y.add_({W})
x.data = {W}
r = y.sum()
r.backward()
x.grad

x = T((2, 3), grad=True)
y = (x * x).exp()
x.data = {V}
r = y.sum()
r.backward()
r.backward()

x = T((2, 3), grad=True)
x.grad = {W}
r = (x * x).sum()
r.backward()
x.grad + 1

x = T((2, 3))
v = x[{W}]
x.data = {V}
v.add_(1)
v.data = {W}
x.add_(v)

x = T((6,))
v = x.view(2, 3)
w = v.t()
x.unsqueeze_(0)
v.add_(w.t())
x.resize_({W})
v.sum()

x = T((2, 3), grad=True)
y = x * 1
v = y[0]
v.mul_({W})
y.mul_({V})
r = (y.sum() + v.sum())
r.backward()

x = T((2, 3), grad=True)
y = x * 2
y.backward({W})
fastbp.autograd.grad(y, x, {W}, create_graph=True)

x = T((2, 3), grad=True)
fastbp.autograd.grad({W}, {W}, {W}, allow_unused=True)
fastbp.autograd.backward({W}, {W}, inputs={W})

x = T((2, 3), grad=True)
g = (x * x).grad_fn
g.next_functions[0][0].variable
del x; gc.collect()
repr(g)
g.next_functions

x = T((2, 3), grad=True)
y = x
for _ in range(3000): y = y * 1.0001
r = y.sum()
r.backward()
del y, r; gc.collect()

with fastbp.autograd.detect_anomaly({N}):
    x = T((2, 3), grad=True)
    r = (x.log() * {W}).sum()
    r.backward()

r = fastbp.utils.checkpoint.checkpoint(lambda *a: {W}, {V}, {W}, use_reentrant=False)
r.sum().backward()

r = fastbp.utils.checkpoint.checkpoint(lambda x: x * {V}, T((2, 3), grad=True))
r.sum().backward()

x = {V}
x[{W}] = {W}
x[{W}, {W}]
x[{V}] = {V}
x[..., {W}] = 1
x[{N}:{N}:{N}] = {V}
del x[0]

x = {V}
x + {W}
{W} - x
x @ {W}
{W} ** x
x += {W}
x //= {W}
x < {W}
divmod(x, {W})
x << {W}
-x
~x

x = {V}
np.add(x, {W})
np.add(A((3,)), x, out=A((3,)))
np.concatenate([x, x])
A((3,)) @ x
np.asarray(x, dtype={W})
x.__array__({W})
A((2, 3)) * x
np.sum(x)
np.asarray(x)[...] = 1

a = A((6,))
x = fastbp.from_numpy(a)
v = x[1:]
resized(a)
x.sum()
v.add_(1)
del a, x; gc.collect()
v.sum()

x = {V}
a = x.numpy()
x.data = {W}
x.resize_(0)
del x; gc.collect()
a.sum()

x = {V}
i = iter(x)
next(i)
x.data = {W}
next(i)
list(i)
x.unsqueeze_(0)
list(i)

x = {V}
x.tag = {W}
x.tag
copy.copy(x)
copy.deepcopy(x)
pickle.dumps(x)
x.__dict__ = {W}
x.__class__ = OwnTensor
x.add(1)

r = func.vmap(lambda x: {W}, {N}, {N})({V})

r = func.vmap(lambda x, y: x * y, ({N}, {N}))({V}, {V})

r = func.vmap(lambda x: x[{W}])({V})

r = func.vmap(func.grad(lambda x: (x * {W}).sum()))({V})

r = func.grad(lambda x: {W})({V})

r = func.jacrev(lambda x: x * {V})({V})

r = func.jacfwd(lambda x: x @ {V})({V})

r = func.hessian(lambda x: (x ** 3 * {W}).sum())(T((3,)))

r = func.jvp(lambda x: x * {W}, ({V},), ({V},))

r, f = func.vjp(lambda x: x * {V}, {V})
f({W})
f({V})

l = leaked()
l + {W}
l.sum().backward()
l.numpy()
l.data = {W}
l[{W}]
func.vmap(lambda x: x + l)({V})
l.tolist()

l = symbolic()
l + {W}
l.numpy()
l.data = {W}
l[{W}]
l.sum().backward()
l.add_({V})
l.tolist()
bool(l.sum())

n = a_symbolic_number()
n + {W}
float(n)
{W} * n
n.kind
hash(n)
int(n)
n == {W}
pickle.dumps(n)

s = fastbp.compile(lambda x: {W})
r = s({V})
s({V})
s({W})

k = [{W}]
s = fastbp.compile(lambda x: x * k[0])
r = s({V})
k[0] = {W}
s({V})
k.clear()
s({V})

k = {V}
s = fastbp.compile(lambda x: (k.add_(x), k * 2)[1])
r = s({V})
k.data = {V}
s({V})
k = None
s({V})

s = fastbp.compile(lambda x: (x.data, x.t_(), x.exp_())[2])
r = s({V})
s({V})
s(expanded())

s = fastbp.compile(lambda x: s(x))
r = s({V})
s({V})

s = fastbp.compile(lambda x: x[{W}])
r = s({V})
s({V})

s = fastbp.compile(lambda x, n: fastbp.rand(n) * x)
r = s({V}, 3)
fastbp.set_rng_state({W})
s({V}, {W})
s({V}, 3)

x = T((2, 3), grad=True)
s = fastbp.compile(lambda: (x * x).sum().backward())
r = s()
x.grad = {W}
s()
x.data = {V}
s()

s = fastbp.compile(lambda x: x * 2)
r = s({V})
b = copy.deepcopy(s.plan)
s.plan.profile_run({W}, {W})
s.plan.fits({W})

s = fastbp.compile(lambda x, y: ((x * y).sum()))
r = s.epoch(a_loader())
s.epoch({W})

d = data.TensorDataset({V}, {V})
d.tensors = {W}
s = fastbp.compile(lambda *b: b[0])
r = s.epoch(data.DataLoader(d, batch_size={N}))

d = data.DataLoader(data.TensorDataset(T((5, 3)), T((5,))), batch_size=2, shuffle=True)
d.dataset.tensors = (T((1, 3)), T((5,)))
s = fastbp.compile(lambda x, y: x.sum())
r = s.epoch(d)
d.dataset.tensors = {W}
s.epoch(d)

MODEL
OPTIMIZER
m(T((2, 3))).sum().backward()
next(m.parameters()).grad = {W}
o.step()
o.step({W})

MODEL
OPTIMIZER
m(T((2, 3))).sum().backward()
o.step()
p = next(m.parameters())
p.data = {V}
o.step()

MODEL
OPTIMIZER
m(T((2, 3))).sum().backward()
o.step()
o.param_groups[0]['params'] = {W}
o.step()
o.zero_grad()

MODEL
OPTIMIZER
m(T((2, 3))).sum().backward()
o.step()
o.state[next(m.parameters())] = {W}
o.step()
o.load_state_dict({W})
o.step()

p = nn.Parameter({V})
o = optim.Adam([p], lr={N})
p.grad = {V}
o.step()
p.grad = {V}
p.data = {V}
o.step()

p = nn.Parameter(T((2, 3)))
o = optim.Adam([p], amsgrad=True)
p.grad = T((2, 3))
o.step()
o.state[p]['exp_avg'] = {V}
o.state[p]['max_exp_avg_sq'] = {W}
o.step()

MODEL
m.load_state_dict({W})
m[0].weight = {W}
m.to({W})
m.apply({W})
r = m({W})
m._parameters = {W}
m({V})

r = list(data.DataLoader({W}, batch_size={N}))
list(data.DataLoader([1, 2], collate_fn=lambda b: {W}))
list(data.DataLoader([{W}, {W}], batch_size=2))
list(data.DataLoader([1, 2, 3], batch_sampler={W}))

g = fastbp.Generator()
g.set_state({W})
r = fastbp.rand(3, generator=g)
fastbp.bernoulli({V}, {W}, generator={W})

r = fastbp.tensor({W})
fastbp.tensor([{W}, {W}])
fastbp.tensor([[1, {W}], [2, 3]])
fastbp.as_tensor({W}, dtype={W})

r = fastbp.cat([{V}, {W}], {N})
fastbp.stack([{V}, {V}], {N}, out={W})
fastbp.where({W}, {V}, {W})
fastbp.einsum({W}, {V}, {W})

r = fastbp.add({V}, {V}, out={W})
x = T((6,))
fastbp.exp(x[:3], out=x[1:4])
fastbp.matmul(T((3, 3)), T((3, 3)), out={V})

x = expanded((3, 2**40))
x.clone()
x + 1
x.contiguous().sum()
fastbp.tensor(range(2**40))
fastbp.tensor([range(2**40), {W}])
x.reshape(-1, {N})
x[{W}].clone()
fastbp.cat([x, x])
x.numpy().copy()
x.expand({W}, -1, -1) @ {V}
"""
SCENARIOS = [statements(block) for block in BLOCKS.split("\n\n")]
NUMBERS = ["0", "1", "2", "3", "-1", "None", "2**31", "2**62", "True", "0.5", "-2**63"]


def fill(line: str, random: Random) -> str:
    """A line with its slots filled."""
    context = Context.make(random)

    def value(found: re.Match[str]) -> str:
        if found[0] == "{N}":
            return random.choice(NUMBERS)
        if found[0] == "{V}" or random.random() < 0.15:
            return context.filled(random.choice(["T(S)", "T(S, D)", "T(S)", "T(S, grad=True)", "T((2, 3))"]))
        text = wrong(random)
        return f"({text})" if text.startswith("lambda") else text

    return re.sub(r"\{[WVN]\}", value, line)


def scenario(random: Random) -> list[str]:
    """The lines of a program; each may raise, and the next ones run."""
    if random.random() < 0.25:
        lines = [*TRAINING]
        for _ in range(random.choice([1, 1, 2, 3])):
            lines += [random.choice(EVENTS), CALL]
        lines.append(CALL)
    else:
        lines = [*random.choice(SCENARIOS)]
    stands_for = {"MODEL": MODEL, "OPTIMIZER": random.choice(OPTIMIZERS)}
    lines = [fill(stands_for.get(line, line), random) for line in lines]
    lines = [line.replace("{t}", "t").replace("{l}", "l").replace("{a}", "a") for line in lines]
    return ["t = T((2, 3), grad=True) * 1", "l = [t, 1]", "a = A((6,))", "r = None", *lines, "consume(r)"]
