"""The root of every error whose message is meant for the user. Anything else that is raised is a fault of ours.

RankoneError
├── ImageRejected       model.preprocessing: UnsupportedImageType, ImageTooLarge, UndecodableImage
├── WeightsError        model.backbone
├── BundleError         model.bundle
├── DataError           training.datasets
├── RecipeError         training.recipe
├── RunError            training.run
├── ExportError         training.export
├── Interrupted         here
├── EngineError         service.engine: EngineOutOfMemory
├── IndexProblem        service.index: UnknownIndex, UnknownItem, IndexConflict, IndexFull, IndexReadOnly, IndexDamaged,
│                       InvalidFilter
├── KeyFileError        service.keys
├── QueueFull           service.batching.admission
├── DeadlinePassed      service.batching.job
├── DecodersFailed      service.decoding.pool
├── UnknownModel        service.models
├── LoadConflict        service.models
├── TracesMissing       service.traces
├── OpenDoor            service.server
└── ServiceError        service.client
"""


class RankoneError(Exception):
    """Something that the user can mend; the message says what was wrong and what to do."""


class Interrupted(RankoneError):
    """The work was asked to stop, and did."""
