"""Sessions for whoever prefers nox; `make` runs the same commands without it."""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.reuse_existing_virtualenvs = True


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, clang-format, mypy and the architecture test."""
    session.install("-e", ".[dev]")
    session.run("make", "lint", f"VENV={session.virtualenv.location}", external=True)


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite; arguments after -- go to pytest."""
    session.install("-e", ".[dev]")
    session.run("pytest", *(session.posargs or ["-n", "2"]))


@nox.session(python="3.8")
def tests_py38(session: nox.Session) -> None:
    """The runtime half on the oldest Python: it installs, imports and opens its command line."""
    session.install(".[cpu]")
    session.run("python", "-c", "import detrx, detrx.native; print(detrx.native.load().BUILT_WITH)")
    session.run("detrx", "--help")
    session.run("detrx", "doctor")


@nox.session
def tests_gpu(session: nox.Session) -> None:
    """The CUDA tests; here a missing device is a failure."""
    session.install("-e", ".[dev]")
    session.run("pytest", "tests", "--only-needs", "cuda", *session.posargs, env={"DETRX_REQUIRE": "cuda"})


@nox.session
@nox.parametrize("sanitize", ["address,undefined", "thread"])
def native(session: nox.Session, sanitize: str) -> None:
    """The C++ tests under sanitizers."""
    session.install("cmake>=3.18", "ninja", "pybind11>=3.0")
    pybind11 = session.run("python", "-m", "pybind11", "--cmakedir", silent=True)
    build = f"build/native-{sanitize.split(',')[0]}"
    session.run("cmake", "-S", ".", "-B", build, "-G", "Ninja", f"-Dpybind11_DIR={str(pybind11).strip()}",
                "-DDETRX_NATIVE_TESTS=ON", f"-DDETRX_SANITIZE={sanitize}", "-DDETRX_CUDA=OFF",
                "-DDETRX_TENSORRT=OFF", "-DCMAKE_BUILD_TYPE=RelWithDebInfo")  # fmt: skip
    session.run("cmake", "--build", build)
    session.run("ctest", "--test-dir", build, "--output-on-failure", "--no-tests=error")


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks; arguments after -- go to pytest."""
    session.install("-e", ".[dev]")
    session.run("pytest", "benchmarks", "--benchmark-enable", "--benchmark-only", *session.posargs)
