"""A CUDA device that is not there: torch's CPU build taken through every line that a GPU would go through.

    virtual.install(capability=(7, 5))                      # before the first backward pass of the process
    x = torch.zeros(3, device="cuda")                       # device.type is "cuda", the numbers lie in CPU memory
    x + torch.zeros(3)                                      # RuntimeError, as on a GPU

1. 45 lines of C++ (3 s to compile, kept): a device guard, hooks and a generator, so that torch's core takes "cuda" for
   built and available; autograd then runs its nodes in a device thread, as it does on a GPU.
2. `Pretend`, a wrapper subclass whose device is cuda:0 and that holds a CPU tensor; __torch_dispatch__ checks the
   devices of all arguments by CUDA's rules, runs the operation on the CPU tensors, and wraps what comes out.
3. kernels for the dispatch key CUDA: factories, and what torch.tensor(…, device="cuda") calls below Python.
4. torch.cuda's functions: a T4 (or another capability) with numbers for memory, and its own random state.
5. a count of kernel launches, host-device copies and synchronisations, by line of the project.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import types
from pathlib import Path

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "virtual-cuda"
SOURCE = r"""
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <cstring>
using namespace c10;
struct Guard final : impl::NoOpDeviceGuardImpl<kCUDA> {
  Device getDevice() const override { return Device(kCUDA, 0); }
  Device exchangeDevice(Device) const override { return Device(kCUDA, 0); }
  Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, Device(kCUDA, 0)); }
  Stream exchangeStream(Stream) const noexcept override { return Stream(Stream::DEFAULT, Device(kCUDA, 0)); }
  void record(void**, const Stream&, const DeviceIndex, const EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)
