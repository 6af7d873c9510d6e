"""PyTorch: the model's own family module, on the bundle's memory-mapped weights.

On a CPU every session and process uses them where they lie. Where torch has no fast kernel for a
half-precision product, `by_the_weight` computes it in fp32 without an fp32 copy of the weight.
"""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from tiedexport import trt
from tiedexport.errors import RuntimeFailedError
from tiedexport.results import Availability
from tiedexport.runtimes import Options, Runtime, bind_by_running
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tiedexport.bundle import Bundle
    from tiedexport.spec import StageSpec


class _Torch(Runtime):
    # oneDNN and MKL sum half-precision products in float32; `_float32_sums` makes CUDA do so.
    accumulation = dict.fromkeys(Precision, Precision.FP32)

    def __init__(self, name: str, device: str, rank: int) -> None:
        self.name, self.rank, self._device = name, rank, device
        self.on_gpu = device == "cuda"
        half_first = (Precision.FP16, Precision.BF16, Precision.FP32)
        self.precisions = half_first if device == "cuda" else half_first[::-1]

    def availability(self) -> Availability:
        try:
            found = version("torch")
        except PackageNotFoundError:
            return Availability(
                False,
                reason="the package torch is not installed",
                remedy="pip install 'tiedexport[train]'",
            )
        if self._device == "cuda" and not _torch_finds_cuda():
            return Availability(
                False,
                found,
                reason="torch finds no CUDA device",
                remedy="needs an NVIDIA GPU, its driver, and a CUDA build of torch",
            )
        return Availability(True, found)

    def refusal(self, bundle: Bundle, precision: Precision) -> str | None:
        from tiedexport.families import all_families

        family = bundle.manifest.family
        return None if family in all_families() else f"the family {family!r} is not installed"

    def hidden_copies(self, bundle: Bundle, precision: Precision) -> str | None:
        if self._device != "cpu" or not any(map(_has_fast_kernels, _types(bundle, precision))):
            return None
        ops = {layer.op for stage in bundle.manifest.stages for layer in stage.layers}
        if ops.isdisjoint({"conv", "conv_transpose"}):
            return None
        return "oneDNN stores a convolution's kernel again in blocks of channels at every call"

    def open(self, bundle: Bundle, precision: Precision, options: Options) -> _TorchBackend:
        return _TorchBackend(bundle, precision, self._device, options)

    def layers(
        self, bundle: Bundle, precision: Precision, stage: StageSpec, x: np.ndarray
    ) -> dict[str, np.ndarray] | str:
        return _TorchBackend(bundle, precision, self._device, Options()).layers(stage, x)


def _torch_finds_cuda() -> bool:
    if not trt.driver().available:  # importing torch takes a second, and it finds no more
        return False
    import torch

    return torch.cuda.is_available()


def _types(bundle: Bundle, precision: Precision) -> frozenset[Precision]:
    """What weights are stored in."""
    return frozenset({precision, *bundle.manifest.kept.get(precision, {}).values()})


def _has_fast_kernels(precision: Precision) -> bool:
    """Whether torch on this CPU leaves products in this precision to oneDNN or MKL."""
    if precision is Precision.FP32:
        return True
    import torch

    return torch.backends.mkldnn.is_available() and bool(  # type: ignore[no-untyped-call]
        torch.ops.mkldnn._is_mkldnn_fp16_supported()
        if precision is Precision.FP16
        else torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


_CUDA_SETTINGS = threading.Lock()


@contextlib.contextmanager
def _float32_sums() -> Iterator[None]:
    """CUDA sums in float32 and rounds no float32 convolution to TF32, as it would by default.

    The settings are the process's, so one call at a time has them. TF32 in matrix products is off
    unless the process asks for it: that choice stands.
    """
    import torch

    matmul = torch.backends.cuda.matmul
    wanted: tuple[tuple[Any, str, object], ...] = (
        (torch.backends.cudnn.conv, "fp32_precision", "ieee"),  # type: ignore[attr-defined]
        (matmul, "allow_fp16_reduced_precision_reduction", False),
        (matmul, "allow_bf16_reduced_precision_reduction", False),
    )
    with _CUDA_SETTINGS, contextlib.ExitStack() as restoring:
        for owner, name, value in wanted:
            if (before := getattr(owner, name)) != value:
                restoring.callback(setattr, owner, name, before)
                setattr(owner, name, value)
        yield


def _settings(
    device: str, types: frozenset[Precision]
) -> Callable[[], AbstractContextManager[object]]:
    """What a call is made under, for weights of these types."""
    slow = frozenset(p for p in types if device == "cpu" and not _has_fast_kernels(p))
    contexts: list[Callable[[], AbstractContextManager[object]]] = []
    if device == "cuda":
        contexts.append(_float32_sums)
    if slow or len(types) > 1:
        from tiedexport.by_the_weight import ByTheWeight

        contexts.append(partial(ByTheWeight, slow))

    @contextlib.contextmanager
    def entered() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context())
            yield

    return entered


