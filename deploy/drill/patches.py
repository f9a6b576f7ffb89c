"""Named things of the product replaced from outside, in this process alone: what failpoints and mutants are made of."""

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

HOUSE = ("db", "producer", "workers", "webui", "deploy")


def found(target: str) -> Any:
    """What `module:name` or `module:Class.name` is now. Raises LookupError where the product has no such thing."""
    owner, name = _place(target)
    return getattr(owner, name)


def replace(target: str, make: Callable[[Any], Any]) -> None:
    """Put `make(the original)` in the place of `target`. A function or class is also replaced in every loaded module
    of the house that imported it by name (one loaded later imports the new one). Raises LookupError."""
    owner, name = _place(target)
    original = getattr(owner, name)
    made = make(original)
    setattr(owner, name, made)
    if isinstance(owner, ModuleType) and callable(original):
        for module, other in list(_holders(original)):
            setattr(module, other, made)


def _place(target: str) -> tuple[Any, str]:
    module, _, path = target.partition(":")
    *parents, name = path.split(".")
    owner: Any = import_module(module)
    for parent in parents:
        owner = getattr(owner, parent, None)
    if not hasattr(owner, name):
        raise LookupError(f"{target} is not there any more: say where that step is now (deploy/drill)")
    return owner, name


def _holders(original: Any) -> Iterator[tuple[ModuleType, str]]:
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] in HOUSE:
            yield from ((module, name) for name, value in list(vars(module).items()) if value is original)
