"""The part of ONNX for classical models, the domain ai.onnx.ml, as scikit-learn's converters write it."""

from collections.abc import Iterable, Mapping, Sequence

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from stillhouse.spec.refusing import invalid, pointer

DOMAIN = "ai.onnx.ml"
_TREES = "TreeEnsembleClassifier"
_COLUMNWISE = ("Scaler", "Imputer", "Normalizer", "Binarizer")
OPERATORS = ("LinearClassifier", _TREES, *_COLUMNWISE)
"""Those that are run: what they hold can be judged beforehand."""
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)
_HANDED_ON = ("Identity", "Cast", "Normalizer")
_KEEPING = (*_COLUMNWISE, "Identity", "Cast")
"""They give as many columns as they take."""


def scores_alone(model: ModelProto) -> tuple[ModelProto, tuple[str, ...] | None]:
    """A graph of classical models without all that does not lead to the scores of the classes, and the names it has for
    them; any other graph as it is.

    Such graphs end in two outputs, the label, often a text, and the scores, often as a list of dictionaries (ZipMap).
    Neither is a matrix; what the dictionaries are made of is.
    """
    if not any(node.domain == DOMAIN for node in model.graph.node):
        return model, None
    makers = {output: node for node in model.graph.node for output in node.output}
    outputs: dict[str, ValueInfoProto] = {}
    classes: tuple[str, ...] | None = None
    for value in model.graph.output:
        maker = makers.get(value.name)
        if maker is not None and maker.op_type == "ZipMap":
            classes = _names(maker)
            name = maker.input[0]
            outputs[name] = helper.make_tensor_value_info(name, TensorProto.FLOAT, (None, None))
        elif value.type.tensor_type.elem_type in _FLOATS:
            classes = classes or _names(_source(value.name, makers))
            outputs[value.name] = value
    if not outputs:
        return model, None
    pruned = ModelProto()
    pruned.CopyFrom(model)
    _keep(pruned.graph, outputs)
    return pruned, classes


def numbers(node: NodeProto) -> int:
    """How many numbers an operator of this domain holds in its attributes, where others have tensors."""
    if node.domain != DOMAIN:
        return 0
    return sum(len(attribute.floats) + len(attribute.ints) for attribute in node.attribute)


