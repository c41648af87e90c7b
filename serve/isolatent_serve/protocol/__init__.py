"""The Open Inference Protocol v2 (KServe's, Triton's), REST, with the binary tensor extension.

    metadata    what the server and a model say of themselves
    requests    bytes of a request -> its input, still encoded, and the outputs that it wants
    tensors     an input tensor, in JSON or binary -> the array that the encoder takes, or files
    outputs     names of outputs -> one computation; the computed tensors -> the answer, in JSON or binary
    schemas     all JSON of the protocol as types
    openapi     what /openapi.json says about the addresses

The addresses are in routes/inference_protocol.py.
"""
