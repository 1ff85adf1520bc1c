"""The service from Python: files, bytes or vectors in, arrays and typed results out.

`Client` and `AsyncClient` only send and wait. All they know lies in parts without input or output, the same for both:
`routes` -> `bulk` and `batches` (many inputs as several requests) -> `exchange` (what is sent, and when again).
"""

from rankone.client.asynchronous import AsyncClient
from rankone.client.bulk import Image
from rankone.client.connection import DEFAULT_URL
from rankone.client.errors import Fault, ServiceError
from rankone.client.exchange import OnRejection
from rankone.client.results import Answer, IndexDescription, Item, Model, Neighbour, NewItem, Prediction, Rejection
from rankone.client.retries import Retries
from rankone.client.routes import SearchOptions
from rankone.client.sync import Client

__all__ = [
    "DEFAULT_URL",
    "Answer",
    "AsyncClient",
    "Client",
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
