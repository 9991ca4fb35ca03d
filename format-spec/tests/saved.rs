//! The bytes of a saved sequence's head, and how sizes follow from a plan.

use trit_format::container::Digest;
use trit_format::plan::{DeltaHeads, KvLayer, StateShape};
use trit_format::saved::{
    Expected, HEADER_BYTES, Head, KvElement, RecordHeader, SavedError, Shapes, StateElement,
};

/// Two KV layers of 1 and 2 heads; a convolution and a delta rule.
fn shapes() -> Shapes {
    let kv = |n_kv_heads, head_dim| KvLayer { n_heads: 4, n_kv_heads, head_dim };
    let heads = DeltaHeads { keys: 1, values: 3, key_dim: 4, value_dim: 5 };
    Shapes {
        kv: vec![kv(1, 4), kv(2, 6)],
        states: vec![StateShape::Inputs { rows: 3, channels: 7 }, StateShape::Matrices(heads)],
    }
}

fn expected() -> Expected {
    Expected { bundle: Digest([7; 32]), vocab_size: 100, context_length: 1000, shapes: shapes() }
}

fn head() -> Head {
    let header = RecordHeader {
        record: 0,
        records: 2,
        tokens: 3,
        states: 2,
        widened: Some(1),
        kv: KvElement::F32,
        state: StateElement::F16,
        len: 0,
        bundle: Digest([7; 32]),
    };
    let len = header.record_bytes(&shapes()).unwrap();
    Head {
        header: RecordHeader { len, ..header },
        tokens: vec![9, 0x55, 2],
        positions: vec![1, 3],
        pages: vec![Digest([1; 32])],
        states: vec![Digest([2; 32]), Digest([3; 32])],
    }
}

/// Bytes of the record of [`head`].
const LEN: u64 = 1088;

