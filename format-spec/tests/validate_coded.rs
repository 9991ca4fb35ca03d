//! Tables of int8 codes: what makes one valid, and how many bytes it has.

mod bundle;

use bundle::coded::coded;
use bundle::{Case, NORM, file_of};
use trit_format::container::Header;
use trit_format::manifest::{Manifest, Tensor};
use trit_format::plan::DType;
use trit_format::text;

/// Demands of each change that validation complains with these words.
fn refused(cases: &[Case]) {
    let header = Header::parse(&file_of(&coded())).unwrap();
    assert_eq!(coded().validate(&header), Ok(()));
    for (expected, change) in cases {
        let mut manifest = coded();
        change(&mut manifest);
        assert_eq!(manifest.validate(&header).unwrap_err().to_string(), *expected);
    }
}

fn blocks(columns: u32, offsets: bool) -> DType {
    DType::I8Blocks { columns, offsets }
}

#[test]
fn tables_of_codes_are_whole_blocks_inside_the_section() {
    refused(&[
        ("tensor embedding: has blocks of 0 columns; [16, 32] are possible", |m| {
            m.tensors[0].dtype = blocks(0, false);
        }),
        ("tensor embedding: has blocks of 4294967295 columns; [16, 32] are possible", |m| {
            m.tensors[0].dtype = blocks(u32::MAX, true);
        }),
        ("tensor embedding: has blocks of 64 columns; [16, 32] are possible", |m| {
            m.tensors[0].dtype = blocks(64, false);
        }),
        ("tensor embedding: its shape [10, 16] is no matrix of whole blocks of 32 columns", |m| {
            m.tensors[0].dtype = blocks(32, false);
        }),
        ("tensor embedding: its shape [10, 24] is no matrix of whole blocks of 16 columns", |m| {
            m.tensors[0].shape = vec![10, 24];
        }),
        ("tensor embedding: its shape [160] is no matrix of whole blocks of 16 columns", |m| {
            m.tensors[0].shape = vec![160];
        }),
        ("tensor embedding: its shape [2, 5, 16] is no matrix of whole blocks of 16 columns", |m| {
            m.tensors[0].shape = vec![2, 5, 16];
        }),
        ("tensor embedding: its shape [10, 0] is empty", |m| m.tensors[0].shape = vec![10, 0]),
        ("tensor embedding: its size overflows 64 bits", |m| m.tensors[0].shape = vec![1 << 60, 16]),
        ("tensor embedding: its size overflows 64 bits", |m| m.tensors[0].shape = vec![10, 1 << 63]),
        // More columns than there are bytes for.
        ("tensor head: overlaps tensor embedding", |m| m.tensors[0].shape = vec![10, 64]),
    ]);
}

#[test]
fn codes_stand_in_tables_alone() {
    refused(&[
        ("buffer normed: is of I8Blocks { columns: 16, offsets: false }, which only tables are", |m| {
            m.plan.buffers[1].dtype = blocks(16, false);
        }),
        (
            "body step 1: weight is tensor norm I8Blocks { columns: 16, offsets: false }[1, 16], expected F32[16]",
            |m| {
                let norm = &mut m.tensors[NORM.0 as usize];
                (norm.dtype, norm.shape) = (blocks(16, false), vec![1, 16]);
            },
        ),
    ]);
}

#[test]
fn sizes_are_those_of_rows() {
    let bytes =
        |dtype, rows, k| Tensor { name: String::new(), dtype, shape: vec![rows, k], offset: 0 }.bytes();
    assert_eq!(bytes(blocks(32, false), 151_936, 4096), Some(151_936 * 4608));
    assert_eq!(bytes(blocks(16, false), 151_936, 4096), Some(151_936 * 5120));
    assert_eq!(bytes(blocks(32, true), 151_936, 4096), Some(151_936 * 5120));
    assert_eq!(bytes(blocks(16, true), 3, 256), Some(3 * 384));
    // Rows begin at multiples of 64.
    assert_eq!(bytes(blocks(32, false), 5, 32), Some(5 * 64));
    for (rows, k) in [(1, 24), (1, 0), (u64::MAX, 16), (1, u64::MAX - 15)] {
        assert_eq!(bytes(blocks(16, false), rows, k), None);
    }
    for shape in [vec![], vec![16], vec![1, 2, 16]] {
        let tensor = Tensor { name: String::new(), dtype: blocks(16, false), shape, offset: 0 };
        assert_eq!(tensor.bytes(), None);
    }
}

#[test]
fn a_plan_names_the_codes() {
    let text = text::plan(&coded());
    assert!(text.contains("embedding[10x16 i8/16]") && text.contains("head[10x16 i8/16+offset]"), "{text}");
}

/// A reader that does not know a type of elements says so.
#[test]
fn unknown_types_are_refused() {
    let mut m = coded();
    m.tensors[0].name = "table".into();
    let mut bytes = m.encode().unwrap();
    let at = bytes.windows(5).position(|name| name == b"table").unwrap() + 5;
    assert_eq!(bytes[at..at + 4], [5, 0, 0, 0]);
    bytes[at] = 6;
    let error = Manifest::decode(&bytes).unwrap_err().to_string();
    for word in ["manifest cannot be decoded", "does not know", "6", "use a newer version"] {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}
