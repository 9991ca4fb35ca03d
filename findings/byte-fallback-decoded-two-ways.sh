#!/usr/bin/env bash
# sentencepiece 0.2.1 and tokenizers 0.23.3 give different text for the same token ids where bytes are no whole character.
#
# A vocabulary with byte fallback spells rare characters in byte tokens. A model may generate any of them, so a run of byte
# tokens need not be UTF-8. SentencePiece keeps the characters that are whole and puts one U+FFFD for each byte that is none.
# The ByteFallback decoder of tokenizers, which transformers uses for the same model, takes the run as a whole: one wrong byte,
# and every byte of the run becomes U+FFFD, the whole characters before it as well.
# So text that was streamed to a user can be unlike the text of a later decode of the same ids, and neither library is wrong.
#
# Seen, for the bytes of "ab日", FF, and those of "é": sentencepiece 'ab日\ufffdé', tokenizers eight U+FFFD.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet sentencepiece==0.2.1 tokenizers==0.23.3
"$work/venv/bin/python" - <<'PYTHON'
import io
import json
import sentencepiece
from tokenizers import Tokenizer

model = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(["one two three one two"] * 50), model_writer=model, vocab_size=280, model_type="bpe",
    byte_fallback=True, character_coverage=1.0, minloglevel=2)
pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
# The tokenizer.json that converters write for such a model; merges do not matter for decoding.
tokenizer = Tokenizer.from_str(json.dumps({
    "version": "1.0",
    "added_tokens": [],
    "model": {"type": "BPE", "vocab": {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}, "merges": [],
              "byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"},
    "decoder": {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
}))


def both(data):
    ids = [pieces.piece_to_id(f"<0x{byte:02X}>") for byte in data]
    return pieces.decode(ids), tokenizer.decode(ids)


whole = both("ab日é".encode())
broken = both("ab日".encode() + b"\xff" + "é".encode())
print("whole characters", whole)
print("one wrong byte  ", broken)
assert whole == ("ab日é", "ab日é"), whole
assert broken == ("ab日\ufffdé", "\ufffd" * 8), broken
PYTHON
