"""The service from Python: files, bytes or vectors in, arrays and typed results out.

`Client` and `AsyncClient` only send and wait. All they know lies in parts without input or output, the same for both:
`routes` -> `bulk` and `batches` (many inputs as several requests) -> `exchange` (what is sent, and when again).
"""

from service.client.asynchronous import AsyncClient
from service.client.bulk import Image
from service.client.connection import DEFAULT_URL
from service.client.errors import Fault, ServiceError
from service.client.exchange import OnRejection
from service.client.results import Answer, IndexDescription, Item, Model, Neighbour, NewItem, Prediction, Rejection
from service.client.retries import Retries
from service.client.routes import SearchOptions
from service.client.sync import Client

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
