"""A GPU that is pretended: tensors on the CPU that count as CUDA's, and break where those would.

What runs in it has the right values, and fails as on a GPU where tensors of two devices meet, where
NumPy is given a tensor of the GPU, or where an operation has no deterministic form there. It also
notes where the CPU waits for the GPU. A run records a file on a tape, as on a CUDA graph. It knows
nothing of kernels: their bits and speed need a GPU.
"""

import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from tape import Recorder
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
_CUDA = torch.device("cuda", 0)

# Without a deterministic form on a GPU: torch.use_deterministic_algorithms raises an error.
_NOT_DETERMINISTIC = {
    "adaptive_avg_pool2d_backward", "_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward",
    "avg_pool3d_backward", "max_pool3d_with_indices_backward", "median_with_indices", "kthvalue",
    "histc", "nll_loss2d_forward", "nll_loss2d_backward", "reflection_pad2d_backward",
    "replication_pad2d_backward", "upsample_bilinear2d_backward", "upsample_nearest2d_backward",
    "grid_sampler_2d_backward", "put_", "_ctc_loss_backward", "_embedding_bag",
}  # fmt: skip
_WAITS = {
    "_local_scalar_dense", "equal", "nonzero", "masked_select", "unique_dim", "_unique2",
    "unique_consecutive", "_linalg_eigh", "_linalg_svd", "is_nonzero",
}  # fmt: skip
_INDEXING = {"index", "index_put_", "index_put", "_index_put_impl_"}
_GET_DEVICE, _GET_IS_CUDA = torch.Tensor.device.__get__, torch.Tensor.is_cuda.__get__
_TO_NUMPY = {"numpy", "__array__", "__dlpack__"}


# Addresses of storages. A weak reference to each keeps its address from being used again.
_on_gpu: dict[int, int] = {}
_pinned: dict[int, int] = {}


def is_on_gpu(tensor: torch.Tensor) -> bool:
    """Whether a tensor counts as one on the GPU."""
    return _address(tensor) in _on_gpu


def _address(tensor: torch.Tensor) -> int:
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage()._cdata


def _mark(tensor: torch.Tensor, known: dict[int, int] = _on_gpu) -> None:
    with torch._C.DisableTorchFunction():
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            known[storage._cdata] = storage._weak_ref()


