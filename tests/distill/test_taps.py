"""Looking at layers by their path: what is seen, what is refused, and that the network stays as it was."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill.taps import check_path, outputs
from stillhouse.spec.errors import JobFailure


class Twice(nn.Module):
    """One layer called twice, one never, one that gives a tuple, and one whose output is overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.idle, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)
        self.tuple = Tuple()

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(x)
        x = torch.relu_(self.shared(x * 2))
        first, _ = self.tuple(x)
        out: Tensor = self.head(first)
        return out


class Tuple(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x, x


def hooks(net: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in net.modules())


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 6), nn.Tanh()), nn.Linear(6, 3))


def test_outputs_are_those_of_the_layers_and_keep_their_gradient() -> None:
    net, x = network(), torch.rand(2, 4)
    found = outputs(net, x, ["1", "2.0", "2"])
    assert torch.equal(found.logits, net(x))
    assert torch.equal(found.features["1"], net[1](net[0](x)))
    assert torch.equal(found.features["2.0"], net[2][0](found.features["1"]))
    assert list(found.features) == ["1", "2.0", "2"]
    found.features["2.0"].sum().backward()
    assert net[0].weight.grad is not None
    assert net[3].weight.grad is None


def test_no_hook_stays_behind_not_even_after_an_error() -> None:
    net = network()
    outputs(net, torch.rand(2, 4), ["1", "2"])
    assert hooks(net) == 0
    with pytest.raises(RuntimeError):
        outputs(net, torch.rand(2, 9), ["1", "2"])
    assert hooks(net) == 0
    with pytest.raises(AttributeError):
        outputs(net, torch.rand(2, 4), ["1", "nowhere"])
    assert hooks(net) == 0


def test_nothing_asked_for_is_a_plain_call() -> None:
    net, calls = network(), []
    net[1].register_forward_hook(lambda module, given, out: calls.append(len(module._forward_hooks)))
    found = outputs(net, torch.rand(2, 4))
    assert found.features == {}
    assert calls == [1]


def test_of_a_layer_called_twice_the_last_call_counts() -> None:
    torch.manual_seed(0)
    net, x = Twice(), torch.rand(2, 3)
    net.forward = lambda x: net.head(net.shared(net.shared(x) * 2))  # type: ignore[method-assign]
    found = outputs(net, x, ["shared"]).features["shared"]
    assert torch.equal(found, net.shared(net.shared(x) * 2))


@pytest.mark.parametrize(
    ("path", "complaint"), [("idle", "was not called"), ("tuple", "tuple"), ("shared", "overwritten in place")]
)
def test_a_layer_that_gives_nothing_to_compare_is_refused(path: str, complaint: str) -> None:
    with pytest.raises(JobFailure, match=complaint) as failure:
        outputs(Twice(), torch.rand(2, 3), [path])
    assert failure.value.code == "layer_mismatch"
    assert failure.value.hint


def test_an_unknown_path_is_answered_with_close_names() -> None:
    with pytest.raises(JobFailure, match=r"'2\.l'") as failure:
        check_path(network(), "2.l", role="student", loss="fitnet")
    assert failure.value.code == "layer_unknown"
    assert "2.1" in failure.value.hint
    with pytest.raises(JobFailure) as failure:
        check_path(network(), "encoder.layers", role="teacher", loss="fitnet")
    assert "begin with 0, 1, 2" in failure.value.hint
    check_path(network(), "2.1", role="teacher", loss="fitnet")
