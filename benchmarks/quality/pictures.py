"""Two data sets of 40 classes, 8 images of 128 x 128 pixels in each to train on and 8 to test; the same every time.

`textures`: photographs of surfaces, 512 x 512, cut into 4 x 4 tiles; the black fields of a chequerboard are for training, the
white ones for testing. `objects`: photographs of animals, cut out, turned, scaled and set in front of surfaces; those of the
test images are behind no training image.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from PIL import Image, ImageEnhance
from rich.progress import track

from benchmarks.quality.sources import HOME, stamp_files, texture_files
from rankone.training.data import DataSet, load_folder

SIDE: Final = 128
COUNT: Final = 8
"""Images of a class in each split."""

TEXTURES: Final = (
    *("base/helipad.png", "buildings/carpet003.png", "buildings/carpet018.png", "buildings/concrete007.png"),
    *("buildings/concrete_slabs01.png", "buildings/floor016.png", "buildings/floor039.png", "buildings/metal01.png"),
    *("buildings/roof007.png", "buildings/tin_floor04ach.jpg", "buildings/wall044.png", "buildings/wall_ind01_pil.png"),
    *("ctp1/bricks_m_1.jpg", "ctp1/bricks_t_5.jpg", "ctp1/concrete_g_5.jpg", "ctp1/dirt_01.jpg", "ctp1/glass_b_1.jpg"),
    *("ctp1/ground_b_1.jpg", "ctp1/hedge02.jpg", "ctp1/rocks_w_1.jpg", "ctp1/sand_s_1.jpg", "ctp1/tiles_w_1.jpg"),
    *(
        "ctp1/wood_b_4.jpg",
        "furniture/couch_e.png",
        "material/metall023.png",
        "mattn/dirt002.jpg",
        "mattn/floor009.jpg",
    ),
    *("mattn/grass003.jpg", "mattn/rock005.png", "mattn/wall047.jpg", "mattn/wall078.jpg", "mattn/wall_bricks005.jpg"),
    *("mattn/wood016.jpg", "misc/straw.png", "nature/desert004.png", "nature/dirt003.png"),
    *("nature/grass_mowed_green_a.jpg", "nature/grass_tall_dry_c.jpg", "nature/jungle002.png", "nature/railway.png"),
)
"""Every fifth, by name, of the pictures that look alike all over: the means of their tiles differ by less than 8 of 255, and
every tile has a standard deviation of more than 12."""

ANIMALS: Final = (
    *("birds/albino_peahen", "birds/blackbird", "birds/chicken_profile", "birds/crow", "birds/crowned_crane"),
    *("birds/drake", "birds/duck", "birds/helmeted_guineafowl", "birds/heron_greatblue", "birds/lark"),
    *("birds/magellanic_penguin", "birds/nandou", "birds/ostrich", "birds/owl", "birds/peacock", "birds/pelican"),
    *("birds/pigeon", "birds/pink_flamingo", "birds/rooster", "birds/turkey", "mammals/bovines/bison"),
    *("mammals/bovines/bull", "mammals/bovines/cow", "mammals/bovines/gnu-stand", "mammals/bovines/goat"),
    *("mammals/bovines/ram", "mammals/bovines/sheep", "mammals/bovines/yak", "mammals/bovines/zebu"),
    *("mammals/camel/camel", "mammals/deer/caribou", "mammals/deer/wapiti", "mammals/dogs/fox"),
    *("mammals/equines/donkey", "mammals/equines/horse", "mammals/ferret", "mammals/rodents/beaver"),
    *("mammals/rodents/capybara", "mammals/rodents/marmot", "mammals/wildboar"),
)
_SPLITS: Final = ("train", "test")
_TILES: Final = 4


def textures(home: Path = HOME) -> DataSet:
    """40 surfaces, cut where they are not there yet."""
    return _made(home / "textures", lambda: _write_textures(home))


def objects(home: Path = HOME) -> DataSet:
    """40 animals in front of surfaces, composed where they are not there yet."""
    return _made(home / "objects", lambda: _write_objects(home))


def _made(folder: Path, images: Callable[[], Iterator[tuple[str, Image.Image]]]) -> DataSet:
    if not folder.exists():
        stage = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(stage, ignore_errors=True)
        for name, image in images():
            path = stage / name
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
        stage.rename(folder)
    return load_folder(folder)


def _write_textures(home: Path) -> Iterator[tuple[str, Image.Image]]:
    for name in track(TEXTURES, description="cutting textures"):
        surface = _surface(texture_files(home) / f"tex_{name}")
        label = Path(name).with_suffix("").as_posix().replace("/", "-")
        for row in range(_TILES):
            for column in range(_TILES):
                left, top = column * SIDE, row * SIDE
                split = _SPLITS[(row + column) % 2]
                yield f"{split}/{label}/{row}{column}.png", surface.crop((left, top, left + SIDE, top + SIDE))


def _write_objects(home: Path) -> Iterator[tuple[str, Image.Image]]:
    for name in track(ANIMALS, description="composing objects"):
        animal = _trimmed(Image.open(stamp_files(home) / "animals" / f"{name}.png").convert("RGBA"))
        for half, split in enumerate(_SPLITS):
            draw = random.Random(f"{name} {split}")  # noqa: S311 - pictures, not secrets
            surfaces = [texture_files(home) / f"tex_{texture}" for texture in TEXTURES[half::2]]
            for number in range(COUNT):
                yield (
                    f"{split}/{Path(name).name}/{number}.png",
                    _composed(animal, _surface(draw.choice(surfaces)), draw),
                )


def _composed(animal: Image.Image, surface: Image.Image, draw: random.Random) -> Image.Image:
    """The animal, turned by up to 10 degrees, 96 to 128 pixels long, lighter or darker, somewhere on the surface."""
    left, top = (draw.randrange(surface.width - 2 * SIDE + 1) for _ in range(2))
    scene = surface.crop((left, top, left + 2 * SIDE, top + 2 * SIDE)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    turned = _trimmed(animal.rotate(draw.uniform(-10, 10), Image.Resampling.BICUBIC, expand=True))
    scale = SIDE * draw.uniform(0.75, 1.0) / max(turned.size)
    turned = turned.resize(
        (max(1, round(turned.width * scale)), max(1, round(turned.height * scale))), Image.Resampling.LANCZOS
    )
    lit = ImageEnhance.Brightness(turned.convert("RGB")).enhance(draw.uniform(0.8, 1.2))
    place = draw.randrange(SIDE + 1 - turned.width), draw.randrange(SIDE + 1 - turned.height)
    scene.paste(lit, place, turned.getchannel("A"))
    return scene


def _surface(path: Path) -> Image.Image:
    """The largest square at the top left, 512 x 512, RGB."""
    image = Image.open(path).convert("RGBA").convert("RGB")
    side = min(image.size)
    return image.crop((0, 0, side, side)).resize((_TILES * SIDE, _TILES * SIDE), Image.Resampling.LANCZOS)


def _trimmed(image: Image.Image) -> Image.Image:
    """Without the transparent border."""
    return image.crop(image.getchannel("A").getbbox())