def check_models(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Raise InvalidData for a model whose lists contradict each other or its rows, and for trees that never end: the
    runtime trusts them."""
    makers = {output: node for node in graph.node for output in node.output}
    for node in nodes:
        if node.domain == DOMAIN and node.op_type in (_TREES, "LinearClassifier"):
            columns = _columns(graph, node.input[0], makers)
            if columns is None:
                detail = "It cannot be told how many columns the model inside the graph is given."
                raise _refused(node, detail, "State the columns of the graph's input, and select none within it.")
            if node.op_type == _TREES:
                _check_nodes(node, columns)
                _check_ends(node)
                _check_votes(node)
            elif len(_floats(node, "coefficients")) != columns * len(_floats(node, "intercepts")):
                raise _refused(node, f"Its coefficients are not those of {columns} columns.")


def _keep(graph: GraphProto, outputs: Mapping[str, ValueInfoProto]) -> None:
    wanted, kept = set(outputs), []
    for node in reversed(graph.node):  # they stand in the order they run in
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
            wanted |= {
                name for a in node.attribute for inner in (a.g, *a.graphs) for n in inner.node for name in n.input
            }
    constants = [tensor for tensor in graph.initializer if tensor.name in wanted]
    for field, values in (("node", kept[::-1]), ("initializer", constants), ("output", list(outputs.values()))):
        graph.ClearField(field)
        getattr(graph, field).extend(values)
    graph.ClearField("value_info")


def _source(name: str, makers: Mapping[str, NodeProto]) -> NodeProto | None:
    """The node that made the scores, before they were cast or scaled."""
    node = makers.get(name)
    for _ in makers:
        if node is None or node.op_type not in _HANDED_ON:
            return node
        node = makers.get(node.input[0])
    return None


def _names(node: NodeProto | None) -> tuple[str, ...] | None:
    """What the classes are called; None where they are only counted."""
    found: dict[str, Sequence[bytes] | Sequence[int]] = {}
    for attribute in node.attribute if node is not None and node.domain == DOMAIN else ():
        if attribute.name.startswith("classlabels"):
            found["texts" if attribute.strings else "numbers"] = attribute.strings or attribute.ints
    if texts := found.get("texts"):
        return tuple(text.decode() if isinstance(text, bytes) else str(text) for text in texts)
    numbered = list(found.get("numbers", ()))
    return None if numbered == list(range(len(numbered))) else tuple(map(str, numbered))


def _columns(graph: GraphProto, name: str, makers: Mapping[str, NodeProto]) -> int | None:
    """Columns of a matrix that comes from the graph's input with none added or taken."""
    for _ in range(len(graph.node) + 1):
        node = makers.get(name)
        if node is None or node.op_type not in _KEEPING:
            break
        name = node.input[0]
    dims = next((list(v.type.tensor_type.shape.dim) for v in graph.input if v.name == name), [])
    return dims[1].dim_value if len(dims) == 2 and dims[1].dim_value > 0 else None


def _check_nodes(node: NodeProto, columns: int) -> None:
    lists = [
        _ints(node, f"nodes_{name}") for name in ("treeids", "nodeids", "featureids", "truenodeids", "falsenodeids")
    ]
    lengths = {len(_places(node)), len(_modes(node)), len(_floats(node, "nodes_values")), *map(len, lists)}
    if len(lengths) > 1 or 0 in lengths:
        raise _refused(node, "The lists of its nodes do not belong together.")
    asked = lists[2]
    if not 0 <= min(asked) <= max(asked) < columns:
        raise _refused(node, f"A tree asks for column {max(asked)} of rows that have {columns}.")


def _check_votes(node: NodeProto) -> None:
    """Each weight belongs to a class there is, and to a node there is."""
    trees, ids, votes = (_ints(node, f"class_{name}") for name in ("treeids", "nodeids", "ids"))
    classes = max((len(a.strings) + len(a.ints) for a in node.attribute if a.name.startswith("classlabels")), default=0)
    if not len(trees) == len(ids) == len(votes) == len(_floats(node, "class_weights")) > 0:
        raise _refused(node, "The lists of its votes do not belong together.")
    if not 0 <= min(votes) <= max(votes) < classes or not set(zip(trees, ids, strict=True)) <= _places(node).keys():
        raise _refused(node, "A tree votes for a class, or from a node, that is not there.")


def _check_ends(node: NodeProto) -> None:
    """Every way ends in a leaf: leaves are ended, then the nodes all of whose children are, and none may be left."""
    trees, places, modes = _ints(node, "nodes_treeids"), _places(node), _modes(node)
    sides = [_ints(node, f"nodes_{side}nodeids") for side in ("true", "false")]
    inner = [i for i, mode in enumerate(modes) if mode != b"LEAF"]
    children = {i: [places.get((trees[i], side[i])) for side in sides] for i in inner}
    parents: dict[int, list[int]] = {}
    for i, pair in children.items():
        for child in pair:
            if child is None:
                raise _refused(node, "A node leads to one that is not there.")
            parents.setdefault(child, []).append(i)
    open_ways = {i: len(pair) for i, pair in children.items()}
    ended = [i for i in range(len(modes)) if i not in children]
    for i in ended:  # grows as nodes come to their end
        for parent in parents.get(i, ()):
            open_ways[parent] -= 1
            if not open_ways[parent]:
                ended.append(parent)
    if len(ended) < len(modes):
        raise _refused(node, "A tree leads back to where it was, and never ends.")


def _places(node: NodeProto) -> dict[tuple[int, int], int]:
    """(tree, node) → where it stands in the lists."""
    pairs = zip(_ints(node, "nodes_treeids"), _ints(node, "nodes_nodeids"), strict=False)
    return {pair: i for i, pair in enumerate(pairs)}


def _modes(node: NodeProto) -> list[bytes]:
    return next((list(a.strings) for a in node.attribute if a.name == "nodes_modes"), [])


def _ints(node: NodeProto, name: str) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == name), [])


def _floats(node: NodeProto, name: str) -> list[float]:
    return next((list(a.floats) for a in node.attribute if a.name == name), [])


def _refused(node: NodeProto, detail: str, hint: str = "Export it anew.") -> Exception:
    return invalid(pointer("nodes", node.name or node.op_type), "corrupt_graph", detail, hint)
