"""What happens between calls."""

from __future__ import annotations

from programs.worlds import World
from programs.writing import Writer


def optimizer_events(w: Writer, world: World) -> list[tuple[str, list[str]]]:
    events: list[tuple[str, list[str]]] = []
    for one in world.optimizers:
        name = one.name
        p = "next(iter(model.parameters()))" if world.model else w.pick(one.params)
        events += [("lr changed", [f"for group in {name}.param_groups: group['lr'] = {w.pick([0.0, 0.02, 0.5])}"])] * 2
        events.append(("optimizer load_state_dict", [f"{name}.load_state_dict(deepcopy({name}.state_dict()))"]))
        saved = w.name("saved")
        events.append(
            (
                "optimizer load_state_dict",
                [f"{saved} = deepcopy({name}.state_dict())", "AGAIN", f"{name}.load_state_dict({saved})"],
            )
        )
        events.append(("param_groups replaced", [f"{name}.param_groups[0] = dict({name}.param_groups[0], lr=0.03)"]))
        events.append(
            ("param_groups replaced", [f"{name}.param_groups = [dict(g, lr=0.03) for g in {name}.param_groups]"])
        )
        if one.kind != "own optimizer with state":
            extra = "numbers(3, seed=90).requires_grad_()"
            events.append(("add_param_group", [f"{name}.add_param_group({{'params': [{extra}]}})"]))
            events += [("optimizer state cleared", [f"{name}.state.clear()"])] * 3
            events += [("state entry cleared", [f"{name}.state[{p}].clear()"])] * 2
            events.append(("state entry deleted", [f"{name}.state.pop({p}, None)"]))
        if one.kind == "SGD momentum":
            entry = f"{name}.state[{p}]"
            assigned = f"if 'momentum_buffer' in {entry}: {entry}['momentum_buffer'] = {entry}['momentum_buffer'] * 0.5"
            events += [("state entry assigned", [assigned])] * 2
            events.append(
                ("state tensor written", [f"if 'momentum_buffer' in {entry}: {entry}['momentum_buffer'].mul_(0.5)"])
            )
            events.append(("momentum switched", [f"{name}.param_groups[0]['momentum'] = {w.pick([0.0, 0.5])}"]))
            events.append(("option changed", [f"{name}.param_groups[0]['weight_decay'] = 0.2"]))
        if one.kind == "SGD":
            events.append(("momentum switched", [f"{name}.param_groups[0]['momentum'] = 0.5"]))
            events.append(("option changed", [f"{name}.param_groups[0]['maximize'] = True"]))
        if one.kind in ("Adam", "AdamW", "amsgrad"):
            entry = f"{name}.state[{p}]"
            events += [
                ("state entry assigned", [f"if 'exp_avg' in {entry}: {entry}['exp_avg'] = {entry}['exp_avg'] * 0.5"]),
                (
                    "state entry assigned",
                    [f"if 'exp_avg' in {entry}: {entry}['exp_avg_sq'] = {entry}['exp_avg_sq'] * 2"],
                ),
                ("step count changed", [f"if 'step' in {entry}: {entry}['step'] = {entry}['step'] * 0 + 7"]),
                ("state tensor written", [f"if 'exp_avg' in {entry}: {entry}['exp_avg'].mul_(0.5)"]),
                ("option changed", [f"{name}.param_groups[0]['eps'] = 0.01"]),
                ("option changed", [f"{name}.param_groups[0]['betas'] = (0.5, 0.7)"]),
                ("option changed", [f"{name}.param_groups[0]['amsgrad'] = not {name}.param_groups[0]['amsgrad']"]),
            ]
        if one.kind == "own optimizer":
            events += [("option changed", [f"{name}.param_groups[0]['decay'] = {w.pick([0.0, 0.3])}"])] * 2
        if one.kind == "own optimizer with state":
            events.append(("state entry assigned", [f"{name}.state[{p}]['mean'] = {name}.state[{p}]['mean'] * 0.5"]))
            events.append(("state tensor written", [f"{name}.state[{p}]['mean'].mul_(0.5)"]))
            events.append(("option changed", [f"{name}.param_groups[0]['momentum'] = 0.1"]))
    return events


def parameter_events(w: Writer, world: World) -> list[tuple[str, list[str]]]:
    p = w.pick(world.params)
    shape = w.listed(p.shape)
    new = f"numbers({shape}seed={w.number()})"
    held = w.name("held")
    events = [
        *[("parameter .data", [f"{p}.data = {new}"])] * 3,
        ("parameter .data", [f"{p}.data = {p}.detach() * 2"]),
        ("parameter .data", [f"{p}.data.mul_(0.5)"]),
        ("parameter .data", ["with fastbp.no_grad():", f"    {p}.copy_({new})"]),
        ("requires_grad flipped", [f"{p}.requires_grad_(not {p}.requires_grad)"]),
        *[("event grad None", [f"{p}.grad = None"])] * 2,
        ("event grad zeros", [f"{p}.grad = fastbp.zeros({shape}dtype={p}.dtype)"]),
        *[("event grad tensor", [f"{p}.grad = {new}"])] * 2,
        *[("event grad held", [f"{held} = {p}.grad"])] * 2,
        ("event grad held", [f"{held} = {p}.grad", f"{p}.grad = None", "AGAIN", f"{p}.grad = {held}"]),
        ("event grad written", [f"if {p}.grad is not None: {p}.grad.mul_(0.5)"]),
        ("parameter cast", ["for one in (" + ", ".join(map(str, world.params)) + ",): one.data = one.data.clone()"]),
    ]
    handle = w.name("handle")
    if p.grad:
        events += [("hook registered", [f"{handle} = {p}.register_hook(lambda g: g * {w.scalar()})"])] * 2
        events.append(
            ("post-accumulate hook", [f"{handle} = {p}.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(0.5))"])
        )
    return events


