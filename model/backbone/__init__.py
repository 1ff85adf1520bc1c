"""Backbones: images -> local features, one row a location.

base      what all of them are: layers, and a 1 x 1 convolution behind those that have many channels
table     those of torchvision, by name
from_timm those of the library timm, `timm/NAME`
build     a backbone with its weights
facts     what a backbone costs and gives
"""

from __future__ import annotations

from rankone.model.backbone.base import Backbone, WeightsError
from rankone.model.backbone.build import REDUCED, build_backbone, colors_of
from rankone.model.backbone.facts import Facts, facts_of, milliseconds
from rankone.model.backbone.table import BACKBONES

__all__ = [
    "BACKBONES",
    "REDUCED",
    "Backbone",
    "Facts",
    "WeightsError",
    "build_backbone",
    "colors_of",
    "facts_of",
    "milliseconds",
]
