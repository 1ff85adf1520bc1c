"""Everything that can be set of the service: from the environment (`RANKONE_…`) or as flags of `rankone serve`."""

from __future__ import annotations

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from rankone.model.engine.base import Device, EngineName, Precision
from rankone.model.preprocessing import ImageLimits
from rankone.service.environment import PREFIX, Environment
from rankone.service.inference.policy import BatchPolicy
from rankone.service.observe.logs import LogFormat

ROOT_PATH: Final = r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*"
"""A path under which a proxy offers the service."""


def _split(value: Any) -> Any:
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        parts = urlsplit(origin)
        is_default = parts.port == {"http": 80, "https": 443}.get(parts.scheme, -1)
        if not parts.hostname or f"{parts.scheme}://{parts.netloc}".lower() != origin or "@" in origin or is_default:
            raise ValueError(f"{origin!r} is not what browsers send in Origin, such as https://app.example.org")
    return origins


def without_password(place: str) -> str:
    """The setting `index` as it may be shown."""
    return re.sub(r"(password=)[^&]*", r"\1***", re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", place))


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""In the environment, names with commas or spaces between them."""


class Settings(BaseSettings):
    """The settings of one service. A setting that cannot be honoured stops the start."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,  # what compose passes on of a variable that nobody has set
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
    )

    bundle: Path = Path("bundle")
    """Directory of the bundle to serve."""
    bundles: Path | None = None
    """Directory of several bundles, instead of `bundle`: serves the newest; others can be loaded while the service runs."""
    data: Path = Path("indexes")
    """Directory of the indexes, created if it is missing."""
    index: str = Field(default="local", pattern="^(local|postgres(ql)?://.+|lance:.+)$", repr=False)
    """Where the indexes are: `local` for the directory, postgresql://user@host/database for one that many services share, or
    lance:FOLDER or lance:s3://bucket/path for published versions that are only read."""
    engine: EngineName | Literal["auto"] = "auto"
    """What runs the network; `auto` is the fastest of onnx and openvino, by a trial of two seconds, and onnx on a GPU."""
    precision: Precision | Literal["auto"] | None = None
    """Precision of the backbone; the head is float32. The service does not start if engine or device lack it, or if it changes
    embeddings too much. `auto` is float16 on a GPU and bfloat16 by openvino on a CPU with units for it, unless it changes
    embeddings too much; otherwise float32. `int8` runs on a CPU, for bundles that `rankone quantize` has made. If not set: auto
    where the engine `auto` tries several, otherwise float32."""
    cuda_graphs: bool = False
    """On a GPU, record every batch size once and replay it."""
    tensorrt_cache: Path | None = None
    """On a GPU, run the backbone of the onnx engine with TensorRT, and keep the compiled network in this directory."""
    device: Device = "cpu"
    """Where the network runs; the service does not start if the device is not available."""
    threads: PositiveInt = Field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """CPU threads of the engine and of searches."""
    workers: PositiveInt = Field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Processes that decode images."""
    host: str = "127.0.0.1"
    """Address to listen on; any other than this machine's own needs keys, or allow_anonymous."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    keys: Path | None = None
    """File of keys, made by `rankone keys add`. Requests then need a key, except /healthz, /readyz and the documentation."""
    allow_anonymous: bool = False
    """Let anybody who can reach the address embed, search, add and delete."""
    own_keys: Path | None = None
    """Folder in which the service keeps keys, if neither keys nor allow_anonymous is set; the first start makes one."""
    allowed_hosts: Names = ()
    """Names in Host that a service without keys also answers, besides this machine's names and the address; * for all."""
    cors_origins: Annotated[Names, AfterValidator(_check_origins)] = ()
    """Origins, such as https://app.example.org, whose pages may use the service."""
    max_batch: PositiveInt | None = None
    """Most images in one run of the engine; if not set, 16 on a GPU and 4 on a CPU."""
    batch_window_ms: float = Field(default=0.0, ge=0, le=100)
    """How long a free engine waits for more images after the first."""
    max_queue: PositiveInt = 256
    """Most images in progress at once, over all requests; more get 429."""
    request_timeout_s: float = Field(default=60.0, gt=0)
    """Time from a request's headers to its answer, unless its X-Request-Timeout says otherwise."""
    max_request_timeout_s: float = Field(default=600.0, gt=0)
    """The longest X-Request-Timeout."""
    receive_timeout_s: float = Field(default=30.0, gt=0)
    """Time for the body of a request to arrive (408 after that), and for the next request on an idle connection."""
    drain_s: float = Field(default=1.0, ge=0)
    """Time after SIGTERM in which connections are still accepted, for load balancers to stop sending requests."""
    grace_s: PositiveInt = 30
    """Time after that for running requests to be answered."""
    load_timeout_s: float = Field(default=900.0, gt=0)
    """Time for a bundle to be verified, loaded and warmed, at the start and later."""
    decode_timeout_s: float = Field(default=3.0, gt=0)
    """Processor time to decode one image; by the clock it may take ten times as long."""
    decode_memory_bytes: PositiveInt = 1_000_000_000
    """Memory that decoding one image may take."""
    root_path: str = Field(default="", pattern=f"^{ROOT_PATH}$")
    """Path under which a proxy offers the service, such as /rankone, whether the proxy removes it or not."""
    trusted_proxies: str = ""
    """Addresses or networks of proxies, with commas between them, whose X-Forwarded headers are trusted; * for all."""
    max_connections: PositiveInt = 1000
    """Most open connections, idle ones included; above that, requests get 503 at once."""
    log_format: LogFormat = "text"
    """Lines for people (text) or for programs (json)."""
    max_images: PositiveInt = 64
    """Most images, vectors or items in one request."""
    max_request_bytes: PositiveInt = 100_000_000
    """Longest body of a request."""
    max_total_bytes: PositiveInt = 1_000_000_000
    """Most bytes in the bodies of all running requests together."""
    max_image_bytes: PositiveInt = ImageLimits.max_bytes
    """Longest encoded image."""
    max_pixels: PositiveInt = ImageLimits.max_pixels
    """Most pixels of one image, by its header."""
    max_side: PositiveInt = ImageLimits.max_side
    """Longest side of one image in pixels, by its header."""
    max_k: PositiveInt = 1000
    """Most neighbours of one query."""
    thumbnails: bool = True
    """Whether a new index keeps a small JPEG of each image, unless the request that creates it says otherwise."""
    max_metadata_bytes: PositiveInt = 16_384
    """Longest metadata of one item, as JSON."""

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, value: str) -> str:
        for part in value.split(",") if value not in ("", "*") else ():
            ip_network(part.strip())  # uvicorn would take anything else for the name of a socket
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given by name, then the environment."""
        return init_settings, Environment(settings_cls)

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.bundles is not None and self.bundle != type(self).model_fields["bundle"].default:
            raise ValueError("set bundle, for one bundle, or bundles, for a directory of them, not both")
        if self.max_queue < self.max_images:
            raise ValueError(f"max_queue ({self.max_queue}) must hold a request of max_images ({self.max_images})")
        if self.max_request_timeout_s < self.request_timeout_s:
            raise ValueError("max_request_timeout_s must not be shorter than request_timeout_s")
        return self

    @property
    def batch_policy(self) -> BatchPolicy:
        """On a GPU, batches are padded to powers of two; on a CPU, padding would cost as much as an image."""
        window_s = self.batch_window_ms / 1e3
        if self.device == "cpu":
            return BatchPolicy(self.max_batch or 4, window_s=window_s)
        largest = self.max_batch or 16
        powers = (1 << n for n in range(largest.bit_length()))
        return BatchPolicy(largest, (*(size for size in powers if size < largest), largest), window_s)

    @property
    def limits(self) -> ImageLimits:
        """What one image may cost."""
        return ImageLimits(max_bytes=self.max_image_bytes, max_pixels=self.max_pixels, max_side=self.max_side)