def model_events(w: Writer, world: World) -> list[tuple[str, list[str]]]:
    events = [(feature, [line]) for feature, line in world.attributes]
    saved, handle, held = w.name("saved"), w.name("handle"), w.name("held")
    at_module = f"module_{handle}"
    first = "next(iter(model.parameters()))"
    events += [
        ("module cast", ["model.double()", "model.float()"] if w.maybe(0.5) else ["model.float()", "model.to(D)"]),
        ("load_state_dict", [f"{saved} = deepcopy(model.state_dict())", "AGAIN", f"model.load_state_dict({saved})"]),
        ("load_state_dict", ["model.load_state_dict({k: v * 0.5 for k, v in model.state_dict().items()})"]),
        *[("train or eval", ["model.train(not model.training)"])] * 2,
        ("parameter .data", ["for one in model.parameters(): one.data = one.data * 0.5"]),
        ("requires_grad flipped", [f"{first}.requires_grad_(not {first}.requires_grad)"]),
        ("module hook registered", [f"{at_module} = model.register_forward_hook(lambda m, a, r: r * 0.5)"]),
        (
            "module hook registered",
            [f"{at_module} = list(model.modules())[1].register_forward_hook(lambda m, a, r: r + 1)"],
        ),
        ("module hook registered", [f"{at_module} = model.register_forward_pre_hook(lambda m, a: (a[0] * 0.5,))"]),
        ("module hook registered", [f"{at_module} = model.register_full_backward_hook(lambda m, i, o: None)"]),
        (
            "module hook registered",
            [f"{at_module} = list(model.modules())[-1].register_full_backward_hook(lambda m, i, o: halved(i))"],
        ),
        ("hook registered", [f"{handle} = {first}.register_hook(lambda g: g * 2)"]),
        ("event grad None", ["model.zero_grad()"]),
        ("event grad zeros", ["model.zero_grad(set_to_none=False)"]),
        ("event grad held", [f"{held} = {first}.grad"]),
        ("event grad tensor", [f"{first}.grad = fastbp.ones_like({first}.detach())"]),
    ]
    if not any(one.lasting for one in world.arguments):
        wide, narrow = "begin(fastbp.float64)", "begin(fastbp.float32)"
        events.append(("module cast for good", ["model.double()", wide] if w.maybe(0.5) else ["model.float()", narrow]))
    return events


def other_events(w: Writer, world: World) -> list[tuple[str, list[str]]]:
    events: list[tuple[str, list[str]]] = [("manual_seed", [f"fastbp.manual_seed({w.number()})"])]
    events.append(("threads changed", ["fastbp.set_num_threads(2 if fastbp.get_num_threads() == 1 else 1)"]))
    events.append(("default dtype", ["fastbp.set_default_dtype(fastbp.float64)"]))
    if "number" in world.closure:
        events += [("closure number changed", [f"factor = {w.scalar()}"])] * 3
    if "global" in world.closure:
        events += [("global number changed", [f"FACTOR = {w.scalar()}"])] * 3
    if "flag" in world.closure:
        events += [("closure flag changed", ["flag = not flag"])] * 3
    if "text" in world.closure:
        events += [("closure text changed", ["text = 'other'"])] * 3
    for one in world.arguments:
        if one.lasting and one.grad:
            shape = w.listed(one.shape(3))
            events += [
                ("event argument grad", [f"{one.name}.grad = None"]),
                ("event argument grad", [f"{one.name}.grad = numbers({shape}seed={w.number()})"]),
                ("event argument grad", [f"{one.name}.grad = fastbp.zeros_like({one.name}.detach())"]),
                ("event argument grad", [f"{w.name('held')} = {one.name}.grad"]),
                ("parameter .data", [f"{one.name}.data = numbers({shape}seed={w.number()})"]),
            ]
    return events


def drifting_event(w: Writer, world: World) -> str:
    """A line that changes a number again each time that it runs; "" where there is nothing that may change."""
    lines = [*world.drifting]
    lines += [f"for group in {one.name}.param_groups: group['lr'] = group['lr'] * 0.7" for one in world.optimizers]
    drifting = {"number": "factor = factor * 0.8", "global": "FACTOR = FACTOR * 0.8", "flag": "flag = not flag"}
    lines += [line for kind, line in drifting.items() if kind in world.closure] * 2
    return w.pick(lines) if lines else ""


def draw_event(w: Writer, world: World) -> list[str] | None:
    """The lines of one event; "AGAIN" stands where a call belongs in their middle."""
    if world.hooks and w.maybe(0.3):
        handle = world.hooks.pop()
        feature = "module hook removed" if handle.startswith("module") else "hook removed"
        if w.allowed(feature):
            w.use(feature)
            return [f"{handle}.remove()"]
    groups = [other_events]
    if world.optimizers:
        groups += [optimizer_events] * 3
    if world.params:
        groups += [parameter_events] * 3
    if world.model:
        groups += [model_events] * 4
    found = w.pick(groups)(w, world)
    if world.attributes and w.maybe(0.4):
        found = [(feature, [line]) for feature, line in world.attributes]
    events = [one for one in found if w.allowed(one[0])]
    if not events:
        return None
    # By feature first, so that those with many forms do not crowd out the others.
    feature = w.pick(list(dict.fromkeys(one[0] for one in events)))
    lines: list[str] = w.pick([one[1] for one in events if one[0] == feature])
    w.use(feature)
    for line in lines:
        if ".requires_grad_(not" in line and not line.startswith("next"):
            for p in world.params:
                p.grad ^= line.startswith(f"{p}.")
        if line.startswith(("handle", "module_handle")):
            world.hooks.append(line.split(" ")[0])
    return lines
