"""The files of a report: complete, self-contained, and safe whatever classes and files are called."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rankone.model.bundle import DatasetRecord
from rankone.training.evaluate import Report, compute_report
from rankone.training.report import write_report
from tests.training.report.conftest import Make

CLASSES = ("brick", "coins", "grass")
SPLIT = "train/ and test/ folders"
LABELS, TAKEN = (0, 0, 1, 1, 2, 2), (0, 1, 1, 1, 2, 0)
CHARTS = {"history", "per-class", "confusion", "calibration", "retrieval", "spectrum"}


undrawn = pytest.mark.usefixtures("_undrawn")
"""Where what is drawn does not matter."""


class Page(HTMLParser):
    """What a browser would make of the page: its elements with their attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def pictures(self, element: str = "img", attribute: str = "src") -> list[Image.Image]:
        sources = [attributes[attribute] for tag, attributes in self.elements if tag == element]
        return [Image.open(io.BytesIO(base64.b64decode(str(source).split(",")[1]))) for source in sources]


def links(markdown: str) -> list[str]:
    return re.findall(r"!\[.*?\]\((.*?)\)", markdown)


def test_all_files_and_pictures_are_there_and_the_figures_are_those_of_evaluate(make: Make, tmp_path: Path) -> None:
    findings = make(CLASSES, LABELS, TAKEN)
    report = write_report(findings, tmp_path / "out")
    assert report == compute_report(findings.embeddings, findings.logits, np.array(LABELS), CLASSES)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html",
        "report.md",
        "report.json",
        "model-card.md",
        "report",
    }
    assert Report.model_validate_json((tmp_path / "out/report.json").read_bytes()) == report
    pairs = {f"confused-{place:02d}-{kind}" for place in (1, 2) for kind in ("mistake", "typical")}
    assert {path.stem for path in (tmp_path / "out/report").iterdir()} == CHARTS | pairs
    text = (tmp_path / "out/report.md").read_text()
    assert {f"report/{name}.png" for name in CHARTS | pairs} == set(links(text))
    page = Page(tmp_path / "out/report.html")
    assert len(page.pictures()) == len(CHARTS | pairs)
    assert len(page.pictures("source", "srcset")) == len(CHARTS), "one for dark pages"
    for pictures, paper in ((page.pictures(), 255), (page.pictures("source", "srcset"), 26)):
        assert pictures[0].convert("L").getpixel((0, 0)) == paper
    for said in (text, page.text):
        assert "66.7 %" in said
        assert "phase 2, epoch 2" in said
        assert "eta = 0.5, K = 3" in said
    assert "14,754,692" in (tmp_path / "out/model-card.md").read_text()


@undrawn
def test_the_page_needs_nothing_but_itself(make: Make, tmp_path: Path) -> None:
    write_report(make(CLASSES, LABELS, TAKEN), tmp_path)
    page = Page(tmp_path / "report.html")
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "base"}
    targets = {
        str(value)
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "srcset", "href", "data", "action")
    }
    assert targets
    assert all(target.startswith(("data:image/png;base64,", "#")) for target in targets)
    source = (tmp_path / "report.html").read_text()
    assert not re.search(r"https?:|file:|url\(|@import", source)
    assert "default-src 'none'" in source
    anchors = {f"#{attributes['id']}" for _, attributes in page.elements if "id" in attributes}
    assert {target for target in targets if target.startswith("#")} == anchors
    assert all(attributes["alt"] for tag, attributes in page.elements if tag == "img")


PAGE = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "header",
    "nav",
    "a",
    "main",
    "section",
    "h1",
    "h2",
    "h3",
    "p",
}
PARTS = {"dl", "div", "dt", "dd", "small", "figure", "picture", "source", "img", "details", "summary", "pre"}
TABLE = {"table", "thead", "tbody", "tr", "th", "td"}
HOSTILE = (
    "<script>alert(1)</script>",
    "a | b",
    "two\nlines\r\n\n# title",
    "$x^{2$ \\frac",
    '"><img src=x onerror=alert(1)>',
    "[link](https://example.com) https://example.com www.example.com",
    "![x](y) `code` *bold* ~~no~~ &amp; <b>",
    "右から\u202eleft\u0007",
    "a very long name " * 20,
)


