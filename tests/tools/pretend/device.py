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
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

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

# CUDA has kernels of its own for these; without one torch would take them apart before they arrive.
_kernels = torch.library.Library("aten", "IMPL")
for _name in ("silu_backward", "mish_backward", "native_channel_shuffle"):
    _kernels.impl(_name, lambda *given: NotImplemented, "CUDA")


class Generator(torch._C.Generator):
    """A CPU generator that says where it was asked to be: `Generator("cuda")` names no index."""

    ours: dict[int, torch.device] = {}  # by identity of the C++ object: operations see that alone
    generators: list["Generator"] = []  # so that no identity is given twice

    def __new__(cls, device: Any = "cpu") -> "Generator":
        generator = super().__new__(cls, "cpu")
        cls.ours[generator._cdata] = torch.device(device)
        cls.generators.append(generator)
        return generator

    @property
    def device(self) -> torch.device:
        return self.ours[self._cdata]

    @classmethod
    def on_gpu(cls, x: Any) -> bool:
        """Whether x is a generator of the device."""
        return isinstance(x, torch._C.Generator) and cls.ours.get(x._cdata, CPU).type == "cuda"

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
        wrapper = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=CUDA,
        )
        wrapper.inner = inner
        return wrapper

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
    "empty.memory_format",
    "empty_like.default",
    "empty_strided.default",
    "new_empty.default",
    "new_empty_strided.default",
    "_unsafe_view.default",
    "_reshape_alias.default",
    "detach_.default",
    "is_same_size.default",
    "result_type.Tensor",
    "is_pinned.default",
    "_local_scalar_dense.default",
    "is_nonzero.default",
}  # beside views
SEVERAL = {  # launches, where it is far from one
    "logsumexp.default": 9,
    "linalg_qr.default": 6,
    "randperm.generator": 4,
    "_foreach_norm.Scalar": 3,
    "_linalg_eigh.default": 30,
    "linalg_lstsq.default": 10,
    "nonzero.default": 3,
    "multinomial.default": 6,
    "convolution_backward.default": 2,
    "sort.default": 2,
}
WAITS = {  # whose result, or its size, the host has to know
    "_local_scalar_dense.default",
    "is_nonzero.default",
    "nonzero.default",
    "equal.default",
    "allclose.default",
    "multinomial.default",  # without replacement, or of one: the weights are looked at
    "masked_select.default",
    "_unique2.default",
    "unique_dim.default",
    "unique_consecutive.default",
    "bincount.default",
    "repeat_interleave.Tensor",
    "_linalg_check_errors.default",
    "_linalg_eigh.default",
    "_linalg_svd.default",
}
INDEXING = {
    "index.Tensor",
    "_unsafe_index.Tensor",
    "index_put.default",
    "index_put_.default",
    "_index_put_impl_.default",
}
NUMBERS_PASS = {  # beside what torch calls pointwise
    "where.self",
    "fill_.Tensor",
    "masked_fill.Tensor",
    "masked_fill_.Tensor",
}


def lines(most: int = 3) -> list[str]:
    """The innermost frames of the project, as file:line."""
    frames, frame = [], sys._getframe(2)
    while frame is not None and len(frames) < most:
        name = frame.f_code.co_filename
        if name.startswith(PROJECT) and name != __file__ and ".venv" not in name:
            name = name.removeprefix(PROJECT).removeprefix("src/tiltbench/")
            frames.append(f"{name}:{frame.f_lineno}")
        frame = frame.f_back
    return frames


class Operation(NamedTuple):
    """What is known of one, whatever its arguments."""

    name: str
    launches: int
    copies: bool
    indexes: bool
    waits: bool
    mutable: bool
    numbers: bool  # pass beside tensors of the device
    lists: bool  # takes many tensors at once, with the CPU's counts of steps


@cache
def known(func: Any) -> Operation:
    name = str(func).removeprefix("aten.")
    lists = name.startswith(("_fused_", "_foreach_"))
    return Operation(
        name,
        launches=0 if func.is_view or name in UNLAUNCHED else SEVERAL.get(name, 1),
        copies=name in ("_to_copy.default", "copy_.default"),
        indexes=name in INDEXING,
        waits=name in WAITS,
        mutable=func._schema.is_mutable,
        numbers=torch.Tag.pointwise in func.tags or name in NUMBERS_PASS or lists,
        lists=lists,
    )


