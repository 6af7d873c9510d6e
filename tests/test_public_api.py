"""The public interface is a promise: a change here is a change of version."""

from __future__ import annotations

import inspect
from importlib import import_module
from operator import attrgetter

import pytest

import tiedexport

VERBS = {
    "train.train": "recipe output data epochs device resume seed shard save_every progress",
    "export.build": "model output progress options",
    "verify.verify": "bundle runtime require stage precision layers data "
    "save_inputs save_outputs load_outputs progress",
    "measure.bench": (
        "bundle runtime stage batch warmup_ms duration_s iterations percentile threads memory "
        "idle_ms baseline against max_regression export_times progress"
    ),
    "acceptance.acceptance": "bundle output batch warmup_ms duration_s iterations progress",
    "audit.audit": "things input_shape deep progress",
    "retie.retie": "inputs output atol accept unproven progress",
    "ties.check": "module inputs",
    "ties.assert_tied": "module names inputs",
    "ties.findings": "module inputs sources",
    "package.package": "bundle output format options",
    "encode.encode": "bundle inputs output stage runtime precision memory threads shard engine "
    "ray_address batch column on_error part_rows progress",
    "run.run": "bundle verb input output runtime precision memory threads",
    "inspect.inspect": "bundle check",
    "doctor.doctor": "",
    "demo.demo": "output progress",
    "bundle.open_bundle": "path check",
    "session.open_session": "bundle runtime precision memory threads",
    "session.Session.encode": "self x out",
    "session.Session.decode": "self code out",
    "session.Session.reconstruct": "self x out",
    "session.Session.run": "self stage x out",
    "session.Session.bind": "self stage x out",
    "session.Session.close": "self",
}


def test_the_package_exports_exactly_these_names() -> None:
    assert sorted(tiedexport.__all__) == [
        "Bundle",
        "Session",
        "TiedExportError",
        "__version__",
        "open_bundle",
        "open_session",
    ]
    for name in tiedexport.__all__:
        assert getattr(tiedexport, name) is not None


@pytest.mark.parametrize("path", VERBS)
def test_the_arguments_of_a_public_function_stay(path: str) -> None:
    module, *names = path.split(".")
    found = import_module(f"tiedexport.{module}")
    for name in names:
        found = getattr(found, name)
    assert " ".join(inspect.signature(found).parameters) == VERBS[path]


def test_the_options_of_build_stay() -> None:
    options = import_module("tiedexport.export").Options.__annotations__
    assert " ".join(options) == (
        "precision keep_fp32 target weights engine_options profile_shapes timing_cache force "
        "opset io_dtype family settings input_shape samples"
    )


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="open_everything"):
        attrgetter("open_everything")(tiedexport)
