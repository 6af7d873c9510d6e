"""A deserialised plan, and how each stage runs on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

from tiedexport.errors import BundleError
from tiedexport.spec import CODE_IN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport.device.gpu import Gpu
    from tiedexport.device.weights import DeviceWeights
    from tiedexport.manifest import Binding, PlanRecord
    from tiedexport.spec import StageSpec

_REBUILD = "tiedexport build NAME.tied --force; nvidia-smi shows who holds the GPU's memory"


@dataclass(frozen=True)
class Route:
    """How a stage runs on a plan.

    Attributes:
        source, target: the tensors that take its input and give its output.
        steps: for each execution of the plan, the input that has the batch; any other is empty.
        between: the tensors in the middle. Where there are two steps, the first writes and the
            second reads them, so they are one buffer; with one step they are empty.
    """

    source: Binding
    target: Binding
    steps: tuple[str, ...]
    between: tuple[Binding, ...]


class Engine:
    """A deserialised plan and the device address of every weight that it takes.

    Attributes:
        alive: all of this process, for whoever asks where weights lie.
        profiles: smallest and largest batch of each optimisation profile, as the engine has them.
    """

    alive: ClassVar[WeakSet[Engine]] = WeakSet()

    def __init__(
        self, gpu: Gpu, plan: PlanRecord, serialised: bytes, weights: DeviceWeights | None
    ) -> None:
        self.gpu, self.plan, self.weights = gpu, plan, weights
        taken = [binding for binding in plan.bindings if binding.role == "weight"]
        self.addresses = {b.name: weights.address(b) for b in taken} if weights else {}
        # Without a context of the driver, TensorRT's runtime may be an invalid pointer.
        gpu.make_current()
        # The engine refers to the runtime that made it.
        self._runtime = gpu.handle.module.Runtime(gpu.handle.logger)
        if plan.options.version_compatible:
            # Such a plan brings the code that runs it; its digest was checked with the bundle's.
            self._runtime.engine_host_code_allowed = True
        with gpu.reserving(len(serialised), f"TensorRT does not load {plan.file}", _REBUILD):
            self._engine = self._runtime.deserialize_cuda_engine(serialised)
            if self._engine is None:
                raise RuntimeError("no engine")
        names = {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}
        if different := names ^ {binding.name for binding in plan.bindings}:
            raise RuntimeError(f"plan and manifest differ in {', '.join(sorted(different))}")
        self.profiles = tuple(self._batches())
        Engine.alive.add(self)

    @property
    def largest(self) -> int:
        """The largest batch of any profile."""
        return max(largest for _, largest in self.profiles)

    def profile_for(self, rows: int) -> tuple[int, int]:
        """The profile to run some rows in, at most `largest`, and how many rows to run in it.

        It is the narrowest that holds them, or the one that wastes least where they must be filled
        up to a profile's smallest batch.
        """
        fitting = [
            (max(rows, smallest), largest - smallest, index)
            for index, (smallest, largest) in enumerate(self.profiles)
            if rows <= largest
        ]
        filled, _, index = min(fitting)
        return index, filled

    def route(self, stage: StageSpec) -> Route:
        """How a stage runs on this plan.

        Raises:
            BundleError: the plan's tensors are not those of the stage.
        """
        data = {b.name: b for b in self.plan.bindings if b.role != "weight"}
        first, target = stage.inputs[0].name, stage.outputs[0].name
        halves = self.plan.weights == "one-plan"
        source = CODE_IN if halves and stage.name == "decoder" else first
        if missing := {source, target} - data.keys():
            raise self._not_of(stage, f"no {', '.join(sorted(missing))}")
        steps = (source, CODE_IN) if halves and stage.name == "autoencoder" else (source,)
        between = tuple(b for name, b in data.items() if name not in (source, target))
        if len(steps) > 1 and len({(b.dtype, b.shape) for b in between}) != 1:
            raise self._not_of(stage, "halves whose codes differ in type or shape")
        return Route(data[source], data[target], steps, between)

    def context(self, profile: int, stream: Any, specialise: bool) -> Any:
        """A new execution context in an optimisation profile.

        Several contexts use one profile at once: TensorRT has allowed that by default since 10.0,
        always since 11 and in TensorRT-RTX (PreviewFeature.PROFILE_SHARING_0806: "The default value
        for this flag is on in TensorRT 10.0. Turning if off is deprecated"; gone since).

        TensorRT-RTX runs general kernels while it compiles those for a new shape; a context whose
        work will be captured waits for the final ones instead (`specialise`).
        """
        size_bytes = int(self._engine.device_memory_size_v2)
        with self.gpu.reserving(size_bytes, f"TensorRT makes no context of {self.plan.file}"):
            if specialise and self.gpu.handle.package == "tensorrt_rtx":
                strategies = self.gpu.handle.module.DynamicShapesKernelSpecializationStrategy
                config = self._engine.create_runtime_config()
                config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
                context = self._engine.create_execution_context(config)
            else:
                context = self._engine.create_execution_context()
            if context is None:
                raise RuntimeError("no context")
        if not context.set_optimization_profile_async(profile, int(stream.handle)):
            raise RuntimeError(f"profile {profile} was refused")
        stream.sync()
        return context

    def _batches(self) -> Iterator[tuple[int, int]]:
        """The batches that every input takes; a half idles with none."""
        inputs = [binding for binding in self.plan.bindings if binding.role == "input"]
        for index in range(self._engine.num_optimization_profiles):
            shapes = [self._engine.get_tensor_profile_shape(b.name, index) for b in inputs]
            smallest = max(shape[0][0] for shape in shapes)
            if len(inputs) > 1 and smallest > 0:
                raise RuntimeError(f"a half of profile {index} cannot idle: it takes {smallest} up")
            yield smallest, min(shape[2][0] for shape in shapes)

    def _not_of(self, stage: StageSpec, found: str) -> BundleError:
        return BundleError(
            f"the plan does not compute the {stage.name}",
            where=self.plan.file,
            got=found,
            expected=f"{stage.inputs[0]} to {stage.outputs[0]}",
            hint="tiedexport build NAME.tied --force",
        )
