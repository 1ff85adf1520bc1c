"""Everything that can be set of the service: from the environment (`RANKONE_…`) or as flags of `rankone serve`."""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from rankone.model.engine.base import Device, EngineName, Precision
from rankone.model.preprocessing import Limits
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
    """Directory of several bundles, instead: the newest is served, others can be loaded while it runs."""
    data: Path = Path("indexes")
    """Directory of the indexes, made if it is not there."""
    engine: EngineName = "onnx"
    """Which exported form of the network runs."""
    precision: Precision | Literal["auto"] = "float32"
    """Of the backbone; the head is float32. Refused at start where engine or device lack it, or embeddings suffer; `auto` is
    float16 on a GPU where they do not, and else float32."""
    cuda_graphs: bool = False
    """On a GPU, record every batch size once and replay it."""
    tensorrt_cache: Path | None = None
    """On a GPU, run the backbone of the onnx engine by TensorRT, which keeps what it builds in this directory."""
    device: Device = "cpu"
    """Where it runs; refused at start if it cannot."""
    threads: PositiveInt = Field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """CPU threads of the engine and of searches."""
    workers: PositiveInt = Field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Processes that decode images."""
    host: str = "127.0.0.1"
    """Address to listen on; any other than this machine's own needs keys, or allow_anonymous."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    keys: Path | None = None
    """File of keys, made by `rankone keys add`; then only /healthz, /readyz and the documentation are answered without one."""
    allow_anonymous: bool = False
    """Let anybody who reaches the address embed, search, add and delete."""
    own_keys: Path | None = None
    """Folder in which the service keeps keys, if neither keys nor allow_anonymous is set; the first start makes one."""
    allowed_hosts: Names = ()
    """Names in Host that are answered without keys, beside those of this machine and the address; * for all."""
    cors_origins: Annotated[Names, AfterValidator(_check_origins)] = ()
    """Origins, such as https://app.example.org, whose pages may use the service."""
    max_batch: PositiveInt | None = None
    """Images in one run of the engine at most; if not set, 16 on a GPU and 4 on a CPU."""
    batch_window_ms: float = Field(default=0.0, ge=0, le=100)
    """How long a free engine waits for more images after the first."""
    max_queue: PositiveInt = 256
    """Images in work at once, over all requests; more are answered with 429."""
    request_timeout_s: float = Field(default=60.0, gt=0)
    """From a request's headers to its answer, unless its X-Request-Timeout says otherwise."""
    max_request_timeout_s: float = Field(default=600.0, gt=0)
    """The longest X-Request-Timeout."""
    receive_timeout_s: float = Field(default=30.0, gt=0)
    """For the body of a request to arrive (408 after that), and for the next request on an idle connection."""
    drain_s: float = Field(default=1.0, ge=0)
    """From SIGTERM to no more connections being accepted: time for load balancers to stop sending requests."""
    grace_s: PositiveInt = 30
    """After that, for the requests in work to be answered."""
    load_timeout_s: float = Field(default=900.0, gt=0)
    """For a bundle to be verified, loaded and warmed, at the start and later."""
    decode_timeout_s: float = Field(default=3.0, gt=0)
    """Processor time for one image to be decoded; by the clock it may take ten times as long."""
    decode_memory_bytes: PositiveInt = 1_000_000_000
    """Memory that decoding one image may take."""
    root_path: str = Field(default="", pattern=f"^{ROOT_PATH}$")
    """Path under which a proxy offers the service, such as /rankone, whether the proxy takes it off or not."""
    trusted_proxies: str = ""
    """Addresses or networks of proxies, with commas between them, whose X-Forwarded-For, -Proto and -Prefix hold; * for all."""
    max_connections: PositiveInt = 1000
    """Open connections, idle ones included; over that, requests are answered 503 at once."""
    log_format: LogFormat = "text"
    """Lines for people or for machines."""
    max_images: PositiveInt = 64
    """Images, vectors or items in one request."""
    max_request_bytes: PositiveInt = 100_000_000
    """Length of a request's body."""
    max_total_bytes: PositiveInt = 1_000_000_000
    """Length of the bodies of all requests in work together."""
    max_image_bytes: PositiveInt = Limits.max_bytes
    """Length of one encoded image."""
    max_pixels: PositiveInt = Limits.max_pixels
    """Pixels of one image, by its header."""
    max_side: PositiveInt = Limits.max_side
    """Longest side of one image in pixels, by its header."""
    max_k: PositiveInt = 1000
    """Neighbours of one query."""
    thumbnails: bool = True
    """Whether a new index keeps a small JPEG of each image, unless the request that makes it says otherwise."""
    max_metadata_bytes: PositiveInt = 16_384
    """Length of one item's metadata as JSON."""

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
    def limits(self) -> Limits:
        """What one image may cost."""
        return Limits(max_bytes=self.max_image_bytes, max_pixels=self.max_pixels, max_side=self.max_side)
