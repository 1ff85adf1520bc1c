"""From decoded images to the engine's answers: jobs, a fair queue, batches, and the thread that runs the engine."""
