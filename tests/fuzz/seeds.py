"""Writes the seeds of checkpoints, tokenizers, templates and calls. `examples/seeds.rs` writes bundles.

python seeds.py, in this folder. It needs nothing but Python.
"""

import io
import json
import pickle
import shutil
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

HERE = Path(__file__).resolve().parent
HIDDEN, FFN, VOCAB = 16, 32, 12
CONFIG = {
    "architectures": ["BitNetForCausalLM"],
    "model_type": "bitnet",
    "hidden_act": "relu2",
    "hidden_size": HIDDEN,
    "intermediate_size": FFN,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": VOCAB,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "quantization_config": {
        "quant_method": "bitnet",
        "linear_class": "autobitlinear",
        "quantization_mode": "offline",
    },
}
LLAMA = {
    **{key: CONFIG[key] for key in CONFIG if key != "quantization_config"},
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
# Rows and columns of the matrices of a layer.
MATRICES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN // 2, HIDDEN),
    "self_attn.v_proj": (HIDDEN // 2, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (FFN, HIDDEN),
    "mlp.up_proj": (FFN, HIDDEN),
    "mlp.down_proj": (HIDDEN, FFN),
}


def write(target: str, name: str, data: bytes) -> None:
    """Writes one seed."""
    folder = HERE / "seeds" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def bf16(values: list[float]) -> bytes:
    """bfloat16 of values that it holds exactly, or nearly."""
    return b"".join(struct.pack("<f", value)[2:] for value in values)


def small(count: int) -> list[float]:
    """Floats between -1 and 1 that are not ternary."""
    return [((i * 37) % 64 - 32) / 32 for i in range(count)]


def trits(count: int, scale: float) -> list[float]:
    """Ternary floats."""
    return [((i * i + i // 5) % 3 - 1) * scale for i in range(count)]


def tensors(packed: bool) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Type, shape and bytes of each tensor: matrices packed by four, or ternary bfloat16."""
    found = {"model.embed_tokens.weight": ("BF16", (VOCAB, HIDDEN), bf16(small(VOCAB * HIDDEN)))}
    for name, (rows, columns) in MATRICES.items():
        at = f"model.layers.0.{name}.weight"
        if packed:
            codes = bytes(
                (i * 7 % 3) | (i % 3) << 2 | (i // 3 % 3) << 4 | (i // 7 % 3) << 6
                for i in range(rows * columns // 4)
            )
            found[at] = ("U8", (rows // 4, columns), codes)
            found[f"{at}_scale"] = ("BF16", (1,), bf16([0.5]))
        else:
            found[at] = ("BF16", (rows, columns), bf16(trits(rows * columns, 0.5)))
    norms = {"input_layernorm": HIDDEN, "post_attention_layernorm": HIDDEN}
    if packed:
        norms |= {"self_attn.attn_sub_norm": HIDDEN, "mlp.ffn_sub_norm": FFN}
    for name, count in norms.items():
        found[f"model.layers.0.{name}.weight"] = ("BF16", (count,), bf16([1.0] * count))
    found["model.norm.weight"] = ("BF16", (HIDDEN,), bf16([1.0] * HIDDEN))
    if not packed:
        found["lm_head.weight"] = ("BF16", (VOCAB, HIDDEN), bf16(small(VOCAB * HIDDEN)))
    return found


def safetensors(found: dict[str, tuple[str, tuple[int, ...], bytes]]) -> bytes:
    """A file of safetensors."""
    header, data = {}, b""
    for name, (dtype, shape, content) in found.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def gguf_text(text: str) -> bytes:
    """A string of GGUF."""
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf() -> bytes:
    """A model of llama.cpp with ternary matrices in F16."""
    tokens = ["<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "b", "c", "ab", "▁ab", "abc", "d"]

    def array(kind: int, values: list[bytes]) -> tuple[int, bytes]:
        return 9, struct.pack("<IQ", kind, len(values)) + b"".join(values)

    metadata = {
        "general.architecture": (8, gguf_text("llama")),
        "general.name": (8, gguf_text("seed")),
        "llama.block_count": (4, struct.pack("<I", 1)),
        "llama.context_length": (4, struct.pack("<I", 32)),
        "llama.embedding_length": (4, struct.pack("<I", HIDDEN)),
        "llama.feed_forward_length": (4, struct.pack("<I", FFN)),
        "llama.attention.head_count": (4, struct.pack("<I", 2)),
        "llama.attention.head_count_kv": (4, struct.pack("<I", 1)),
        "llama.attention.layer_norm_rms_epsilon": (6, struct.pack("<f", 1e-5)),
        "llama.rope.freq_base": (6, struct.pack("<f", 10000.0)),
        "llama.rope.dimension_count": (4, struct.pack("<I", HIDDEN // 2)),
        "llama.vocab_size": (4, struct.pack("<I", VOCAB)),
        "tokenizer.ggml.model": (8, gguf_text("llama")),
        "tokenizer.ggml.tokens": array(8, [gguf_text(token) for token in tokens]),
        "tokenizer.ggml.scores": array(6, [struct.pack("<f", -float(i)) for i in range(VOCAB)]),
        "tokenizer.ggml.token_type": array(5, [struct.pack("<i", kind) for kind in [2, 3, 3, 6] + [1] * 8]),
        "tokenizer.ggml.bos_token_id": (4, struct.pack("<I", 1)),
        "tokenizer.ggml.eos_token_id": (4, struct.pack("<I", 2)),
    }
    names = {
        "attn_q": MATRICES["self_attn.q_proj"],
        "attn_k": MATRICES["self_attn.k_proj"],
        "attn_v": MATRICES["self_attn.v_proj"],
        "attn_output": MATRICES["self_attn.o_proj"],
        "ffn_gate": MATRICES["mlp.gate_proj"],
        "ffn_up": MATRICES["mlp.up_proj"],
        "ffn_down": MATRICES["mlp.down_proj"],
    }
    found = {
        "token_embd.weight": ((VOCAB, HIDDEN), 1, small(VOCAB * HIDDEN)),
        "output_norm.weight": ((HIDDEN,), 0, [1.0] * HIDDEN),
    }
    for name, (rows, columns) in names.items():
        found[f"blk.0.{name}.weight"] = ((rows, columns), 1, trits(rows * columns, 0.5))
    for name in ["attn_norm", "ffn_norm"]:
        found[f"blk.0.{name}.weight"] = ((HIDDEN,), 0, [1.0] * HIDDEN)
    out = b"GGUF" + struct.pack("<IQQ", 3, len(found), len(metadata))
    for key, (kind, value) in metadata.items():
        out += gguf_text(key) + struct.pack("<I", kind) + value
    data = b""
    for name, (shape, kind, values) in found.items():
        out += gguf_text(name) + struct.pack("<I", len(shape))
        out += b"".join(struct.pack("<Q", size) for size in reversed(shape))
        out += struct.pack("<IQ", kind, len(data))
        data += b"".join(struct.pack("<e" if kind == 1 else "<f", value) for value in values)
        data += bytes(-len(data) % 32)
    return out + bytes(-len(out) % 32) + data


def pytorch() -> tuple[bytes, bytes]:
    """A checkpoint as torch.save writes it, and its pickle alone."""

    class FloatStorage:
        """Stands for the class that the pickle names."""

    def _rebuild_tensor_v2(*_: object) -> None:
        """Stands for the function that the pickle names."""

    torch, torch_utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    FloatStorage.__module__, FloatStorage.__qualname__ = "torch", "FloatStorage"
    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    torch.FloatStorage, torch._utils, torch_utils._rebuild_tensor_v2 = (
        FloatStorage,
        torch_utils,
        _rebuild_tensor_v2,
    )
    sys.modules |= {"torch": torch, "torch._utils": torch_utils}
    storages: list[bytes] = []

    class Storage:
        def __init__(self, key: int, count: int) -> None:
            self.key, self.count = str(key), count

    class Tensor:
        def __init__(self, shape: tuple[int, ...], values: list[float]) -> None:
            strides = tuple(shape[1] if len(shape) == 2 and i == 0 else 1 for i in range(len(shape)))
            self.parts = (Storage(len(storages), len(values)), 0, shape, strides, False, OrderedDict())
            storages.append(struct.pack(f"<{len(values)}f", *values))

        def __reduce__(self) -> tuple[object, ...]:
            return _rebuild_tensor_v2, self.parts

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            if isinstance(value, Storage):
                return "storage", FloatStorage, value.key, "cpu", value.count
            return None

    state: OrderedDict[str, Tensor] = OrderedDict()
    for name, (_, shape, content) in tensors(packed=False).items():
        values = [struct.unpack("<f", b"\0\0" + content[at : at + 2])[0] for at in range(0, len(content), 2)]
        # In the archive of the target all storages are one.
        state[name] = Tensor(shape, values)
    out = io.BytesIO()
    Pickler(out, protocol=2).dump(state)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for name, content in [
            ("m/data.pkl", out.getvalue()),
            *((f"m/data/{i}", s) for i, s in enumerate(storages)),
        ]:
            file.writestr(zipfile.ZipInfo(name), content)
        file.writestr(zipfile.ZipInfo("m/version"), b"3\n")
    single = io.BytesIO()
    storages.clear()
    Pickler(single, protocol=2).dump({"model.norm.weight": Tensor((HIDDEN,), [1.0] * HIDDEN)})
    return archive.getvalue(), single.getvalue()


TEMPLATES = {
    "plain": "{% for m in messages %}<|{{ m['role'] }}|>{{ m.content | trim }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "loops": "{%- set ns = namespace(n=0) -%}{%- for i in range(5) -%}{%- if loop.index0 % 2 -%}"
    "{{ loop.cycle('a','b') }}{%- else -%}{{ i ~ '-' ~ loop.last }}{%- endif -%}"
    "{%- set ns.n = ns.n + i * 2 -%}{%- endfor -%}{{ ns.n }}",
    "filters": "{{ [3,1,2] | sort | join(', ') | upper | replace('1', 'x') }}"
    "{{ {'a': 1, 'b': [1.5, none]} | tojson(indent=2) }}{{ 'a,b'.split(',') | list | length }}"
    "{{ '%s %05.2f %x' | format('x', 2.5, 255) }}{{ 'abc'[::-1] }}{{ 7 // 2 ** 2 }}",
    "macros": "{% macro call(x, y=2) %}({{ x }}|{{ y }}){{ caller() if caller }}{% endmacro %}"
    "{{ call(1, y=3) }}{% call call(1) %}in{% endcall %}{% filter upper %}text{% endfilter %}"
    "{{ raise_exception('no') if messages | length > 9 }}",
    "dicts": "{% set d = dict(a=1, b=2) %}{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}"
    "{{ messages | map(attribute='role') | unique | list }}"
    "{{ messages | selectattr('role', 'equalto', 'user') | list | tojson }}{{ strftime_now('%Y') }}",
}
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "ä 1"}]},
]


def tokenizers() -> dict[str, object]:
    """Small tokenizers of each kind of model and stage."""
    plain = json.loads((HERE / "src" / "tokenizer.json").read_text())
    vocabulary = {token: i for i, token in enumerate(["<unk>", "a", "b", "c", "Ġ", "ab", "Ġab", "##b"])}
    bytes_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    split = {
        "type": "Split",
        "pattern": {"Regex": "\\p{L}+|\\s+(?!\\S)|[^\\s]"},
        "behavior": "Isolated",
        "invert": False,
    }
    empty = {
        key: None
        for key in ["truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"]
    }
    base = {"version": "1.0", **empty, "added_tokens": plain["added_tokens"][:1]}
    bpe = {**plain["model"], "vocab": vocabulary, "merges": [["a", "b"], ["Ġ", "ab"]]}
    pieces = [["<unk>", 0.0], ["▁", -1.0], ["a", -2.0], ["ab", -1.5], ["▁ab", -1.25], ["b", -3.0]]
    return {
        "sentencepiece": plain,
        "bytes": {
            **base,
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, bytes_level]},
            "post_processor": bytes_level,
            "decoder": bytes_level,
            "model": bpe,
        },
        "unigram": {
            **base,
            "pre_tokenizer": {
                "type": "Metaspace",
                "replacement": "▁",
                "prepend_scheme": "always",
                "split": True,
            },
            "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
            "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False},
        },
        "wordpiece": {
            **base,
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": True,
                "lowercase": True,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {
                "type": "WordPiece",
                "unk_token": "<unk>",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": vocabulary,
            },
        },
        "words": {
            **base,
            "pre_tokenizer": {"type": "Whitespace"},
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
        },
    }


def main() -> None:
    """Writes every seed anew."""
    for target in ["safetensors", "gguf", "pickle", "template", "tokenizer", "capi"]:
        shutil.rmtree(HERE / "seeds" / target, ignore_errors=True)
    (HERE / "src" / "config.json").write_text(json.dumps(LLAMA) + "\n")
    for name, config, packed in [("packed", CONFIG, True), ("ternary", LLAMA, False)]:
        content = json.dumps(config, separators=(",", ":")).encode() + b"\0" + safetensors(tensors(packed))
        write("safetensors", name, b"\0" + content)
    write("gguf", "llama", b"\0" + gguf())
    archive, single = pytorch()
    write("pickle", "archive", b"\0" + archive)
    write("pickle", "single", b"\x80" + single)
    for file in sorted((HERE.parent / "fixtures" / "pytorch").glob("*.bin")):
        write("pickle", file.stem, b"\0" + file.read_bytes())
    for name, template in TEMPLATES.items():
        request = {"messages": MESSAGES, "add_generation_prompt": True}
        write("template", name, template.encode() + b"\0" + json.dumps(request).encode())
        write("template", f"{name}-usual", template.encode())
    for name, tokenizer in tokenizers().items():
        text = "ab <s>  abc\nÄ 1".encode()
        write(
            "tokenizer",
            name,
            json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode() + b"\0" + text,
        )
    # Bytes that become calls of each kind.
    for nth in range(4):
        write("capi", f"calls-{nth}", bytes((i * (2 * nth + 37) + i // 7 * 13) % 256 for i in range(600)))


if __name__ == "__main__":
    main()
