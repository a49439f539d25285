"""What an ONNX graph would have the runtime read beside its own bytes: found before a session is made.

Onnxruntime resolves a tensor's external data against the working directory where a model comes as bytes, so a graph
whose own hash is right could still take its weights from any file of the user's. Such a graph is refused, wherever the
tensor hides: initialisers (sparse ones too), attributes, the bodies of If, Loop and Scan, functions, training
information; and so are nodes that name a compiled context in a file (EPContext).

The check walks the protobuf wire format itself: the package ``onnx`` is needed for exporting only, and would itself
read external data. Field numbers are those of onnx.proto, which never change.

Knows: protobuf's wire format, which messages hold tensors. Refuses to know: what a graph computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

_TENSOR: Final = "TensorProto"
_NODE: Final = "NodeProto"
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_OP_TYPE: Final = 4
_CONTEXT_NODES: Final = frozenset({b"EPContext"})
_LEVELS: Final = 200  # of messages inside one another; protobuf's own readers stop at 100

# Message -> the fields that hold messages in which a tensor or a node can lie.
_INSIDE: Final[Mapping[str, Mapping[int, str]]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: _NODE, 5: _TENSOR, 15: "SparseTensorProto"},
    "FunctionProto": {7: _NODE, 11: "AttributeProto"},
    _NODE: {5: "AttributeProto"},
    "AttributeProto": {
        5: _TENSOR,
        6: "GraphProto",
        10: _TENSOR,
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}


def reads_beside(model: bytes) -> str | None:
    """What a graph would read beside its own bytes, for a message; None where it reads nothing.

    Raises:
        ValueError: the bytes are no ONNX model (protobuf) that can be walked to its end.
    """
    if model[4:8] == b"ORTM":
        raise ValueError("it is in onnxruntime's own format, not in ONNX")
    view = memoryview(model)
    todo: list[tuple[str, memoryview, int]] = [("ModelProto", view, 0)]
    while todo:
        kind, message, level = todo.pop()
        if level > _LEVELS:
            raise ValueError("its messages nest too deep")
        inside = _INSIDE[kind]
        for number, value, _, _ in fields(message):
            if kind == _TENSOR:
                if number == _EXTERNAL_DATA and isinstance(value, memoryview):
                    return "the data of a tensor, from a file beside it"
                if number == _DATA_LOCATION and isinstance(value, int) and value != 0:
                    return "the data of a tensor, from a file beside it"
            elif kind == _NODE and number == _OP_TYPE and isinstance(value, memoryview):
                if bytes(value) in _CONTEXT_NODES:
                    return "a compiled context, from a file beside it"
            if number in inside and isinstance(value, memoryview):
                todo.append((inside[number], value, level + 1))
    return None


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview | None, int, int]]:
    """The fields of a message: number, a varint's value or a length-delimited field's bytes (else None), and where in
    the message the whole field begins and ends.

    Raises:
        ValueError: the bytes are no message of protobuf.
    """
    at, end = 0, len(message)
    while at < end:
        begin = at
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number < 1 << 29:  # readers that cut a longer tag to 32 bits would see another field
            raise ValueError(f"it holds a field of the number {number}, which cannot be")
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value, begin, at
        elif wire == 2:
            length, at = _varint(message, at)
            if length > end - at:
                raise ValueError("it is cut off")
            yield number, message[at : at + length], begin, at + length
            at += length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
            if at > end:
                raise ValueError("it is cut off")
            yield number, None, begin, at
        else:  # groups, which no field of ONNX is, and wire types that there are not
            raise ValueError(f"it holds a field of the wire type {wire}, which ONNX has not")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("it is cut off" if at >= len(message) else "it holds a number that is too long")
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
