"""A stored network in a few words."""

from stillhouse.spec.events import ModelConfig
from stillhouse.spec.students import in_words
from stillhouse.spec.teachers.config import ForeignConfig, HuggingFaceNet, OnnxNet, TimmNet, TorchvisionNet


def network_in_words(config: ModelConfig | ForeignConfig) -> str:
    """Such as `mlp hidden=[32]`, `timm/resnet18`, `ViTForImageClassification` or `ONNX graph`."""
    if isinstance(config, ModelConfig):
        return in_words(config.architecture)
    net = config.network
    if isinstance(net, TimmNet | TorchvisionNet):
        return f"{net.kind}/{net.architecture}"
    if isinstance(net, HuggingFaceNet):
        names = net.config.get("architectures")
        return str(names[0] if isinstance(names, list) and names else net.config.get("model_type", "transformers"))
    return "ONNX graph" if isinstance(net, OnnxNet) else "torch.export program"
