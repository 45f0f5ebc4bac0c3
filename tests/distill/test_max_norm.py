"""Max-norm and input dropout, as Hinton's teacher has them."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from distill.data import Dataset, measure, read_dataset
from distill.optimisation import shorten
from distill.reporter import Reporter
from distill.seeds import derive
from distill.students import build
from distill.train import fit
from stillhouse.spec.students import Mlp
from tests.distill.test_train import STAGE


def network(data: Dataset, architecture: Mlp) -> nn.Module:
    found = measure(data)
    torch.default_generator.manual_seed(derive(0, "test", "init"))
    return build(architecture, data.facts, found.mean, found.std)


def lengths(net: nn.Module) -> list[torch.Tensor]:
    return [layer.weight.detach().norm(dim=1) for layer in net.modules() if isinstance(layer, nn.Linear)]


def test_long_rows_are_scaled_to_the_limit_and_short_ones_stay() -> None:
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 0.0, 4.0], [0.1, 0.2, 0.2]]))
    bias = layer.bias.detach().clone()
    shorten(nn.Sequential(layer), 2.0)
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[1.2, 0.0, 1.6], [0.1, 0.2, 0.2]]))
    assert torch.equal(layer.bias, bias)


def test_training_keeps_every_unit_within_the_limit(digits_file: Path) -> None:
    data = read_dataset(digits_file)
    free, held = (network(data, Mlp(name="mlp", hidden=(32,))) for _ in range(2))
    fit(free, [STAGE], data, None, Reporter(lambda event: None))
    fit(held, [replace(STAGE, max_norm=0.5)], data, None, Reporter(lambda event: None))
    assert max(float(length.max()) for length in lengths(free)) > 0.6
    assert all(float(length.max()) <= 0.5 + 1e-5 for length in lengths(held))


def test_dropped_inputs_make_training_see_other_images_than_evaluation(digits_file: Path) -> None:
    data = read_dataset(digits_file)
    net = network(data, Mlp(name="mlp", hidden=(), input_dropout=0.5))
    x = data.inputs(data.rows["test"][:8])
    assert torch.equal(net.eval()(x), net(x))
    assert not torch.equal(net.train()(x), net(x))
    assert not any("dropout" in name for name in net.state_dict())
