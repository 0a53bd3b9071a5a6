"""From an ONNX graph to an engine: TensorRT 8.5 to 11 by its Python bindings or trtexec, TensorRT-RTX by its wheel.

Every version is told the same thing in its own words: precision is in the graph. From TensorRT 10 on the graph is
built strongly typed (11 and RTX know nothing else); 8.x gets the flags that allow what the graph holds, and is told to
obey the float32 layers.
"""

from __future__ import annotations

import fcntl
import importlib
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from detrx.errors import ConfigError, EngineError, MissingBackendError, pip_install
from detrx.export.engine_graph import Holds, what_it_holds
from detrx.export.trtexec import run_trtexec
from detrx.runtime.tensorrt_plugins import load_plugins, plugin_library
from detrx.runtime.tensorrt_python import PACKAGES

log = logging.getLogger(__name__)

TARGETS = ("auto", "8.5", "8.6", "10", "11", "rtx")
WORKSPACE = 1024
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")


@dataclass(frozen=True)
class EngineSettings:
    """How an engine is built."""

    target: str = "auto"
    """The TensorRT that will run it, of TARGETS: the one that is installed, a version, or TensorRT-RTX."""
    batch: tuple[int, int, int] = (1, 1, 1)
    """Images to one call: fewest, most likely, most. Others than 1 need a graph for any number."""
    workspace: int = WORKSPACE
    """MiB that a layer may use for the time of its run."""
    timing_cache: Path | None = None
    """Measured times of layers, read and written; a second build of a like model is quicker."""
    plugins: Path | None = None
    """The library with our plugins, for the plugin graph; None takes the one that was installed with detrx."""
    capabilities: tuple[str, ...] = ()
    """RTX: the compute capabilities of the GPUs to build for; none: every GPU compiles the engine for itself."""
    trtexec: Path | None = None
    """The program, where there are no Python bindings; None looks on the PATH and in /usr/src/tensorrt/bin."""


@dataclass(frozen=True)
class Built:
    """An engine that lies on the disk."""

    version: str
    flavour: str
    """"tensorrt" or "rtx"."""
    plugins: Path | None = None
    """The library with our plugins, where the graph holds some."""


def plugins_for(settings: EngineSettings, holds: Holds, major: int) -> Path | None:
    """The library of plugins that a graph needs: the one that was named, else the one installed for that TensorRT."""
    if not holds.plugins or settings.target == "rtx":
        return None
    return settings.plugins or plugin_library(major)


def build_engine(onnx: Path, engine: Path, settings: EngineSettings) -> Built:
    """Build an engine; nothing lies at ``engine`` unless it is whole.

    Raises:
        ConfigError: a setting out of range.
        EngineError: TensorRT refuses the graph, or is not the one that was asked for.
        MissingBackendError: there is no TensorRT here.
    """
    check_settings(settings)
    holds = what_it_holds(onnx, settings.target)
    draft = engine.with_name(f".{engine.name}.{os.getpid()}")
    try:
        if settings.target == "rtx":
            built = _by_bindings(_import_rtx(), onnx, draft, settings, holds)
        else:
            module = None if settings.trtexec else _import_tensorrt(settings.target)
            if module is not None:
                built = _by_bindings(module, onnx, draft, settings, holds)
            else:
                program = find_trtexec(settings.trtexec)
                version = run_trtexec(program, onnx, draft, settings, holds)
                built = Built(version, "tensorrt", plugins_for(settings, holds, int(version.split(".")[0])))
        draft.replace(engine)
    finally:
        draft.unlink(missing_ok=True)
    return built


def check_settings(settings: EngineSettings) -> None:
    """Raise ConfigError for what no TensorRT could take."""
    low, likely, high = settings.batch
    if settings.target not in TARGETS:
        raise ConfigError(f"[engine] tensorrt must be one of {', '.join(TARGETS)}, got {settings.target!r}")
    if not 1 <= low <= likely <= high:
        raise ConfigError(f"[engine] batches must be 1 <= fewest <= likely <= most, got {settings.batch}")
    if settings.workspace < 1:
        raise ConfigError(f"[engine] workspace must be 1 MiB or more, got {settings.workspace}")
    if settings.timing_cache is not None and settings.target == "rtx":
        raise ConfigError("[engine] TensorRT-RTX times nothing when it builds; leave --timing-cache out")
    unknown = set(settings.capabilities) - set(RTX_CAPABILITIES)
    if settings.capabilities and (unknown or settings.target != "rtx"):
        raise ConfigError(
            f"[engine] capabilities are for TensorRT-RTX, of {', '.join(RTX_CAPABILITIES)}, got "
            f"{', '.join(settings.capabilities)} for {settings.target}"
        )
    for name, path in (("plugins", settings.plugins), ("trtexec", settings.trtexec)):
        if path is not None and not path.is_file():
            raise ConfigError(f"[engine] no such file for {name}: {path}")


def _import_rtx() -> ModuleType:
    for name in PACKAGES["rtx"]:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise MissingBackendError("TensorRT-RTX", f"Type: {pip_install('rtx')}")


def _import_tensorrt(target: str) -> ModuleType | None:
    """The bindings, or None where there are none."""
    try:
        module = importlib.import_module("tensorrt")
        version = str(module.__version__)
    except (ImportError, AttributeError, OSError) as error:
        log.info("no TensorRT Python bindings: %s", error)
        return None
    check_version(version, target)
    return module


