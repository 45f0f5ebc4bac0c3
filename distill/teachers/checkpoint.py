"""A checkpoint: tensors by name, and an architecture the caller names."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from distill.teachers import fitting, published, tensors
from distill.teachers.draft import OPTIONS, Draft, settled
from distill.teachers.nearest import nearest
from distill.teachers.networks import (
    LIBRARY_ERRORS,
    TooBig,
    WeightedNet,
    build,
    counted,
    timm_net,
    torchvision_net,
    unknown,
)
from distill.teachers.tensors import State
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, quoted, too_large
from stillhouse.spec.students.timm import timm_architectures
from stillhouse.spec.teachers import Preprocessing, TeacherOptions, TimmNet, TorchvisionNet

_MOST_TENSORS = 10_000
_USUAL_CLASSES = 1000


def read(path: Path, options: TeacherOptions, limits: Limits, *, pickled: bool) -> Draft:
    """The network of `options.architecture` with the file's weights. Raises InvalidData or TooLarge."""
    state, notes = tensors.read_checkpoint(path) if pickled else (tensors.read_safetensors(path), [])
    if options.architecture is None:
        raise _unnamed(state)
    library, _, name = options.architecture.partition("/")
    if reason := unknown(library, name):
        raise invalid(f"{OPTIONS}/architecture", "unknown_architecture", reason)
    if options.match == "order" and not pickled:
        detail = "A safetensors file is sorted by name, so the order of its tensors says nothing."
        hint = "Upload the .pth file the weights came in, or rename them to the architecture's names."
        raise invalid(f"{OPTIONS}/match", "option_does_not_apply", detail, hint)
    net = TimmNet(architecture=name) if library == "timm" else TorchvisionNet(architecture=name)
    own = published.of_timm(name) if library == "timm" else published.of_torchvision(name)
    own = own or Preprocessing(scale=255.0)
    notes.append(f"What is not stated of its preprocessing is what {options.architecture} was published with.")
    if options.shape is not None and len(options.shape) == 3 and options.preprocessing.size is None:
        own = own.model_copy(update={"size": options.shape[1:], "crop": 1.0})
    return fitted(state, net, options, limits, published=own, channels=None, classes=None, notes=notes)


def fitted(
    state: State,
    net: TimmNet | TorchvisionNet,
    options: TeacherOptions,
    limits: Limits,
    *,
    published: Preprocessing,
    channels: int | None,
    classes: tuple[str, ...] | None,
    notes: list[str] | None = None,
) -> Draft:
    """The weights in the network they are said to belong to; `channels` None: told from the weights."""
    preparing = settled(options.preprocessing, published)
    if isinstance(net, TimmNet) and timm_architectures()[net.architecture].grid is not None:
        net = net.model_copy(update={"size": preparing.size})
    expected, count, wide = _expected(net, state, channels, limits)
    state, said = fitting.cleaned(state, expected)
    state = _matched(state, expected, net, options)
    tensors.check_finite(state)
    network = _filled(net, state, count, wide)
    return Draft(
        network=net,
        module=network,
        write=lambda path: tensors.write(state, path),
        shape=(wide, None, None),
        preprocessing=preparing,
        parameters=sum(value.numel() for value in state.values()),
        classes=classes,
        notes=[*(notes or []), *said],
    )


def _expected(
    net: TimmNet | TorchvisionNet, state: State, channels: int | None, limits: Limits
) -> tuple[dict[str, Tensor], int, int]:
    """The network's tensors, without memory, for the classes and channels the weights seem to have; and those two."""
    # Some architectures have no classifier unless they are given a number of classes.
    usual, head, stem = _outline(net, _USUAL_CLASSES, None, limits)
    cleaned, _ = fitting.cleaned(state, usual)
    if not cleaned.keys() & usual.keys():
        cleaned = fitting.in_order(cleaned, usual)
    classes = _first_size(cleaned, head, usual)
    wide = 3 if isinstance(net, TorchvisionNet) else channels or _second_size(cleaned, stem, usual)
    expected, _, _ = _outline(net, classes, wide, limits)
    return expected, classes, wide


