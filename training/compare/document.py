"""A comparison as a document: what to take, the table, the picture, the recipe, and how it was measured."""

from __future__ import annotations

from rankone.training.compare.measure import Figure
from rankone.training.compare.picture import SCORES, quality
from rankone.training.compare.ranking import Comparison, Place
from rankone.training.report.document import Block, Code, Document, Section, Table, Text
from rankone.training.report.document import percent as share

_HEAD = ("", "backbone", "pooling", "score", "accuracy", "recall@1, whole", "bytes", "recall@1, short", "bytes", "ms")


def document_of(comparison: Comparison, recipe: str | None) -> Document:
    """The document; `recipe` is the recommended one as YAML, if there is one."""
    notes: list[Block] = [Text(note, "warning") for note in comparison.notes]
    first = Section("Recommendation", [*notes, Text(advice(comparison))])
    table = Section("Ranking", [Text(_reading(comparison), "note"), _table(comparison), quality(comparison)])
    about = Section("How it was measured", [Text(words) for words in _method(comparison)])
    given = [] if recipe is None else [Section("Recipe", [Code("recipe.yaml", recipe)])]
    images = f"{comparison.num_train:,} images to fit to, {comparison.num_test:,} to test with"
    subtitle = f"{images}, {comparison.num_classes:,} classes, {comparison.size} x {comparison.size}"
    return Document(f"Poolings compared on {comparison.data}", subtitle, [first, table, *given, about])


def advice(comparison: Comparison) -> str:
    """Which row to take and why, in some sentences."""
    if comparison.recommended is None:
        return "Nothing that was compared can be exported; compare others too."
    chosen, best = comparison.places[comparison.recommended], comparison.places[0]
    tied = sum(place.is_as_good for place in comparison.places)
    where = f"{chosen.row.title}: {_score(chosen)}, {chosen.row.bytes:,} bytes a vector"
    if chosen is best and tied == 1:
        return f"Take {where}. It is better than every other."
    if chosen is best:
        return (
            f"Take {where}. It has the best score. {_others(tied - 1)} as good within the error; of all that can be exported, "
            "it also has the shortest vector."
        )
    if not chosen.is_as_good:
        return f"Take {where}. What is better cannot be exported."
    return (
        f"Take {where}. The best score is that of {best.row.title}: {_score(best)}. {_others(tied - 1)} as good within the "
        "error; of those that can be exported, this one has the shortest vector."
    )


def _others(count: int) -> str:
    return "One other row is" if count == 1 else f"{count} other rows are"


def _table(comparison: Comparison) -> Table:
    rows = []
    for number, place in enumerate(comparison.places):
        row = place.row
        mark = "*" if number == comparison.recommended else "=" if place.is_as_good else ""
        short, size = ("", "") if row.short is None else (percent(row.short), f"{row.short_bytes:,}")
        name = row.pooling + ("" if row.exportable else " (no export)")
        figures = (_score(place), percent(row.accuracy), percent(row.full), f"{row.bytes:,}", short, size)
        times = f"{row.backbone_ms:.0f} + {row.pooling_ms:.2f}"
        rows.append((f"{number + 1}{mark}", row.backbone, name, *figures, times))
    return Table(_HEAD, "rllrrrrrrr", rows)


def percent(figure: Figure) -> str:
    """A mean with its interval."""
    return share(figure.mean, (figure.low, figure.high))


def _score(place: Place) -> str:
    return share(place.score, (place.low, place.high))


def _reading(comparison: Comparison) -> str:
    return (
        f"Ranked by the {SCORES[comparison.by]}. * is recommended; = cannot be told from the best on these images: the 95 % "
        "interval of the difference, image by image, holds 0. In brackets, 95 % intervals over the test images."
    )


def _method(comparison: Comparison) -> list[str]:
    rows = [place.row for place in comparison.places]
    lengths = sorted({row.short_dim for row in rows if row.short_dim is not None})
    disjoint = (
        "Recall@1: test images of each half of the classes are queries against each other, by cosine; the map to short "
        "embeddings was learned from training images of the other half."
        if all(row.is_disjoint for row in rows)
        else "Recall@1: test images are queries against each other, by cosine."
    )
    numbers = " or ".join(map(str, lengths))
    return [
        "Nothing was trained: the backbone is as its weights are, and fine-tuning changes the figures.",
        "Accuracy: a linear classifier on the embeddings of the training images, solved by L-BFGS until it converged; the "
        "penalty is the one that makes the fewest errors on images that were not fitted.",
        disjoint
        + (f" Short embeddings have {numbers} numbers." if lengths else " There were too few images for short ones."),
        "Bytes: two for each number, as an index stores it. Milliseconds: the backbone on one image, plus the pooling in a "
        f"batch of 16; {comparison.machine}.",
    ]
