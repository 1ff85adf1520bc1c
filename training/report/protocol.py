"""Which images steered the training, and so how far the figures of the test images can be trusted."""

from __future__ import annotations

from rankone.training.report.blocks import Text
from rankone.training.report.findings import Findings


def steering(findings: Findings) -> Text:
    """One paragraph; a warning where the test images steered, or may have been trained on."""
    record, trained_on, data = findings.training, findings.facts.trained_on, findings.data
    if trained_on is not None and (trained_on.name, trained_on.split) != (data.name, data.protocol):
        return Text(
            f"The network was trained on {trained_on.name} ({trained_on.split}). These images are of {data.name} "
            f"({data.protocol}): whether some of them were among those it was trained on is not known here.",
            "warning",
        )
    if findings.flattered:
        return Text(
            "These figures flatter the network. The test images themselves steered: the learning rate and the choice of "
            "epoch followed their error, as is common practice, so the figures are the best of many looks at the same "
            "images. Expect lower ones on new images.",
            "warning",
        )
    if record is None:
        return Text("Which images steered the training is not recorded with this network.", "note")
    return Text(
        f"What steered the training: {record.steered_by.rstrip('.')}. The test images steered nothing; they were looked at "
        "once, at the end.",
        "note",
    )
