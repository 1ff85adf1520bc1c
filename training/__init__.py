"""From images on disk to a bundle.

Each module imports only from those above it in this list:

    data         data sets: files with labels, read, downloaded, split, verified and loaded in batches
    strict_yaml  YAML in which a key given twice is an error
    recipe       everything that decides what a network becomes, besides its images
    metrics      figures as pure functions of arrays
    progress     the progress bar
    processes    the processes of one training, their devices, and the request to stop
    usable       every image decoded before anything is trained on it
    encoder      a network in training: device, precision, memory layout; its bottleneck
    embeddings   what the classifier reads, computed batch by batch or once and stored
    selection    which images are fitted, and which select the epoch
    parameters   which layers phase 2 trains, and at which rates
    optimize     SGD, learning rate schedule, moving average, divergence
    state        where a training stands
    checkpoint   the state on disk
    run          the directory of a training
    journal      metrics.jsonl and TensorBoard
    axes         rows of many numbers on their principal axes
    logistic     a linear classifier, solved until it converges
    loop         what both phases share
    phase1       the classifier alone
    phase2       all layers
    short        short embeddings: the map, and retrieval by length
    evaluate     all figures of a network on its test images
    fit          both phases, from the checkpoint to the end
    forms        the exported forms, and how each is compared with the network
    export       a network as a bundle
    runs         several runs side by side
    report       the report for people
    measure      a bundle on test images, through the engine that serves it
    pipeline     the steps as the commands run them: train, evaluate, export
    compare      poolings and backbones compared without training
    reduce       a bundle with short embeddings, from a bundle without
    int8         the graph of a network whose backbone computes in int8
    quantize     a bundle with int8, from a bundle without
"""
