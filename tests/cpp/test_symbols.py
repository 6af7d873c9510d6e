"""What the library calls and what it shows, read from its symbols."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from cpp_builds import call, installed, needs_cpp, tool

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    needs_cpp,
    pytest.mark.skipif(tool("nm") is None, reason="nm is missing; apt-get install binutils"),
]

FORBIDDEN = re.compile(
    r"""
    _?_?(exit|_exit|_Exit|quick_exit|abort|at_quick_exit)
    | (__)?(v?(f|s|sn|d|as|obstack_)?w?printf)(_unlocked|_chk)?
    | (__isoc\d+_)?v?[fs]?scanf
    | f?put(s|c|char|w)(_unlocked)? | putw?char(_unlocked)? | perror | psignal | v?syslog
    | __assert_fail | __assert_perror_fail | __glibcxx_assert_fail | _ZSt21__glibcxx_assert_fail\w*
    | _ZSt9terminatev | _ZSt10unexpectedv
    | _ZSt4(cout|cerr|clog) | _ZSt5w(cout|cerr|clog) | _ZNSt8ios_base4Init\w*
    | stdout | stderr
    """,
    re.VERBOSE,
)
"""Ways to end the caller's process, and to write where nobody asked for it."""

NEEDED = {"libstdc++.so.6", "libm.so.6", "libc.so.6", "libgcc_s.so.1"}
"""What the shared library may load, beside the loader itself."""


def library(kind: str) -> Path:
    name = "libtiedexport.so" if kind == "shared" else "libtiedexport.a"
    (path,) = installed(kind).rglob(name)
    return path


def symbols(*words: object) -> list[str]:
    """Names that nm lists, without versions."""
    lines = (line.split() for line in call("nm", "--format=posix", *words).splitlines())
    return [line[0].partition("@")[0] for line in lines if len(line) > 1]


@pytest.mark.parametrize("kind", ["shared", "static"])
def test_the_library_neither_ends_the_process_nor_prints(kind: str) -> None:
    flags = ["--dynamic"] if kind == "shared" else []
    called = set(symbols("--undefined-only", *flags, library(kind)))
    assert "memcpy" in called
    assert {name for name in called if FORBIDDEN.fullmatch(name)} == set()


def test_the_pattern_knows_what_is_forbidden() -> None:
    names = """exit _exit quick_exit abort _ZSt9terminatev printf snprintf vsnprintf fprintf
    vasprintf __printf_chk __vsnprintf_chk __snprintf_chk puts putchar fputs __assert_fail _ZSt4cout
    _ZSt4cerr _ZNSt8ios_base4InitC1Ev"""
    assert [name for name in names.split() if not FORBIDDEN.fullmatch(name)] == []
    assert not FORBIDDEN.fullmatch("__cxa_atexit")


def declared() -> set[str]:
    """The functions of the C header."""
    header = (installed("shared") / "include" / "tiedexport" / "tiedexport.h").read_text()
    return set(re.findall(r"\b(tiedexport_\w+)\(", header.partition('extern "C"')[2]))


def test_the_shared_library_shows_the_c_interface_only() -> None:
    assert set(symbols("--dynamic", "--defined-only", library("shared"))) == declared()


def test_the_static_library_leaves_all_other_names_to_the_program() -> None:
    assert set(symbols("--extern-only", "--defined-only", library("static"))) == declared()


def test_the_shared_library_needs_the_standard_libraries_only() -> None:
    dynamic = call("readelf", "--dynamic", "--wide", library("shared"))
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic))
    assert {name for name in needed if not name.startswith("ld-linux")} <= NEEDED
    assert re.search(r"\(SONAME\).*\[libtiedexport\.so\.1\]", dynamic)
    assert "RUNPATH" not in dynamic
    assert "RPATH" not in dynamic
    assert "TEXTREL" not in dynamic
