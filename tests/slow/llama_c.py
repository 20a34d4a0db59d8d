"""llama.cpp through its C interface, from whichever installed package brings the library; only what the tests need.

Its structures differ from version to version, so that they are passed as they come: blocks of bytes that nobody looks into.
"""

import ctypes
from ctypes import POINTER, c_char_p, c_float, c_int8, c_int32, c_size_t, c_void_p
from importlib.util import find_spec
from pathlib import Path

import numpy as np

LIBRARIES = {"xllamacpp": "xllamacpp*.so", "llama_cpp": "lib/libllama.so"}
"""Package -> where its library is."""


class Options(ctypes.Structure):
    """Options of a model or a context, at their defaults: more bytes than any version has."""

    _fields_ = [("bytes", ctypes.c_uint64 * 128)]


class Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", c_int32), ("token", POINTER(c_int32)), ("embd", c_void_p), ("pos", c_void_p), ("n_seq_id", c_void_p),
        ("seq_id", c_void_p), ("logits", POINTER(c_int8)),
    ]  # fmt: skip


def library():
    """The loaded library, or None where no package brings it."""
    for package, pattern in LIBRARIES.items():
        spec = find_spec(package)
        for path in Path(spec.origin).parent.glob(pattern) if spec and spec.origin else ():
            return _typed(ctypes.CDLL(str(path)))
    return None


def _typed(lib):
    lib.llama_model_default_params.restype = lib.llama_context_default_params.restype = Options
    lib.llama_model_load_from_file.argtypes, lib.llama_model_load_from_file.restype = [c_char_p, Options], c_void_p
    lib.llama_init_from_model.argtypes, lib.llama_init_from_model.restype = [c_void_p, Options], c_void_p
    lib.llama_model_get_vocab.argtypes, lib.llama_model_get_vocab.restype = [c_void_p], c_void_p
    lib.llama_vocab_n_tokens.argtypes = [c_void_p]
    lib.llama_decode.argtypes, lib.llama_decode.restype = [c_void_p, Batch], c_int32
    lib.llama_get_logits.argtypes, lib.llama_get_logits.restype = [c_void_p], POINTER(c_float)
    lib.llama_set_adapter_cvec.argtypes = [c_void_p, c_void_p, c_size_t, c_int32, c_int32, c_int32]
    lib.llama_free.argtypes = [c_void_p]
    return lib


class Llama:
    """A model of llama.cpp."""

    def __init__(self, lib, path, n_layers):
        self.lib, self.n_layers = lib, n_layers
        lib.llama_backend_init()
        self.model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        assert self.model, f"llama.cpp did not load {path}"
        self.n_vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))

    def logits(self, tokens, vector=None):
        """Logits [pos, vocab] of one prompt, with a control vector [layer from 1, feature] or without."""
        context = self.lib.llama_init_from_model(self.model, self.lib.llama_context_default_params())
        try:
            if vector is not None:
                size, width = vector.size, vector.shape[1]
                failed = self.lib.llama_set_adapter_cvec(context, vector.ctypes.data, size, width, 1, self.n_layers)
                assert failed == 0
            ids, shown = (c_int32 * len(tokens))(*tokens), (c_int8 * len(tokens))(*[1] * len(tokens))
            assert self.lib.llama_decode(context, Batch(len(tokens), ids, None, None, None, None, shown)) == 0
            flat = np.ctypeslib.as_array(self.lib.llama_get_logits(context), (len(tokens), self.n_vocab))
            return flat.copy()
        finally:
            self.lib.llama_free(context)

