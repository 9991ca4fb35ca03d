//! Random trits through the codec and the tile layout.

use proptest::prelude::*;
use trit_format::dense243::{self, Code};
use trit_format::tile;

fn trit() -> impl Strategy<Value = i8> {
    -1..=1i8
}

fn code() -> impl Strategy<Value = Code> {
    prop::sample::select(&Code::ALL[..])
}

fn ternary_code() -> impl Strategy<Value = Code> {
    prop::sample::select(&Code::TERNARY[..])
}

proptest! {
    // Seeds are printed; no file is written into the source tree.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn dense243(trits in prop::array::uniform5(trit()), code in ternary_code()) {
        let byte = dense243::encode(trits);
        let sum: i32 = trits.iter().zip([1, 3, 9, 27, 81]).map(|(&t, weight)| (i32::from(t) + 1) * weight).sum();
        prop_assert_eq!(i32::from(byte), sum);
        prop_assert_eq!(dense243::decode(byte), Some(trits));
        prop_assert_eq!(code.store(byte).and_then(|byte| code.load(byte)), Some(byte));
    }

    #[test]
    fn tiles((rows, k, trits) in (1..=80usize, 1..=70usize).prop_flat_map(|(rows, k)| {
        (Just(rows), Just(k), prop::collection::vec(trit(), rows * k))
    }), code in ternary_code()) {
        let mut bytes = vec![0; tile::bytes(k)];
        tile::encode(&trits, k, code, &mut bytes).unwrap();
        let decoded = tile::decode(&bytes, k, code).unwrap();
        prop_assert_eq!(&decoded[..rows * k], &trits[..]);
        prop_assert!(decoded[rows * k..].iter().all(|&t| t == 0));
        // Each trit where SPEC.md says it stands.
        for (i, &trit) in trits.iter().enumerate() {
            let (row, k) = (i / k, i % k);
            let (digit, lane) = (row / 16, row % 16);
            let byte = code.load(bytes[k / 4 * 64 + lane * 4 + k % 4]).unwrap();
            prop_assert_eq!(i32::from(byte) / 3i32.pow(digit as u32) % 3 - 1, i32::from(trit));
        }
    }

    #[test]
    fn tiles_of_signs((rows, k, signs) in (1..=128usize, 1..=70usize).prop_flat_map(|(rows, k)| {
        let sign = any::<bool>().prop_map(|plus| if plus { 1 } else { -1i8 });
        (Just(rows), Just(k), prop::collection::vec(sign, rows * k))
    })) {
        let mut bytes = vec![0; tile::bytes(k)];
        tile::encode(&signs, k, Code::Binary, &mut bytes).unwrap();
        let decoded = tile::decode(&bytes, k, Code::Binary).unwrap();
        prop_assert_eq!(&decoded[..rows * k], &signs[..]);
        prop_assert!(decoded[rows * k..].iter().all(|&w| w == -1));
        // Each sign where SPEC.md says it stands.
        for (i, &sign) in signs.iter().enumerate() {
            let (row, k) = (i / k, i % k);
            let (digit, lane) = (row / 16, row % 16);
            let bit = bytes[k / 4 * 64 + lane * 4 + k % 4] >> digit & 1;
            prop_assert_eq!(bit as i8 * 2 - 1, sign);
        }
    }

    /// One damaged byte is either refused where it stands or is another valid one.
    #[test]
    fn damaged_tiles(k in 1..=70usize, at in any::<prop::sample::Index>(), byte in any::<u8>(), code in code()) {
        let mut bytes = vec![code.store(121).unwrap(); tile::bytes(k)];
        let at = at.index(bytes.len());
        bytes[at] = byte;
        match code.load(byte) {
            Some(_) => prop_assert!(tile::decode(&bytes, k, code).is_ok()),
            None => prop_assert_eq!(tile::decode(&bytes, k, code), Err(tile::TileError::Byte(at))),
        }
    }
}
