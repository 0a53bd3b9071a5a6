"""Sessions over a TensorRT of ours, in the memory of this process: every version whose headers are here."""

from __future__ import annotations

import ctypes
import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from detrx.errors import EngineError

pytestmark = pytest.mark.needs("tensorrt-headers")
NAMES = ["scores", "labels", "boxes"]


def pictures(images: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 9, (images, 3, 4, 6)).astype(np.float32)


def room(pairing, images: int) -> tuple[np.ndarray, ...]:
    integer = np.int32 if pairing.version[0] == 8 else np.int64
    return (
        np.empty((images, 5), np.float32),
        np.empty((images, 5), integer),
        np.empty((images, 5, 4), np.float32),
    )


def assert_answers(pixels: np.ndarray, outputs: tuple[np.ndarray, ...]) -> None:
    """The fake gives twice the first pixels of each picture."""
    flat = 2 * pixels.reshape(len(pixels), -1)
    scores, labels, boxes = outputs
    np.testing.assert_array_equal(scores, flat[:, :5])
    np.testing.assert_array_equal(labels, flat[:, :5].astype(labels.dtype))
    np.testing.assert_array_equal(boxes.reshape(len(pixels), -1), flat[:, :20])


@pytest.fixture
def session(pairing):
    return pairing.adapter.Session(pairing.open(), ["pixels"], NAMES)


def test_an_engine_says_what_it_takes_and_gives(pairing) -> None:
    found = {tensor.name: tensor for tensor in pairing.open().tensors}
    pixels = found["pixels"]
    assert (pixels.input, pixels.dtype, pixels.shape) == (True, "float32", (-1, 3, 4, 6))
    assert (pixels.least, pixels.usual, pixels.most) == ((1, 3, 4, 6), (2, 3, 4, 6), (4, 3, 4, 6))
    assert (found["boxes"].input, found["boxes"].shape) == (False, (-1, 5, 4))
    assert found["labels"].dtype == ("int32" if pairing.version[0] == 8 else "int64")


def test_values_for_any_number_of_images(pairing, session) -> None:
    for images in (1, 4, 2, 2, 3, 1):
        pixels, outputs = pictures(images, images), room(pairing, images)
        session.run((pixels,), outputs)
        assert_answers(pixels, outputs)


def test_half_precision_and_an_output_that_nobody_asks_for(pairing) -> None:
    text = pairing.plan("out extra 1  2 -1 3").decode().replace("pixels 0", "pixels 1")
    adapter = pairing.adapter
    engine = adapter.Engine(adapter.Library([str(pairing.library)]), adapter.host_device(), text.encode())
    pixels, extra = pictures(2).astype(np.float16), np.empty((2, 3), np.float16)
    adapter.Session(engine, ["pixels"], ["extra"]).run((pixels,), (extra,))
    np.testing.assert_array_equal(extra, (2 * pixels).reshape(2, -1)[:, :3])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda i, o: ((pictures(5),), o),
            r"pixels must be float32 \(1, 3, 4, 6\) to \(4, 3, 4, 6\), got the shape",
        ),
        (lambda i, o: ((i[0][:, :, :3],), o), "got format|must be float32|contiguous"),
        (lambda i, o: ((i[0].astype(np.float64),), o), "pixels must be float32 .*, got float64"),
        (lambda i, o: ((i[0][..., ::-1],), o), "numpy.ascontiguousarray"),
        (lambda i, o: (i, (o[0][:1], *o[1:])), r"scores must be float32 \(2, 5\), got float32 \(1, 5\)"),
        (lambda i, o: (i, (o[0].astype(np.float16), *o[1:])), "got float16"),
        (lambda i, o: ((), o), "must be given 1 inputs and 3 outputs, got 0 and 3"),
        (lambda i, o: (i * 9, o), "at most 8 arrays"),
        (lambda i, o: ((i[0].astype(complex),), o), "plain NumPy type"),
    ],
    ids=["too many", "shape", "float64", "strides", "output", "half output", "none", "nine", "complex"],
)
def test_arrays_that_do_not_fit(pairing, session, change, words) -> None:
    inputs, outputs = change((pictures(2),), room(pairing, 2))
    with pytest.raises(ValueError, match=words):
        session.run(inputs, outputs)
    pixels, outputs = pictures(2), room(pairing, 2)
    session.run((pixels,), outputs)
    assert_answers(pixels, outputs)


