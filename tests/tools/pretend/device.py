"""The pretended device.  Import it before torch: hooks are asked for when torch starts.

    with pretended() as gpu:
        x = torch.randn(3, device="cuda")
    gpu.launches, gpu.syncs

CUDA's rules: operations on tensors of two devices raise Mixed, but 0-dimensional CPU tensors are
numbers to pointwise operations, and CPU indices of CUDA tensors are copied; a generator serves its
own device; numpy is refused.  Counted are launches, one an operation that is no view (several where
CUDA is known to need far more), and waits of the host by the line of the project that causes them:
"to host" for values that Python asks for, "to device" for copies of pageable memory.
"""

import ctypes
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.tools.pretend import build

if "torch" in sys.modules:
    raise ImportError("the pretended device must be imported before torch")
for _library in ("lib/libc10.so", "lib/libtorch_cpu.so", build.library()):
    ctypes.CDLL(str(build.torch_folder() / _library), mode=ctypes.RTLD_GLOBAL)

import torch  # noqa: E402
from torch.optim import optimizer  # noqa: E402
from torch.utils import _foreach_utils  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_map_only  # noqa: E402

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
PROJECT = str(Path(__file__).parents[3]) + "/"


class Mixed(RuntimeError):
    """What CUDA would raise of tensors, or a generator, on two devices."""


# ---- torch.cuda, as far as it does not compute

torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda"): a copy that is seen
torch.__future__.set_overwrite_module_params_on_conversion(True)  # `Module.to`: new parameters
for _name, _answer in {
    "_lazy_init": None,
    "is_available": True,
    "is_initialized": True,
    "device_count": 1,
    "current_device": 0,
    "synchronize": None,
    "empty_cache": None,
    "memory_allocated": 0,
    "memory_reserved": 0,
    "max_memory_allocated": 0,
    "max_memory_reserved": 0,
    "reset_peak_memory_stats": None,
    "mem_get_info": (2**37, 2**37),
    "get_device_name": "pretended GPU",
    "is_current_stream_capturing": False,
    "set_rng_state": None,
    "set_rng_state_all": None,
    "manual_seed": None,
    "manual_seed_all": None,
}.items():
    setattr(torch.cuda, _name, lambda *a, _answer=_answer, **k: _answer)
torch.cuda.get_rng_state = lambda device=None: torch.get_rng_state()
torch.cuda.get_rng_state_all = lambda: [torch.get_rng_state()]


class Generator(torch._C.Generator):
    """A CPU generator that says where it was asked to be: `Generator("cuda")` names no index."""

    ours: dict[int, torch.device] = {}  # by identity of the C++ object: operations see that alone
    kept: list["Generator"] = []  # so that no identity is given twice

    def __new__(cls, device: Any = "cpu") -> "Generator":
        made = super().__new__(cls, "cpu")
        cls.ours[made._cdata] = torch.device(device)
        cls.kept.append(made)
        return made

    @property
    def device(self) -> torch.device:
        return self.ours[self._cdata]

    def clone_state(self) -> "Generator":
        return Generator(self.device).set_state(self.get_state())


torch.Generator = Generator


# ---- tensors


