#!/usr/bin/env bash
# tokenizers 0.23.3: `DecodeStream` cannot stream every sequence of ids that `decode` accepts.
#
# With a byte-fallback vocabulary, a run of byte tokens that stops inside a character and is followed by an ordinary token
# makes `DecodeStream.step` raise ("Invalid prefix encountered while decoding stream"): the run's text has changed behind what
# was already given out. `decode` of the same ids gives text. At the end of a sequence nothing is raised, but the streamed
# pieces are not the text that `decode` gives, and there is no call that hands over what was held back.
# A server that streams with it must catch the error in the middle of an answer that the model was free to generate.
#
# Seen: ids of " one", the bytes of "日", E6, " one": 'one', '日', then the exception; decode gives 'one', four U+FFFD, ' one'.
# Ids of the bytes of "日", E6: pieces join to '日', decode gives four U+FFFD.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet tokenizers==0.23.3
"$work/venv/bin/python" - <<'PYTHON'
import json
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

vocab = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"\u2581one": 256}
tokenizer = Tokenizer.from_str(json.dumps({
    "version": "1.0",
    "added_tokens": [],
    "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": True, "fuse_unk": True},
    "decoder": {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
}))


def streamed(ids):
    stream, pieces = DecodeStream(skip_special_tokens=True), []
    for token in ids:
        try:
            pieces.append(stream.step(tokenizer, token) or "")
        except Exception as error:
            return pieces, str(error)
    return pieces, None


character = list("日".encode())
pieces, error = streamed(character)
assert ("".join(pieces), error) == ("日", None) and tokenizer.decode(character) == "日"

middle = [256, *character, 0xE6, 256]
pieces, error = streamed(middle)
print("in the middle:", pieces, error, "| decode:", repr(tokenizer.decode(middle)))
assert "".join(pieces) == "one日" and error is not None and "Invalid prefix" in error
assert tokenizer.decode(middle) == "one" + "\ufffd" * 4 + " one"

end = [*character, 0xE6]
pieces, error = streamed(end)
print("at the end:", pieces, error, "| decode:", repr(tokenizer.decode(end)))
assert ("".join(pieces), error) == ("日", None) and tokenizer.decode(end) == "\ufffd" * 4
PYTHON