def test_an_array_that_cannot_be_written(pairing, session) -> None:
    outputs = room(pairing, 1)
    outputs[0].flags.writeable = False
    with pytest.raises(ValueError, match="written"):
        session.run((pictures(1),), outputs)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("context", "makes no context"),
        ("shape", "cannot have the shape"),
        ("address", "cannot be given memory"),
        ("data", "that the data decide"),
        ("format", "must lie in memory as a plain array, it is kCHW32"),
        ("host", "holds a shape"),
        ("enqueue", "does not run the engine:\n.*the fake was told to fail"),
    ],
)
def test_what_tensorrt_refuses(pairing, fault, words) -> None:
    def attempt() -> None:
        session = pairing.adapter.Session(pairing.open(f"fail {fault}"), ["pixels"], NAMES)
        session.run((pictures(1),), room(pairing, 1))

    with pytest.raises(EngineError, match=words):
        attempt()


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (lambda p: b"", "Magic tag does not match"),
        (lambda p: b"\x00" * 64, "Magic tag does not match"),
        (lambda p: p.plan(version=80001), r"does not take these \d+ bytes:\n.*Version tag does not match"),
    ],
    ids=["empty", "zeros", "version"],
)
def test_plans_that_are_refused(pairing, plan, words) -> None:
    adapter = pairing.adapter
    with pytest.raises(EngineError, match=f"(?s){words}"):
        adapter.Engine(adapter.Library([str(pairing.library)]), adapter.host_device(), plan(pairing))


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ([], NAMES, "also takes pixels"),
        (["picture"], NAMES, "must take picture"),
        (["scores"], NAMES, "must take scores"),
        (["pixels"], ["masks"], "must give masks"),
        (["pixels"], ["pixels"], "must give pixels"),
    ],
)
def test_names_that_the_engine_has_not(pairing, inputs, outputs, words) -> None:
    with pytest.raises(EngineError, match=words):
        pairing.adapter.Session(pairing.open(), inputs, outputs)


def test_memory_of_the_callers_on_its_stream(pairing, session) -> None:
    pixels, outputs = pictures(3), room(pairing, 3)
    session.set_shape("pixels", (3, 3, 4, 6))
    assert session.shape("boxes") == (3, 5, 4)
    ctypes.memmove(session.address("pixels"), pixels.ctypes.data, pixels.nbytes)
    place = np.empty(1024, np.uint8)
    start = -place.ctypes.data % 256
    session.bind("scores", place.ctypes.data + start)
    session.enqueue(0)
    scores = place[start : start + 60].view(np.float32).reshape(3, 5)
    np.testing.assert_array_equal(scores, 2 * pixels.reshape(3, -1)[:, :5])
    with pytest.raises(ValueError, match="scores is bound to memory of the caller's"):
        session.run((pixels,), outputs)
    session.bind("scores", 0)
    session.run((pixels,), outputs)
    assert_answers(pixels, outputs)
    with pytest.raises(EngineError, match="cannot be given memory"):
        session.bind("scores", place.ctypes.data + start + 4)
    with pytest.raises(ValueError, match="no tensor masks"):
        session.shape("masks")
    with pytest.raises(ValueError, match="is an output"):
        session.set_shape("scores", (1, 5))


def aligned(size: int) -> np.ndarray:
    """Bytes at an address as the GPU gives them out."""
    place = np.empty(size + 256, np.uint8)
    start = -place.ctypes.data % 256
    return place[start : start + size]


def test_one_picture_from_and_to_memory_of_the_callers(pairing, session) -> None:
    outputs = room(pairing, 1)
    places = [aligned(output.nbytes) for output in outputs]
    pixels, many = pictures(1), (pictures(3, 7), room(pairing, 3))
    source = aligned(pixels.nbytes)
    source[:] = pixels.view(np.uint8).ravel()
    for _ in range(2):
        session.run((many[0],), many[1])
        session.enqueue_one(source.ctypes.data, [place.ctypes.data for place in places], session.stream)
        for output, place in zip(outputs, places):
            output[...] = place.view(output.dtype).reshape(output.shape)
        assert_answers(pixels, outputs)
        assert_answers(*many)
    with pytest.raises(ValueError, match="3 outputs, got 2"):
        session.enqueue_one(source.ctypes.data, [0, 0], 0)
    with pytest.raises(EngineError, match="boxes cannot be given memory"):
        session.enqueue_one(source.ctypes.data, [*(place.ctypes.data for place in places[:2]), 4], 0)
    session.run((many[0],), many[1])  # in its own memory again
    assert_answers(*many)


def test_time_and_description_of_the_layers(pairing, session) -> None:
    assert session.profile(3) == [("copy", 0.5), ("scale", 0.25)]
    assert '"TacticName"' in pairing.open().layers_json()
    with pytest.raises(EngineError, match="describes no layers"):
        pairing.open("fail inspector").layers_json()
    with pytest.raises(ValueError, match="runs must be 1 or more"):
        session.profile(0)


def test_what_tensorrt_says(pairing) -> None:
    """A warning from another thread is kept, a null message and a remark are not."""
    pairing.adapter.take_log()
    engine = pairing.open()
    assert engine.tensors
    assert pairing.adapter.take_log() == "warning: Using an engine plan file\n"
    assert pairing.adapter.take_log() == ""


def test_many_threads_on_one_session(pairing, session) -> None:
    def work(seed: int) -> None:
        images = seed % 4 + 1
        pixels, outputs = pictures(images, seed), room(pairing, images)
        session.run((pixels,), outputs)
        assert_answers(pixels, outputs)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(64)))


def test_everything_is_given_back(pairing) -> None:
    alive = ctypes.CDLL(str(pairing.library)).detrx_fake_alive
    gc.collect()
    before = alive()
    session = pairing.adapter.Session(pairing.open(), ["pixels"], NAMES)
    assert alive() > before
    del session
    gc.collect()
    assert alive() == before