def test_names_are_shown_and_never_obeyed(make: Make, tmp_path: Path) -> None:
    """In both writings and all pictures: as class names, mistaken for each other, and as names of files and of the data."""
    count = len(HOSTILE)
    findings = make(HOSTILE, range(count), [*range(1, count), 0], file_name="<i>|`&{}.png")
    findings = replace(findings, data=replace(findings.data, name="<u>|data", protocol="<s>|protocol"))
    write_report(findings, tmp_path / "out")
    page = Page(tmp_path / "out/report.html")
    assert {tag for tag, _ in page.elements} == PAGE | PARTS | TABLE
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    for name in ("<script>alert(1)</script>", "a | b", "two lines # title", "$x^{2$ \\frac", "<i>|`&0.png", "<u>|data"):
        assert name in page.text
    for file in ("report.md", "model-card.md"):
        text = (tmp_path / "out" / file).read_text()
        bare = re.sub(r"\\.", "", text)
        assert not re.search(r"<[a-z/]|://|www\.", bare)
        assert set(links(bare)) == {
            f"report/{path.name}" for path in (tmp_path / "out/report").iterdir() if file == "report.md"
        }
        for line in bare.splitlines():
            if line.startswith("|"):
                assert line.count("|") in (3, 4, 5, 6)
        assert "\u202e" not in text
        assert "\u0007" not in text
    table = [
        line for line in (tmp_path / "out/report.md").read_text().splitlines() if line.startswith("| \\<script\\>")
    ]
    assert len(table) == 2, "once among the classes, once among the pairs"


@undrawn
def test_one_pair_of_classes_is_confused(make: Make, tmp_path: Path) -> None:
    write_report(make(("a", "b"), (0, 0, 1), (0, 1, 1)), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert re.search(
        r"\| a \| b \| 1 of 2 \| !\[a, mistaken\].* images/1.png \| !\[b, typical\].* images/2.png \|", text
    )
    assert not (tmp_path / "report/confused-02-mistake.png").exists()


@undrawn
def test_nothing_is_confused_and_examples_of_an_earlier_report_are_gone(make: Make, tmp_path: Path) -> None:
    write_report(make(("a", "b"), (0, 0, 1), (0, 1, 1)), tmp_path)
    (tmp_path / "report/mine.png").write_text("not ours")
    write_report(make(("a", "b"), (0, 0, 1), (0, 0, 1)), tmp_path)
    assert "No test image was taken for another class." in (tmp_path / "report.md").read_text()
    assert not list((tmp_path / "report").glob("confused-*"))
    assert (tmp_path / "report/mine.png").exists()
    assert not list(tmp_path.rglob("*.partial"))


@undrawn
def test_a_class_that_others_are_taken_for_may_have_no_test_image(make: Make, tmp_path: Path) -> None:
    write_report(make(("a", "b", "c"), (0, 0, 1), (0, 2, 1)), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert re.search(r"\| a \| c \| 1 of 2 \| .* \| no test image \|", text)
    assert "Without test images, and so not measured: c." in text


@undrawn
def test_without_a_classifier_there_is_retrieval_alone(make: Make, tmp_path: Path) -> None:
    report = write_report(make(CLASSES, LABELS, None), tmp_path)
    assert report.top1 is None
    text = (tmp_path / "report.md").read_text()
    titles = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert titles == ["Figures", "Training", "Retrieval", "Spectrum", "Model card"]
    assert "none: it only embeds" in text
    assert {path.stem for path in (tmp_path / "report").iterdir()} == {"history", "retrieval", "spectrum"}
    assert "accuracy" not in text.replace("Accuracy", "")


@undrawn
def test_what_is_not_known_is_not_told(make: Make, tmp_path: Path) -> None:
    write_report(make(CLASSES, LABELS, TAKEN, changes={"training": None}, spectrum=None), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "Nothing is recorded of the epochs" in text
    assert "Which images selected the epoch is not recorded" in text
    assert "Spectrum" not in text


@undrawn
def test_many_classes_are_shown_by_their_worst_and_all_together(make: Make, tmp_path: Path) -> None:
    classes = tuple(f"class {i}" for i in range(60))
    write_report(make(classes, range(60), [*range(30), *[0] * 30]), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert len(re.findall(r"^\| class \d+ \| 1 \| ", text, re.MULTILINE)) == 20


@undrawn
def test_alone_images_are_told(make: Make, tmp_path: Path) -> None:
    write_report(make(CLASSES, (0, 0, 1), (0, 0, 1)), tmp_path)
    assert "only ones of their class find nothing, and count as misses: 1." in (tmp_path / "report.md").read_text()


@undrawn
@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        (
            {},
            "selected by 9 images held out. The test images selected nothing; they were measured once, at the end.",
            "flatter",
        ),
        ({"recipe": {"protocol": "paper"}}, "These figures flatter the network.", "measured once"),
        (
            {"dataset": DatasetRecord(name="more", num_train=1, num_test=1, split=SPLIT)},
            "The network was trained on more (train/ and test/ folders). These images are of few",
            "measured once",
        ),
        (
            {"dataset": DatasetRecord(name="few", num_train=1, num_test=1, split="partition 3")},
            "it is not known here whether some of them were among its training images",
            "measured once",
        ),
    ],
)
def test_the_report_says_which_images_selected(
    make: Make, tmp_path: Path, changes: dict[str, object], said: str, unsaid: str
) -> None:
    write_report(make(CLASSES, LABELS, TAKEN, changes=changes), tmp_path)
    for file in ("report.md", "model-card.md"):
        text = (tmp_path / file).read_text()
        assert said in text
        assert unsaid not in text
    assert said in Page(tmp_path / "report.html").text
