"""The same bundle behind LitServe: `python -m benchmarks.serving.litserve_peer BUNDLE THREADS BATCH TIMEOUT --port PORT`

It decodes with the same code, runs the same engine, and answers the same .npy. Images come as base64 in JSON, as in its
own examples: LitServe cannot pass forms to its workers with the pinned Starlette.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from fastapi import Response

from rankone.model.bundle import open_bundle
from rankone.model.engine import load_engine
from rankone.model.preprocessing import preprocess


class Embeds(litserve.LitAPI):  # type: ignore[misc]
    """`POST /predict` with `{"image": "<base64>"}`."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's
        self.bundle = open_bundle(Path(sys.argv[1]))
        self.engine = load_engine(self.bundle, "onnx", "cpu", int(sys.argv[2]))

    def decode_request(self, request):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201 - it reads annotations
        return preprocess(base64.b64decode(request["image"]), self.bundle.manifest.preprocessing)

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        return self.engine.run(x if x.ndim == 4 else x[None]).embedding

    def unbatch(self, output: Any) -> Any:
        return list(output)

    def encode_response(self, output: Any) -> Response:
        file = io.BytesIO()
        np.save(file, output[None] if output.ndim == 1 else output)
        return Response(file.getvalue(), media_type="application/x-npy")


if __name__ == "__main__":
    api = Embeds(max_batch_size=int(sys.argv[3]), batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=float(sys.argv[4]))
    server.run(port=int(sys.argv[6]), host="127.0.0.1", generate_client_file=False, log_level="error")
