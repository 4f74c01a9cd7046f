"""One-line faults for a file: cosmic-ray's operators, and a few of our own for what people forget.

cosmic-ray changes comparisons, arithmetic, booleans, numbers, loops and conditions. Ours leave something out: a
statement, a term of a sum or a factor, a call around a value; or they swap two arguments. Docstrings, messages, type
hints and imports are left alone.
"""

from __future__ import annotations

import ast
import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

KEPT = {  # of cosmic-ray's; the rest is of no use here, such as + for >>, or fails wherever it is run
    *(f"ReplaceBinaryOperator_{pair}" for pair in (
        "Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_FloorDiv", "Pow_Mul", "BitOr_BitAnd",
        "BitAnd_BitOr",
    )),
    *(f"ReplaceComparisonOperator_{pair}" for pair in (
        "Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Lt_Gt", "Gt_Lt", "LtE_GtE", "GtE_LtE", "Eq_NotEq", "NotEq_Eq",
        "Is_IsNot", "IsNot_Is",
    )),
    "ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Invert", "ReplaceUnaryOperator_Delete_Not",
    "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd", "AddNot",
    "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "NumberReplacer", "ZeroIterationForLoop",
}  # fmt: skip

SYMMETRIC = ("min", "max", "minimum", "maximum")  # swapped arguments change nothing


class Site(NamedTuple):
    """Where something can be changed: (line, column), what kind of change it is, and the changed code when called."""

    begin: tuple[int, int]
    kind: str
    change: Callable[[], str | None]


class Mutant(NamedTuple):
    """A fault in one place.

    Attributes:
        path: of the file, from the repository's root.
        first, last: lines of the statement it is in, 1-based.
        at_import: whether the statement is outside of every function's body, so that no test runs it by itself.
        before, after: the lines that differ, joined and without their indentation.
        code: the whole file with the fault.
    """

    path: str
    first: int
    last: int
    at_import: bool
    before: str
    after: str
    code: str

    @property
    def name(self) -> str:
        """In one line, the same when other lines of the file change."""
        return f"{self.path}: {self.before} → {self.after}"


def sites(code: str) -> list[Site]:
    """Every place of a file that may be changed, with each kind of change."""
    tree = ast.parse(code)
    spared = list(_spared(tree))
    found = [*_cosmic_ray(code), *_ours(tree, code)]
    return [site for site in found if not any(begin <= site.begin < end for begin, end in spared)]


def sample(sources: Mapping[str, str], size: int, seed: int) -> Iterator[Mutant]:
    """Draw `size` faults from files (path → code), all places as likely; few are others when some code changes."""
    drawn = {}
    for path, code in sources.items():
        lines, seen = code.splitlines(), Counter[str]()
        for site in sites(code):
            label = f"{path} {lines[site.begin[0] - 1].strip()} {site.kind.partition('_')[0]}"
            seen[label] += 1
            key = hashlib.sha256(f"{seed} {label} {seen[label]}".encode()).hexdigest()
            drawn[key] = path, site
    names: set[str] = set()
    for _, (path, site) in sorted(drawn.items()):
        mutant = _made(path, sources[path], site)
        if mutant is None or mutant.name in names:
            continue
        names.add(mutant.name)
        yield mutant
        if len(names) == size:
            return


def _made(path: str, code: str, site: Site) -> Mutant | None:
    """The fault; None where nothing changes or the file no longer compiles."""
    changed = site.change()
    if changed is None or changed == code:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = compile(changed, path, "exec", ast.PyCF_ONLY_AST)
            compile(changed, path, "exec")
    except SyntaxError:
        return None
    if ast.dump(tree) == ast.dump(ast.parse(code)):  # other blanks or brackets
        return None
    within = [each for each in _statements(ast.parse(code)) if each[0] <= site.begin[0] <= each[1]]
    outside = (site.begin[0], site.begin[0], True)
    first, last, at_import = max(within, key=lambda lines: (lines[0], -lines[1]), default=outside)
    return Mutant(path, first, last, at_import, *_difference(code, changed), changed)


def _cosmic_ray(code: str) -> Iterator[Site]:
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.operators.provider import OperatorProvider

    nodes, provider = list(ast_nodes(get_ast(code))), OperatorProvider()
    for name in sorted(KEPT):
        operator = provider[name]()
        places = [begin for node in nodes for begin, _ in operator.mutation_positions(node)]
        for occurrence, begin in enumerate(places):
            yield Site(begin, name, partial(mutate_code, code, operator, occurrence))