class Gpu:
    """What happened on the device since `forget`."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.launches = 0
        self.syncs: Counter[str] = Counter()  # "file:line to host (operation)" -> how often
        self.faults: list[str] = []  # what CUDA would have raised, even where somebody caught it
        self.calls: list[str] | None = None  # made a list: launches with shapes, numbers and lines

    def wait(self, way: str, what: str) -> None:
        self.syncs[f"{next(iter(lines()), '?')} {way} ({what})"] += 1

    def launch(self, op: Operation, args: Any) -> None:
        self.launches += op.launches
        if self.calls is not None and op.launches:
            given = ", ".join(_shown(args))
            self.calls.append(f"{op.name}({given}) at {next(iter(lines()), '?')}")

    def refuse(self, sentence: str) -> None:
        self.faults.append(f"{sentence} at {' < '.join(lines())}")
        raise Mixed(self.faults[-1])

    def run(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """One operation of torch's core."""
        op = known(func)
        if op.copies:
            return self._copied(func, op, args, kwargs)
        ours: list[Pretended] = []
        others: list[Any] = []  # tensors of the CPU, and generators
        bare = _bare(args, ours, others)
        options = {key: _bare(value, ours, others) for key, value in kwargs.items()}
        here = bool(ours)
        if kwargs.get("device") is not None:
            here = torch.device(kwargs["device"]).type == "cuda"
            options["device"] = CPU
        if others and (ours or here):
            self._meet(op, args, others, here, bool(ours))
        elif others and any(Generator.on_gpu(x) for x in others):
            self.refuse(f"{op.name}: a generator of cuda:0 for a tensor on the CPU")
        if not here and not ours:
            return func(*args, **kwargs)
        if op.waits or op.indexes:
            self._wait_for(op, args, kwargs)
        self.launch(op, args)
        out = func(*bare, **options)
        return self._wrapped(func, op, args, kwargs, out) if here else out

    def _copied(self, func: Any, op: Operation, args: tuple, kwargs: dict) -> Any:
        """A new tensor on the asked device, or numbers written into one that is there."""
        written = op.name == "copy_.default"
        source = args[1] if written else args[0]
        comes, asked = type(source) is Pretended, kwargs.get("device")
        goes = comes if asked is None else torch.device(asked).type == "cuda"
        if written:
            goes = type(args[0]) is Pretended
        if goes or comes:
            self.launch(op, args)
        if goes != comes:
            self.wait("to device" if goes else "to host", op.name)
        bare = source.inner if comes else source
        if written:
            func(args[0].inner if goes else args[0], bare)
            return args[0]
        out = func(bare, **{**kwargs, "device": CPU, "non_blocking": False})
        return Pretended(out) if goes else out

    def _meet(self, op: Operation, args: tuple, others: list, here: bool, ours: bool) -> None:
        """Raises unless CUDA lets these tensors and generators of the CPU stand there."""
        for x in others:
            if isinstance(x, torch._C.Generator) and Generator.on_gpu(x) != here:
                self.refuse(f"{op.name}: the generator is not on the device of the result")
        theirs = [x for x in others if isinstance(x, torch.Tensor)]
        if not theirs or not ours:
            return
        if op.indexes:
            inside = type(args[0]) is Pretended
            indices = [i for i in args[1] if i is not None]
            if not inside and any(type(i) is Pretended for i in indices):
                self.refuse(f"{op.name}: indices on cuda:0 of a tensor on the CPU")
            if len(args) > 2 and args[2].dim() and (type(args[2]) is Pretended) != inside:
                self.refuse(f"{op.name}: values on another device than the tensor")
            for i in indices:
                if type(i) is not Pretended:
                    self.wait("to device", op.name)
            return
        big = [tuple(x.shape) for x in theirs if x.dim()]
        if big:
            self.refuse(f"{op.name}: tensors on cuda:0 and on the CPU, the latter of shapes {big}")
        if op.mutable and not op.lists and type(args[0]) is not Pretended:
            self.refuse(f"{op.name}: a tensor on the CPU is to take what is on cuda:0")
        if not op.numbers:
            self.refuse(f"{op.name}: a number on the CPU beside tensors on cuda:0")

    def _wait_for(self, op: Operation, args: tuple, kwargs: dict) -> None:
        if op.waits and kwargs.get("output_size") is None:
            if op.name != "multinomial.default" or args[1] == 1 or not any(args[2:3]):
                self.wait("to host", op.name)
        if op.indexes and any(i is not None and i.dtype == torch.bool for i in args[1]):
            if len(args) < 3 or args[2].numel() > 1:  # one value: masked_fill, which needs no size
                self.wait("to host", f"{op.name}, a boolean mask")
                self.launches += SEVERAL["nonzero.default"]

    def _wrapped(self, func: Any, op: Operation, args: tuple, kwargs: dict, out: Any) -> Any:
        """What is written in place comes back as the very tensor that was given."""
        if not op.mutable:
            if type(out) is torch.Tensor:
                return Pretended(out)
            return tree_map_only(torch.Tensor, Pretended, out)
        if type(args[0]) is Pretended and args[0].shape != args[0].inner.shape:
            raise NotImplementedError(
                f"{op.name} changes a shape in place: see `Pretended.quantile`"
            )
        written = {}
        for i, slot in enumerate(func._schema.arguments):
            if slot.alias_info is not None and slot.alias_info.is_write:
                for name in slot.alias_info.before_set:
                    written[name] = args[i] if i < len(args) else kwargs.get(slot.name)

        def one(value: Any, slot: Any) -> Any:
            for name in slot.alias_info.before_set if slot.alias_info is not None else ():
                return written[name]
            return tree_map_only(torch.Tensor, Pretended, value)

        slots = func._schema.returns
        if len(slots) < 2:
            return one(out, slots[0]) if slots else None
        return tuple(one(value, slot) for value, slot in zip(out, slots, strict=True))


def _bare(x: Any, ours: list[Pretended], others: list[Any]) -> Any:
    """The tensors inside of those that are ours; these and others are noted on the way."""
    kind = type(x)
    if kind is Pretended:
        ours.append(x)
        return x.inner
    if kind is list or kind is tuple:
        return kind([_bare(inner, ours, others) for inner in x])
    if kind not in NUMBERS and isinstance(x, torch.Tensor | torch._C.Generator):
        others.append(x)
    return x


NUMBERS = (int, float, bool, type(None), str, torch.dtype, torch.device)


def _shown(args: Any) -> Iterator[str]:
    for x in args:
        if isinstance(x, list | tuple):
            yield from _shown(x)
        else:
            yield str(tuple(x.shape)) if isinstance(x, torch.Tensor) else str(x)


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
