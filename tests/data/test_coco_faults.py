"""COCO files with faults: refused, skipped and counted, or warned of, as the table of faults says (rows 10 to 27)."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detrx.data.catalog import open_dataset
from detrx.data.coco import Dataset, read_coco
from detrx.data.document import load_document
from detrx.errors import DataError

cv2 = pytest.importorskip("cv2")

Document = dict[str, Any]
IMAGES = 4
BOXES = 200


def document() -> Document:
    """Four pictures of 100 x 80, 200 boxes in two classes."""
    images = [{"id": i, "file_name": f"{i}.png", "width": 100, "height": 80} for i in range(1, IMAGES + 1)]
    boxes = []
    for i in range(BOXES):
        x, y = 5 + i % 40, 5 + i % 30
        entry = {"id": i + 1, "image_id": 1 + i % IMAGES, "category_id": 3 + 4 * (i % 2)}
        boxes.append({**entry, "bbox": [x, y, 20, 10], "area": 200, "iscrowd": 0})
    names = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    return {"info": {}, "images": images, "annotations": boxes, "categories": names}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(1, IMAGES + 1):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((80, 100, 3), 40 * i, np.uint8))
    return tmp_path


def read(folder: Path, found: Document | str | bytes, **options: Any) -> Dataset:
    file = folder / "coco_train.json"
    if isinstance(found, dict):
        found = json.dumps(found)
    file.write_bytes(found.encode() if isinstance(found, str) else found)
    return read_coco(file, image_root=folder, **options)


def same_boxes(a: Dataset, b: Dataset) -> bool:
    return all(
        np.array_equal(x.boxes, y.boxes) and np.array_equal(x.labels, y.labels)
        for x, y in zip(a.images, b.images, strict=True)
    )


def test_a_clean_file_reads_without_a_word(folder):
    found = read(folder, document())
    assert (len(found), found.boxes, found.names, found.category_ids) == (4, BOXES, ("cat", "dog"), (3, 7))
    assert found.report.lines() == []
    first = found.images[0]
    assert (first.id, first.width, first.height, first.boxes.dtype) == (1, 100, 80, np.float32)
    np.testing.assert_array_equal(first.boxes[0], [5, 5, 25, 15])


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "a/../../b.png",
        "/etc/passwd",
        "C:\\..\\x",
        "..\\x",
        "http://x/y.png",
        "a\0b",
        "c:/x",
    ],
)
def test_row_10_a_path_that_escapes_is_an_error_and_nothing_is_opened(folder, name, monkeypatch):
    monkeypatch.setattr("detrx.data.files.image_size", lambda *_: pytest.fail("opened"))
    broken = document()
    broken["images"][0]["file_name"] = name
    with pytest.raises(DataError, match="escapes"):
        read(folder, broken)


@pytest.mark.parametrize("through", ["file", "folder"])
def test_row_10_a_link_out_of_the_root_is_an_error(folder, tmp_path_factory, through):
    outside = tmp_path_factory.mktemp("outside")
    (folder / "1.png").rename(outside / "1.png")
    broken = document()
    if through == "file":
        (folder / "1.png").symlink_to(outside / "1.png")
    else:
        (folder / "sub").symlink_to(outside)
        broken["images"][0]["file_name"] = "sub/1.png"
    with pytest.raises(DataError, match="escapes"):
        read(folder, broken)


def test_row_10_a_link_inside_the_root_is_fine(folder):
    (folder / "sub").mkdir()
    (folder / "1.png").rename(folder / "sub" / "real.png")
    (folder / "1.png").symlink_to(folder / "sub" / "real.png")
    assert len(read(folder, document())) == 4


@pytest.mark.parametrize("ids", ["zero", "same", "missing", "text"])
def test_row_11_annotation_ids_do_not_matter(folder, ids):
    odd = document()
    for at, entry in enumerate(odd["annotations"]):
        entry["id"] = {"zero": at, "same": 5, "missing": None, "text": f"a{at}"}[ids]
        if ids == "missing":
            del entry["id"]
    found = read(folder, odd)
    assert same_boxes(found, read(folder, document()))
    assert any("numbered anew" in text for text in found.report.warnings)


def test_row_12_duplicate_image_ids_are_listed(folder):
    broken = document()
    broken["images"][1]["id"] = 1
    with pytest.raises(DataError, match=r"image ids must differ, found 1 used twice: 1\."):
        read(folder, broken)


@pytest.mark.parametrize("ids", [(0, 1), (1, 2), (90, 3), (2**31 + 5, 2**40), (-1, 7)])
def test_row_13_any_category_ids_become_contiguous_labels(folder, ids):
    odd = document()
    for entry, key in zip(odd["categories"], ids, strict=True):
        entry["id"] = key
    for at, entry in enumerate(odd["annotations"]):
        entry["category_id"] = ids[at % 2]
    found = read(folder, odd)
    names = dict(zip(ids, ("cat", "dog"), strict=True))
    assert found.category_ids == tuple(sorted(ids))
    assert found.names == tuple(names[key] for key in sorted(ids))
    assert found.category_ids[found.images[0].labels[0]] == ids[0]


def test_row_14_duplicate_names_are_an_error_and_ids_too(folder):
    broken = document()
    broken["categories"][1]["name"] = "cat"
    with pytest.raises(DataError, match="found twice: cat"):
        read(folder, broken)
    broken = document()
    broken["categories"][1]["id"] = 3
    with pytest.raises(DataError, match="found 3 twice"):
        read(folder, broken)


def test_row_14_an_unused_category_keeps_its_label_with_a_warning(folder):
    odd = document()
    odd["categories"].insert(0, {"id": 5, "name": "bird"})
    found = read(folder, odd)
    assert found.names == ("cat", "bird", "dog")
    assert "1 of 3 categories have no box here: bird" in found.report.warnings[0]


def test_row_14_an_unused_parent_is_dropped_with_a_warning(folder):
    odd = document()
    for entry in odd["categories"]:
        entry["supercategory"] = "pets"
    odd["categories"].insert(0, {"id": 0, "name": "pets", "supercategory": "none"})
    found = read(folder, odd)
    assert (found.names, found.category_ids) == (("cat", "dog"), (3, 7))
    assert "'pets' (id 0)" in found.report.warnings[0]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("bbox", [5, 5, 0, 10], "no area"),
        ("bbox", [5, 5, 10, -3], "no area"),
        ("bbox", [5, 5, 0.4, 10], "less than a pixel"),
        ("bbox", [100, 5, 20, 10], "outside"),
        ("bbox", [-50, 5, 20, 10], "outside"),
        ("bbox", [5, float("nan"), 20, 10], "finite"),
        ("bbox", [5, 5, float("inf"), 10], "finite"),
        ("bbox", [5, 5, None, 10], "finite"),
        ("bbox", ["5", "5", "20", "10"], "finite"),
        ("bbox", [5, 5, 1e30, 10], "finite"),
        ("bbox", [5, 5, 10**400, 10], "finite"),
        ("bbox", [5, 5, 20], "finite"),
        ("bbox", [True, 5, 20, 10], "finite"),
        ("bbox", None, "no bbox"),
        ("bbox", "5 5 20 10", "no bbox"),
        ("image_id", 99, "unknown image_id"),
        ("image_id", [1], "unknown image_id"),
        ("category_id", 4, "unknown category_id"),
        ("category_id", "3", "unknown category_id"),
        ("segmentation", [[1, 2, 3, 4]], "polygon"),
    ],
)
def test_rows_15_to_21_a_useless_box_is_skipped_and_counted(folder, key, value, reason):
    odd = document()
    odd["annotations"][0][key] = value
    found = read(folder, odd)
    assert found.boxes == BOXES - 1
    ((counted, count),) = found.report.counts.items()
    assert (reason in counted, count) == (True, 1)
    assert "annotation 1" in found.report.examples[counted][0]
    with pytest.raises(DataError, match=reason):
        read(folder, odd, max_bad=0)


def test_rows_15_to_21_too_many_useless_boxes_are_an_error_that_lists_them(folder):
    broken = document()
    for entry in broken["annotations"][:3]:
        entry["bbox"][2] = -1
    with pytest.raises(DataError, match=r"(?s)at most 1 % of the boxes.*3 of 200.*annotation 1 .*--max-bad"):
        read(folder, broken)
    assert read(folder, broken, max_bad=0.05).boxes == BOXES - 3


def test_row_16_a_box_partly_outside_is_clipped_with_a_warning(folder):
    odd = document()
    odd["annotations"][0]["bbox"] = [-10, 70, 30, 30]
    found = read(folder, odd)
    np.testing.assert_array_equal(found.images[0].boxes[0], [0, 70, 20, 80])
    assert "clipped (1 x" in found.report.warnings[0]


def test_row_18_normalised_boxes_are_an_error(folder):
    broken = document()
    for entry in broken["annotations"]:
        entry["bbox"] = [v / 100 for v in entry["bbox"]]
    with pytest.raises(DataError, match="look normalised"):
        read(folder, broken)


def test_row_20_what_is_missing_is_filled_in_with_a_warning(folder):
    odd = document()
    del (
        odd["info"],
        odd["annotations"][0]["area"],
        odd["annotations"][1]["iscrowd"],
        odd["images"][0]["width"],
    )
    found = read(folder, odd)
    assert same_boxes(found, read(folder, document()))
    assert (found.images[0].areas[0], found.images[1].crowd[0], found.images[0].width) == (200, False, 100)
    text = "\n".join(found.report.warnings)
    assert all(word in text for word in ("info", "area", "iscrowd", "width or height is missing"))


def test_row_21_a_crowd_is_kept_and_marked(folder):
    odd = document()
    odd["annotations"][0].update(iscrowd=1, segmentation={"counts": [0, 8000], "size": [80, 100]})
    found = read(folder, odd)
    assert found.boxes == BOXES
    assert found.images[0].crowd.tolist() == [True] + [False] * 49


def test_row_21_a_segmentation_alone_is_skipped(folder):
    odd = document()
    odd["annotations"][0]["segmentation"] = [[1, 2, 3, 4, 5, 6]]
    del odd["annotations"][0]["bbox"]
    assert read(folder, odd).report.counts == {"box: a segmentation alone": 1}


def test_row_22_the_size_of_the_file_wins_over_the_json(folder):
    odd = document()
    odd["images"][0].update(width=120, height=90)
    found = read(folder, odd)
    assert (found.images[0].width, found.images[0].height) == (100, 80)
    assert "the file's are taken (1 x, first: 1.png)" in found.report.warnings[0]


def test_row_22_sides_exchanged_are_an_error(folder):
    broken = document()
    broken["images"][0].update(width=80, height=100)
    with pytest.raises(DataError, match=r"(?s)exchanged.*1\.png"):
        read(folder, broken)


def test_row_23_missing_and_broken_files_are_skipped_up_to_a_share(folder):
    (folder / "1.png").unlink()
    (folder / "2.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)2 of 4.*file is missing: 1\.png.*file is broken: .*2\.png"):
        read(folder, document())
    found = read(folder, document(), max_bad=0.5)
    assert [image.id for image in found.images] == [3, 4]
    assert found.report.counts == {"image: file is missing": 1, "image: file is broken": 1}
    assert found.boxes == BOXES // 2


def test_row_23_an_error_lists_the_first_twenty(folder):
    broken = document()
    broken["images"] += [
        {"id": i, "file_name": f"gone{i}.png", "width": 9, "height": 9} for i in range(100, 130)
    ]
    with pytest.raises(DataError) as caught:
        read(folder, broken)
    assert str(caught.value).count("gone") == 20


def test_row_24_images_without_boxes_are_kept_and_a_set_without_any_is_an_error(folder):
    odd = document()
    odd["annotations"] = [a for a in odd["annotations"] if a["image_id"] != 2]
    found = read(folder, odd)
    assert found.images[1].boxes.shape == (0, 4)
    odd["annotations"] = []
    with pytest.raises(DataError, match="at least one image must have a box"):
        read(folder, odd)


def test_row_25_five_thousand_boxes_in_one_image_warn(folder):
    odd = document()
    odd["annotations"] += [{**odd["annotations"][0], "id": 1000 + i} for i in range(5000)]
    found = read(folder, odd)
    assert len(found.images[0].boxes) == 5050
    assert "more than 300 boxes" in found.report.warnings[0]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_row_26_truncated_json_names_the_byte(folder, share):
    text = json.dumps(document()).replace("cat", "chät").replace("\\u00e4", "ä")
    cut = text.encode()[: int(len(text) * share)]
    with pytest.raises(DataError, match=r"(cut off|malformed).*at byte \d+ of"):
        read(folder, cut)


def test_row_26_malformed_json_names_the_byte_not_the_character(folder):
    with pytest.raises(DataError, match="malformed JSON at byte 13 of"):
        read(folder, '{"ä": "ü", oops}'.encode())


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"])
def test_row_26_a_byte_order_mark_is_an_error(folder, mark):
    with pytest.raises(DataError, match=r"byte 0 .*byte order mark.*Save it as"):
        read(folder, mark + json.dumps(document()).encode())


def test_row_26_bytes_that_are_not_utf8(folder):
    with pytest.raises(DataError, match="byte 2 is not UTF-8"):
        read(folder, b'{"\xff": 1}')


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_row_26_deep_nesting_is_an_error(folder, opening):
    with pytest.raises(DataError, match="byte"):
        read(folder, opening * 100_000)


def test_row_26_a_huge_file_is_refused_before_it_is_read(folder):
    (folder / "big.json").write_text("{}" + " " * 100)
    with pytest.raises(DataError, match="102 bytes, more than 100"):
        load_document(folder / "big.json", max_bytes=100)


def test_row_26_a_key_named_twice_is_an_error(folder):
    text = json.dumps(document())
    with pytest.raises(DataError, match="'images' twice"):
        read(folder, text[:-1] + ', "images": []}')


@pytest.mark.parametrize(
    ("text", "key", "byte"),
    [
        ('{"ä": "\\"a\\": {", "b": [{"c": 1}, {"c": "}"}], "c": 2, "b": 3}', "b", 56),
        ('{"a": {"x": 1,\n "x" : 2}, "a": 3}', "x", 16),
        (r'{"a": 1, "\u0061": 2}', "a", 9),
    ],
)
def test_row_26_the_second_of_two_keys_is_named_by_its_byte(folder, text, key, byte):
    with pytest.raises(DataError, match=f"key '{key}' twice, again at byte {byte}\\."):
        read(folder, text.encode())


def test_row_26_huge_numbers_are_an_error(folder):
    with pytest.raises(DataError):
        read(folder, '{"images": ' + "9" * 10_000 + "}")


@pytest.mark.parametrize("found", ["[]", "3", "{}", '{"images": {}, "annotations": [], "categories": []}'])
def test_other_json_is_an_error(folder, found):
    with pytest.raises(DataError, match="must be a"):
        read(folder, found)


def test_panoptic_annotations_are_an_error(folder):
    broken = document()
    broken["annotations"] = [{"image_id": 1, "segments_info": []}]
    with pytest.raises(DataError, match="panoptic"):
        read(folder, broken)


def test_a_missing_annotation_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_coco(tmp_path / "none.json", image_root=tmp_path)


def test_without_pictures_nothing_is_looked_for(tmp_path):
    (tmp_path / "gt.json").write_text(json.dumps(document()))
    assert len(read_coco(tmp_path / "gt.json", image_root=None)) == 4


def test_any_value_anywhere_is_read_skipped_or_refused(folder):
    """Every field in turn takes every kind of value: no error but DataError comes out."""
    values = [None, True, -1, 0, 1.5, "x", [], [1], {}, {"id": 1}, float("nan"), 1e300, 10**30]
    for section in ("images", "annotations", "categories"):
        for key in (*document()[section][0], None):
            for value in values:
                odd = copy.deepcopy(document())
                if key is None:
                    odd[section][0] = value
                else:
                    odd[section][0][key] = value
                with contextlib.suppress(DataError):
                    assert read(folder, odd, max_bad=1.0).boxes > 0


def test_row_27_the_same_picture_in_two_splits_is_named(folder):
    from detrx.data.check import check

    names = ("train", "val")
    for split in names:
        (folder / f"coco_{split}.json").write_text(json.dumps(document()))
    result = check(folder)
    assert len(result.leaks) == 4
    assert result.leaks[0] == "train: 1.png = val: 1.png"
    assert result.sound
    assert open_dataset(folder, split="val").split == "val"
