"""Writes a checkpoint of tests/fixtures as GGUF, with the `gguf` package that llama.cpp's converters use.

    convert.py CHECKPOINT OUT.gguf --arch bitnet-b1.58 --type TQ2_0 [--embedding Q6_K] [--scales] [--pre llama-bpe]

tests/tests/gguf.rs runs it and demands the same model from both files. Ternary types that the package does not have are
packed here, after the programs that write them (llama.cpp, PrismML's fork, ik_llama.cpp). A matrix that a type cannot
hold (rows of another size) is written as F16, as converters do.
"""

import argparse
import json
import struct
from pathlib import Path

import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import quantize

# Name: number in files, weights of a block, bytes of a block, bytes before a row's first block.
TYPES = {
    "TQ1_0": (34, 256, 54, 0),
    "TQ2_0": (35, 256, 66, 0),
    "Q2_0": (42, 64, 18, 0),
    "Q2_0_PRISM": (42, 128, 34, 0),
    "IQ1_BN": (134, 64, 13, 2),
    "IQ2_BN": (135, 64, 16, 4),
    "PQ2_0": (142, 128, 34, 0),
    "PTQ1_0": (143, 128, 28, 0),
    "STQ1_0": (43, 256, 42, 0),
    # As Tencent's files had it first.
    "STQ1_0_42": (42, 256, 42, 0),
}
# I2_S is a scale after codes in one of three orders; how many bytes of a block stand side by side.
I2S = {"I2_S_X86": lambda k: 32, "I2_S_ARM": lambda k: 16, "I2_S_1X4": lambda k: k}
# Where the f16 scales of a block are, of types that the package only reads.
SCALES = {
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
}
LINEARS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NORMS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.query_layernorm": "attn_q_norm",
    "self_attn.key_layernorm": "attn_k_norm",
    "self_attn.attn_sub_norm": "attn_sub_norm",
    "mlp.ffn_sub_norm": "ffn_sub_norm",
}


def read_safetensors(path):
    """Tensors by name; bf16 is widened to f32."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    types = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "u1"}
    tensors = {}
    for name, info in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        start, end = (8 + length + offset for offset in info["data_offsets"])
        values = np.frombuffer(data[start:end], dtype=types[info["dtype"]]).reshape(info["shape"])
        if info["dtype"] == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = values
    return tensors


def linear(tensors, module, config):
    """A linear layer's weights as trits [rows, k] and scales that broadcast to them."""
    weight = tensors[module + ".weight"]
    scale = tensors.get(module + ".weight_scale")
    if weight.dtype == np.uint8:
        trits = np.concatenate([(weight >> (2 * i)) & 3 for i in range(4)]).astype(np.int8) - 1
        scale = scale.astype(np.float32)
        divides = config["quantization_config"].get("linear_class", "bitlinear") == "bitlinear"
        return trits, (1 / scale if divides else scale).reshape(1, 1)
    return np.sign(weight).astype(np.int8), np.abs(weight.astype(np.float32))


