"""What `torch.save` writes as `data.pkl`, read without unpickling.

A pickle is a program for a small stack machine, and so may run anything. Here `pickletools` takes
it apart and this module follows the few instructions that a state dict is made of, with a
meaning that is fixed for each: names of classes and functions stay names, and the ones that make
tensors give a record. Everything else is refused. Nothing is hashed but text and numbers, and no
value is walked, so the time is that of the program's length.
Sources: PyTorch torch/serialization.py, `_save`; torch/_utils.py, `_rebuild_tensor_v2`,
`_rebuild_tensor_v3`, `_rebuild_parameter`.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

MAX_BYTES: Final = 8 << 20  # an official file's program has 0.1 MB
_MOST_OPERATIONS = 1_000_000  # 5,000 speakers of spk2info; an official file has 20,000
_LONGEST_NUMBER = 1 << 63
# Where the numbers were when they were saved, which decides nothing here. `meta` has no numbers.
_DEVICE = re.compile(r"(cpu|cuda|hip|hpu|mps|npu|xla|xpu)(:\d{1,4})?")


class PythonObjectsError(Exception):
    """The program builds or calls something that no state dict has."""


class MalformedPickleError(Exception):
    """The program is no valid one, or too long."""


@dataclass(frozen=True)
class Storage:
    """A row of numbers in an entry of its own, `data/KEY`."""

    kind: str  # as in FloatStorage; "Untyped" counts bytes
    key: str
    count: int


@dataclass(frozen=True)
class Strided:
    """A dense tensor: which numbers of a storage it is made of."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class OtherTensor:
    """A tensor of another form, which no checkpoint needs."""

    form: str  # completes "NAME is ..."


@dataclass(frozen=True)
class _Name:
    """A class or function that the program names."""

    module: str
    name: str


_NOT_DENSE = "not stored as a plain dense tensor"
_MARK = object()
_ORDERED_DICT = _Name("collections", "OrderedDict")
_SIZE = _Name("torch", "Size")
_KNOWN_NAMES = re.compile(
    r"collections OrderedDict"
    r"|torch (Size|device|[A-Za-z0-9]+Storage|[a-z]+[0-9]+[a-z0-9_]*|bool|per_\w+)"
    r"|torch\.storage (Untyped|Typed)Storage"
    r"|torch\.serialization _get_layout"
    r"|torch\._utils _rebuild_\w+"
)


