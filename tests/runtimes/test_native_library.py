"""What the package does with libtiedexport, as a double of it shows; and without it."""

from __future__ import annotations

import ctypes
import gc
import shutil
import subprocess
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import inputs_of

import tiedexport
from tiedexport import doctor, native_library
from tiedexport.errors import (
    BundleError,
    MissingRuntimeError,
    RuntimeFailedError,
    TiedExportError,
)
from tiedexport.runtimes import runtime_named
from tiedexport.session import open_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiedexport.bundle import Bundle
    from tiedexport.session import Session

INCLUDE = Path(tiedexport.__file__).parent / "cpp" / "include"
SOURCE = Path(__file__).with_name("fake_libtiedexport.c")

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: cc")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that compiles a library of these sources and macros."""
    folder = tmp_path_factory.mktemp("libraries")

    def build(name: str, source: Path, *macros: str) -> Path:
        if not (library := folder / f"{name}.so").exists():
            command = ["cc", "-shared", "-fPIC", f"-I{INCLUDE}", *macros, source, "-o", library]
            subprocess.run(command, check=True)
        return library

    return build


@pytest.fixture
def fake(compiled: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The double, in the place of the library."""
    path = compiled("double", SOURCE)
    monkeypatch.setenv(native_library.VARIABLE, str(path))
    library = ctypes.CDLL(str(path))
    library.fake_failures.argtypes = (ctypes.c_int,) * 3 + (ctypes.c_char_p,)
    library.fake_arguments.restype = ctypes.POINTER(ctypes.c_uint64)
    yield library
    library.fake_failures(0, 0, 0, b"")
    library.fake_wait(0)


def opened(bundle: Bundle, **options: Any) -> Session:
    return open_session(bundle, runtime="native", precision="fp32", **options)


# Arrays, threads, what is held.


@needs_compiler
@pytest.mark.parametrize("way", ["run", "bind"])
def test_the_library_reads_and_writes_the_caller_s_own_arrays(dense_bundle, fake, way):
    with opened(dense_bundle) as session:
        x = inputs_of(session, "encoder", 5)
        out = np.empty((5, 7), np.float32)
        if way == "run":
            assert session.encode(x, out) is out
        else:
            session.bind("encoder", x, out)()
        assert fake.fake_arguments()[:3] == [x.ctypes.data, 5, out.ctypes.data]
        made = session.encode(x[2:])  # a view without gaps
        assert fake.fake_arguments()[:3] == [x[2:].ctypes.data, 3, made.ctypes.data]


@needs_compiler
def test_a_bound_call_keeps_its_arrays_until_the_session_is_closed(dense_bundle, fake):
    session = opened(dense_bundle)
    x, out = inputs_of(session, "encoder", 2), np.empty((2, 7), np.float32)
    held = weakref.ref(x), weakref.ref(out)
    call = session.bind("encoder", x, out)
    del x, out
    gc.collect()
    assert all(array() is not None for array in held)
    call()
    session.close()
    gc.collect()
    assert all(array() is None for array in held)


@needs_compiler
@pytest.mark.parametrize("way", ["run", "bind"])
def test_other_threads_of_python_go_on_while_the_library_computes(dense_bundle, fake, way):
    with opened(dense_bundle) as session:
        x, out = inputs_of(session, "encoder", 2), np.empty((2, 7), np.float32)
        call = session.bind("encoder", x, out)
        fake.fake_wait(1)
        work = threading.Thread(target=call if way == "bind" else lambda: session.encode(x, out))
        work.start()
        while not fake.fake_inside():
            assert work.is_alive()
        fake.fake_wait(0)  # never reached if the call held the lock of the interpreter
        work.join(30)
        assert not work.is_alive()


@needs_compiler
def test_the_number_of_threads_is_handed_on(dense_bundle, fake):
    for threads, told in ((None, 0), (1, 1), (3, 3)):
        opened(dense_bundle, threads=threads).close()
        assert fake.fake_threads() == told


@needs_compiler
def test_a_session_holds_no_handle_of_the_bundle_and_frees_its_own(dense_bundle, fake):
    session = opened(dense_bundle)
    assert (fake.fake_open_bundles(), fake.fake_open_sessions()) == (0, 1)
    session.close()
    session.close()
    assert (fake.fake_open_bundles(), fake.fake_open_sessions()) == (0, 0)
    dropped = opened(dense_bundle)
    assert fake.fake_open_sessions() == 1
    del dropped
    gc.collect()
    assert fake.fake_open_sessions() == 0
    fake.fake_failures(0, 7, 0, b"no memory")
    with pytest.raises(RuntimeFailedError, match="no memory"):
        opened(dense_bundle)
    assert (fake.fake_open_bundles(), fake.fake_open_sessions()) == (0, 0)


# Errors.

WORDS = (
    b"the weights are damaged: weights.fp32.safetensors\n  got: 12 bytes,\nand no more\n"
    b"  expected: 13 bytes\n  try: copy the bundle again"
)


@needs_compiler
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (1, RuntimeFailedError),
        (2, BundleError),
        (3, BundleError),
        (4, BundleError),
        (5, RuntimeFailedError),
        (6, MissingRuntimeError),
        (7, RuntimeFailedError),
        (8, RuntimeFailedError),
        (9, RuntimeFailedError),
    ],
)
@pytest.mark.parametrize("when", ["open", "create", "run", "bind"])
def test_a_failure_is_an_error_of_ours_in_the_library_s_words(
    dense_bundle: Bundle, fake: Any, status: int, kind: type[TiedExportError], when: str
):
    def run() -> None:
        with opened(dense_bundle) as session:
            x, out = inputs_of(session, "encoder", 2), np.empty((2, 7), np.float32)
            session.bind("encoder", x, out)() if when == "bind" else session.encode(x)

    fake.fake_failures(
        *(status * (when in names) for names in ("open", "create", "run bind")), WORDS
    )
    with pytest.raises(TiedExportError) as caught:
        run()
    error = caught.value
    assert type(error) is kind
    assert error.what == "the weights are damaged"
    assert error.got == "12 bytes,\nand no more"
    assert error.expected == "13 bytes"
    assert error.hint == "copy the bundle again"
    assert str(error.where).endswith(": weights.fp32.safetensors")
    assert fake.fake_open_sessions() == 0


@needs_compiler
def test_a_failure_without_words_or_in_no_utf_8_still_is_one(dense_bundle, fake):
    for words, what in ((b"", "without a word"), (b"\xff no", "\N{REPLACEMENT CHARACTER} no")):
        fake.fake_failures(9, 0, 0, words)
        with pytest.raises(RuntimeFailedError, match=what):
            opened(dense_bundle)


# A library that is not there, or is none.


def told() -> str:
    """What `doctor` says of the runtime, which must not be available."""
    (row,) = (
        row for row in doctor.doctor().components if (row.kind, row.name) == ("runtime", "native")
    )
    assert not row.availability.available
    assert row.availability.remedy
    return row.availability.why


def refuse_to_open(bundle: Bundle) -> None:
    """By name it says why; auto takes another."""
    with pytest.raises(MissingRuntimeError, match="native cannot run") as caught:
        open_session(bundle, runtime="native")
    assert caught.value.hint == runtime_named("native").availability().remedy
    with open_session(bundle) as session:
        assert session.runtime != "native"


def test_a_library_that_does_not_load_says_why(dense_bundle, monkeypatch, tmp_path):
    for name, content in (("none.so", None), ("text.so", b"no library\n")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        monkeypatch.setenv(native_library.VARIABLE, str(tmp_path / name))
        assert f"libtiedexport does not load: {tmp_path / name}: " in told()
        assert native_library.VARIABLE in told()
        refuse_to_open(dense_bundle)


@needs_compiler
def test_a_library_without_our_functions_says_which_is_missing(
    dense_bundle: Bundle, compiled: Callable[..., Path], monkeypatch, tmp_path: Path
):
    (tmp_path / "other.c").write_text("unsigned tiedexport_abi_version(void) { return 1; }\n")
    path = compiled("other", tmp_path / "other.c")
    monkeypatch.setenv(native_library.VARIABLE, str(path))
    assert "undefined symbol: tiedexport_version" in told()
    refuse_to_open(dense_bundle)


@needs_compiler
def test_a_library_of_another_abi_version_is_taken_only_if_it_is_newer(
    dense_bundle: Bundle, compiled: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    ours = native_library.ABI_VERSION
    for version in (ours - 1, ours + 1):
        path = compiled(f"abi-{version}", SOURCE, f"-DFAKE_ABI_VERSION={version}")
        monkeypatch.setenv(native_library.VARIABLE, str(path))
        if version > ours:
            assert runtime_named("native").availability().version == "9.9.9"
        else:
            assert f"older than this package: {path}: ABI version {version}" in told()
            refuse_to_open(dense_bundle)


@pytest.mark.parametrize(
    ("compiler", "headers", "lacks"),
    [
        (False, False, "lacks a C++ compiler and the headers of Highway; apt-get install g++ lib"),
        (False, True, "lacks a C++ compiler; apt-get install g++ libhwy-dev, then pip install"),
        (True, False, "lacks the headers of Highway; apt-get install g++ libhwy-dev, then pip"),
        (True, True, "has a C++ compiler and Highway now; pip install --force-reinstall"),
    ],
)
def test_a_package_installed_without_the_library_says_what_this_machine_lacks(
    dense_bundle: Bundle, tmp_path: Path, monkeypatch, compiler: bool, headers: bool, lacks: str
):
    monkeypatch.delenv(native_library.VARIABLE, raising=False)
    monkeypatch.setattr(native_library, "_package_folders", lambda: [tmp_path])
    monkeypatch.setattr(native_library, "_HEADER_FOLDERS", (str(tmp_path / "include"),))
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if compiler else None)
    monkeypatch.delenv("CPATH", raising=False)
    if headers:
        (tmp_path / "include" / "hwy").mkdir(parents=True)
        (tmp_path / "include" / "hwy" / "highway.h").touch()
    assert told().startswith("not built when tiedexport was installed; this machine ")
    assert lacks in told()
    assert native_library._AGAIN in told()
    refuse_to_open(dense_bundle)


def test_the_interface_in_python_is_the_one_in_the_header():
    header = (INCLUDE / "tiedexport" / "tiedexport.h").read_text()
    assert f"#define TIEDEXPORT_ABI_VERSION {native_library.ABI_VERSION}\n" in header
    assert f"TIEDEXPORT_CHECK_SIZE = {native_library.CHECK_SIZE} " in header
    for name in native_library._FUNCTIONS:
        assert f" {name}(" in header or f"\n{name}(" in header