#[test]
fn the_bytes_of_a_head() {
    let bytes = head().encode();
    let hex = |range: std::ops::Range<usize>| {
        bytes[range].iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(hex(0..16), "89 54 52 49 53 0d 0a 1a 01 00 00 00 01 00 00 00");
    assert_eq!(hex(16..32), "00 00 00 00 02 00 00 00 03 00 00 00 02 00 00 00");
    assert_eq!(hex(32..48), "01 00 00 00 01 00 00 00 01 00 00 00 00 00 00 00");
    // The head 128 + 4 * 5 + 32 * 3, positions of 4 * 2 * (4 + 12) bytes, states of 4 * 21 + 2 * 60: 1036, up to 64.
    assert_eq!(hex(48..64), "40 04 00 00 00 00 00 00 00 00 00 00 00 00 00 00");
    assert_eq!(hex(64..96), ["07"; 32].join(" "));
    assert_eq!(hex(128..148), "09 00 00 00 55 00 00 00 02 00 00 00 01 00 00 00 03 00 00 00");
    assert_eq!(hex(148..244), [["01"; 32].join(" "), ["02"; 32].join(" "), ["03"; 32].join(" ")].join(" "));
    assert_eq!(bytes.len(), 244);
    let mut zeroed = bytes.clone();
    zeroed[96..128].fill(0);
    assert_eq!(bytes[96..128], Digest::of(&zeroed).0);
    assert_eq!(Head::parse(&bytes, 0, LEN, &expected()), Ok(head()));
}

#[test]
fn sizes_follow_from_the_plan() {
    let shapes = shapes();
    // 4 + 2 * 6 elements of keys, as many of values, and scales of 3 heads.
    assert_eq!(shapes.page_bytes(KvElement::F16, 256), Some(256 * 2 * 2 * 16));
    assert_eq!(shapes.page_bytes(KvElement::Int8, 3), Some(3 * (2 * 16 + 2 * 4 * 3)));
    assert_eq!(shapes.state_bytes(StateElement::F32), Some(4 * (21 + 60)));
    let header = RecordHeader { tokens: 513, ..head().header };
    assert_eq!((header.pages(), header.rows(0), header.rows(2)), (3, 256, 1));
    assert_eq!(header.head_bytes(), 128 + 4 * 515 + 32 * 5);
    assert_eq!(header.page_at(&shapes, 2), Some(header.head_bytes() + 2 * 256 * 128));
    assert_eq!(header.state_at(&shapes, 1), Some(header.head_bytes() + 513 * 128 + 204));
    // Plans whose sizes no number holds.
    let huge = DeltaHeads { keys: 1, values: u32::MAX, key_dim: u32::MAX, value_dim: u32::MAX };
    let layer = KvLayer { n_heads: 1, n_kv_heads: u32::MAX, head_dim: u32::MAX };
    let shapes = Shapes { kv: vec![layer; 2], states: vec![StateShape::Matrices(huge)] };
    assert_eq!(shapes.page_bytes(KvElement::F32, 256), None);
    assert_eq!((shapes.state_bytes(StateElement::F16), header.record_bytes(&shapes)), (None, None));
}

#[test]
fn each_error_names_what_is_wrong() {
    let parse = |change: &dyn Fn(&mut Vec<u8>), left: u64| {
        let mut bytes = head().encode();
        change(&mut bytes);
        Head::parse(&bytes, 0, left, &expected()).unwrap_err()
    };
    let set = |at: usize, word: u32| {
        move |bytes: &mut Vec<u8>| bytes[at..at + 4].copy_from_slice(&word.to_le_bytes())
    };
    let says = |error: SavedError, words: &str| {
        let text = error.to_string();
        assert!(text.contains(words), "{text}");
    };
    assert_eq!(parse(&set(0, 0), LEN), SavedError::Magic);
    says(parse(&set(8, 2), LEN), "layout 2, numerics 1; this one has 1 and 1");
    says(parse(&set(12, 9), LEN), "layout 1, numerics 9");
    says(parse(&set(64, 0), LEN), "another bundle (000000000707..., this one is 070707070707...)");
    says(parse(&|_| (), LEN - 1), "is cut off: 1087 bytes stand where 1088 should");
    says(parse(&|bytes| bytes.truncate(100), 100), "is cut off: 100 bytes stand where 128 should");
    says(parse(&|bytes| bytes.truncate(243), LEN), "is cut off: 243 bytes stand where 244 should");
    for (at, word, words) in [
        (16, 1, "it is record 1 and stands in the place of 0"),
        (20, 0, "it is record 0 of 0"),
        (24, 0, "it has 0 tokens; 1 to 1000 are possible"),
        (24, 1001, "it has 1001 tokens"),
        (28, 65, "it has 65 recurrent states; up to 64 are possible"),
        (32, 1000, "the position where the cache became one of f32 is impossible"),
        (36, 3, "type 3 of the KV cache is unknown"),
        (36, 0, "the position where the cache became one of f32 is impossible"),
        (40, 2, "type 2 of the recurrent state is unknown"),
        (44, 1, "a byte that must be 0 is not"),
        (60, 1, "a byte that must be 0 is not"),
        (48, 1024, "it says that it has 1024 bytes; by what it holds they are 1088"),
    ] {
        says(parse(&set(at, word), LEN), &format!("in the head of sequence 0 {words}"));
    }
    says(parse(&set(96, 0), LEN), "the head of sequence 0 does not match its digest");
    says(parse(&set(130, 1), LEN), "the head of sequence 0 does not match its digest");
    // With a digest that is right.
    let lie = |change: fn(&mut Head)| {
        let mut head = head();
        change(&mut head);
        Head::parse(&head.encode(), 0, LEN, &expected()).unwrap_err()
    };
    says(lie(|head| head.tokens[1] = 100), "token id 100 is outside the vocabulary of 100");
    for positions in [[0, 3], [3, 1], [2, 2], [1, 4]] {
        let mut head = head();
        head.positions = positions.to_vec();
        let error = Head::parse(&head.encode(), 0, LEN, &expected()).unwrap_err();
        says(error, &format!("recurrent states at {positions:?} of 3 tokens"));
    }
    // A plan without states has none.
    let mut without = expected();
    without.shapes.states.clear();
    let first = head().encode();
    let error = RecordHeader::parse(first[..HEADER_BYTES as usize].try_into().unwrap(), 0, LEN, &without);
    says(error.unwrap_err(), "it has 2 recurrent states; up to 0 are possible");
}