def interleave(rows, heads):
    """Rows of each head as llama.cpp's RoPE of neighbours needs them."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def digits(codes):
    """Codes [..., n] of up to five digits, most significant first, as ceil(q * 256 / 243)."""
    number = np.zeros(codes.shape[:-1], np.uint16)
    for i in range(5):
        number = number * 3 + (codes[..., i] if i < codes.shape[-1] else 0)
    return ((number * 256 + 242) // 243).astype(np.uint8)


def quarters(codes):
    """Codes [..., 4], one byte of each four."""
    shifts = np.array([0, 2, 4, 6], np.uint8)
    return np.bitwise_or.reduce(codes.astype(np.uint8) << shifts, axis=-1)


def slots(trits):
    """STQ1_0 without its scales: for each four trits 16 apart the place of the zero and two relative signs, then a sign."""
    lanes = trits.reshape(trits.shape[0], -1, 4, 4, 16).swapaxes(-1, -2).reshape(trits.shape[0], -1, 64, 4)
    assert np.all((lanes == 0).sum(axis=-1) == 1), "one of four weights must be zero"
    zero = (lanes == 0).argmax(axis=-1)
    others = lanes[lanes != 0].reshape(*lanes.shape[:-1], 3)
    slot = zero << 2 | (others[..., 2] != others[..., 0]) << 1 | (others[..., 1] != others[..., 0])
    pairs = (slot[..., 0::2] | slot[..., 1::2] << 4).astype(np.uint8)
    return np.concatenate([pairs, np.packbits(others[..., 0] < 0, axis=-1, bitorder="little")], axis=-1)


def pack(kind, trits, scales):
    """Bytes [rows, row bytes] of a ternary matrix."""
    _, block, _, header = TYPES[kind]
    rows, k = trits.shape
    scales = np.broadcast_to(scales, trits.shape)
    weights = trits * scales
    if kind in ("TQ1_0", "TQ2_0"):
        return quantize(weights, gguf.GGMLQuantizationType(TYPES[kind][0]))
    group = k if header else block
    d = np.abs(weights).reshape(rows, -1, group).max(axis=-1, keepdims=True)
    assert np.array_equal(d * trits.reshape(rows, -1, group), weights.reshape(rows, -1, group)), f"{kind} loses scales"
    codes = (trits + 1).astype(np.uint8).reshape(rows, k // block, block)
    d = d.astype(np.float32 if kind == "IQ2_BN" else np.float16).reshape(rows, -1)
    if kind == "IQ2_BN":
        blocks = quarters(codes.reshape(rows, -1, 4, 16).swapaxes(-1, -2))
        return np.concatenate([d.view(np.uint8), blocks.reshape(rows, -1)], axis=-1)
    if kind == "IQ1_BN":
        sixteens = codes.reshape(rows, -1, 4, 16)
        full = digits(sixteens[..., :15].reshape(rows, -1, 12, 5)[..., ::-1])
        # The sixteenths, least significant first, below a digit of zero.
        last = sixteens[..., 15][..., ::-1]
        last = digits(np.concatenate([np.zeros_like(last[..., :1]), last], axis=-1))
        blocks = np.concatenate([full, last[..., None]], axis=-1)
        return np.concatenate([d.view(np.uint8), blocks.reshape(rows, -1)], axis=-1)
    d = d.view(np.uint8).reshape(rows, -1, 2)
    if kind.startswith("STQ1_0"):
        return np.concatenate([slots(trits), d], axis=-1).reshape(rows, -1)
    if kind == "PTQ1_0":
        runs, start = [], 0
        for run, n in ((16, 5), (8, 5), (2, 4)):
            part = codes[..., start : start + run * n].reshape(rows, -1, n, run).swapaxes(-1, -2)
            runs.append(digits(part))
            start += run * n
        return np.concatenate([*runs, d], axis=-1).reshape(rows, -1)
    return np.concatenate([d, quarters(codes.reshape(rows, -1, block // 4, 4))], axis=-1).reshape(rows, -1)


def add_ternary(writer, name, kind, trits, scales):
    number, block, size, header = TYPES[kind]
    if trits.shape[1] % block:
        writer.add_tensor(name, (trits * scales).astype(np.float16))
        return
    data = np.ascontiguousarray(pack(kind, trits, scales))
    # The package asks this table for the shape, and knows only some of the types.
    known = GGML_QUANT_SIZES.get(number)
    GGML_QUANT_SIZES[number] = (trits.shape[1], header + trits.shape[1] // block * size)
    writer.add_tensor(name, data, raw_dtype=number)
    if known:
        GGML_QUANT_SIZES[number] = known


def add_i2s(writer, name, kind, trits, scales):
    """As quantize_i2_s of microsoft/BitNet on each CPU: one scale, four codes to a byte, the first uppermost."""
    assert scales.size == 1, "I2_S has one scale"
    codes = (trits + 1).astype(np.uint8).reshape(-1, 4, I2S[kind](trits.shape[1]))
    packed = codes[:, 0] << 6 | codes[:, 1] << 4 | codes[:, 2] << 2 | codes[:, 3]
    trailer = np.zeros(8, np.float32)
    trailer[0] = scales.reshape(-1)[0]
    data = np.concatenate([packed.reshape(-1), trailer.view(np.uint8)])
    # Of bytes the package would make a shape by its own table of types.
    writer.add_tensor(name, data.view(np.int8), raw_shape=trits.shape, raw_dtype=36)


def add_floats(writer, name, values, kind):
    """A table of floats in that type, where its rows go into blocks."""
    values = values.astype(np.float32)
    kind = gguf.GGMLQuantizationType[kind]
    if values.shape[-1] % GGML_QUANT_SIZES[kind][0]:
        kind = gguf.GGMLQuantizationType.F16
    if kind.name in SCALES:
        # The package only reads these; any bytes are a tensor of that type, and finite with such scales.
        block, size = GGML_QUANT_SIZES[kind]
        rng = np.random.default_rng(1)
        data = rng.integers(0, 256, (values.shape[0], values.shape[1] // block, size), dtype=np.uint8)
        half = np.float16(0.002).tobytes()
        for at in SCALES[kind.name]:
            data[..., at : at + 2] = np.frombuffer(half, np.uint8)
        data = data.reshape(values.shape[0], -1)
    else:
        data = quantize(values, kind)
    writer.add_tensor(name, data, raw_dtype=kind)


def add_tokenizer(writer, folder, pre):
    file = folder / "tokenizer.json"
    if not file.is_file():
        return
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokens = {id: (token, gguf.TokenType.NORMAL) for token, id in tokenizer["model"]["vocab"].items()}
    for added in tokenizer["added_tokens"]:
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]] = (added["content"], kind)
    writer.add_tokenizer_model("gpt2")
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list([tokens[id][0] for id in range(len(tokens))])
    writer.add_token_types([tokens[id][1] for id in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    ids = {token: id for id, (token, _) in tokens.items()}
    writer.add_bos_token_id(ids[settings["bos_token"]])
    writer.add_eos_token_id(ids[settings["eos_token"]])
    if "<|eot_id|>" in ids:
        writer.add_eot_token_id(ids["<|eot_id|>"])
    writer.add_add_bos_token(True)
    writer.add_chat_template(settings["chat_template"])


def llama3_factors(config, head_dim):
    """What Llama 3's scaling divides frequencies by (`generate_extra_tensors` of llama.cpp's LlamaModel)."""
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") != "llama3":
        return None
    wavelengths = 2 * np.pi * config["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
    factor, low, high = (scaling[key] for key in ("factor", "low_freq_factor", "high_freq_factor"))
    original = scaling["original_max_position_embeddings"]
    smooth = (original / wavelengths - low) / (high - low)
    factors = 1 / ((1 - smooth) / factor + smooth)
    factors[wavelengths < original / high] = 1
    factors[wavelengths > original / low] = factor
    return factors.astype(np.float32)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--arch", required=True)
    parser.add_argument("--type", required=True, choices=[*TYPES, *I2S, "F16", "F32"])
    parser.add_argument("--embedding", default="F32")
    parser.add_argument("--ternary-embedding", action="store_true")
    parser.add_argument("--scales", action="store_true", help="weights of -1, 0 and 1, and scale tensors beside them")
    parser.add_argument("--pre")
    parser.add_argument("--name", default="test")
    parser.add_argument("--parts", action="store_true", help="no more than eight tensors in a file")
    args = parser.parse_args()

    config = json.loads((args.checkpoint / "config.json").read_text())
    tensors = read_safetensors(args.checkpoint / "model.safetensors")
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or config

    writer = gguf.GGUFWriter(args.out, args.arch, split_max_tensors=8 if args.parts else 0)
    writer.add_name(args.name)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    if args.arch in ("qwen3", "hunyuan-dense"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    else:
        writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    alpha = (config.get("rope_scaling") or {}).get("alpha")
    if alpha:
        writer.add_rope_freq_base(rope["rope_theta"] * alpha ** (head_dim / (head_dim - 2)))
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
        writer.add_rope_scaling_factor(1)
        writer.add_rope_scaling_orig_ctx_len(config["max_position_embeddings"])
    else:
        writer.add_rope_freq_base(rope["rope_theta"])
    if args.arch == "bitnet":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(1.0)
    add_tokenizer(writer, args.checkpoint, args.pre)

    if args.arch == "minicpm":
        writer.add_embedding_scale(float(config["scale_emb"]))
        writer.add_residual_scale(config["scale_depth"] / config["num_hidden_layers"] ** 0.5)
        writer.add_logit_scale(config["hidden_size"] / config["dim_model_base"])
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        for length in ("long", "short"):
            values = np.array(config["rope_scaling"][f"{length}_factor"], np.float32)
            writer.add_tensor(f"rope_factors_{length}.weight", values)
    factors = llama3_factors(config, head_dim)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors)
    for table, name in (("model.embed_tokens", "token_embd"), ("lm_head", "output")):
        if table + ".weight" not in tensors:
            continue
        if args.ternary_embedding:
            add_ternary(writer, name + ".weight", args.type, *linear(tensors, table, config))
        else:
            add_floats(writer, name + ".weight", tensors[table + ".weight"], args.embedding)
    writer.add_tensor("output_norm.weight", tensors["model.norm.weight"].astype(np.float32))
    for layer in range(config["num_hidden_layers"]):
        for module, name in NORMS.items():
            weights = tensors.get(f"model.layers.{layer}.{module}.weight")
            if weights is not None:
                writer.add_tensor(f"blk.{layer}.{name}.weight", weights.astype(np.float32))
        for module, name in LINEARS.items():
            trits, scales = linear(tensors, f"model.layers.{layer}.{module}", config)
            if args.arch in ("llama", "minicpm") and name in ("attn_q", "attn_k"):
                n = heads if name == "attn_q" else kv_heads
                trits = interleave(trits, n)
                scales = interleave(scales, n) if scales.shape == trits.shape else scales
            if args.scales:
                scale = scales.reshape(-1)[:1].astype(np.float32)
                writer.add_tensor(f"blk.{layer}.{name}.scale", scale)
                scales = np.ones((1, 1), np.float32)
            full = f"blk.{layer}.{name}.weight"
            if args.type in ("F16", "F32"):
                writer.add_tensor(full, (trits * scales).astype(np.float16 if args.type == "F16" else np.float32))
            elif args.type in I2S:
                add_i2s(writer, full, args.type, trits, scales)
            else:
                add_ternary(writer, full, args.type, trits, scales)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
