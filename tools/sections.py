"""Critical sections around every entry of fastbp._core, for builds of Python without the lock (PEP 703).

The core's structures and the module's own variables are written for one thread at a time. Where Python has its lock,
that is what it gives; a build without it gets the same from one critical section, ``core_section``
(src/fastbp/core/section.pxi), which every function that Python can call enters. Nobody writes that by hand: this module
adds it to Cython's parse tree, before anything else looks at the tree, so that the sources have no trace of it and
builds with the lock no instruction. docs/threads.md says what follows for users.

What is entered: bodies of ``def`` functions, methods, special methods and closures, of ``cpdef`` functions, of C
functions ``with gil`` (the core's callbacks), and the accessors that Cython makes for public attributes. What cannot
be: a generator must not hold a section while it yields, and the bodies of lambdas and generator expressions have
nowhere to put one, while their caller's may have been let go. So those must do without the core; they are listed in
``EnterSections.left_out``, which tests/test_sections.py holds to those that are known to.
"""

# mypy: disable-error-code="attr-defined, method-assign, misc, no-untyped-call"

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import Cython
from Cython.Compiler import ExprNodes, Nodes, ParseTreeTransforms, Pipeline, TreeFragment, Visitor

CYTHON_LEAST = (3, 3)  # whose parse tree this knows
SECTION = "core_section"  # the object whose section it is
PROPERTIES = {
    "basic_property": "gs",
    "basic_pyobject_property": "gsd",
    "basic_property_ro": "g",
}  # Cython's own templates of attributes' accessors, which take a section of the instance
ACCESSORS = {
    "g": "    def __get__(self):\n        with CRITICAL_SECTION({section}):\n            return ATTR\n",
    "s": "    def __set__(self, value):\n        with CRITICAL_SECTION({section}):\n            ATTR = value\n",
    "d": "    def __del__(self):\n        with CRITICAL_SECTION({section}):\n            ATTR = None\n",
}


def is_free_threaded() -> bool:
    """Whether the interpreter that runs this has no lock, and extensions built with it none to rely on."""
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


class _Yields(Visitor.TreeVisitor):
    """Whether a function's own body yields."""

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def visit_Node(self, node: Any) -> None:
        self.visitchildren(node)

    def visit_YieldExprNode(self, node: Any) -> None:
        self.found = True

    visit_YieldFromExprNode = visit_AwaitExprNode = visit_YieldExprNode

    def visit_FuncDefNode(self, node: Any) -> None:
        pass  # functions within are functions of their own

    visit_LambdaNode = visit_GeneratorExpressionNode = visit_FuncDefNode


def yields(node: Any) -> bool:
    """Whether a function is a generator."""
    visitor = _Yields()
    visitor.visit(node.body)
    return visitor.found


def declarator_of(node: Any) -> Any:
    """The part of a C function's head that has its name and arguments."""
    declarator = node.declarator
    while not isinstance(declarator, Nodes.CFuncDeclaratorNode):
        declarator = declarator.base
    return declarator


def is_callback(node: Any) -> bool:
    """Whether a C function is entered from the core (``with gil``), or from Python too (``cpdef``)."""
    return bool(declarator_of(node).with_gil or node.overridable)


class EnterSections(Visitor.VisitorTransform):
    """Puts the bodies of all functions that can be entered from outside into the section."""

    def __init__(self) -> None:
        super().__init__()
        self.entered: list[str] = []  # names of functions
        self.left_out: list[tuple[str, str]] = []  # file and name of what cannot be entered

    def visit_Node(self, node: Any) -> Any:
        self.visitchildren(node)
        return node

    def visit_DefNode(self, node: Any) -> Any:
        self.visitchildren(node)
        if yields(node):
            return self.leave_out(node)
        return self.enter(node, node.name)

    def visit_CFuncDefNode(self, node: Any) -> Any:
        self.visitchildren(node)
        return self.enter(node, declarator_of(node).base.name) if is_callback(node) else node

    def visit_LambdaNode(self, node: Any) -> Any:
        self.visitchildren(node)
        return self.leave_out(node)

    visit_GeneratorExpressionNode = visit_LambdaNode

    def enter(self, node: Any, name: str) -> Any:
        section = ExprNodes.NameNode(node.pos, name=SECTION)
        node.body = Nodes.CriticalSectionStatNode(node.pos, args=[section], body=node.body)
        self.entered.append(str(name))
        return node

    def leave_out(self, node: Any) -> Any:
        self.left_out.append((Path(node.pos[0].get_filenametable_entry()).name, str(node.name)))
        return node


def install(report: Callable[[EnterSections], None] | None = None) -> None:
    """Have every later ``cythonize()`` of this process enter the section; ``report`` is called after each module."""
    if tuple(map(int, Cython.__version__.split(".")[:2])) < CYTHON_LEAST:
        raise SystemExit(
            f"a Python without its lock wants Cython {'.'.join(map(str, CYTHON_LEAST))} or later to build fastbp, "
            f"this is {Cython.__version__}: pip install --upgrade cython"
        )
    make_stage = Pipeline.parse_stage_factory

    def parse_stage_factory(context: Any) -> Callable[[Any], Any]:
        parse = make_stage(context)

        def parse_and_enter(source: Any) -> Any:
            transform = EnterSections()
            tree = transform(parse(source))
            if report is not None:
                report(transform)
            return tree

        return parse_and_enter

    Pipeline.parse_stage_factory = parse_stage_factory
    # What Cython warns of, that attributes of Python objects are not protected by a section, is meant so.
    check = ParseTreeTransforms.GilCheck
    check.visit_CriticalSectionStatNode = check.visit_CythonLockStatNode
    for name, accessors in PROPERTIES.items():
        text = "property NAME:\n" + "".join(ACCESSORS[one].format(section=SECTION) for one in accessors)
        fragment = TreeFragment.TreeFragment(text, level="c_class", pipeline=[ParseTreeTransforms.NormalizeTree(None)])
        setattr(ParseTreeTransforms.AnalyseDeclarationsTransform, name, fragment)
