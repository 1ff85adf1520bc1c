from __future__ import annotations

import pytest
import torch

from rankone.model.network import Network
from rankone.training.state import Measured, TrainingState
from tests.training.helpers import SMALL

pytestmark = pytest.mark.usefixtures("light_backbone")


def chosen(state: TrainingState, epochs: list[Measured], *, by_loss: bool) -> tuple[list[bool], Network]:
    """Which of these epochs were the best so far, and a network with the best weights: its bias is the epoch's number."""
    network = SMALL.build_network(4)
    better = []
    for number, measured in enumerate(epochs):
        network.load_state_dict({**network.state_dict(), "classifier.bias": torch.full((4,), float(number))})
        state.add_step(1.0, 0, 1)
        state.end_epoch(None if by_loss else measured, 1.0)
        better.append(state.choose(measured, network, by_loss=by_loss))
    state.load_best(network)
    return better, network


def test_the_best_epoch_is_the_one_with_the_fewest_errors_then_the_lowest_loss() -> None:
    state = TrainingState(phase=2, best=(0.5, 3.0))
    better, network = chosen(state, [(0.5, 2.0), (0.5, 2.5), (0.5, 1.0), (0.6, 0.1)], by_loss=False)
    assert better == [True, False, True, False]
    assert (state.chosen, state.best) == ((2, 2), (0.5, 1.0))
    assert network.state_dict()["classifier.bias"].tolist() == [2.0] * 4


def test_the_best_epoch_on_training_images_is_the_one_with_the_lowest_loss() -> None:
    state = TrainingState(phase=2)
    better, network = chosen(state, [(0.0, 2.0), (0.5, 1.0), (0.0, 1.5)], by_loss=True)
    assert better == [True, True, False]
    assert (state.chosen, state.best) == ((2, 1), (0.5, 1.0))
    assert network.state_dict()["classifier.bias"].tolist() == [1.0] * 4


def test_of_phase_1_the_last_epoch_counts_and_its_classifier_is_kept() -> None:
    """Or phase 2 would have to beat the luckiest of fifty."""
    state = TrainingState()
    better, network = chosen(state, [(0.1, 2.0), (0.5, 1.0)], by_loss=False)
    assert better == [True, True]
    assert (state.chosen, state.best) == ((1, 1), (0.5, 1.0))
    assert set(state.tensors["best"]) == {"classifier.weight", "classifier.bias"}
    state.end_phase(network, error=0.5)
    assert (state.position, state.phase1_error) == ((2, 0, 0), 0.5)
    assert set(state.tensors["best"]) == set(network.state_dict())


def test_the_network_that_phase_2_begins_with_is_the_first_candidate() -> None:
    state, network = TrainingState(phase=2), SMALL.build_network(4)
    state.begin_phase2((0.5, 1.5), network, 2.5)
    assert (state.best, state.start_loss, state.chosen) == ((0.5, 1.5), 2.5, None)
    better, network = chosen(state, [(0.5, 1.6)], by_loss=True)
    assert better == [False]
    assert network.state_dict()["classifier.bias"].tolist() == [0.0] * 4
