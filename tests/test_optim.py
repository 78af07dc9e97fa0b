import copy
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from molgen.runtime.device import hardware
from molgen.training.optim import Muon, WeightAverage, orthogonalised


@pytest.mark.parametrize("num_chunks", [1, 2])
def test_muon_steps_as_pytorchs_does_also_in_several_threads(num_chunks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "molgen.runtime.device._gains_from_bf16", lambda _: True
    )  # PyTorch's iterates in bfloat16 anywhere
    generator = torch.Generator().manual_seed(0)
    shapes = [(32, 16), (16, 32), (16, 32), (24, 24)]
    ours = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = copy.deepcopy(ours)
    group = {"params": ours, "weight_decay": 0.1}
    optimizers = (
        Muon([group], lr=0.01),
        torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            other.grad = mine.grad.clone()
        before = [matrix.detach().clone() for matrix in ours]
        with ThreadPoolExecutor(2) as threads:
            optimizers[0].step(threads.map, num_chunks)
        optimizers[1].step()
        for mine, other, start in zip(ours, theirs, before, strict=True):
            # both iterate in bfloat16, in another order of operations
            assert (mine - other).norm() < 0.02 * (mine - start).norm()


def test_an_orthogonalised_matrix_has_singular_values_near_one() -> None:
    matrices = torch.randn(3, 20, 50, generator=torch.Generator().manual_seed(1))
    singular = torch.linalg.svdvals(orthogonalised(matrices))
    assert singular.min() > 0.6
    assert singular.max() < 1.3


def test_the_average_of_weights_follows_them_exponentially() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    average = WeightAverage(model, 0.5)
    for step, weight in ((1, 3.0), (2, 5.0), (100, 7.0), (101, 7.0)):
        model.weight.data.fill_(weight)
        average.update(model, step)
    # decays 1/11 and 2/12 while few steps have been made, then 0.5 twice
    expected = 3.0 + (1.0 - 3.0) / 11
    expected = 5.0 + (expected - 5.0) * 2 / 12
    expected = 7.0 + (expected - 7.0) * 0.5 * 0.5
    assert average.model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 7.0


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux tells its processor's name there")
def test_a_report_names_the_processor_and_nothing_else_of_the_machine() -> None:
    said = hardware(torch.device("cpu"))
    assert f": {said['name']}\n" in Path("/proc/cpuinfo").read_text() or said["name"] == platform.machine()
    assert said["platform"] == f"Linux {platform.machine()}"
