"""An image's way through the service.

    inference       a request's images are admitted (`admission`) and become a `job`
    decode_pool     processes decode them (`decode_process`, `decode_worker`) into shared memory (`slots`)
    batcher         decoded images become batches, as `policy` says, for the engine's thread (`engine_thread`)
    arbiter         keeps decoders from beginning an image while a batch runs on the same CPU
    job             collects the outputs, in the request's order

Images wait twice, for a decoder and for the engine, each time in a `queue` that is fair between requests.
"""
