# cython: language_level=3
"""fastbp._core: the C core's tensors, ops and reverse sweep, with PyTorch's names.

This file only gathers its parts; each family of functions stands in src/fastbp/core/, and methods of Tensor in the files
that core/tensor.pxi names in the class's body.  generated_*.pxi are written from these and the op table by tools/generate.py.
"""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_STRIDES, PyBUF_WRITABLE
from cpython.object cimport PyObject_GenericSetAttr
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport INFINITY


from builtins import abs as builtin_abs, all as builtin_all, any as builtin_any, max as builtin_max, min as builtin_min
from builtins import pow as builtin_pow, round as builtin_round, sum as builtin_sum, type as builtin_type

include "core/section.pxi"
include "core/declarations.pxi"
include "core/generated_ops.pxi"
include "core/support.pxi"
include "core/generated_tensor.pxi"
include "core/generated_functions.pxi"
include "core/arithmetic.pxi"
include "core/shape.pxi"
include "core/reductions.pxi"
include "core/losses.pxi"
include "core/indexing.pxi"
include "core/creation.pxi"
include "core/arrays.pxi"
include "core/autograd.pxi"
include "core/batched.pxi"
include "core/guards.pxi"
include "core/hooks.pxi"
include "core/host_rule.pxi"
include "core/anomaly.pxi"
include "core/function.pxi"
include "core/checkpoint.pxi"
include "core/information.pxi"
include "core/optimizer_state.pxi"
include "core/graph.pxi"
include "core/linear_algebra.pxi"
include "core/plan_declarations.pxi"
include "core/capture.pxi"
include "core/symbolic_numbers.pxi"
include "core/capture_optimizers.pxi"
include "core/plan.pxi"
include "core/plan_links.pxi"
include "core/plan_results.pxi"
include "core/plan_optimizers.pxi"
include "core/plan_derivative.pxi"
include "core/plan_making.pxi"
include "core/plan_check.pxi"
include "core/explanation.pxi"
include "core/plan_memory.pxi"
include "core/garbage.pxi"
include "core/boundary.pxi"

fbp_kernels_init()
