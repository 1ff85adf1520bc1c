"""Where the benchmarks are published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Source:
    """A file of a data set: where it is published, and its md5 where that is published too."""

    url: str
    md5: str | None = None

    @property
    def name(self) -> str:
        """Of the file."""
        return self.url.rpartition("/")[2]

    @property
    def is_archive(self) -> bool:
        """Whether it is to be unpacked."""
        return self.name.endswith((".tar", ".tgz", ".tar.gz"))


SOURCES: Final[dict[str, tuple[Source, ...]]] = {
    "cub": (
        Source(
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz", "97eceeb196236b17998738112f37df78"
        ),
    ),
    "aircraft": (
        Source(
            "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
            "d4acdd33327262359767eeaa97a4f732",
        ),
    ),
    "mit67": (
        Source("http://groups.csail.mit.edu/vision/LabelMe/NewImages/indoorCVPR_09.tar"),
        Source("http://web.mit.edu/torralba/www/TrainImages.txt"),
        Source("http://web.mit.edu/torralba/www/TestImages.txt"),
    ),
    "dtd": (
        Source(
            "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz", "fff73e5086ae6bdbea199a49dfb8a4c1"
        ),
    ),
}
"""The checksums are those that the publishers state, or else those that many loaders agree on; of MIT's files there is none."""
