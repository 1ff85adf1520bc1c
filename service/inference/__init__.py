"""An image's way through the service.

    inference       a request's images are admitted and become a `job`
    decode_pool     processes decode them (`decode_process`, `decode_worker`) into memory that is `shared`
    batcher         decoded images become batches, as `policy` says, for the engine's thread (`engine_thread`)
    job             collects the outputs, in the request's order

Images wait twice, for a decoder and for the engine, each time in a queue that is fair between requests.
"""
