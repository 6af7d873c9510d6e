"""`verify`: does every runtime here compute what the model computes, within derived bounds?"""

from __future__ import annotations

import time
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tiedexport import environment, layerwise, rating, saved_outputs
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.errors import BundleError, DataError, TiedExportError, UsageError
from tiedexport.layerwise import Runner
from tiedexport.progress import Progress
from tiedexport.results import Comparison, Quality, Reconstruction, VerifyResult
from tiedexport.runtimes import Runtime, all_runtimes, choose_precision, runtime_named
from tiedexport.saved_outputs import SavedRun
from tiedexport.session import open_session
from tiedexport.spec import Precision, StageSpec, precisions_from

if TYPE_CHECKING:
    from collections.abc import Iterable

_PICTURED = 4


def verify(
    bundle: Bundle | str | Path,
    *,
    runtime: Iterable[str] = (),
    require: Iterable[str] = (),
    stage: Iterable[str] = (),
    precision: str | Iterable[str] = (),
    layers: bool = False,
    data: str | Path | None = None,
    save_inputs: str | Path | None = None,
    save_outputs: str | Path | None = None,
    load_outputs: str | Path | None = None,
    progress: Progress | None = None,
) -> VerifyResult:
    """Compare every runtime, stage and precision with the bundle's float64 golden outputs.

    The tolerance of every output element is derived from the graph (see `tiedexport.rounding`);
    a NaN, an Inf or an error above its bound fails the row.

    Args:
        bundle: an open bundle or its path.
        runtime: names of runtimes; by default all of them.
        require: runtimes that must have run for the result to pass.
        stage: names of stages; by default all of them.
        precision: by default all that the bundle holds.
        layers: compare the output of every layer too, and name the first that strays.
        data: where the test set is; by default where the model's training found it.
        save_inputs: a file to write for Polygraphy (see `tiedexport.saved_outputs`): the golden
            input of one stage, by default the autoencoder.
        save_outputs: another, of what each runtime makes of it; with `layers`, of every layer.
        load_outputs: a file of Polygraphy's with what others made of it; each of its runners is
            judged in the precision that its name ends in, else the only one asked for, else fp32.
        progress: where to show progress; by default nowhere.

    Raises:
        BundleError: the bundle is damaged, or too old to name its layers.
        UsageError: a name is no runtime or precision, or files are asked of several stages.
        DataError, MissingRuntimeError: `data` or `load_outputs` cannot be read.
    """
    start = time.perf_counter()
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    required = [runtime_named(name).name for name in require]
    rows = [runtime_named(name) for name in runtime] or list(all_runtimes().values())
    rows += [runtime_named(name) for name in required if name not in {row.name for row in rows}]
    judge = _Judge(opened, data, dict.fromkeys(stage), precision, layers)
    if save_outputs is not None:  # what is wrong shows now, not when everything has run
        saved_outputs.require_polygraphy()
        judge.runs()
    if save_inputs is not None:
        saved_outputs.write_inputs(Path(save_inputs), judge.feeds())
    if load_outputs is not None:
        judge.examine_file(Path(load_outputs))
    loaded = len(judge.comparisons)
    progress = progress or Progress(quiet=True)
    with progress.task("verify", len(rows)) as task:
        for row in rows:
            judge.examine(row)
            task.advance(note=row.name)
    if save_outputs is not None:
        saved_outputs.write_outputs(Path(save_outputs), judge.runs())
    ran = {row.runtime for row in judge.comparisons[loaded:] if row.status != "not run"}
    return VerifyResult(
        bundle=str(opened.path),
        comparisons=tuple(judge.comparisons),
        quality=tuple(judge.quality),
        reconstructions=tuple(judge.reconstructions),
        environment=environment.current(),
        seconds=time.perf_counter() - start,
        missing=tuple(name for name in required if name not in ran),
        layers=tuple(judge.layers),
        weights_sha256=opened.manifest.weights_sha256,
        strays=layerwise.strays(judge.layers),
    )


