"""Our plugins as TensorRT sees them, in every version whose headers are here, their kernels on an emulator.

What they compute is what numpy says of the nodes; what is made of bad attributes, shapes, types and plans is an error
in TensorRT's log.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import building
import numpy as np
import pytest
from plugin_driver import CHW4, FLOAT32, FLOAT64, INT32, INT64, LINEAR, Driver, Plugin, ports_of

from detrx.errors import EngineError
from detrx.export import plugin_reference as reference
from detrx.export.plugin_nodes import KINDS, PLUGIN_NAMESPACE, PLUGIN_VERSION

pytestmark = pytest.mark.needs("tensorrt-headers")
open_driver = functools.lru_cache(maxsize=None)(Driver)

Fields = dict[str, tuple[int, Any]]
FIELDS: dict[str, Fields] = {
    "DetrxDeformAttn": {
        "shapes": (INT32, [4, 6, 2, 3]), "points": (INT32, [4, 2]), "reach": (FLOAT32, 0.5),
    },
    "DetrxDecode": {
        "top": (INT32, 6), "each": (INT32, 1), "no_object": (INT32, 1), "columns": (INT32, [0, 2, 5]),
    },
    "DetrxLayerNorm": {"epsilon": (FLOAT32, 1e-5)},
    "DetrxAttention": {"heads": (INT32, 2), "scale": (FLOAT32, 0.17)},
}  # fmt: skip
Ports = list[tuple[str, tuple[int, ...]]]
PORTS: dict[str, tuple[Ports, Ports]] = {
    "DetrxDeformAttn": (
        [("float32", (2, 30, 3, 8)), ("float32", (2, 7, 4)), ("float32", (2, 7, 36)), ("float32", (2, 7, 18))],
        [("float32", (2, 7, 24))],
    ),
    "DetrxDecode": (
        [("float32", (2, 9, 7)), ("float32", (2, 9, 4))],
        [("float32", (2, 6)), ("int32", (2, 6)), ("float32", (2, 6, 4)), ("int32", (2, 6))],
    ),
    "DetrxLayerNorm": (
        [("float32", (2, 5, 40)), ("float32", (40,)), ("float32", (40,))],
        [("float32", (2, 5, 40))],
    ),
    "DetrxAttention": (
        [("float32", (2, n, 64)) for n in (5, 70, 70)] + [("float32", (2, 70))],
        [("float32", (2, 5, 64))],
    ),
}  # fmt: skip
kinds = pytest.mark.parametrize("kind", FIELDS)


@pytest.fixture(params=building.NAMED, ids=lambda root: root.name)
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    found = open_driver(request.param)
    found.said()
    yield found
    assert found.said() == "", "a plugin complained and no test asked why"


def make(driver: Driver, kind: str, **changes: tuple[int, Any]) -> Plugin:
    plugin = driver.create(kind, {**FIELDS[kind], **changes})
    assert plugin is not None, driver.said()
    return plugin


def halved(ports: Ports, half: str = "float16") -> Ports:
    """The ports where all that may be of another type is; the first input says which."""
    inputs = len(ports) > 1
    keep = {(7, 4), (2, 7, 4), (40,), (2, 70)} if inputs else set()
    return [(half if shape not in keep else kind, shape) for kind, shape in ports]


def some(ports: Ports, seed: int = 0) -> list[np.ndarray[Any, Any]]:
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape).astype(kind) for kind, shape in ports]


def settings(kind: str) -> dict[str, Any]:
    return {name: value for name, (_, value) in FIELDS[kind].items()}


def test_the_creators_are_the_nodes(driver: Driver) -> None:
    """Names, version, namespace and attributes are those that the graph is written with."""
    numbers = {"int": INT32, "ints": INT32, "float": FLOAT32}
    found = {name: (version, namespace, fields) for name, version, namespace, *fields in driver.creators()}
    assert set(found) == set(KINDS)
    for name, kind in KINDS.items():
        version, namespace, fields = found[name]
        wanted = [f"{one.name}:{numbers[one.type]}" for one in kind.attributes]
        own = [f"inputs:{INT32}"] if name == "DetrxAttention" else []  # of plans alone
        assert (version, namespace, fields) == (PLUGIN_VERSION, PLUGIN_NAMESPACE, wanted + own)
        assert driver.create(name, FIELDS[name]).name == f"{name} {version} {namespace}"


@kinds
@pytest.mark.parametrize("half", [False, True])
def test_it_computes_what_the_node_means(driver: Driver, kind: str, half: bool) -> None:
    """And so do a copy of it, and what comes out of a plan."""
    inputs, outputs = PORTS[kind]
    if half and kind != "DetrxDecode":
        inputs, outputs = halved(inputs), halved(outputs)
    arrays = some(inputs)
    plugin = make(driver, kind)
    assert plugin.outputs(*inputs) == outputs
    assert plugin.configure(*inputs, outputs=len(outputs)) == 0
    wanted = reference.BODIES[kind](settings(kind), *arrays)
    close = 4e-3 if half else 3e-6
    copies = [plugin, plugin.clone(), plugin.reopen(), plugin.reopen().clone()]
    assert len({copy.written() for copy in copies}) == 1
    assert len({copy.name for copy in copies}) == 1
    for copy in copies:
        for one, other in zip(copy.run(*arrays), wanted):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(
                one.astype(np.float32), other.astype(np.float32), rtol=close, atol=close
            )
    for copy in copies:
        copy.close()


def test_attention_without_bias(driver: Driver) -> None:
    inputs = PORTS["DetrxAttention"][0][:3]
    plugin = make(driver, "DetrxAttention")
    assert plugin.configure(*inputs) == 0
    arrays = some(inputs)
    (wanted,) = reference.attention(settings("DetrxAttention"), *arrays)
    for one in (plugin, plugin.reopen()):
        np.testing.assert_allclose(one.run(*arrays)[0], wanted, rtol=3e-6, atol=3e-6)


def test_decode_of_pairs(driver: Driver) -> None:
    fields: Fields = {"top": (INT64, 12), "each": (INT64, 0), "no_object": (INT64, 0)}
    plugin = driver.create("DetrxDecode", fields)
    arrays = some(PORTS["DetrxDecode"][0])
    wanted = reference.decode({"top": 12, "each": 0, "no_object": 0}, *arrays)
    for one, other in zip(plugin.reopen().run(*arrays), wanted):
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-6)


@kinds
def test_types_and_layouts(driver: Driver, kind: str) -> None:
    """The first input chooses; sums, boxes and answers are float32, labels int32; nothing but plain arrays."""
    inputs, outputs = PORTS[kind]
    plugin, count = make(driver, kind), len(inputs)
    narrow = ["float16", "bfloat16"] if driver.major >= 10 else ["float16"]
    for first in ["float32", *narrow, "int8", "int32"]:
        chosen = [*halved(inputs, first), *(halved(outputs, first))]
        if kind == "DetrxDecode":
            chosen = (
                [*inputs, *outputs]
                if first == "float32"
                else [(first, shape) for _, shape in inputs + outputs]
            )
        good = first == "float32" or (first in narrow and kind != "DetrxDecode")
        ports = ports_of(*chosen)
        assert plugin.fits(0, ports, count) == good
        if not good:
            continue
        for port in range(len(chosen)):
            assert plugin.fits(port, ports, count)
            for other in ("float32", "float16", "int8", "int32"):
                changed = ports_of(*chosen[:port], (other, chosen[port][1]), *chosen[port + 1 :])
                assert plugin.fits(port, changed, count) == (other == chosen[port][0] or (
                    port == 0 and other == "float16" and kind != "DetrxDecode"
                ) or (port == 0 and other == "float32"))  # fmt: skip
            assert not plugin.fits(port, ports_of(*chosen, layout=CHW4), count)
    assert LINEAR == 0
    assert not plugin.fits(0, ports_of(*inputs[:1], *outputs), 1)


@kinds
def test_a_missing_attribute_is_named(driver: Driver, kind: str) -> None:
    for name in FIELDS[kind]:
        if name == "columns":
            continue
        fields = {other: value for other, value in FIELDS[kind].items() if other != name}
        assert driver.create(kind, fields) is None
        assert f"[{kind}] the node must have the attribute {name}" in driver.said()
    more = {**FIELDS[kind], "plugin_version": (INT32, 1)}  # what a parser may hand over as well
    assert driver.create(kind, more) is not None


@pytest.mark.parametrize(
    ("kind", "name", "value", "says"),
    [
        ("DetrxDeformAttn", "reach", (FLOAT64, 0.5), "reach must be one float32, got 1 of field type 2"),
        ("DetrxDeformAttn", "shapes", (FLOAT32, [1, 2]), "shapes must be int32 or int64 numbers"),
        ("DetrxDeformAttn", "points", (INT32, [4]), "same 1 to 8 levels, got 4 sides and 1 numbers"),
        ("DetrxDeformAttn", "points", (INT32, [4, -1]), "level 1 must have sides and points that can be"),
        ("DetrxDeformAttn", "shapes", (INT64, [4, 2**40, 2, 3]), "shapes must fit 32 bits"),
        ("DetrxDecode", "top", (INT32, [1, 2]), "top must be one int32 or int64, got 2"),
        ("DetrxDecode", "top", (INT32, 0), "top must be 1 to 2048, got 0"),
        ("DetrxDecode", "each", (INT32, 2), "each must be 0 or 1, got 2"),
        ("DetrxDecode", "each", (INT32, 0), "each must be 1 where there is no_object or columns"),
        ("DetrxDecode", "columns", (INT32, [-1]), "column -1 is none"),
        ("DetrxDecode", "columns", (INT32, [0] * 1025), "at most 1024"),
        ("DetrxLayerNorm", "epsilon", (FLOAT32, float("nan")), "epsilon must be small, got nan"),
        ("DetrxAttention", "heads", (INT32, 0), "heads must be positive"),
        ("DetrxAttention", "scale", (FLOAT32, float("inf")), "scale must be finite"),
    ],
)
def test_bad_attributes(driver: Driver, kind: str, name: str, value: tuple[int, Any], says: str) -> None:
    assert driver.create(kind, {**FIELDS[kind], name: value}) is None
    assert says in driver.said()


@pytest.mark.parametrize(
    ("kind", "port", "shape", "says"),
    [
        ("DetrxDeformAttn", 0, (2, 31, 3, 8), r"values must be \(B, 30, H, D\), got \(2, 31, 3, 8\)"),
        ("DetrxDeformAttn", 1, (2, 7, 5), r"boxes must be \(2, Q, 4\), got \(2, 7, 5\)"),
        ("DetrxDeformAttn", 2, (2, 7, 35), r"offsets must be \(2, 7, 36\)"),
        ("DetrxDeformAttn", 3, (2, 8, 18), r"logits must be \(2, 7, 18\)"),
        ("DetrxDecode", 0, (2, 5, 7), r"boxes \(B, Q, 4\), got \(2, 5, 7\) and \(2, 9, 4\)"),
        ("DetrxDecode", 0, (2, 9, 5), "column 5 is none of 5"),
        ("DetrxLayerNorm", 1, (41,), r"gain must be \(40\), got \(41\)"),
        ("DetrxAttention", 0, (2, 5, 63), r"query must be \(B, N, 64\), 32 for each head"),
        ("DetrxAttention", 2, (2, 69, 64), r"value must be \(2, S, 64\), got \(2, 69, 64\)"),
        ("DetrxAttention", 3, (1, 70), r"bias must be \(2, 70\), got \(1, 70\)"),
    ],
)
def test_shapes_that_do_not_fit(
    driver: Driver, kind: str, port: int, shape: tuple[int, ...], says: str
) -> None:
    """Said when an engine is built, and refused when one is run: nothing is written."""
    inputs, outputs = PORTS[kind]
    inputs = [*inputs[:port], (inputs[port][0], shape), *inputs[port + 1 :]]
    plugin = make(driver, kind)
    assert plugin.configure(*inputs, outputs=len(outputs)) == (0 if driver.major == 8 else 1)
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(driver.said())
    for answer in plugin.run(*some(inputs), code=1):
        assert (answer == 77).all()
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(driver.said())


@kinds
def test_a_wrong_rank_gives_no_shape(driver: Driver, kind: str) -> None:
    if kind == "DetrxLayerNorm":
        assert make(driver, kind).outputs(("float32", (9,)), *PORTS[kind][0][1:]) == [("float32", (9,))]
        return
    inputs = [("float32", (2, 3)), *PORTS[kind][0][1:]]
    assert make(driver, kind).outputs(*inputs) is None
    assert "sides, got 2" in driver.said()


@kinds
def test_plans_that_are_damaged_are_refused(driver: Driver, kind: str) -> None:
    if driver.major != 8:
        pytest.skip("later versions keep fields, which are checked as those of a graph")
    whole = make(driver, kind).written()
    assert driver.read(kind, whole).written() == whole
    for cut in range(len(whole)):
        assert driver.read(kind, whole[:cut]) is None
    assert driver.read(kind, whole + b"\0") is None
    assert driver.read(kind, b"\0" * len(whole)) is None
    assert driver.read(kind, whole[:8] + b"\xff\xff\xff\x7f" + whole[12:]) is None
    said = driver.said()
    assert "the plan ends too early" in said
    assert "1 bytes too many" in said
    assert "another version of this plugin" in said


def test_the_library_brings_no_tensorrt(driver: Driver) -> None:
    """Whoever opens it has one: a library that asked for libnvinfer by name would open a second."""
    content = Path(driver.plugins).read_bytes()
    door = b"getPluginCreators" if driver.major == 8 else b"getCreators"
    for name in (door, b"setLoggerFinder", b"detrxRegisterPlugins"):
        assert b"\0" + name + b"\0" in content


def test_an_engine_finds_the_plugins_once_they_are_loaded(pairing: building.Pairing, tmp_path: Path) -> None:
    """By detrx's own runtime, over a TensorRT of ours; twice is once."""
    adapter, found = pairing.adapter, open_driver(pairing.root).plugins
    own = tmp_path / "libnvinfer.so"  # a registry of its own
    own.write_bytes(pairing.library.read_bytes())
    library = adapter.Library([str(own)])
    plan = pairing.plan("plugin DetrxDecode", "plugin DetrxDeformAttn")
    with pytest.raises(EngineError, match="Cannot find plugin"):
        adapter.Engine(library, adapter.host_device(), plan)
    for _ in range(2):
        library.load_plugins(str(found))
    assert len(adapter.Engine(library, adapter.host_device(), plan).tensors) == 4
    assert adapter.take_log().count("registered twice") == 0


def test_libraries_that_are_no_plugins(pairing: building.Pairing) -> None:
    library = pairing.adapter.Library([str(pairing.library)])
    with pytest.raises(EngineError, match=r"libm.so.6 is no library of detrx's plugins"):
        library.load_plugins("libm.so.6")
    with pytest.raises(EngineError, match=r"(?s)none.so cannot be opened: .*No such file"):
        library.load_plugins("/none.so")