def check_version(version: str, target: str) -> None:
    """Raise EngineError unless a TensorRT is the one that was asked for."""
    if target != "auto" and not f"{version}.".startswith(f"{target}."):
        raise EngineError(
            f"[engine] asked for TensorRT {target} and found {version}; an engine runs on the TensorRT that built it: "
            f"build on the machine that has {target}, or pass --tensorrt auto"
        )


def find_trtexec(named: Path | None) -> Path:
    """The program that comes with TensorRT.

    Raises:
        MissingBackendError: it is nowhere.
    """
    found = named or shutil.which("trtexec") or Path("/usr/src/tensorrt/bin/trtexec")
    if not Path(found).is_file():
        raise MissingBackendError(
            "TensorRT",
            "An engine is built where it runs: on a Jetson, `sudo apt install tensorrt python3-libnvinfer`; elsewhere "
            f"{pip_install('tensorrt')}; or write for TensorRT-RTX with --tensorrt rtx, after {pip_install('rtx')}",
        )
    return Path(found)


def _by_bindings(trt: ModuleType, onnx: Path, out: Path, settings: EngineSettings, holds: Holds) -> Built:
    major = int(str(trt.__version__).split(".", maxsplit=1)[0])
    rtx = settings.target == "rtx"
    if rtx and settings.plugins is not None:
        raise ConfigError("[engine] TensorRT-RTX has no plugins; write the pure graph: --graph pure")
    logger = _logger(trt)
    plugins = plugins_for(settings, holds, major)
    if plugins is not None:
        load_plugins(trt, logger, plugins)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt, major, rtx=rtx))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        raise EngineError(_refused(parser, holds))
    config = builder.create_builder_config()
    _configure(trt, builder, network, config, settings, holds, old=major == 8 and not rtx)
    with _timing_cache(config, settings.timing_cache):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"[engine] TensorRT {trt.__version__} built nothing: {'; '.join(logger.errors[-3:]) or 'no reason given'}; "
            f"more room may help: --workspace {2 * settings.workspace}"
        )
    out.write_bytes(memoryview(plan))
    return Built(str(trt.__version__), "rtx" if rtx else "tensorrt", plugins)


def _logger(trt: ModuleType) -> Any:
    class Collector(trt.ILogger):  # type: ignore[misc, name-defined]  # the base is known at run time
        """Keeps errors for our own, and passes the rest to logging."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)
            log.debug("TensorRT: %s", message)

    return Collector()


def _network_flags(trt: ModuleType, major: int, *, rtx: bool) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    if major == 8 and not rtx:
        return 1 << int(flags.EXPLICIT_BATCH)
    return 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0


def _configure(
    trt: ModuleType,
    builder: Any,
    network: Any,
    config: Any,
    settings: EngineSettings,
    holds: Holds,
    *,
    old: bool,
) -> None:
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace << 20)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)
    if old:
        _allow(trt, network, config, holds)
    low, likely, high = settings.batch
    if holds.batch is None:
        profile = builder.create_optimization_profile()
        profile.set_shape("pixels", *((many, *holds.pixels) for many in (low, likely, high)))
        config.add_optimization_profile(profile)
    if settings.capabilities:
        config.num_compute_capabilities = len(settings.capabilities)
        for i, one in enumerate(settings.capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{one.replace('.', '')}"), i)


def _allow(trt: ModuleType, network: Any, config: Any, holds: Holds) -> None:
    """8.x: allow the low precisions that the graph holds, and pin what is float32 in it."""
    if holds.fp16:
        config.set_flag(trt.BuilderFlag.FP16)
    if holds.int8:
        config.set_flag(trt.BuilderFlag.INT8)
    if not (holds.fp16 or holds.int8):
        return
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    pinned = set(holds.float32)
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.name in pinned:
            layer.precision = trt.float32


def _refused(parser: Any, holds: Holds) -> str:
    """What the parser says, with the node's name and what to type."""
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    said = []
    for error in errors[:3]:
        node = getattr(error, "node_name", str)() or f"node {error.node()}"
        kind = getattr(error, "node_operator", str)()
        said.append(
            f"{node} ({kind}): {' '.join(error.desc().split())}" if kind else f"{node}: {error.desc()}"
        )
    remedy = "export the pure graph: --graph pure" if holds.plugins else "try --precision fp32"
    if holds.plugins:
        remedy += ", or name the library with our plugins: --plugins LIBRARY"
    return f"[engine] TensorRT refuses the graph at {'; '.join(said) or 'no node that it names'}; {remedy}"


@contextmanager
def _timing_cache(config: Any, path: Path | None) -> Iterator[None]:
    """Read a timing cache, and write it back; one build at a time holds the file."""
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
        config.set_timing_cache(cache, False)
        yield
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.write_bytes(memoryview(config.get_timing_cache().serialize()))
        draft.replace(path)


def gpu() -> tuple[str | None, str | None]:
    """Compute capability and driver of the first GPU here, or Nones."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None, None
    asked: Sequence[str] = (program, "--query-gpu=compute_cap,driver_version", "--format=csv,noheader")
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30)
    found = re.match(r"\s*([\d.]+)\s*,\s*([\d.]+)", done.stdout)
    return (found.group(1), found.group(2)) if done.returncode == 0 and found else (None, None)
