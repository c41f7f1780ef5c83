def _is_borrowed(self):
    """Whether the elements lie in memory of another library."""
    return (<borrowed_storage *>self.node.storage).release != NULL

# ---- tensors of the same dtype

def new_tensor(self, data, *, dtype=None, device=None, requires_grad=False):
    """tensor() of this tensor's dtype."""
    return tensor(data, dtype=self.dtype if dtype is None else dtype, device=device, requires_grad=requires_grad)

def new_zeros(self, *sizes, size=None, dtype=None, device=None, requires_grad=False):
    """zeros() of this tensor's dtype."""
    return zeros(*sizes, size=size, dtype=self.dtype if dtype is None else dtype, device=device, requires_grad=requires_grad)

def new_ones(self, *sizes, size=None, dtype=None, device=None, requires_grad=False):
    """ones() of this tensor's dtype."""
    return ones(*sizes, size=size, dtype=self.dtype if dtype is None else dtype, device=device, requires_grad=requires_grad)

def new_empty(self, *sizes, size=None, dtype=None, device=None, requires_grad=False):
    """empty() of this tensor's dtype."""
    return empty(*sizes, size=size, dtype=self.dtype if dtype is None else dtype, device=device, requires_grad=requires_grad)

def new_full(self, size, fill_value, *, dtype=None, device=None, requires_grad=False):
    """full() of this tensor's dtype."""
    return full(size, fill_value, dtype=self.dtype if dtype is None else dtype, device=device, requires_grad=requires_grad)

# ---- random numbers in place

def uniform_(self, low=0.0, high=1.0, *, generator=None, **bounds):
    """Uniform numbers in [low, high) into every element; PyTorch's keywords `from` and `to` are understood.  Returns self."""
    low, high = bounds.get("from", low), bounds.get("to", high)
    if low > high:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={low} > to={high}")
    return fill_random(self, FBP_OP_uniform, low, high, 0, 0, per_block(self.node.dtype), generator)

def normal_(self, mean=0.0, std=1.0, *, generator=None):
    """Normal numbers into every element; returns self."""
    if std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    return fill_random(self, FBP_OP_normal, mean, std, 0, 0, per_block(self.node.dtype), generator)

def exponential_(self, lambd=1.0, *, generator=None):
    """Exponential numbers of this rate into every element; returns self."""
    if not lambd > 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    return fill_random(self, FBP_OP_exponential, lambd, 0.0, 0, 0, per_block(self.node.dtype), generator)

def bernoulli_(self, p=0.5, *, generator=None):
    """1 with probability p (a number or a tensor), else 0, into every element; returns self."""
    if isinstance(p, Tensor):
        return self.copy_(coin_flips(self, p, generator))
    if not 0 <= p <= 1:
        raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p}")
    return fill_random(self, FBP_OP_bernoulli, p, 0.0, 0, 0, 4, generator)

def random_(self, *bounds, generator=None):
    """Integers into every element: random_(to), random_(from, to); without bounds all that the dtype holds exactly."""
    low, high = (0, None) if not bounds else (0, bounds[0]) if len(bounds) == 1 else bounds
    if high is None:
        high = (2, 2**8, 2**31 - 1, 2**63 - 1, 2**24, 2**53)[self.node.dtype]
    if low >= high:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    return fill_random(self, FBP_OP_randint, 0.0, 0.0, low, high, 2, generator)

def bernoulli(self, p=None, *, generator=None):
    """1 with the probability that each element names (or with probability p), else 0."""
    return bernoulli(self, p, generator=generator)

def multinomial(self, num_samples, replacement=False, *, generator=None):
    """Indices drawn with probabilities proportional to the last axis."""
    return multinomial(self, num_samples, replacement, generator=generator)