struct Random final : at::CPUGeneratorImpl {
  Random() : at::CPUGeneratorImpl() { device_ = Device(kCUDA, 0); }
};
struct Hooks final : at::CUDAHooksInterface {
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  DeviceIndex current_device() const override { return 0; }
  int getNumGPUs() const override { return 1; }
  Allocator* getPinnedMemoryAllocator() const override { return GetCPUAllocator(); }
  const at::Generator& getDefaultGenerator(DeviceIndex) const override {
    static at::Generator generator = at::make_generator<Random>();
    return generator;
  }
  at::Generator getNewGenerator(DeviceIndex) const override { return at::make_generator<Random>(); }
};
static Hooks hooks;  // the object is there since `import torch`: only its table of functions is replaced
static int swapped = (std::memcpy((void*)&at::detail::getCUDAHooks(), (void*)&hooks, sizeof(void*)), 1);
"""

aten = torch.ops.aten
DEVICE = torch.device("cuda", 0)


TORCH = "2.13."  # the hooks it replaces are internal: another release may need a look here


def missing() -> str:
    """Why the device cannot be made on this machine; empty where it can."""
    if not torch.__version__.startswith(TORCH):
        return f"it is made for torch {TORCH}x, and {torch.__version__} is installed"
    if torch.version.cuda is not None:
        return "torch is built for real CUDA devices"
    return "" if shutil.which("g++") else "g++ is not installed"


def compile_hooks() -> Path:
    key = hashlib.sha256((SOURCE + torch.__version__).encode()).hexdigest()[:12]
    CACHE.mkdir(parents=True, exist_ok=True)
    out = CACHE / f"pretend-{key}.so"
    if not out.exists():
        beside = out.with_suffix(f".{os.getpid()}.part")  # another process may be at it too
        source, root = CACHE / f"pretend-{os.getpid()}.cpp", Path(torch.__file__).parent
        source.write_text(SOURCE)
        subprocess.run(
            [
                "g++",
                "-O0",
                "-std=c++20",
                "-shared",
                "-fPIC",
                f"-I{root}/include",
                str(source),
                "-o",
                str(beside),
                f"-L{root}/lib",
                "-lc10",
                "-ltorch_cpu",
            ],
            check=True,
        )
        beside.replace(out)
    return out


# ---- counting ------------------------------------------------------------------------------------------------------


class Count:
    """Operations on the device since `reset`: launches by operation, events that make the CPU wait, by line."""

    def __init__(self) -> None:
        self.on, self.root = False, "/rlhflab/"
        self.reset()

    def reset(self) -> None:
        self.launches, self.waits, self.views = collections.Counter(), collections.Counter(), 0
        self.by_line = collections.Counter()

    def line(self) -> str:
        frame, found = sys._getframe(2), None
        while frame is not None:
            name = frame.f_code.co_filename
            if self.root in name and "/tests/" not in name:
                found = f"{name.split(self.root)[-1]}:{frame.f_lineno}"
                break
            frame = frame.f_back
        if found is None:
            found = (
                "backward pass" if threading.current_thread() is not threading.main_thread() else "outside"
            )
        return found

    def launch(self, name: str) -> None:
        if self.on:
            self.launches[name] += 1
            self.by_line[self.line()] += 1

    def wait(self, kind: str) -> None:
        if self.on:
            self.waits[kind, self.line()] += 1


count = Count()
seen_ops: set = set()  # (operation, dtypes) that ran on the device

# ---- the tensor ----------------------------------------------------------------------------------------------------


class Pretend(torch.Tensor):
    """A tensor on cuda:0 whose numbers are in `_elem`, on the CPU."""

    @staticmethod
    def __new__(cls, elem):
        new = torch.Tensor._make_wrapper_subclass(
            cls,
            elem.size(),
            strides=elem.stride(),
            storage_offset=elem.storage_offset(),
            dtype=elem.dtype,
            layout=elem.layout,
            device=DEVICE,
            requires_grad=False,
        )
        new._elem = elem
        return new

    def __init__(self, *_, **__):
        pass

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents=None):
        count.wait("repr")
        return repr(self._elem)[:-1] + ", device='cuda:0')"

    def __format__(self, spec):
        if self.dim() == 0 and not self.is_meta:
            return self.item().__format__(spec)
        return object.__format__(self, spec)

    def numpy(self, *a, **k):
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. "
            "Use Tensor.cpu() to copy the tensor to host memory first."
        )

    def __array__(self, *a, **k):
        return self.numpy()

    def tolist(self):
        count.wait("tolist")
        return self._elem.detach().tolist()

    def data_ptr(self):
        return self._elem.data_ptr()

    def untyped_storage(self):
        return self._elem.untyped_storage()

    def is_pinned(self, *a):
        return False

    @property
    def data(self):
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, new):
        if not isinstance(new, Pretend):
            raise RuntimeError("pretend: .data of another device")
        torch.Tensor.data.__set__(self, new)
        self._elem = new._elem

    def __deepcopy__(self, memo):
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise RuntimeError(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the "
                "moment."
            )
        new = Pretend(self._elem.detach().clone()).requires_grad_(self.requires_grad)
        for name, value in self.__dict__.items():
            if name != "_elem":
                setattr(new, name, value)
        memo[id(self)] = new
        return new

    def __reduce_ex__(self, protocol):
        return _rebuild, (
            self._elem.detach().clone(),
            self.requires_grad,
            bool(getattr(self, "_is_param", False)),
        )


_where = threading.local()


def _rebuild(elem, requires_grad, is_param):
    to = getattr(_where, "map_location", None)
    if to is not None and torch.device(to).type == "cpu":
        new = torch.nn.Parameter(elem, requires_grad) if is_param else elem.requires_grad_(requires_grad)
    else:
        new = Pretend(elem).requires_grad_(requires_grad)
        if is_param:
            new._is_param = True
    return new


_mixed: dict = {}
_real_make_subclass = torch.Tensor._make_subclass


def make_subclass(cls, data, requires_grad=False, **kwargs):
    """A subclass such as Params4bit of a tensor on the device: a class that is both."""
    if not isinstance(data, Pretend):
        return _real_make_subclass(cls, data, requires_grad, **kwargs)
    both = _mixed.get(cls)
    if both is None:
        both = _mixed[cls] = type(cls)(
            cls.__name__,
            (cls, Pretend),
            {
                "__torch_dispatch__": Pretend.__dict__["__torch_dispatch__"],
                "data": Pretend.data,
                "__torch_function__": classmethod(_function_of(cls)),
                "untyped_storage": Pretend.untyped_storage,
            },
        )
    new = Pretend(data._elem)
    new.__class__ = both
    return new.requires_grad_(requires_grad)


def _function_of(cls):
    own = cls.__dict__.get("__torch_function__")
    if own is None:
        return lambda kind, func, types, args=(), kwargs=None: _plainly(func, args, kwargs or {})
    return lambda kind, func, types, args=(), kwargs=None: own.__func__(kind, func, types, args, kwargs or {})


def _plainly(func, args, kwargs):
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args, **kwargs)


# ---- the rules -----------------------------------------------------------------------------------------------------

INDEXING = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
    aten._unsafe_index_put.default,
}
COPYING = {
    aten.copy_.default,
    aten._to_copy.default,
    aten.copy.default,
    aten._copy_from.default,
    aten._copy_from_and_resize.default,
}
SCALARS = {
    aten.where.self,
    aten.masked_fill.Tensor,
    aten.masked_fill_.Tensor,
    aten.lerp.Tensor,
    aten.lerp_.Tensor,
    aten.clamp.Tensor,
    aten.clamp_.Tensor,
}
WAITS = {
    aten._local_scalar_dense.default: "item",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten._unique2.default: "unique",
    aten.unique_dim.default: "unique",
    aten.unique_consecutive.default: "unique",
    aten.repeat_interleave.Tensor: "repeat_interleave",
    aten.bincount.default: "bincount",
    aten.equal.default: "equal",
    aten.is_nonzero.default: "bool",
    aten.linalg_solve_ex.default: "linalg",
    aten.unique_dim_consecutive.default: "unique",
}
_VIEWS: dict = {}
_SEEDED: dict = {}
_rng = threading.RLock()
_state = {"cuda": None}


class Mixed(RuntimeError):
    """CUDA's complaint; a class of its own, so that a test can tell it from others."""


