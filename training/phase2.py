"""Phase 2: all layers, end to end, from where phase 1 ended; on one device, or on several in step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rankone.model.network import Network
from rankone.training.data.images import batches, in_order, mirrored
from rankone.training.encoder import Forward
from rankone.training.loop import Trainer, generator, shuffled
from rankone.training.optimize import Diverged, Optimization
from rankone.training.progress import watched
from rankone.training.run import RunError


def phase2(trainer: Trainer) -> None:
    """Trains every layer; the checkpoint is renewed after each epoch, and when it is due.

    Where an epoch diverges, it is done again from the best network so far, at half the rate. The network of the start is a
    candidate too, so the one that is kept is never worse than it, on the images that select.

    Raises:
        RunError: the network does not start where phase 1 ended.
    """
    if trainer.recipe.phase2.epochs:
        if trainer.progress.start_loss is None:
            trainer.begin_phase2(_check_start(trainer))
        _fit(trainer)
    trainer.end_phase()


def _fit(trainer: Trainer) -> None:
    phase = trainer.recipe.phase2
    average = _average(trainer)
    with trainer.optimization(trainer.network, phase) as optimization:
        while trainer.progress.epoch < phase.epochs:
            try:
                _epoch(trainer, optimization, average)
            except Diverged as diverged:
                if not trainer.go_back(optimization, diverged):
                    return
                average = _average(trainer)
            trainer.save(optimization)


def _epoch(trainer: Trainer, optimization: Optimization, average: AveragedModel | None) -> None:
    """What is left of the epoch in work, and how good the network is after it: the moving average, where there is one."""
    network, forward = trainer.network, trainer.forward
    for group, parts in _groups(trainer):
        _step(trainer, optimization, group, parts)
        if average is not None:
            average.update_parameters(trainer.network)
        trainer.pause(optimization, trainer.stopping)
    if average is not None:
        network = cast(Network, average.module)
        forward = Forward(network, forward.device, forward.precision)
    measured = trainer.measure(forward, trainer.steering.selecting, "measuring the network")
    trainer.end_epoch(optimization, measured, network)


Part = tuple[Tensor, Tensor]


def _groups(trainer: Trainer) -> Iterator[tuple[list[int], Iterator[Part]]]:
    """What is left of the epoch in work: every step's images, and this process's parts of them as they are loaded.

    Order, mirroring and v_0 depend on seed, epoch and step alone, so that a run that goes on is the run that was stopped.
    """
    recipe, progress, split = trainer.recipe, trainer.progress, trainer.steering.fitted
    groups = shuffled(len(split), recipe.phase2.batch_size, recipe.seed, progress.epoch)
    left = groups[progress.step :]
    cut = [_cut(trainer.work.world.share(group), recipe.accumulate) for group in left]
    mirror = torch.rand(len(split), generator=generator(recipe.seed, progress.epoch)) < (0.5 if recipe.flip else 0)
    loaded = batches(
        split, recipe.preprocessing, [part for parts in cut for part in parts], workers=trainer.work.workers
    )
    title = f"phase 2: all layers, epoch {progress.epoch + 1} of {recipe.phase2.epochs}"
    counts, done = [len(group) for group in left], sum(map(len, groups[: progress.step]))
    trainer.network.train()

    def load(parts: list[list[int]]) -> Iterator[Part]:
        for part in parts:
            stored = next(loaded)
            images = torch.where(mirror[part].view(-1, 1, 1, 1), mirrored(stored), stored)
            yield images, trainer.labels[part].to(trainer.work.world.device)

    steps = zip(left, cut, strict=True)
    for group, parts in watched(steps, counts, title, done=done, shown=trainer.work.world.leads):
        torch.manual_seed(generator(recipe.seed, progress.epoch, progress.step).initial_seed())
        yield group, load(parts)


def _cut(indices: list[int], num: int) -> list[list[int]]:
    """At most `num` parts of the indices, as equal as can be."""
    size = -(-len(indices) // num) if indices else 1
    return [[indices[i] for i in part] for part in in_order(len(indices), size)]


def _step(trainer: Trainer, optimization: Optimization, group: list[int], parts: Iterator[Part]) -> None:
    """The gradient of the mean loss over the group, part by part and process by process, then one move."""
    loss_sum, num_wrong, world = 0.0, 0, trainer.work.world
    for images, labels in parts:
        logits = trainer.forward.classify(images)
        loss = trainer.loss(logits, labels)
        (loss * (len(labels) / len(group))).backward()
        loss_sum += float(loss.detach()) * len(labels)
        num_wrong += int((logits.argmax(1) != labels).sum())
    total_loss, total_wrong, stop = world.sum(loss_sum, num_wrong, bool(trainer.work.stop))
    trainer.stopping = stop > 0
    world.sum_gradients(optimization.parameters)
    paths = trainer.steering.fitted.paths
    trainer.step(optimization, total_loss / len(group), int(total_wrong), [paths[index] for index in group])


def _average(trainer: Trainer) -> AveragedModel | None:
    if not trainer.recipe.ema:
        return None
    average = AveragedModel(trainer.network, multi_avg_fn=get_ema_multi_avg_fn(trainer.recipe.ema))
    if trainer.averaged:
        average.load_state_dict(trainer.averaged)
    trainer.average = average
    return average


def _check_start(trainer: Trainer) -> tuple[float, float]:
    """Error and loss at the start. Through the whole network, as many images must be right as in phase 1, from disk."""
    before, split = trainer.progress.handed_over, trainer.steering.selecting
    error, loss = trainer.measure(trainer.forward, split, "checking the start of phase 2")
    if before is not None and round(abs(error - before) * len(split)) > max(1, 0.01 * len(split)):
        raise RunError(
            f"phase 2 does not start where phase 1 ended: on the same {len(split)} images the accuracy is {1 - error:.3f}, "
            f"and was {1 - before:.3f} on the embeddings of phase 1. Were they computed by another network? Remove "
            "the run and its embeddings, and train again"
        )
    return error, loss
