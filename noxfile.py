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
    session.run("python", "scripts/sanitize.py")


@nox.session
def xavier(session: nox.Session) -> None:
    """The CUDA kernels compile for sm_72 with the CUDA 11.8 pieces of PyPI; needs neither nvcc nor a GPU."""
    session.run("python", "scripts/xavier.py", "build/xavier")


@nox.session
def native(session: nox.Session) -> None:
    """The extension, built with the address and undefined-behaviour sanitizers, under its tests."""
    sanitized(
        session,
        "address,undefined",
        libraries=("libasan.so", "libubsan.so", "libstdc++.so.6"),
        environment={"ASAN_OPTIONS": "detect_leaks=0"},
    )


@nox.session
def native_tsan(session: nox.Session) -> None:
    """The extension, built with the thread sanitizer, under its tests: no two threads may race."""
    options = "halt_on_error=1 second_deadlock_stack=1 suppressions=tests/native/thread_sanitizer.txt"
    # It cannot follow a child after fork into threads, and slows what is timed by more than that may be slow.
    skipped = "not forked and not goes_on and not keeps_the_gil"
    sanitized(
        session, "thread", libraries=("libtsan.so",), environment={"TSAN_OPTIONS": options}, select=skipped
    )


@nox.session
def native_trt(session: nox.Session) -> None:
    """The TensorRT adapters, built with the sanitizers, over a TensorRT of ours; DETRX_TENSORRT_ROOTS names headers."""
    session.install("-e", ".[dev]")
    found = [
        session.run("g++", f"-print-file-name={name}", silent=True, external=True)
        for name in ("libasan.so", "libubsan.so", "libstdc++.so.6")
    ]
    session.run(
        *("python", "-m", "pytest", "tests/trt", *session.posargs),
        env={
            "DETRX_REQUIRE": "tensorrt-headers",
            "DETRX_SANITIZE": "address,undefined",
            "ASAN_OPTIONS": "detect_leaks=0",
            "LD_PRELOAD": " ".join(str(path).strip() for path in found),
        },
    )


def sanitized(
    session: nox.Session,
    sanitizers: str,
    *,
    libraries: tuple[str, ...],
    environment: dict[str, str],
    select: str = "",
) -> None:
    """Build the extension with sanitizers and run its tests, the sanitizers' libraries loaded into Python."""
    settings = (
        f"cmake.define.DETRX_SANITIZE={sanitizers}",
        "install.strip=false",
        f"build-dir=build/{session.name}",
    )
    session.install(".", *(word for setting in settings for word in ("-C", setting)))
    session.install("pytest>=8", "pytest-benchmark>=5")
    found = [session.run("g++", f"-print-file-name={name}", silent=True, external=True) for name in libraries]
    preload = {"LD_PRELOAD": " ".join(str(path).strip() for path in found)}
    # Some kernels lay programs out too far apart for the thread sanitizer: setarch keeps them where they were.
    session.run(
        *(
            "setarch",
            "--addr-no-randomize",
            "python",
            "-m",
            "pytest",
            "tests/native",
            "-k",
            select,
            *session.posargs,
        ),
        env={**environment, **preload},
        external=True,
    )


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks; arguments after -- go to pytest."""
    session.install("-e", ".[dev]")
    session.run("pytest", "benchmarks", "--benchmark-enable", "--benchmark-only", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """The live loop with a camera that drops out and slow viewers; ten minutes, or `-- --minutes 1440`."""
    session.install("-e", ".[cpu]")
    session.run("python", "scripts/soak.py", *session.posargs)