def is_view(func) -> bool:
    found = _VIEWS.get(func)
    if found is None:
        schema = func._schema
        found = any(
            r.alias_info is not None and not r.alias_info.is_write for r in schema.returns
        ) or func in (
            aten.detach.default,
            aten.alias.default,
            aten._unsafe_view.default,
            aten.lift_fresh.default,
        )
        _VIEWS[func] = found
    return found


def is_seeded(func) -> bool:
    found = _SEEDED.get(func)
    if found is None:
        found = _SEEDED[func] = torch.Tag.nondeterministic_seeded in func.tags
    return found


def complain(func, tensors) -> None:
    devices = " and ".join(sorted({str(t.device) for t in tensors}))
    shapes = ", ".join(f"{t.device.type}{tuple(t.shape)}" for t in tensors)
    raise Mixed(
        f"Expected all tensors to be on the same device, but found at least two devices, {devices}! "
        f"({func}: {shapes})"
    )


def check(func, args, kwargs, flat) -> None:
    tensors = [t for t in flat if isinstance(t, torch.Tensor)]
    far = [t for t in tensors if isinstance(t, Pretend)]
    near = [t for t in tensors if not isinstance(t, Pretend) and t.device.type != "meta"]
    if not far or not near or func in COPYING:
        return
    if func in INDEXING:
        if not isinstance(args[0], Pretend):
            raise Mixed("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        if len(args) > 2 and not isinstance(args[2], Pretend) and args[2].dim():
            complain(func, tensors)
        return
    if any(t.dim() for t in near):
        complain(func, tensors)
    # 0-dimensional CPU tensors: element-wise operations take them, others do not
    pointwise = torch.Tag.pointwise in func.tags or func in SCALARS or "_foreach" in func.__name__
    writes = [
        a
        for a, s in zip(args, func._schema.arguments, strict=False)
        if s.alias_info is not None and s.alias_info.is_write
    ]
    writes += [
        kwargs[s.name]
        for s in func._schema.arguments
        if s.kwarg_only and s.alias_info is not None and s.name in kwargs
    ]
    if not pointwise or any(isinstance(w, torch.Tensor) and not isinstance(w, Pretend) for w in writes):
        complain(func, tensors)


class _seeded:
    """The device's own random numbers: its state takes the CPU generator's place meanwhile."""

    def __enter__(self):
        _rng.acquire()
        self.kept = torch.default_generator.get_state()
        if _state["cuda"] is None:
            _state["cuda"] = torch.Generator().manual_seed(0).get_state()
        torch.default_generator.set_state(_state["cuda"])

    def __exit__(self, *_):
        _state["cuda"] = torch.default_generator.get_state()
        torch.default_generator.set_state(self.kept)
        _rng.release()


def run(func, args, kwargs):
    special = SPECIAL.get(func)
    if special is not None:
        return special(func, args, kwargs)
    flat, spec = tree_flatten((args, kwargs))
    check(func, args, kwargs, flat)
    to_device = any(isinstance(t, Pretend) for t in flat)
    asked = kwargs.get("device")
    if asked is not None:
        to_device = torch.device(asked).type == "cuda"
    if kwargs.get("pin_memory"):
        count.wait("pin_memory")
    name = str(func)
    if func in WAITS:
        count.wait(WAITS[func])
    if func in INDEXING and isinstance(args[0], Pretend):
        for index in args[1]:
            if isinstance(index, torch.Tensor):
                if not isinstance(index, Pretend):
                    count.wait("cpu index")
                elif index.dtype in (torch.bool, torch.uint8):
                    count.wait("mask index")
    if func in (aten._to_copy.default,):
        source, target = isinstance(args[0], Pretend), to_device
        if source != target:
            count.wait("to gpu" if target else "to cpu")
    elif func in COPYING and isinstance(args[0], Pretend) != isinstance(args[1], Pretend):
        count.wait("to gpu" if isinstance(args[0], Pretend) else "to cpu")
    generator, stand_in = None, None
    plain = []
    for value in flat:
        if isinstance(value, Pretend):
            plain.append(value._elem)
        elif isinstance(value, torch.Generator):
            if to_device and value.device.type != "cuda":
                raise RuntimeError(
                    f"Expected a 'cuda' device type for generator but found '{value.device.type}'"
                )
            if value.device.type == "cuda":
                generator, stand_in = value, torch.Generator()
                stand_in.set_state(value.get_state())
                value = stand_in
            plain.append(value)
        elif isinstance(value, torch.device) and value.type == "cuda":
            plain.append(torch.device("cpu"))
        else:
            plain.append(value)
    a, k = tree_unflatten(plain, spec)
    if "device" in k and k["device"] is not None:
        k["device"] = torch.device("cpu") if torch.device(asked).type == "cuda" else asked
    if k.get("pin_memory"):
        k["pin_memory"] = None
    if func is aten._to_copy.default and k.get("non_blocking"):
        k["non_blocking"] = False
    if not is_view(func):
        count.launch(name)
        if to_device:
            seen_ops.add((name, tuple(str(t.dtype)[6:] for t in flat if isinstance(t, torch.Tensor))))
    if func is aten._to_copy.default and asked is not None and isinstance(args[0], Pretend) != to_device:
        out = a[0].to(
            dtype=k.get("dtype") or a[0].dtype,
            copy=True,
            memory_format=k.get("memory_format") or torch.preserve_format,
        )
    elif is_seeded(func) and generator is None and to_device:
        with _seeded():
            out = func(*a, **k)
    else:
        out = func(*a, **k)
    if generator is not None:
        generator.set_state(stand_in.get_state())
    return give(func, args, kwargs, out, to_device)


def give(func, args, kwargs, out, to_device):
    """Wrap results; what was written in place comes back as the object that it was."""
    schema = func._schema
    if (
        len(schema.returns) == 1
        and schema.returns[0].alias_info is not None
        and schema.returns[0].alias_info.is_write
    ):
        written = next(
            (
                a
                for a, s in zip(args, schema.arguments, strict=False)
                if s.alias_info is not None and s.alias_info.is_write
            ),
            None,
        )
        if written is None:
            written = next(
                kwargs[s.name]
                for s in schema.arguments
                if s.alias_info is not None and s.alias_info.is_write and s.name in kwargs
            )
        for w in written if isinstance(written, (list, tuple)) else [written]:
            if isinstance(w, Pretend) and (w._elem.shape != w.shape or w._elem.stride() != w.stride()):
                raise RuntimeError(
                    f"pretend: {func} changed the shape of its output in place: {w.shape} → {w._elem.shape}"
                )
        return written
    if not to_device:
        return out
    if isinstance(out, torch.Tensor):
        return Pretend(out) if not isinstance(out, Pretend) else out
    if isinstance(out, (list, tuple)):
        return type(out)(
            Pretend(o) if isinstance(o, torch.Tensor) and not isinstance(o, Pretend) else o for o in out
        )
    return out


SPECIAL: dict = {}


def product_in(func, args, kwargs):
    """CUDA's product of 16-bit matrices whose sums stay float32 (out_dtype); a CPU has none."""
    tensors = [t for t in args if isinstance(t, torch.Tensor)]
    out = kwargs.get("out")
    check(func, args, kwargs, tensors if out is None else [*tensors, out])
    count.launch(str(func))
    *added, left, right = (t._elem.float() for t in tensors)
    kind = next(value for value in args if isinstance(value, torch.dtype))
    found = left @ right
    if added:
        found = kwargs.get("beta", 1) * added[0] + kwargs.get("alpha", 1) * found
    if out is None:
        return Pretend(found.to(kind))
    out._elem.copy_(found)
    return out


def efficient_attention(func, args, kwargs):
    """CUDA's memory-efficient attention: one kernel forwards, no second derivative."""
    q, k, v, bias, _compute = args[:5]
    p = args[5] if len(args) > 5 else kwargs.get("dropout_p", 0.0)
    causal = args[6] if len(args) > 6 else kwargs.get("is_causal", False)
    scale = kwargs.get("scale")
    check(func, args, kwargs, [q, k, v] + ([bias] if bias is not None else []))
    count.launch(str(func))
    assert not p
    Q, K, V = q._elem.float(), k._elem.float(), v._elem.float()
    s = (Q @ K.transpose(-1, -2)) * (Q.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        s = s + bias._elem.float()
    if causal:
        s = s.masked_fill(~torch.ones(s.shape[-2:], dtype=torch.bool).tril(), float("-inf"))
    lse = s.logsumexp(-1)
    out = ((s - lse.unsqueeze(-1)).exp().nan_to_num(0.0) @ V).to(q.dtype)  # 0 where a row sees nothing
    out = out.transpose(1, 2).contiguous().transpose(1, 2)  # [batch, time, heads, size] in memory
    seed = Pretend(torch.zeros((), dtype=torch.long))
    return Pretend(out), Pretend(lse), seed, Pretend(torch.zeros((), dtype=torch.long))


def efficient_attention_backward(func, args, kwargs):
    g, q, k, v, bias, out, lse, _, _, _p, mask, *rest = args
    causal = rest[0] if rest else False
    scale = kwargs.get("scale")
    count.launch(str(func))
    Q, K, V, G, out_ = (x._elem.float() for x in (q, k, v, g, out))
    f = Q.shape[-1] ** -0.5 if scale is None else scale
    s = (Q @ K.transpose(-1, -2)) * f
    if bias is not None:
        s = s + bias._elem.float()
    if causal:
        s = s.masked_fill(~torch.ones(s.shape[-2:], dtype=torch.bool).tril(), float("-inf"))
    P = (s - lse._elem.unsqueeze(-1)).exp().nan_to_num(0.0)
    dV = P.transpose(-1, -2) @ G
    dP = G @ V.transpose(-1, -2)
    dS = P * (dP - (G * out_).sum(-1, keepdim=True))
    dQ, dK = dS @ K * f, dS.transpose(-1, -2) @ Q * f

    def give_(x):
        return Pretend(x.to(q.dtype).transpose(1, 2).contiguous().transpose(1, 2))

    return give_(dQ), give_(dK), give_(dV), Pretend(dS.to(q.dtype)) if mask[3] else None


def fused_sdp_choice(*a, **k):
    if torch._C._get_mem_efficient_sdp_enabled():
        return 2
    return 0


_libs: list = []
_real_sdpa = torch.nn.functional.scaled_dot_product_attention


def sdpa(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """Which kernel a T4 takes: memory-efficient attention unless it is switched off."""
    if not isinstance(query, Pretend):
        return _real_sdpa(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if not torch._C._get_mem_efficient_sdp_enabled() or dropout_p:
        return aten._scaled_dot_product_attention_math(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )[0]
    if enable_gqa and key.shape[-3] != query.shape[-3]:
        n = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(n, -3), value.repeat_interleave(n, -3)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(
            attn_mask.logical_not(), float("-inf")
        )
    if attn_mask is not None:
        if attn_mask.dtype != query.dtype:
            raise RuntimeError("Expected attn_mask dtype to be bool or to match query dtype")
        attn_mask = attn_mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    return aten._scaled_dot_product_efficient_attention(
        query,
        key,
        value,
        attn_mask,
        torch.is_grad_enabled() and query.requires_grad,
        dropout_p,
        is_causal,
        scale=scale,
    )[0]


def register() -> None:
    lib = torch.library.Library("aten", "IMPL")
    skip = ("sparse", "quantized", "cudnn", "mkldnn", "nested", "_make_dep_token", "from_file", "from_blob")
    for full in torch._C._dispatch_get_all_op_names():
        if not full.startswith("aten::") or any(s in full for s in skip):
            continue
        name, _, overload = full[6:].partition(".")
        try:
            op = getattr(getattr(aten, name), overload or "default")
        except (AttributeError, RuntimeError):
            continue
        schema = op._schema
        if len(schema.returns) != 1 or "Tensor" not in str(schema.returns[0].type):
            continue
        if not any(a.name == "device" for a in schema.arguments) or any(
            "Tensor" in str(a.type) for a in schema.arguments
        ):
            continue

        def kernel(*args, _op=op, **kwargs):
            kwargs["device"] = DEVICE
            return run(_op, args, kwargs)

        lib.impl(full[6:], kernel, "CUDA")

    def below(op):
        def kernel(*args, **kwargs):
            return run(op, args, kwargs)

        return kernel

    for op in (aten.copy_.default, aten._copy_from.default):
        lib.impl(str(op)[5:].removesuffix(".default"), below(op), "CUDA")
    _libs.append(lib)
    for name in ("mm.dtype", "mm.dtype_out", "addmm.dtype", "addmm.dtype_out"):
        overload = getattr(getattr(aten, name.split(".")[0]), name.split(".")[1], None)
        if overload is not None:
            SPECIAL[overload] = product_in
    SPECIAL[aten._scaled_dot_product_efficient_attention.default] = efficient_attention
    SPECIAL[aten._scaled_dot_product_efficient_attention_backward.default] = efficient_attention_backward
    torch.nn.functional.scaled_dot_product_attention = sdpa


# ---- torch.cuda ----------------------------------------------------------------------------------------------------

memory = {"free": 15.0e9, "total": 15.8e9}


def pretend(capability) -> None:
    """Let the device be a T4, or another one of this compute capability, from now on."""
    properties.name = "Tesla T4" if capability == (7, 5) else f"Pretend GPU {capability[0]}.{capability[1]}"
    properties.major, properties.minor = capability


properties = types.SimpleNamespace()


def patch_cuda(capability) -> None:
    cuda = torch.cuda
    properties.__dict__.update(
        total_memory=int(memory["total"]),
        multi_processor_count=40,
        gcnArchName="",
        warp_size=32,
        max_threads_per_multi_processor=1024,
        regs_per_multiprocessor=65536,
        uuid="0",
    )

    def seed_all(seed):
        _state["cuda"] = torch.Generator().manual_seed(int(seed)).get_state()

    def get_rng_state(device="cuda"):
        if _state["cuda"] is None:
            seed_all(0)
        return _state["cuda"].clone()

    def set_rng_state(state, device="cuda"):
        assert state.device.type == "cpu", "RNG state must be a torch.ByteTensor"
        _state["cuda"] = state.clone()

    class Quiet:
        def __init__(self, *a, **k):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def synchronize(self):
            pass

        def wait_stream(self, *_):
            pass

        def record_event(self, *_):
            return self

        def record(self, *_):
            pass

        def query(self):
            return True

        def elapsed_time(self, _):
            return 0.0

        cuda_stream = 0
        device = DEVICE

    pretend(capability)
    changes = dict(
        _lazy_init=lambda: None,
        is_available=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        is_initialized=lambda: True,
        _is_in_bad_fork=lambda: False,
        set_device=lambda *_: None,
        get_device_capability=lambda *_: (properties.major, properties.minor),
        get_device_properties=lambda *_: properties,
        get_device_name=lambda *_: properties.name,
        is_bf16_supported=lambda *a, **k: True,
        memory_allocated=lambda *_: 0,
        memory_reserved=lambda *_: 0,
        max_memory_allocated=lambda *_: 123_000_000,
        max_memory_reserved=lambda *_: 0,
        reset_peak_memory_stats=lambda *_: None,
        memory_stats=lambda *_: {},
        mem_get_info=lambda *_: (int(memory["free"]), int(memory["total"])),
        empty_cache=lambda: None,
        synchronize=lambda *_: count.wait("synchronize"),
        manual_seed=seed_all,
        manual_seed_all=seed_all,
        get_rng_state=get_rng_state,
        set_rng_state=set_rng_state,
        get_rng_state_all=lambda: [get_rng_state()],
        set_rng_state_all=lambda states: set_rng_state(states[0]),
        initial_seed=lambda: 0,
        seed=lambda: None,
        seed_all=lambda: None,
        current_stream=lambda *_: Quiet(),
        default_stream=lambda *_: Quiet(),
        stream=lambda *_: Quiet(),
        Stream=Quiet,
        Event=Quiet,
        device=Quiet,
        get_arch_list=lambda: ["sm_75"],
        is_current_stream_capturing=lambda: False,
        _initialized=True,
        ipc_collect=lambda: None,
    )
    for name, value in changes.items():
        setattr(cuda, name, value)
    for module in ("memory", "random"):
        for name, value in changes.items():
            if hasattr(getattr(cuda, module), name):
                setattr(getattr(cuda, module), name, value)
    real_load = torch.load

    def load(*args, map_location=None, **kwargs):
        _where.map_location = map_location
        try:
            return real_load(*args, map_location=map_location, **kwargs)
        finally:
            _where.map_location = None

    torch.load = load
    torch.serialization.add_safe_globals([_rebuild])


def install(capability=(7, 5)) -> None:
    """Make the device; call it once, before the first backward pass."""
    with contextlib.suppress(ImportError):
        import bitsandbytes  # noqa: F401  its CUDA part would look for torch._C's
    ctypes.CDLL(str(compile_hooks()))
    patch_cuda(capability)
    register()
    real_apply = torch.nn.Module._apply

    def apply_(self, fn, recurse=True):  # so that a parameter stays the same object on its way to the device
        own = [p for p in self._parameters.values() if p is not None and p.device.type != "meta"]
        moves = any(
            isinstance(p, Pretend) != isinstance(fn(torch.empty(0, dtype=p.dtype, device=p.device)), Pretend)
            for p in own[:1]
        )
        torch.__future__.set_swap_module_params_on_conversion(moves)
        try:
            return real_apply(self, fn, recurse)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)

    torch.nn.Module._apply = apply_
    torch.Tensor._make_subclass = staticmethod(make_subclass)