class _Judge:
    """Examines one runtime after another and collects the rows."""

    def __init__(
        self,
        bundle: Bundle,
        data: str | Path | None,
        stages: Iterable[str],
        precisions: str | Iterable[str],
        layers: bool,
    ) -> None:
        manifest = bundle.manifest
        self._bundle = bundle
        self._stages = tuple(manifest.stage(name) for name in stages) or manifest.stages
        self._precisions = precisions_from(precisions) if precisions else manifest.precisions
        self._layered = layers
        self._test_set = cache(lambda: rating.held_back(bundle, data))
        self._expected = cache(partial(layerwise.expected, bundle))
        self._runs: dict[str, list[SavedRun]] = {stage.name: [] for stage in self._stages}
        self.comparisons: list[Comparison] = []
        self.layers: list[Comparison] = []
        self.quality: list[Quality] = []
        self.reconstructions: list[Reconstruction] = []
        if layers and not all(layer.output for stage in self._stages for layer in stage.layers):
            raise BundleError(
                "the layers of this bundle have no names",
                where=bundle.path,
                got=f"schema {manifest.schema} of {manifest.generator}",
                hint="rebuild it: tiedexport build model.pt",
            )

    def examine(self, runtime: Runtime) -> None:
        """Every stage in every precision that is asked for, or a row that says why not."""
        availability = runtime.availability()
        if not availability.available:
            row = Comparison(runtime.name, "", None, "not run", availability.why)
            self.comparisons.append(row)
            return
        for precision in self._precisions:
            chosen, reason = choose_precision(runtime, self._bundle, precision)
            if chosen is None:
                self.comparisons.append(Comparison(runtime.name, "", precision, "not run", reason))
                continue
            accumulation = runtime.accumulation[precision]
            self._examine(runtime, Runner(runtime.name, precision, accumulation, runtime.remark))

    def _examine(self, runtime: Runtime, runner: Runner) -> None:
        try:
            session = open_session(self._bundle, runtime=runner.runtime, precision=runner.precision)
        except TiedExportError as error:
            self.comparisons.append(runner.row("", "failed", str(error)))
            return
        with session:
            for stage in self._stages:
                try:
                    output = session.run(stage.name, self._input(stage))
                except TiedExportError as error:
                    self.comparisons.append(runner.row(stage.name, "failed", str(error)))
                    continue
                outputs = {stage.outputs[0].name: output}
                if self._layered:
                    outputs = self._layers(runtime, runner, stage) | outputs
                self._judge(runner, stage, outputs)
                if stage.name == "autoencoder":
                    self._picture(runner, output)
                    self.quality.append(rating.rate(session, runtime, self._test_set()))

    def _layers(self, runtime: Runtime, runner: Runner, stage: StageSpec) -> dict[str, np.ndarray]:
        """The outputs of the layers by name; none, and a row with the reason, if it shows none."""
        try:
            found = runtime.layers(self._bundle, runner.precision, stage, self._input(stage))
        except TiedExportError as error:
            self.layers.append(runner.row(stage.name, "failed", str(error)))
            return {}
        if isinstance(found, str):
            self.layers.append(runner.row(stage.name, "not run", found))
            return {}
        rows = self._expected(stage, runner.precision, runner.accumulation)
        self.layers += runner.judge_layers(stage, found, rows)
        return found

    def _judge(self, runner: Runner, stage: StageSpec, outputs: dict[str, np.ndarray]) -> None:
        *_, last = self._expected(stage, runner.precision, runner.accumulation)
        self.comparisons.append(runner.judge(stage, outputs[last.name], last))
        run = SavedRun(runner.runtime, runner.precision, outputs, runner.remark)
        self._runs[stage.name].append(run)

    def examine_file(self, path: Path) -> None:
        """What others made of the golden input of one stage.

        Raises:
            DataError: the file cannot be read, or has other outputs.
        """
        stage = self._exchanged
        for run in saved_outputs.read_outputs(path):
            precision = run.precision or self._precision_of_strangers()
            known = all_runtimes().get(run.runtime)
            # A stranger promises no sums wider than what it computes in.
            accumulation = (
                precision if known is None else known.accumulation.get(precision, precision)
            )
            remark = "; ".join(filter(None, (run.remark, f"from {path.name}")))
            runner = Runner(run.runtime, precision, accumulation, remark)
            rows = self._expected(stage, precision, accumulation)
            if rows[-1].name not in run.outputs:
                raise DataError(
                    f"no output of the {stage.name}",
                    where=f"{path}: runner {run.name}",
                    got=", ".join(run.outputs),
                    expected=rows[-1].name,
                    hint="say of which stage they are: --stage encoder, for example",
                )
            self.comparisons.append(runner.judge(stage, run.outputs[rows[-1].name], rows[-1]))
            if self._layered:
                self.layers += runner.judge_layers(stage, run.outputs, rows)

    def feeds(self) -> dict[str, np.ndarray]:
        """The golden input of the stage whose values are exchanged, by name."""
        stage = self._exchanged
        return {stage.inputs[0].name: self._input(stage)}

    def runs(self) -> list[SavedRun]:
        """What each runtime made of that input."""
        return self._runs[self._exchanged.name]

    @property
    def _exchanged(self) -> StageSpec:
        """The stage whose values are exchanged with Polygraphy, whose files know of no stages.

        Raises:
            UsageError: several are asked for.
        """
        if len(self._stages) == 1:
            return self._stages[0]
        if self._stages != self._bundle.manifest.stages:
            raise UsageError(
                "inputs and outputs of several stages in one file",
                got=", ".join(stage.name for stage in self._stages),
                expected="one --stage, or none for the autoencoder",
            )
        return self._bundle.manifest.stage("autoencoder")

    def _precision_of_strangers(self) -> Precision:
        return self._precisions[0] if len(self._precisions) == 1 else Precision.FP32

    def _input(self, stage: StageSpec) -> np.ndarray:
        spec = stage.inputs[0]
        return self._bundle.golden[spec.name].astype(spec.dtype.dtype)

    def _picture(self, runner: Runner, output: np.ndarray) -> None:
        shown = np.nan_to_num(output[:_PICTURED].astype(np.float64)).clip(0.0, 1.0)
        pixels = (shown * 255.0).round().astype(np.uint8)
        shape = (len(pixels), *self._bundle.manifest.sample_shape)
        self.reconstructions.append(
            Reconstruction(runner.runtime, runner.precision, shape, pixels.tobytes(), runner.remark)
        )