def loaded_module(bundle: Bundle, precision: Precision, device: str) -> Any:
    """The family module for evaluation, on a bundle's weights as they are stored.

    Raises:
        RuntimeFailedError: torch refused them.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from tiedexport.families import family_named

    family = family_named(bundle.manifest.family)
    try:
        with torch.device("meta"):
            config = msgspec.convert(bundle.manifest.config, type=family.config_type)
            module = family.module(config)
        state = load_file(bundle.weights_path(precision), device=device)
        module.load_state_dict(state, assign=True)
    except (RuntimeError, ValueError, OSError, SafetensorError) as error:
        raise RuntimeFailedError(
            "torch could not load the bundle", where=bundle.path, got=str(error)
        ) from error
    return module.eval().requires_grad_(False)


class _TorchBackend:
    """Runs the family module on the weights as stored; what follows the last layer is in fp32.

    Attributes:
        settings: gives what every call is made under.
    """

    def __init__(self, bundle: Bundle, precision: Precision, device: str, options: Options) -> None:
        self._threads = options.threads if device == "cpu" else None
        self._module = loaded_module(bundle, precision, device)
        self._device = device
        types = _types(bundle, precision)
        self.settings = _settings(device, types)
        # Where there are several types, each layer takes its input in its own.
        self._dtype = next(self._module.parameters()).dtype if len(types) == 1 else None
        self._functions: dict[str, Callable[[Any], Any]] = {
            "encoder": self._encode,
            "decoder": self._decode,
            "autoencoder": lambda x: self._decode(self._module.encode(x)),
        }

    def run(self, stage: StageSpec, x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        computed = self._compute(stage, x, contextlib.nullcontext())
        result = computed.astype(stage.outputs[0].dtype.dtype, copy=False)
        if out is None:
            return np.ascontiguousarray(result)
        np.copyto(out, result)
        return out

    def layers(self, stage: StageSpec, x: np.ndarray) -> dict[str, np.ndarray] | str:
        from tiedexport.layer_watch import LayerWatch

        watch = LayerWatch(stage.layers)
        self._compute(stage, x, watch)
        if watch.awaited:
            return f"no call of torch is the layer {watch.awaited[0].output}"
        return {name: y.float().cpu().numpy() for name, y in watch.outputs.items()}

    def _compute(self, stage: StageSpec, x: np.ndarray, watch: Any) -> np.ndarray:
        import torch

        # Torch has one number of threads for each thread that calls it.
        if self._threads is not None and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        try:
            with self.settings(), torch.inference_mode():
                moved = torch.tensor(x, dtype=self._dtype, device=self._device)
                with watch:
                    computed: np.ndarray = self._functions[stage.name](moved).cpu().numpy()
        except RuntimeError as error:
            raise RuntimeFailedError(
                f"torch failed on {self._device}", where=stage.name, got=str(error)
            ) from error
        return computed

    def bind(self, stage: StageSpec, x: np.ndarray, out: np.ndarray) -> Callable[[], None]:
        return bind_by_running(self, stage, x, out)

    def function(self, stage: StageSpec) -> Callable[[Any], Any]:
        """A stage from a tensor on the device to another of its type, without `settings`."""
        inner, dtype = self._functions[stage.name], self._dtype

        def call(x: Any) -> Any:
            return inner(x if dtype is None else x.to(dtype)).to(x.dtype)

        return call

    def close(self) -> None:
        self._functions.clear()
        del self._module

    def _encode(self, x: Any) -> Any:
        return self._module.activate_code(self._module.encode_to_logits(x).float())

    def _decode(self, code: Any) -> Any:
        return self._module.activate_output(self._module.decode_to_logits(code).float())


RUNTIMES = (_Torch("torch-cuda", "cuda", 30), _Torch("torch", "cpu", 50))
