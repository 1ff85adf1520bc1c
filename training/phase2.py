"""Phase 2: all layers, end to end, from where phase 1 ended; on one device, or on several in step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from rankone.model.network import Network
from rankone.training.data.batches import augmentation, batches, generator, in_groups, in_order, mirrored
from rankone.training.encoder import Encoder
from rankone.training.loop import Loop
from rankone.training.optimize import NUM_STEPS, Diverged, Optimization
from rankone.training.parameters import train_mode
from rankone.training.progress import progress
from rankone.training.run import RunError
from rankone.training.state import Measured

Part = tuple[Tensor, Tensor]
"""Images and their labels."""


def phase2(loop: Loop) -> None:
    """Trains every layer; the checkpoint is renewed after each epoch, and when it is due.

    An epoch that diverges is repeated from the best network so far, at half the rate. The network at the start is a candidate
    too, so the network that is kept is never worse than it, on the images that select.

    Raises:
        RunError: the network does not start where phase 1 ended.
    """
    if loop.recipe.phase2.epochs:
        if loop.state.start_loss is None:
            measured = _check_start(loop)
            loop.state.begin_phase2(measured, loop.network, _start_loss(loop, measured))
        _fit(loop)
    loop.end_phase()


def _fit(loop: Loop) -> None:
    phase = loop.recipe.phase2
    with loop.optimization(loop.network, phase, ema=loop.recipe.ema, rates=loop.recipe.rates) as optimization:
        while loop.state.epoch < (loop.state.num_epochs or phase.epochs) and not loop.end_without_time():
            try:
                _epoch(loop, optimization)
            except Diverged as diverged:
                if not loop.roll_back(optimization, diverged):
                    return
            loop.save(optimization)


def _epoch(loop: Loop, optimization: Optimization) -> None:
    """The rest of the current epoch, and the error and loss after it: of the moving average, if there is one."""
    network, encoder = loop.network, loop.encoder
    for group, parts in _groups(loop):
        stop = _step(loop, optimization, group, parts)
        loop.between_steps(optimization, stop)
        if loop.budget.left_s <= 0:
            break
    loop.resources.processes.broadcast(network.backbone.buffers())  # batch norm's, of which each process saw its images
    if optimization.average is not None:
        network = cast(Network, optimization.average.module)
        encoder = Encoder(network, encoder.device, encoder.precision)
    measured = loop.measure(encoder, loop.images.selecting, "measuring the network")
    loop.end_epoch(optimization, measured, network)


def _groups(loop: Loop) -> Iterator[tuple[list[int], Iterator[Part]]]:
    """The rest of the current epoch: every step's images, and this process's parts of them as they are loaded.

    Order, mirroring and v_0 depend on seed, epoch and step alone, so a resumed run repeats the interrupted one.
    """
    recipe, state, split, processes = loop.recipe, loop.state, loop.images.fitted, loop.resources.processes
    groups = loop.order(recipe.phase2, state.epoch, split.labels)
    order = [index for group in groups for index in group]
    left = in_order(len(order), recipe.phase2.batch_size)[state.step :]
    parted = [_parts(processes.shard(group), recipe.accumulate) for group in left]
    mirror = torch.rand(len(split), generator=generator(recipe.seed, state.epoch)) < (0.5 if recipe.flip else 0)
    all_parts = [part for parts in parted for part in parts]
    loaded = batches(
        split.at(order),
        recipe.preprocessing,
        all_parts,
        workers=loop.resources.workers,
        augment=augmentation(recipe.augment, recipe.seed, state.epoch),
    )
    title = f"phase 2: all layers, epoch {state.epoch + 1} of {state.num_epochs or recipe.phase2.epochs}"
    counts, done = [len(group) for group in left], sum(map(len, groups[: state.step]))
    train_mode(loop.network)

    def load(parts: list[list[int]]) -> Iterator[Part]:
        for places in parts:
            stored, part = next(loaded), [order[place] for place in places]
            images = torch.where(mirror[part].view(-1, 1, 1, 1), mirrored(stored), stored)
            yield images, loop.labels[part].to(processes.device)

    steps = zip(left, parted, strict=True)
    for group, parts in progress(steps, counts, title, done=done, shown=processes.is_main):
        torch.manual_seed(generator(recipe.seed, state.epoch, state.step).initial_seed())
        yield [order[place] for place in group], load(parts)


def _parts(indices: list[int], num: int) -> list[list[int]]:
    """At most `num` parts of the indices, as equal as can be."""
    size = -(-len(indices) // num) if indices else 1
    return in_groups(indices, size)


def _step(loop: Loop, optimization: Optimization, group: list[int], parts: Iterator[Part]) -> bool:
    """One step along the gradient of the mean loss over the group, of all parts and processes; returns whether to stop."""
    loss_sum, num_wrong, processes = 0.0, 0, loop.resources.processes
    for images, labels in parts:
        logits = loop.encoder.classify(images)
        loss = loop.loss(logits, labels)
        (loss * (len(labels) / len(group))).backward()
        loss_sum += float(loss.detach()) * len(labels)
        num_wrong += int((logits.argmax(1) != labels).sum())
    total_loss, total_wrong, stop = processes.sum(loss_sum, num_wrong, bool(loop.resources.stop))
    processes.sum_gradients(optimization.parameters)
    paths = loop.images.fitted.paths
    loop.step(optimization, total_loss / len(group), int(total_wrong), [paths[index] for index in group])
    return stop > 0


def _check_start(loop: Loop) -> Measured:
    """Error and loss at the start. Through the whole network, as many images must be right as in phase 1, from disk."""
    before, split = loop.state.phase1_error, loop.images.selecting
    error, loss = loop.measure(loop.encoder, split, "checking the start of phase 2")
    if before is not None and round(abs(error - before) * len(split)) > max(1, 0.01 * len(split)):
        raise RunError(
            f"phase 2 does not start where phase 1 ended: on the same {len(split)} images the accuracy is {1 - error:.3f}, "
            f"and was {1 - before:.3f} on the embeddings of phase 1. Were they computed by another network? Remove "
            "the run and its embeddings, and train again"
        )
    return error, loss


def _start_loss(loop: Loop, measured: Measured) -> float:
    """The training loss that the first steps have if nothing is trained; a loss far above it is a sign of divergence.

    `measured` is of images as they are, and without label smoothing. A network that has learned those by heart has many times
    their loss on crops with other colours, and nothing has diverged.
    """
    recipe, split = loop.recipe, loop.images.fitted
    if recipe.augment == "flip" and not recipe.label_smoothing:
        return measured[1]
    steps = loop.order(recipe.phase2, 0, split.labels)[:NUM_STEPS]
    images = split.at(index for step in steps for index in step)
    return loop.measure(loop.encoder, images, "measuring the first loss", as_trained=True)[1]