def read_pickled_tensors(program: bytes, tensor: Callable[[Strided | OtherTensor], Any]) -> Any:
    """The value that the program describes: dicts, lists, tuples, text, numbers, and tensors.

    Each tensor is what `tensor` makes of its record. Keys are text or whole numbers.
    Raises: PythonObjectsError, MalformedPickleError, and what `tensor` raises.
    """
    machine = _Machine(tensor)
    operations = 0
    try:
        for operation, argument, _ in pickletools.genops(program):
            operations += 1
            if operations > _MOST_OPERATIONS:
                raise MalformedPickleError("its list of tensors has no end")
            step = _STEPS.get(operation.name)
            if step is None:
                raise PythonObjectsError(operation.name)
            step(machine, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise MalformedPickleError("its list of tensors is damaged") from error
    if len(machine.stack) != 1:
        raise MalformedPickleError("its list of tensors is damaged")
    return machine.stack[0]


class _Machine:
    def __init__(self, tensor: Callable[[Strided | OtherTensor], Any]) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.tensor = tensor

    def above_mark(self) -> list[Any]:
        """Takes what was put on the stack since the last mark, and the mark."""
        items: list[Any] = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def take(self, count: int) -> list[Any]:
        """Takes the upper `count` values."""
        if count > len(self.stack) or any(item is _MARK for item in self.stack[-count:]):
            raise IndexError(count)
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def call(self) -> None:
        """REDUCE: a name and its arguments to what the call would give."""
        name, arguments = self.take(2)
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise PythonObjectsError("a call")
        self.stack.append(self._result(name, arguments))

    def _result(self, name: _Name, arguments: tuple[Any, ...]) -> Any:
        if name == _ORDERED_DICT and not arguments:
            return {}
        if name == _SIZE:
            return _numbers(*arguments)
        if name.module == "torch.serialization" or name == _Name("torch", "device"):
            return name
        match name.name:
            case "_rebuild_tensor_v2":
                return self.tensor(_strided(arguments))
            case "_rebuild_parameter":
                return _parameter(*arguments)
            case "_rebuild_tensor_v3":
                return self.tensor(OtherTensor(f"stored as {arguments[6].name}, not as floats"))
        if name.module == "torch._utils":
            return self.tensor(OtherTensor(_NOT_DENSE))
        raise PythonObjectsError(name.name)

    def storage(self) -> None:
        """BINPERSID: ("storage", class, key, device, count) to its record."""
        mark, kind, key, device, count = self.take(1)[0]
        if mark != "storage" or not isinstance(kind, _Name) or not kind.name.endswith("Storage"):
            raise PythonObjectsError("a persistent id")
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise MalformedPickleError("a storage has no place")
        if not isinstance(device, str) or not _DEVICE.fullmatch(device):
            raise MalformedPickleError("a storage is on no known device")
        self.stack.append(Storage(kind.name.removesuffix("Storage"), key, count))

    def put_pairs(self, pairs: list[Any]) -> None:
        """SETITEMS: keys and values in turn, into the dict on top."""
        table = self.stack[-1]
        if not isinstance(table, dict) or len(pairs) % 2:
            raise TypeError(table)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(key) is not str and not (type(key) is int and abs(key) < _LONGEST_NUMBER):
                raise PythonObjectsError("a key that is no text")
            table[key] = value

    def put_items(self, items: list[Any]) -> None:
        """APPENDS: into the list on top."""
        if not isinstance(self.stack[-1], list):
            raise TypeError(self.stack[-1])
        self.stack[-1].extend(items)

    def build(self) -> None:
        """BUILD: the attributes of a state dict (`_metadata`) are dropped, others refused."""
        self.take(1)
        if type(self.stack[-1]) is not dict:
            raise PythonObjectsError("an object's attributes")


def _parameter(data: Any, requires_grad: Any, hooks: Any) -> Any:
    """The tensor of a parameter."""
    plain = (dict, list, tuple, str, int, float, Storage, _Name, type(None))
    if isinstance(data, plain) or type(requires_grad) is not bool or not isinstance(hooks, dict):
        raise MalformedPickleError("a parameter is made in another way than torch.save writes")
    return data


def _strided(arguments: tuple[Any, ...]) -> Strided | OtherTensor:
    storage, offset, shape, stride, requires_grad, hooks, *metadata = arguments
    if type(requires_grad) is not bool or not isinstance(hooks, dict) or len(metadata) > 1:
        raise MalformedPickleError("a tensor is made in another way than torch.save writes")
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0:
        raise MalformedPickleError("a tensor has no storage")
    if any(metadata):  # conjugate or negative view
        return OtherTensor(_NOT_DENSE)
    return Strided(storage, offset, _numbers(shape), _numbers(stride))


def _numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > 64:
        raise MalformedPickleError("a tensor has no shape")
    if any(type(value) is not int or not 0 <= value < _LONGEST_NUMBER for value in values):
        raise MalformedPickleError("a tensor has an impossible shape")
    return values


def _name(machine: _Machine, argument: Any) -> None:
    if not _KNOWN_NAMES.fullmatch(argument):
        raise PythonObjectsError(argument)
    machine.stack.append(_Name(*argument.split(" ")))


def _protocol(machine: _Machine, argument: Any) -> None:
    if argument not in (2, 3):
        raise MalformedPickleError(f"its list of tensors is of protocol {argument}")


def _push(machine: _Machine, argument: Any) -> None:
    machine.stack.append(argument)


def _constant(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, argument: machine.stack.append(make())


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, argument: machine.stack.append(tuple(machine.take(count)))


def _put(machine: _Machine, argument: Any) -> None:
    machine.memo[argument] = machine.stack[-1]


def _get(machine: _Machine, argument: Any) -> None:
    machine.stack.append(machine.memo[argument])


# Of protocol 2, which torch.save writes; torch's own restricted reader knows no later one.
_STEPS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    "PROTO": _protocol,
    "STOP": lambda machine, argument: None,
    **dict.fromkeys(("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), _push),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _get),
    "NONE": _constant(lambda: None),
    "NEWTRUE": _constant(lambda: True),
    "NEWFALSE": _constant(lambda: False),
    "EMPTY_DICT": _constant(dict),
    "EMPTY_LIST": _constant(list),
    "EMPTY_TUPLE": _constant(tuple),
    "MARK": _constant(lambda: _MARK),
    "TUPLE": lambda machine, argument: machine.stack.append(tuple(machine.above_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "SETITEM": lambda machine, argument: machine.put_pairs(machine.take(2)),
    "SETITEMS": lambda machine, argument: machine.put_pairs(machine.above_mark()),
    "APPEND": lambda machine, argument: machine.put_items(machine.take(1)),
    "APPENDS": lambda machine, argument: machine.put_items(machine.above_mark()),
    "GLOBAL": _name,
    "REDUCE": lambda machine, argument: machine.call(),
    "BINPERSID": lambda machine, argument: machine.storage(),
    "BUILD": lambda machine, argument: machine.build(),
}