class _Operations(TorchDispatchMode):
    """Check and note what torch does, that of autograd too."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted = None  # whether new tensors are on the GPU; None: where the arguments are
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        here = [is_on_gpu(one) for one in given]
        name = func._schema.name.removeprefix("aten::")
        if any(here) and self.wanted is None:
            self._check(func, name, args, given, here)
        found = func(*args, **kwargs)
        known = {_address(one) for one in given}
        if any(here) if self.wanted is None else self.wanted:
            for one in tree_leaves(found):
                if isinstance(one, torch.Tensor) and _address(one) not in known:
                    _mark(one)
        return found

    def _check(self, func, name, args, given, here) -> None:
        if name in _NOT_DETERMINISTIC or func in (aten.median.dim, aten.nanmedian.dim):
            raise RuntimeError(f"{name} does not have a deterministic implementation")
        if name in _WAITS:
            self.note(name)
        if name in _INDEXING:
            self._check_index(name, args)
        elif name == "copy_":
            if not all(here):
                self.note("copy_ to the GPU" if here[0] else "copy_ to the CPU")
        elif not all(here):
            strange = [one for one, is_here in zip(given, here, strict=True) if not is_here]
            is_scalar = all(one.dim() == 0 for one in strange)
            if not (is_scalar and (torch.Tag.pointwise in func.tags or name == "fill_")):
                shapes = [list(one.shape) for one in strange]
                raise RuntimeError(f"{func}: expected all tensors on the GPU, not {shapes}")

    def _check_index(self, name, args) -> None:
        indices = [one for one in args[1] if one is not None]
        if not is_on_gpu(args[0]):
            raise RuntimeError("indices should be on the CPU, as the indexed tensor is")
        is_scalar = name != "index" and args[2].dim() == 0
        if name != "index" and not is_on_gpu(args[2]) and not is_scalar:
            raise RuntimeError("expected values on the GPU, as the indexed tensor is")
        for one in indices:
            if not is_on_gpu(one):
                self.note("index from the CPU")
            elif one.dtype == torch.bool and not is_scalar:  # a scalar is filled in by the mask
                self.note("index by a mask")

    def note(self, what: str) -> None:
        """Note a wait, and who asked for it."""
        frame = sys._getframe()
        while frame and "/byzshield_exp/" not in frame.f_code.co_filename:
            frame = frame.f_back
        where = "elsewhere"
        if frame:
            path = frame.f_code.co_filename.partition("/byzshield_exp/")[2]
            where = f"{path}:{frame.f_code.co_name}"
        self.waits[f"{where}: {what}"] += 1


class _Calls(TorchFunctionMode):
    """Give calls that name a device what they ask for."""

    def __init__(self, operations: _Operations) -> None:
        super().__init__()
        self._operations = operations

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = {**(kwargs or {})}
        name = getattr(func, "__name__", "")
        if func == _GET_DEVICE:
            return _CUDA if is_on_gpu(args[0]) else func(*args)
        if func == _GET_IS_CUDA:
            return is_on_gpu(args[0])
        if name in _TO_NUMPY and is_on_gpu(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if name == "pin_memory":
            pinned = args[0].clone()
            _mark(pinned, _pinned)
            return pinned
        if name == "tolist" and is_on_gpu(args[0]):
            self._operations.note("tolist")
            return func(*args)
        if name == "__deepcopy__":
            copied = func(*args, **kwargs)
            if is_on_gpu(args[0]):
                _mark(copied)
            return copied
        if name in ("to", "cuda", "cpu") and isinstance(args[0], torch.Tensor):
            return self._moved(name, *args, **kwargs)
        if name == "new_tensor" and kwargs.get("device") is None and is_on_gpu(args[0]):
            kwargs["device"] = "cuda"
        if kwargs.get("device") is None:
            return func(*args, **kwargs)
        to_gpu = torch.device(kwargs.pop("device")).type == "cuda"
        with self._wanting(to_gpu):
            made = func(*args, **kwargs)
        if to_gpu and isinstance(made, torch.Tensor) and not is_on_gpu(made):
            self._operations.note("copy to the GPU")  # of numbers of Python's
            _mark(made)
        return made

    def _moved(self, name, tensor, *args, device=None, dtype=None, non_blocking=False, **more):
        """Move a tensor, as its ``to``, ``cuda`` and ``cpu`` do."""
        rest = [*args]
        asked = {"cuda": "cuda", "cpu": "cpu"}.get(name) or device
        if rest and isinstance(rest[0], torch.Tensor):
            other = rest.pop(0)
            asked, dtype = "cuda" if is_on_gpu(other) else "cpu", other.dtype
        elif rest and isinstance(rest[0], str | torch.device):
            asked = rest.pop(0)
        dtype = rest[0] if rest and rest[0] is not None else dtype
        non_blocking = rest[1] if len(rest) > 1 else non_blocking
        to_gpu = None if asked is None else torch.device(asked).type == "cuda"
        if to_gpu is not None and to_gpu != is_on_gpu(tensor):
            is_pinned = _address(tensor) in _pinned
            if not (to_gpu and is_pinned and non_blocking):
                self._operations.note("copy to the GPU" if to_gpu else "copy to the CPU")
            with self._wanting(to_gpu):
                tensor = tensor.clone()
        return tensor if dtype is None and not more else tensor.to(dtype or tensor.dtype, **more)

    @contextmanager
    def _wanting(self, is_on_gpu: bool):
        before, self._operations.wanted = self._operations.wanted, is_on_gpu
        try:
            yield
        finally:
            self._operations.wanted = before


@contextmanager
def pretended_gpu():
    """Pretend a GPU in this thread; yields a counter of waits by place."""
    operations = _Operations()
    state = torch.get_rng_state
    stand_ins = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "get_device_name": lambda *device: "pretended",
        "get_rng_state": lambda *device: state(),
        "set_rng_state": lambda *state: None,
        "synchronize": lambda *device: None,
        "mem_get_info": lambda *device: (2**34, 2**34),
        "memory_reserved": lambda *device: 0,
        "memory_allocated": lambda *device: 0,
    }
    was = torch.are_deterministic_algorithms_enabled()
    with ExitStack() as stack:
        for name, stand_in in stand_ins.items():
            stack.enter_context(patch.object(torch.cuda, name, stand_in))
        stack.callback(torch.use_deterministic_algorithms, was)
        stack.callback(torch._C._set_mkldnn_enabled, torch._C._get_mkldnn_enabled())
        torch._C._set_mkldnn_enabled(False)  # it is the CPU's
        stack.enter_context(patch("byzshield_exp.training.true_gradients.cuda_graph", Recorder()))
        stack.enter_context(operations)
        stack.enter_context(_Calls(operations))
        yield operations.waits
