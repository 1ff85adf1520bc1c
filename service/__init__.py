"""A bundle and its indexes, as answers over HTTP. Torch is imported only by the engines that need it.

A request passes `server` (uvicorn), `observe` (its id and metrics), `deadlines`, `auth` (its key), `limits` (its size) and one
of the `routes`, which asks the network of the bundle being served (`bundles`, `runtime`) or an index. Every way in
which it can fail is in `errors`.
"""