class Pretended(torch.Tensor):
    """Says cuda:0; `inner` holds the numbers."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "Pretended":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=CUDA,
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return gpu.run(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents=None):
        return f"Pretended({self.inner!r})"

    def __format__(self, spec):
        return format(self.item(), spec) if self.dim() == 0 else repr(self)

    def __deepcopy__(self, memo):  # torch's own copies the storage, and here there is none
        if not self.is_leaf:
            raise RuntimeError("only tensors that no graph made can be copied deeply")
        if id(self) not in memo:
            with torch.no_grad():
                twin = Pretended(self.inner.clone()).requires_grad_(self.requires_grad)
            twin._is_param = isinstance(self, torch.nn.Parameter)
            memo[id(self)] = twin
            twin.grad = None if self.grad is None else self.grad.__deepcopy__(memo)
        return memo[id(self)]

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, *args, **kwargs):
        return self.numpy()

    # The code of these two changes the shape of an intermediate in place, and a wrapper's stays.

    def quantile(self, q, *args, **kwargs):
        gpu.launches += 10
        return Pretended(self.inner.quantile(q, *args, **kwargs))

    def __matmul__(self, other):
        row = self.dim() == 1 and other.dim() == 2
        return torch.matmul(self[None], other)[0] if row else torch.matmul(self, other)


for _place in (_foreach_utils, optimizer):  # as on CUDA: norms and optimisers take all at once
    _place._foreach_supported_types.append(Pretended)

# ---- rules

UNLAUNCHED = {
    "aten.empty.memory_format",
    "aten.empty_like.default",
    "aten.empty_strided.default",
    "aten.new_empty.default",
    "aten.new_empty_strided.default",
    "aten._unsafe_view.default",
    "aten._reshape_alias.default",
    "aten.detach_.default",
    "aten.is_same_size.default",
    "aten.result_type.Tensor",
    "aten.is_pinned.default",
    "aten._local_scalar_dense.default",
    "aten.is_nonzero.default",
}  # beside views
SEVERAL = {  # launches, where it is far from one
    "aten.logsumexp.default": 9,
    "aten.linalg_qr.default": 6,
    "aten.randperm.generator": 4,
    "aten._foreach_norm.Scalar": 3,
    "aten._linalg_eigh.default": 30,
    "aten.linalg_lstsq.default": 10,
    "aten.nonzero.default": 3,
    "aten.multinomial.default": 6,
    "aten.convolution_backward.default": 2,
    "aten.sort.default": 2,
}
WAITS = {  # whose result, or its size, the host has to know
    "aten._local_scalar_dense.default",
    "aten.is_nonzero.default",
    "aten.nonzero.default",
    "aten.equal.default",
    "aten.masked_select.default",
    "aten._unique2.default",
    "aten.unique_dim.default",
    "aten.unique_consecutive.default",
    "aten.bincount.default",
    "aten.repeat_interleave.Tensor",
    "aten._linalg_check_errors.default",
    "aten._linalg_eigh.default",
    "aten._linalg_svd.default",
}
INDEXING = {
    "aten.index.Tensor",
    "aten._unsafe_index.Tensor",
    "aten.index_put.default",
    "aten.index_put_.default",
    "aten._index_put_impl_.default",
}
NUMBERS_PASS = {  # beside what torch calls pointwise
    "aten.where.self",
    "aten.fill_.Tensor",
    "aten.masked_fill.Tensor",
    "aten.masked_fill_.Tensor",
}


def lines(most: int = 3) -> list[str]:
    """The innermost frames of the project, as file:line."""
    found, frame = [], sys._getframe(2)
    while frame is not None and len(found) < most:
        name = frame.f_code.co_filename
        if name.startswith(PROJECT) and name != __file__ and ".venv" not in name:
            name = name.removeprefix(PROJECT).removeprefix("src/tiltbench/")
            found.append(f"{name}:{frame.f_lineno}")
        frame = frame.f_back
    return found


class Gpu:
    """What happened on the device since `forget`."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.launches = 0
        self.syncs: Counter[str] = Counter()  # "file:line to host (operation)" -> how often
        self.faults: list[str] = []  # what CUDA would have raised, even where somebody caught it
        self.calls: list[str] | None = None  # made a list: launches with shapes, numbers and lines

    def wait(self, way: str, op: str) -> None:
        self.syncs[f"{next(iter(lines()), '?')} {way} ({op.removeprefix('aten.')})"] += 1

    def launch(self, op: str, args: Any) -> None:
        self.launches += SEVERAL.get(op, 1)
        if self.calls is not None:
            given = [str(tuple(getattr(x, "shape", [x]))) for x in _flat(args, [])]
            self.calls.append(f"{op}({', '.join(given)}) at {next(iter(lines()), '?')}")

    def refuse(self, sentence: str) -> None:
        self.faults.append(f"{sentence} at {' < '.join(lines())}")
        raise Mixed(self.faults[-1])

    def run(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """One operation of torch's core."""
        op, given = _name(func), _flat([args, *kwargs.values()], [])
        ours = [x for x in given if type(x) is Pretended]
        theirs = [x for x in given if isinstance(x, torch.Tensor) and type(x) is not Pretended]
        asked = kwargs.get("device")
        here = bool(ours) if asked is None else torch.device(asked).type == "cuda"
        if op in ("aten._to_copy.default", "aten.copy_.default"):
            return self._copied(func, op, args, kwargs, here)
        if ours and theirs:
            self._meet(func, op, args, theirs)
        for x in given:
            if isinstance(x, torch._C.Generator):
                at = Generator.ours.get(x._cdata, CPU).type
                if at != ("cuda" if here else "cpu"):
                    self.refuse(f"{op}: the generator is on {at} and the result is not")
        if not here and not ours:
            return func(*args, **kwargs)
        self._count(func, op, args, kwargs)
        out = func(*_bare(args), **_bare({**kwargs, "device": CPU} if asked else kwargs))
        return self._wrapped(func, args, kwargs, out) if here else out

    def _copied(self, func: Any, op: str, args: tuple, kwargs: dict, here: bool) -> Any:
        to, source = (args[0], args[1]) if op == "aten.copy_.default" else (None, args[0])
        goes = type(to) is Pretended if to is not None else here
        comes = type(source) is Pretended
        if goes or comes:
            self.launch(op, args)
        if goes != comes:
            self.wait("to device" if goes else "to host", op)
        if to is not None:
            func(_bare(to), _bare(source))
            return to
        out = func(_bare(source), **{**kwargs, "device": CPU, "non_blocking": False})
        return Pretended(out) if goes else out

    def _meet(self, func: Any, op: str, args: tuple, theirs: list[torch.Tensor]) -> None:
        """Raises unless CUDA lets these CPU tensors stand beside tensors of the device."""
        big = [tuple(x.shape) for x in theirs if x.dim()]
        if op in INDEXING:
            inside = type(args[0]) is Pretended
            indices = [i for i in args[1] if i is not None]
            if not inside and any(type(i) is Pretended for i in indices):
                self.refuse(f"{op}: indices on cuda:0 of a tensor on the CPU")
            if len(args) > 2 and args[2].dim() and (type(args[2]) is Pretended) != inside:
                self.refuse(f"{op}: values on another device than the tensor")
            for i in indices:
                if inside and type(i) is not Pretended:
                    self.wait("to device", op)
            return
        if big:
            self.refuse(f"{op}: tensors on cuda:0 and on the CPU, the latter of shapes {big}")
        optimises = op.startswith(("aten._fused_", "aten._foreach_"))  # their count of steps
        if func._schema.is_mutable and type(args[0]) is not Pretended and not optimises:
            self.refuse(f"{op}: a tensor on the CPU is to take what is on cuda:0")
        if not (torch.Tag.pointwise in func.tags or op in NUMBERS_PASS or optimises):
            self.refuse(f"{op}: a number on the CPU beside tensors on cuda:0")

    def _count(self, func: Any, op: str, args: tuple, kwargs: dict) -> None:
        if op in WAITS and kwargs.get("output_size") is None:
            self.wait("to host", op)
        if op == "aten.multinomial.default" and (args[1] == 1 or not any(args[2:3])):
            self.wait("to host", op)  # the weights are looked at
        if op in INDEXING and any(i is not None and i.dtype == torch.bool for i in args[1]):
            if len(args) < 3 or args[2].numel() > 1:  # one value: masked_fill, which needs no size
                self.wait("to host", f"{op}, a boolean mask")
                self.launch("aten.nonzero.default", args)
        if not func.is_view and op not in UNLAUNCHED:
            self.launch(op, args)

    def _wrapped(self, func: Any, args: tuple, kwargs: dict, out: Any) -> Any:
        """What is written in place comes back as the very tensor that was given."""
        if type(out) is torch.Tensor and not func._schema.is_mutable:
            return Pretended(out)
        written = {}
        for i, slot in enumerate(func._schema.arguments):
            if slot.alias_info is not None and slot.alias_info.is_write:
                for name in slot.alias_info.before_set:
                    written[name] = args[i] if i < len(args) else kwargs.get(slot.name)

        def one(value: Any, slot: Any) -> Any:
            names = slot.alias_info.before_set if slot.alias_info is not None else ()
            for name in names:
                if name in written:
                    return written[name]
            return tree_map_only(torch.Tensor, Pretended, value)

        slots = func._schema.returns
        if len(slots) < 2:
            return one(out, slots[0]) if slots else None
        return tuple(one(value, slot) for value, slot in zip(out, slots, strict=True))


_name = lru_cache(maxsize=None)(str)  # of an operation


def _flat(x: Any, found: list[Any]) -> list[Any]:
    """What stands in nested lists and tuples."""
    for inner in x:
        if isinstance(inner, list | tuple):
            _flat(inner, found)
        else:
            found.append(inner)
    return found


def _bare(x: Any) -> Any:
    if type(x) is Pretended:
        return x.inner
    if isinstance(x, list | tuple):
        return type(x)(_bare(v) for v in x)
    return {key: _bare(v) for key, v in x.items()} if isinstance(x, dict) else x


gpu = Gpu()


class _Mode(TorchDispatchMode):
    """Sees what makes tensors of nothing."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return gpu.run(func, args, kwargs or {})


@contextmanager
def pretended() -> Iterator[Gpu]:
    gpu.forget()
    with _Mode():
        yield gpu


@contextmanager
def unmixed() -> Iterator[Gpu]:
    """`pretended`, raising AssertionError at the end where devices were mixed, even where somebody
    has caught what was raised then, as the harness does."""
    with pretended() as device:
        yield device
    assert not device.faults, "\n".join(device.faults)
