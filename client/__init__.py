"""The service from Python: files, bytes or vectors in, arrays and typed results out.

`AsyncClient` is written by hand; the blocking `Client` is generated from it.
"""

from rankone.client.asynchronous import AsyncClient
from rankone.client.batches import Answer, OnRejection, Rejection
from rankone.client.connection import DEFAULT_URL, Retries
from rankone.client.errors import Fault, ServiceError
from rankone.client.inputs import Image, NewItem, SearchOptions
from rankone.client.results import Explanation, IndexDescription, Item, Model, Neighbour, Prediction
from rankone.client.sync import Client

__all__ = [
    "DEFAULT_URL",
    "Answer",
    "AsyncClient",
    "Client",
    "Explanation",
    "Fault",
    "Image",
    "IndexDescription",
    "Item",
    "Model",
    "Neighbour",
    "NewItem",
    "OnRejection",
    "Prediction",
    "Rejection",
    "Retries",
    "SearchOptions",
    "ServiceError",
]
