"""The user's Python code, by the name of its module or file, imported as Python itself would.

A file becomes a module named after it: in sys.modules, where dataclasses look for it, with its folder first on
sys.path, so that it can import its neighbours. It is read anew at each call, and so are the neighbours it imports: a
notebook sees every change, and two folders may have helpers of the same name.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from rlhflab.boundary import Fault, given, is_own

_run: dict[str, ModuleType] = {}
"""Modules made from files, by name; of two files with the same name, the last."""
_beside: dict[str, ModuleType] = {}
"""The neighbours that the last file imported."""


def is_file(where: str) -> bool:
    """Whether `where` means a Python file, existing or not, rather than a module."""
    return where.endswith(".py")


def module_of(where: str, what: str) -> ModuleType:
    """Import a module, or run a file as one.

    Args:
        where: FILE.py, or a module's dotted name; the working folder is put on the path.
        what: the user's input, for the message.

    Raises:
        Fault: it does not exist or fails: one line, with the line number in that file.
    """
    importlib.invalidate_caches()  # it may have just been written
    if is_file(where):
        return _module_from(Path(where).expanduser(), what)
    _take_out([where.partition(".")[0]])
    _put_first_on_path(os.getcwd())
    with given(what):
        return importlib.import_module(where)


def _module_from(path: Path, what: str) -> ModuleType:
    if not path.is_file():
        raise Fault(f"{what}: there is no file {path}")
    path = path.resolve()
    _take_out(_run | _beside)
    name = _free_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # as it ends with .py
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    _put_first_on_path(str(path.parent))
    before, writes = set(sys.modules), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # cached bytecode distinguishes versions only by second and size
    try:
        with given(what):
            exec(compile(path.read_bytes(), path, "exec", dont_inherit=True), vars(module))
        _run[name] = module
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.dont_write_bytecode = writes
        new = {each: sys.modules[each] for each in set(sys.modules) - before}
        _beside.clear()
        _beside.update((each, found) for each, found in new.items() if _lies_in(path.parent, found))
        for each, found in _run.items():  # their functions may still be in use
            sys.modules.setdefault(each, found)
    return module


def _take_out(names: Iterable[str]) -> None:
    """Remove files' modules of these names from sys.modules, so that others can be found under the names."""
    for name in names:
        if name in sys.modules and sys.modules[name] in (_run.get(name), _beside.get(name)):
            del sys.modules[name]


def _free_name(path: Path) -> str:
    """The file's stem; with a number if an installed module, or another file in use, has that name."""
    stem = path.stem
    if stem in sys.modules:
        taken = getattr(sys.modules[stem], "__file__", None) != str(path)
    else:
        found = importlib.util.find_spec(stem) if stem.isidentifier() else None
        taken = found is not None and found.origin is not None and not is_own(found.origin)
    return f"{stem}_{zlib.crc32(os.fsencode(path)):08x}" if taken else stem


def _lies_in(folder: Path, module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_relative_to(folder) and is_own(file)


def _put_first_on_path(folder: str) -> None:
    sys.path[:] = [folder, *(other for other in sys.path if other != folder)]