def _ours(tree: ast.AST, code: str) -> Iterator[Site]:
    lines = code.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    raw = code.encode()

    def at(node: ast.AST) -> tuple[int, int]:
        return (
            starts[node.lineno - 1] + node.col_offset,
            starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def text(node: ast.AST) -> bytes:
        begin, end = at(node)
        return raw[begin:end]

    def put(*parts: tuple[ast.AST, bytes]) -> str:
        changed = raw
        for node, new in sorted(parts, key=lambda part: -at(part[0])[0]):
            begin, end = at(node)
            changed = changed[:begin] + new + changed[end:]
        return changed.decode()

    for node in ast.walk(tree):
        if not hasattr(node, "lineno"):
            continue
        begin = node.lineno, node.col_offset
        if isinstance(node, (ast.Expr, ast.AugAssign, ast.Raise)) or (
            isinstance(node, ast.Assign) and not isinstance(node.targets[0], (ast.Name, ast.Tuple))
        ):
            yield Site(begin, "StatementLeftOut", partial(put, (node, b"pass")))
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div)):
            for kept in (node.left, node.right):
                yield Site(begin, "TermLeftOut", partial(put, (node, b"(" + text(kept) + b")")))
        if isinstance(node, ast.Call) and not node.keywords:
            inner = node.func.value if isinstance(node.func, ast.Attribute) else (node.args or [None])[0]
            plain = isinstance(node.func, ast.Name) and node.func.id[:1].islower() and node.func.id != "super"
            if inner is not None and (plain or isinstance(node.func, ast.Attribute)):
                yield Site(begin, "CallLeftOut", partial(put, (node, text(inner))))
        called = getattr(getattr(node, "func", None), "attr", getattr(getattr(node, "func", None), "id", ""))
        if isinstance(node, ast.Call) and len(node.args) >= 2 and called not in SYMMETRIC:
            one, two = node.args[:2]
            if not isinstance(one, ast.Starred) and not isinstance(two, ast.Starred):
                yield Site(begin, "ArgumentsSwapped", partial(put, (one, text(two)), (two, text(one))))


def _spared(tree: ast.AST) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where nothing is changed: docstrings and other bare strings, messages, type hints, imports, zip's strict."""

    def whole(node: ast.AST) -> tuple[tuple[int, int], tuple[int, int]]:
        return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)

    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.Import, ast.ImportFrom, ast.JoinedStr))
            or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
            or (isinstance(node, ast.keyword) and node.arg == "strict")  # it only ever catches a bug of ours
            or (isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING")
            or (
                isinstance(node, ast.ClassDef) and any(getattr(b, "id", "") == "Protocol" for b in node.bases)
            )
        ):
            yield whole(node)
        elif isinstance(node, ast.Raise) and node.exc is not None:
            yield whole(node.exc)
        elif isinstance(node, (ast.AnnAssign, ast.arg)) and node.annotation is not None:
            yield whole(node.annotation)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if node.returns is not None:
                yield whole(node.returns)
            names = [getattr(d, "attr", getattr(d, "id", "")) for d in node.decorator_list]
            if "abstractmethod" in names:  # nothing runs it
                yield whole(node)


def _statements(node: ast.AST, at_import: bool = True) -> Iterator[tuple[int, int, bool]]:
    """First and last line of each statement, of one with a body those of its head; and whether an import runs it.

    A function's defaults matter where its body runs: the head that an import runs counts to the end of the function.
    """
    for child in ast.iter_child_nodes(node):
        inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
        if isinstance(child, ast.stmt):
            body = getattr(child, "body", None)
            head = body and not (inside and at_import)
            last = max(child.lineno, body[0].lineno - 1) if head else child.end_lineno
            yield child.lineno, last, at_import
        yield from _statements(child, at_import and not inside)


def _difference(before: str, after: str) -> tuple[str, str]:
    """The lines that differ, joined."""
    old, new = before.splitlines(), after.splitlines()
    begin = 0
    while begin < min(len(old), len(new)) and old[begin] == new[begin]:
        begin += 1
    end = 0
    while end < min(len(old), len(new)) - begin and old[-1 - end] == new[-1 - end]:
        end += 1
    return tuple(" ".join(line.strip() for line in lines[begin : len(lines) - end]) for lines in (old, new))
