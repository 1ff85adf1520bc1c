from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rankone.model.preprocessing import Preprocessing
from rankone.training.data import DataError, Split, load
from rankone.training.data.batches import batches
from rankone.training.data.benchmarks import BANNER, read_aircraft
from rankone.training.data.picture import pixels
from tests.training.data.trees import VARIANTS, aircraft, image


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_variants_hold_spaces_and_slashes(tmp_path: Path, end: str) -> None:
    data = read_aircraft(aircraft(tmp_path, end))
    assert data.classes == VARIANTS, "in the order of variants.txt"
    assert data.test.labels == (0, 1, 2, 3, 0, 1, 2, 3)
    assert data.test.paths[1] == tmp_path / "data" / "images" / "0034510.jpg"
    assert all(path.is_file() for split in data.splits.values() for path in split.paths)


def test_training_images_alone_or_with_those_for_validation(tmp_path: Path) -> None:
    root = str(aircraft(tmp_path))
    apart, joined = load(root, {"train": "train"}), load(root)
    assert {name: len(split) for name, split in apart.splits.items()} == {"train": 8, "validation": 8, "test": 8}
    assert {name: len(split) for name, split in joined.splits.items()} == {"train": 16, "test": 8}
    assert apart.validation is not None
    assert set(joined.train.paths) == {*apart.train.paths, *apart.validation.paths}
    assert apart.protocol != joined.protocol


@pytest.mark.parametrize("inner", ["fgvc-aircraft-2013b", "."])
def test_every_level_of_the_archive_is_found(tmp_path: Path, inner: str) -> None:
    expected = read_aircraft(aircraft(tmp_path / inner))
    assert read_aircraft(tmp_path) == read_aircraft(tmp_path / inner / "data") == load(str(tmp_path)) == expected


def test_the_banner_is_cut_off_before_anything_else(tmp_path: Path) -> None:
    """Red with a blue banner: of the blue nothing is left, and the red is as in a photograph without a banner."""
    data = read_aircraft(aircraft(tmp_path), banner="cut")
    path, spec = data.train.paths[0], Preprocessing(size=16)
    photograph = Image.new("RGB", (64, 40), "red")
    for row in range(40):
        photograph.paste((255, 6 * row, 0), (0, row, 64, row + 1))
    framed = Image.new("RGB", (64, 40 + BANNER), "blue")
    framed.paste(photograph, (0, 0))
    framed.save(path, "PNG")
    photograph.save(tmp_path / "without.png")

    expected = pixels(tmp_path / "without.png", spec)
    assert np.array_equal(pixels(path, spec, data.train.banner), expected)
    assert np.array_equal(next(batches(data.train, spec, [[0]])).numpy()[0], expected)
    kept = read_aircraft(tmp_path, banner="keep")
    assert not np.array_equal(pixels(path, spec, kept.train.banner), expected)
    assert kept.train.fingerprint != data.train.fingerprint


def test_every_split_knows_of_the_banner(tmp_path: Path) -> None:
    cut = read_aircraft(aircraft(tmp_path), banner="cut", train="train")
    assert {split.banner for split in cut.splits.values()} == {20}
    assert read_aircraft(tmp_path, banner="cut").train.at([0]).banner == 20
    assert {split.banner for split in read_aircraft(tmp_path).splits.values()} == {0}


def test_an_image_that_is_all_banner_is_refused(tmp_path: Path) -> None:
    path = image(tmp_path / "low.jpg", size=(30, 20))
    with pytest.raises(DataError, match="low.jpg: 20 rows of pixels, of which 20 are to be cut off as its banner"):
        pixels(path, Preprocessing(size=16), BANNER)


@pytest.mark.parametrize("use", ["train", "val", "test"])
def test_a_list_that_is_missing_is_named(tmp_path: Path, use: str) -> None:
    (aircraft(tmp_path) / "data" / f"images_variant_{use}.txt").unlink()
    with pytest.raises(DataError, match=f"images_variant_{use}.txt cannot be read: No such file"):
        read_aircraft(tmp_path)


def test_a_variant_that_there_is_not_is_named(tmp_path: Path) -> None:
    aircraft(tmp_path)
    (tmp_path / "data" / "variants.txt").write_text("F/A-18\n707-320\nF-16A/B\n")
    with pytest.raises(DataError, match="images_variant_train.txt: there is no class 'Model B200'"):
        read_aircraft(tmp_path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"train": "trainval"}, "options of aircraft: train: Input should be 'train' or 'train\\+val'"),
        ({"banner": 20}, "options of aircraft: banner: Input should be 'keep' or 'cut'"),
        ({"partition": 3}, "options of aircraft: partition: Unexpected keyword argument"),
        ({"root": "x"}, "options of aircraft: root"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        load(str(aircraft(tmp_path)), options)


def test_splits_with_other_banners_are_not_joined() -> None:
    with pytest.raises(AssertionError):
        Split((), (), banner=20) + Split((), ())