def _outline(
    net: TimmNet | TorchvisionNet, classes: int | None, channels: int | None, limits: Limits
) -> tuple[dict[str, Tensor], str, str]:
    """Tensors by name, the name of the classifier's weight, and that of the first convolution."""
    try:
        with counted(limits.max_teacher_parameters, _MOST_TENSORS):
            network = _made(net, classes, channels)
    except TooBig:
        detail = f"The network has more than the limit of {limits.max_teacher_parameters:,} parameters."
        raise too_large("/file", "too_many_parameters", detail, "Upload a smaller teacher.") from None
    except LIBRARY_ERRORS as error:
        detail = f"{net.kind} cannot build {net.architecture} like this: {quoted(str(error))}."
        hint = "State the size of its images as it was trained."
        raise invalid(f"{OPTIONS}/preprocessing/size", "preprocessing_misfit", detail, hint) from None
    convolutions = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    stem = f"{convolutions[0]}.weight" if convolutions else ""
    return network.state_dict(), _head(network), stem


def _made(net: TimmNet | TorchvisionNet, classes: int | None, channels: int | None) -> nn.Module:
    if isinstance(net, TorchvisionNet):
        return torchvision_net(net.architecture, classes)
    return timm_net(net, classes, channels)


def _head(network: nn.Module) -> str:
    """Name of the classifier's weight: timm says it, of torchvision's it is the last one."""
    said = (getattr(network, "pretrained_cfg", None) or {}).get("classifier")
    name = said[0] if isinstance(said, (tuple, list)) and said else said
    if isinstance(name, str) and f"{name}.weight" in network.state_dict():
        return f"{name}.weight"
    weighted = [n for n, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return f"{weighted[-1]}.weight" if weighted else ""


def _first_size(state: State, name: str, usual: Mapping[str, Tensor]) -> int:
    """Classes: rows of the classifier's weight in the file, or the usual number when it is not there."""
    found = state.get(name, usual.get(name))
    return int(found.shape[0]) if found is not None and found.dim() > 0 and found.shape[0] > 0 else _USUAL_CLASSES


def _second_size(state: State, name: str, usual: Mapping[str, Tensor]) -> int:
    """Channels: the second axis of the first convolution in the file."""
    found = state.get(name, usual.get(name))
    return int(found.shape[1]) if found is not None and found.dim() == 4 and 0 < found.shape[1] <= 1000 else 3


def _matched(
    state: State, expected: dict[str, Tensor], net: TimmNet | TorchvisionNet, options: TeacherOptions
) -> State:
    what = f"{net.kind}/{net.architecture}"
    in_order = fitting.by_order(state, expected)
    if options.match == "order":
        if in_order is None:
            detail = f"The tensors of the file and of {what} do not have the same shapes in the same order."
            raise invalid(f"{OPTIONS}/match", "wrong_shapes", detail, "Match them by name to see which differ.")
        state = in_order
    named, errors = fitting.by_name(state, expected)
    if errors:
        other_names = not expected.keys() <= state.keys()
        raise fitting.refuse(errors, what, _advice(state, what, other_names and in_order is not None))
    return named


def _advice(state: State, what: str, in_order: bool) -> str:
    if in_order:
        return (
            "The names differ, but number, order and shapes agree: if the file is of another implementation of this "
            "network and not a safetensors file, set match to order."
        )
    like = nearest(state)
    if like is not None and like.name != what:
        return f"These keys look like {like.name}: set architecture to it."
    return "Save model.state_dict() of the very network the architecture names, with its own number of classes."


def _unnamed(state: State) -> Exception:
    like = nearest(fitting.unwrapped(state))
    detail = "A checkpoint holds tensors alone, so the architecture must be named, as timm/resnet18."
    hint = f"These keys look like {like.name}." if like else "Name one of timm's or torchvision's classifiers."
    return invalid(f"{OPTIONS}/architecture", "no_architecture", detail, hint)


def _filled(net: WeightedNet, state: State, classes: int, channels: int) -> nn.Module:
    network = build(net, classes, channels)
    fitting.load(network, state)
    return network
