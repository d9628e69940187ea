"""Find the functions through which a SavedModel's encoder is called: its signatures, and calling the model itself.

Whichever door is taken has to give the same numbers. So each is read, and what may happen behind it is bounded first:
no function behind it changes or draws anything, and all of them compute in single or double precision.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from keras_bert_trend.sources.saved_model.files import SavedModelFiles

INPUTS = ("input_word_ids", "input_mask", "input_type_ids")  # in the order in which TF Hub's lists have them
_STATEFUL = {"StatefulPartitionedCall", "ReadVariableOp", "ResourceGather"}
_TYPES = {"float32", "float64", "int32", "int64", "bool", "resource"}


@dataclasses.dataclass(frozen=True)
class Door:
    """A function that computes the encoder.

    Args:
        name: how it is reached, for messages.
        function: the concrete function's name.
        arguments: the function's argument → the name by which the input is given from outside.
        outputs: the results' names, as `encoder_outputs/0`; numbers where the results are a list.
    """

    name: str
    function: str
    arguments: dict[str, str]
    outputs: tuple[str, ...]


def find_doors(files: SavedModelFiles) -> Iterator[Door]:
    """Yield the doors to inference: `serving_default`, then other signatures, then those of `__call__`.

    Raises:
        ValueError: there is no `serving_default`, or what a door takes or gives cannot be told.
    """
    files.function_for_inference()  # says so where there is none
    signatures = {child.local_name: child.node_id for child in files.objects[files.child("signatures")].children}
    for name in sorted(signatures, key=lambda name: name != "serving_default"):
        yield _signature(files, name, signatures[name])
    call = files.child("__call__")
    if call is not None and files.objects[call].WhichOneof("kind") == "function":
        for function in files.objects[call].function.concrete_functions:
            door = _call(files, function)
            if door is not None:
                yield door


def find_effect(files: SavedModelFiles, function: str) -> str | None:
    """Return what a function, or one that it calls, does besides computing in single precision; `None` if nothing.

    TensorFlow runs stateful operations whether or not a result depends on them: it is all of a function's body that
    counts, not what the results are computed from.
    """
    from tensorflow.python.framework import dtypes, op_def_registry

    pending, seen = [function], set()
    while pending:
        name = pending.pop()
        if name in seen or name not in files.library:
            continue
        seen.add(name)
        for node in files.library[name].node_def:
            definition = op_def_registry.get(node.op)
            if definition is None or (definition.is_stateful and node.op not in _STATEFUL):
                return f"it runs {node.op} ({node.name!r}), which is not a pure computation"
            for attribute in node.attr.values():
                pending += [f.name for f in (attribute.func, *attribute.list.func) if f.name]
                for number in (attribute.type, *attribute.list.type):
                    dtype = dtypes.as_dtype(number).name if number in dtypes._INTERN_TABLE else number
                    if number and dtype not in _TYPES:
                        return f"it computes in {dtype} ({node.op} {node.name!r}), single precision is supported"
    return None


def find_meanings(door: Door, called: tuple[str, ...]) -> list[str]:
    """Tell what each of a door's outputs should be.

    Args:
        door: the door.
        called: the names of the outputs of calling the model, if it gives a dictionary. In signatures, Keras counts
            these: `bert_encoder`, `bert_encoder_1`, …, `bert_encoder_10`, which TensorFlow then sorts as texts.

    Returns:
        `pooled_output`, `sequence_output`, `embedding_output`, `encoder_outputs/0`, … or `attention_scores/0`, …; empty
        if unknown.
    """
    known = [_meaning(name) for name in door.outputs]
    if all(known):
        return known
    if len(called) != len(door.outputs):
        called = ("pooled_output", "sequence_output")[: len(door.outputs)]  # the lists of TF Hub before 2020
    if len(called) != len(door.outputs):
        return known
    in_order = sorted(door.outputs, key=_count)
    return [_meaning(called[in_order.index(name)]) for name in door.outputs]


def _meaning(name: str) -> str:
    if name == "default":
        return "pooled_output"
    if name in ("pooled_output", "sequence_output", "embedding_output"):
        return name
    found = re.fullmatch(r"(encoder_outputs|attention_scores)[/_](\d+)", name)
    return f"{found[1]}/{int(found[2])}" if found else ""


def _count(name: str) -> int:
    number = re.fullmatch(r"(?:.*_)?(\d+)", name)
    return int(number[1]) if number else 0


def _signature(files: SavedModelFiles, name: str, node: int) -> Door:
    function = files.objects[node].bare_concrete_function
    arguments = _free_arguments(files, function.concrete_function_name)
    if len(function.argument_keywords) != len(arguments):
        raise ValueError(f"{files.path!r}: the signature {name!r} does not name its inputs.")
    names = dict(zip(arguments, function.argument_keywords, strict=True))
    return _door(files, f"the signature {name!r}", function.concrete_function_name, names)


def _call(files: SavedModelFiles, function: str) -> Door | None:
    """Return the door that one concrete function of `__call__` is, or `None` where it is for training."""
    signature = files.concrete_functions[function].canonicalized_input_signature
    leaves = list(_leaves(signature))
    if any(value.WhichOneof("kind") == "bool_value" and value.bool_value for _, value in leaves):
        return None
    tensors = [(path, value) for path, value in leaves if value.WhichOneof("kind") == "tensor_spec_value"]
    arguments = _free_arguments(files, function)
    if len(tensors) != len(arguments):
        raise ValueError(f"{files.path!r}: `__call__` does not take as many tensors as its function {function!r}.")
    names = {}
    for argument, (path, value) in zip(arguments, tensors, strict=True):
        # (arguments, keywords), the first of which is the inputs: a dictionary, a list, or one tensor after the other.
        inner = path[2:] if path[:1] == ("0",) else path[1:]
        names[argument] = value.tensor_spec_value.name
        if inner and inner[-1].isdigit():
            names[argument] = INPUTS[int(inner[-1])] if int(inner[-1]) < len(INPUTS) else inner[-1]
        elif inner:
            names[argument] = inner[-1]
    return _door(files, "calling it", function, names)


def _door(files: SavedModelFiles, name: str, function: str, arguments: dict[str, str]) -> Door:
    outputs = [path for path, _ in _leaves(files.concrete_functions[function].output_signature)]
    if len(outputs) != len(files.library[function].signature.output_arg):
        raise ValueError(f"{files.path!r}: the function {function!r} does not give what it says.")
    return Door(name, function, arguments, tuple("/".join(path) for path in outputs))


def _free_arguments(files: SavedModelFiles, function: str) -> list[str]:
    """Return a function's arguments without those that it captured."""
    if function not in files.library or function not in files.concrete_functions:
        raise ValueError(f"{files.path!r}: the function {function!r} is missing from saved_model.pb.")
    names = [argument.name for argument in files.library[function].signature.input_arg]
    captured = len(files.concrete_functions[function].bound_inputs)
    return names[: max(0, len(names) - captured)]


def _leaves(value, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield what a `StructuredValue` consists of, in TensorFlow's order, each with the names that lead to it."""
    kind = value.WhichOneof("kind")
    if kind in ("list_value", "tuple_value"):
        for i, inner in enumerate(getattr(value, kind).values):
            yield from _leaves(inner, (*path, str(i)))
    elif kind == "dict_value":
        for name in sorted(value.dict_value.fields):
            yield from _leaves(value.dict_value.fields[name], (*path, name))
    elif kind == "named_tuple_value":
        for pair in value.named_tuple_value.values:
            yield from _leaves(pair.value, (*path, pair.key))
    else:
        yield path, value
