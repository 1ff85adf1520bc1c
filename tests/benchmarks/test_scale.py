"""docs/results/scale.md: its tables are what `rankone bench scale` prints, and every input stands in the page that it names."""

from __future__ import annotations

import pytest

from benchmarks import scale
from tests.pages import ROOT

PAGE = (ROOT / "docs" / "results" / "scale.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def text_of(page: str) -> str:
    return " ".join((ROOT / "docs" / "results" / page).read_text(encoding="utf-8").split())


@pytest.mark.parametrize("name", scale.tables())
def test_the_page_has_the_table(name: str) -> None:
    assert scale.tables()[name] in PAGE


@pytest.mark.parametrize("name", scale.INPUTS)
def test_an_input_stands_in_its_page(name: str) -> None:
    given = scale.INPUTS[name]
    assert given.words in text_of(given.page)
    assert f"]({given.page}" in PAGE


NUMBERS = {
    "gpu": 1720,
    "service": 451,
    "cpu": 1.35,
    "large": 64e-3,
    "jpeg": 1.1e6,
    "full_file": 20_573,
    "full_memory": 40_000,
    "bit_memory": 1_260,
    "short_file": 380,
    "short_memory": 0.66e9 / 1e6,
    "full_query": 48.9e-3 / 20_000,
    "bit_query": 9.5e-3,
    "bit_scan": 1.2e-3 / 50_000,
    "short_query": 20.6e-3 / 1e6,
    "gpu_query": 1.86e-3 / (64 * 200_000),
    "bit_adds": 4_863,
    "bit_start": 2.9 / 50_000,
    "short_start": 9.7 / 1e6,
    "graph_disk": 24_025 - 20_627,
    "graph_adds": 1_219,
    "graph_query": 19.5e-3,
    "short_graph_disk": 1_115,
    "short_graph_adds": 1_843,
    "short_graph_query": 1.6e-3,
    "published_disk": 21_356,
    "published_adds": 312,
    "short_published_disk": 373,
    "short_published_adds": 604,
}
"""As read in the pages by hand, in the units of the inputs."""


def test_the_inputs_are_those_numbers() -> None:
    assert {name: given.value for name, given in scale.INPUTS.items()} == pytest.approx(NUMBERS)


def test_nothing_is_from_a_trial() -> None:
    """Figures from before there was a page about them are gone, and nothing on this page is called one."""
    assert "trial" not in PAGE


def test_a_graph_grows_with_the_logarithm_of_the_items() -> None:
    """1e6 / 1843 s of adds at 20,000 items, and each 1.395 times as much work; 1.12 TB do not fit into 256 GB."""
    rows = {row.split(" | ")[0]: row for row in scale.postgres().splitlines()}
    assert rows["| 128 numbers: filling"].split(" | ")[1:] == ["13 min", "2.5 h", "28 h", "– |"]
    assert rows["| 10,000 numbers: queries/s, one at a time"].split(" | ")[1] == "37"  # 1 / (19.5 ms * 1.395)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (scale.duration(581.4), "9.7 min"),
        (scale.duration(10**9 / 1720), "6.7 days"),
        (scale.duration(10**9 / 1.35), "23 years"),
        (scale.duration(71.5 * 3600), "72 h"),
        (scale.duration(59.6), "60 s"),
        (scale.size(20_573 * 10**9), "21 TB"),
        (scale.size(1.1e15), "1.1 PB"),
        (scale.size(380e6), "380 MB"),
        (scale.significant(0.0249), "0.025"),
        (scale.significant(99.9), "100"),
        (scale.significant(6881.7), "6,880"),
        (scale.whole(411.1), "412"),
    ],
)
def test_numbers_are_written_with_what_counts(found: str, expected: str) -> None:
    assert found == expected


def test_a_few_figures_by_hand() -> None:
    """One H100 embeds 10^9 images in 1e9 / 1720 / 86400 days; ten times the images fill ten times the disk."""
    rows = {row.split(" | ")[0]: row for row in (scale.embed() + scale.room() + scale.files()).splitlines()}
    assert rows["| one H100, for the network"].endswith("| 6.7 days |")
    assert rows["| 128 numbers, disk (380 B)"] == "| 128 numbers, disk (380 B) | 380 MB | 3.8 GB | 38 GB | 380 GB |"
    assert rows["| `exact`, 128: queries/s"].split(" | ")[1] == "49"  # 1 / 20.6 ms
    assert rows["| `exact`, 10,000: queries/s"] == "| `exact`, 10,000: queries/s | 0.41 | – | – | – |"


def test_the_figures_outside_the_tables_are_computed_too() -> None:
    value = {name: given.value for name, given in scale.INPUTS.items()}
    services = f"one H100 with 16 cores, or {scale.whole(scale.QUERIES_PER_S / value['cpu'])} services on two cores"
    assert services in PAGE
    assert services in GUIDE
    assert value["service"] > scale.QUERIES_PER_S
    small = 16 * value["gpu"] / value["service"]
    assert f"{small:.0f} cores for small JPEGs, or {value['gpu'] * value['large']:.0f} for" in PAGE


def test_the_guide_has_the_bytes_and_times_of_the_tables() -> None:
    item = {name: f"{given.value:,.0f}" for name, given in scale.INPUTS.items()}
    full = f"{item['full_file']} | {item['full_memory']} | {item['bit_memory']} | {item['graph_disk']} more"
    assert f"| 10,000 numbers | {full} |" in GUIDE
    assert f"| 128 numbers | {item['short_file']} | {item['short_memory']} | | {item['short_graph_disk']} with" in GUIDE
    rows = {row.split(" | ")[0]: row.split(" | ") for row in scale.embed().splitlines()}
    hours, cores = rows["| one H100, for the network"][3], rows["| cores to decode JPEGs of 12 megapixels in a day"][3]
    assert f"an H100 {hours}ours for the network and {cores} cores a day" in GUIDE


def test_the_guide_stays_short() -> None:
    assert len(GUIDE.split()) <= 420
