"""From images on disk to a bundle.

Each module imports only from those above it in this list:

    data         data sets: files with labels, read, downloaded, split, verified and loaded in batches
    recipe       everything that decides what a network becomes, besides its images
    metrics      figures as pure functions of arrays
    evaluate     all figures of a network on its test images
    progress     the progress bar
    processes    the processes of one training, their devices, and the request to stop
    encoder      a network in training: device, precision, memory layout; its bottleneck
    embeddings   what the classifier reads, computed batch by batch or once and stored
    selection    which images are fitted, and which select the epoch
    optimize     SGD, learning rate schedule, moving average, divergence
    state        where a training stands
    journal      metrics.jsonl and TensorBoard
    checkpoint   the state on disk
    run          the directory of a training
    axes         rows of many numbers on their principal axes
    logistic     a linear classifier, solved until it converges
    loop         what both phases share
    phase1       the classifier alone
    phase2       all layers
    fit          both phases, from the checkpoint to the end
    forms        the exported forms, and how each is compared with the network
    export       a network as a bundle
    report       the report for people
    runs         several runs side by side
    measure      a bundle on test images, through the engine that serves it
    pipeline     the steps as the commands run them: train, evaluate, export
"""
