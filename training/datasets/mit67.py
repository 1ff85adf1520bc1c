"""MIT Indoor-67: 67 scenes, 5,360 images to train on and 1,340 to test with.

As distributed: an archive of all 15,620 images, and apart from it `TrainImages.txt` and `TestImages.txt`, a line an image,
`<class>/<file>`. The images lie in `Images/` or in `indoorCVPR_09/Images/`; the lists beside that folder or above it. File
names hold spaces, and the last line does not end. A class has 77 to 83 images to train on and 17 to 23 to test with, not
always 80 and 20. Some images are gray, some are in CMYK, and some that end in .jpg are another format inside. No validation
split.

Source: Quattoni and Torralba, Recognizing Indoor Scenes, 2009.
"""

from __future__ import annotations

from pathlib import Path

from rankone.training.datasets.dataset import DataSet, Split
from rankone.training.datasets.lists import by_class, index_of, inside


def read_mit67(root: Path) -> DataSet:
    """The data set in `root`. Its classes are those of `TrainImages.txt`, in alphabetical order.

    Raises:
        DataError: a list or the folder of images is missing, a line is no image, or a class is only in the test list.
    """
    lists = inside(root, "TrainImages.txt", "indoorCVPR_09")
    images = inside(root, "Images", "indoorCVPR_09") / "Images"
    train, test = (by_class(lists / name) for name in ("TrainImages.txt", "TestImages.txt"))
    classes = sorted({name for name, _ in train})
    index = {name: i for i, name in enumerate(classes)}

    def split(entries: list[tuple[str, str]], source: str) -> Split:
        return Split(
            paths=tuple(images / name / file for name, file in entries),
            labels=tuple(index_of(name, index, lists / source) for name, _ in entries),
        )

    return DataSet(
        name="mit67",
        classes=tuple(classes),
        train=split(train, "TrainImages.txt"),
        test=split(test, "TestImages.txt"),
        protocol="TrainImages.txt and TestImages.txt",
    )
