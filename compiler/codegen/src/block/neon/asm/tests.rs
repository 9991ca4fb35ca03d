//! Encodings, compared with another assembler's.

use super::*;

fn words(emit: impl FnOnce(&mut Asm)) -> Vec<u32> {
    let mut a = Asm::default();
    emit(&mut a);
    let bytes = a.finish().unwrap();
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// Each instruction with the number that GNU as 2.40 makes of the text (`-march=armv8.6-a`).
#[test]
fn instructions_are_encoded_as_by_gnu_as() {
    type Case<'a> = (&'a str, &'a [u32], &'a dyn Fn(&mut Asm));
    let cases: &[Case] = &[
        ("movz x9, #7", &[0xd280_00e9], &|a| a.constant(X(9), 7)),
        ("movz; movk x9, #0x1234, lsl #16", &[0xd280_00e9, 0xf2a2_4689], &|a| {
            a.constant(X(9), 0x1234_0007);
        }),
        ("mov x3, x22", &[0xaa16_03e3], &|a| a.copy(X(3), X(22))),
        ("add x4, x5, #4095", &[0x913f_fca4], &|a| a.add(X(4), X(5), 4095)),
        ("add x4, x5, #2, lsl #12", &[0x9140_08a4], &|a| a.add(X(4), X(5), 8192)),
        ("sub sp, sp, #144", &[0xd102_43ff], &|a| a.sub(SP, SP, 144)),
        ("sub x16, x16, #2, lsl #12", &[0xd140_0a10], &|a| a.sub(X(16), X(16), 8192)),
        ("add x20, x19, x6", &[0x8b06_0274], &|a| a.add_register(X(20), X(19), X(6))),
        ("lsl x7, x7, #2", &[0xd37e_f4e7], &|a| a.shift_left(X(7), X(7), 2)),
        ("lsl x16, x6, #3", &[0xd37d_f0d0], &|a| a.shift_left(X(16), X(6), 3)),
        ("subs x9, x9, #1", &[0xf100_0529], &|a| a.count_down(X(9), 1)),
        ("cmp x15, #8", &[0xf100_21ff], &|a| a.compare(X(15), 8)),
        ("ldr x8, [x0, #32]", &[0xf940_1008], &|a| a.load(X(8), X(0), 32)),
        ("ldp x19, x20, [sp, #16]", &[0xa941_53f3], &|a| a.load_pair((X(19), X(20)), SP, 16)),
        ("stp x27, x28, [sp, #64]", &[0xa904_73fb], &|a| a.store_pair((X(27), X(28)), SP, 64)),
        ("ldp d14, d15, [sp, #128]", &[0x6d48_3fee], &|a| a.load_halves((V(14), V(15)), SP, 128)),
        ("stp d8, d9, [sp, #80]", &[0x6d05_27e8], &|a| a.store_halves((V(8), V(9)), SP, 80)),
        ("ret", &[0xd65f_03c0], &|a| a.ret()),
        ("eor v1.16b, v2.16b, v24.16b", &[0x6e38_1c41], &|a| a.op(EOR, V(1), V(2), V(24))),
        ("add v1.4s, v2.4s, v3.4s", &[0x4ea3_8441], &|a| a.op(ADD_4S, V(1), V(2), V(3))),
        ("sub v1.4s, v2.4s, v3.4s", &[0x6ea3_8441], &|a| a.op(SUB_4S, V(1), V(2), V(3))),
        ("addp v1.4s, v2.4s, v31.4s", &[0x4ebf_bc41], &|a| a.op(ADDP_4S, V(1), V(2), V(31))),
        ("mul v1.16b, v2.16b, v3.16b", &[0x4e23_9c41], &|a| a.op(MUL_16B, V(1), V(2), V(3))),
        ("cmtst v1.16b, v2.16b, v3.16b", &[0x4e23_8c41], &|a| a.op(CMTST_16B, V(1), V(2), V(3))),
        ("umull v1.8h, v2.8b, v3.8b", &[0x2e23_c041], &|a| a.op(UMULL, V(1), V(2), V(3))),
        ("umull2 v1.8h, v2.16b, v3.16b", &[0x6e23_c041], &|a| a.op(UMULL2, V(1), V(2), V(3))),
        ("smlal v15.8h, v24.8b, v19.8b", &[0x0e33_830f], &|a| a.op(SMLAL, V(15), V(24), V(19))),
        ("smlal2 v15.8h, v24.16b, v19.16b", &[0x4e33_830f], &|a| a.op(SMLAL2, V(15), V(24), V(19))),
        ("smmla v15.4s, v16.16b, v31.16b", &[0x4e9f_a60f], &|a| a.op(SMMLA, V(15), V(16), V(31))),
        ("zip1 v1.4s, v2.4s, v3.4s", &[0x4e83_3841], &|a| a.op(ZIP1_4S, V(1), V(2), V(3))),
        ("zip2 v1.4s, v2.4s, v3.4s", &[0x4e83_7841], &|a| a.op(ZIP2_4S, V(1), V(2), V(3))),
        ("zip1 v1.2d, v2.2d, v3.2d", &[0x4ec3_3841], &|a| a.op(ZIP1_2D, V(1), V(2), V(3))),
        ("zip2 v1.2d, v2.2d, v3.2d", &[0x4ec3_7841], &|a| a.op(ZIP2_2D, V(1), V(2), V(3))),
        ("uzp2 v1.16b, v2.16b, v3.16b", &[0x4e03_5841], &|a| a.op(UZP2_16B, V(1), V(2), V(3))),
        ("neg v1.4s, v2.4s", &[0x6ea0_b841], &|a| a.unary(NEG_4S, V(1), V(2))),
        ("saddlp v1.4s, v2.8h", &[0x4e60_2841], &|a| a.unary(SADDLP_4S, V(1), V(2))),
        ("sdot v15.4s, v31.16b, v23.4b[0]", &[0x4f97_e3ef], &|a| {
            a.sdot_by_quad(V(15), V(31), V(23), 0);
        }),
        ("sdot v15.4s, v24.16b, v16.4b[1], [2], [3]", &[0x4fb0_e30f, 0x4f90_eb0f, 0x4fb0_eb0f], &|a| {
            (1..4).for_each(|quad| a.sdot_by_quad(V(15), V(24), V(16), quad));
        }),
        ("shl v1.4s, v2.4s, #1", &[0x4f21_5441], &|a| a.shift_left_4s(V(1), V(2), 1)),
        ("tbl v1.16b, {v22.16b}, v3.16b", &[0x4e03_02c1], &|a| a.lookup(V(1), V(22), 1, V(3))),
        ("tbl v1.16b, {v16.16b, v17.16b}, v3.16b", &[0x4e03_2201], &|a| {
            a.lookup(V(1), V(16), 2, V(3));
        }),
        ("movi v1.16b, #0", &[0x4f00_e401], &|a| a.zero(V(1))),
        ("ldr q5, [x19], #16", &[0x3cc1_0665], &|a| a.load_next(V(5), X(19))),
        ("ldr q5, [x1, #240]", &[0x3dc0_3c25], &|a| a.load_vector(V(5), X(1), 240)),
        ("ldr d30, [x16, #448]", &[0xfd40_e21e], &|a| a.load_half(V(30), X(16), 448)),
        ("str d30, [x19, #256]", &[0xfd00_827e], &|a| a.store_half(V(30), X(19), 256)),
        ("str q30, [x26, #256]", &[0x3d80_435e], &|a| a.store_vector(V(30), X(26), 256)),
        ("movi v28.16b, #3", &[0x4f00_e47c], &|a| a.fill_bytes(V(28), 3)),
        ("movi v28.4s, #3", &[0x4f00_047c], &|a| a.fill_4s(V(28), 3)),
        ("mls v5.4s, v1.4s, v28.4s", &[0x6ebc_9425], &|a| a.op(MLS_4S, V(5), V(1), V(28))),
        ("sshr v5.4s, v6.4s, #8", &[0x4f38_04c5], &|a| a.shift_right_4s(V(5), V(6), 8)),
        ("madd x26, x16, x6, x11", &[0x9b06_2e1a], &|a| a.multiply_add(X(26), X(16), X(6), X(11))),
        ("ldp q4, q5, [x1, #96]", &[0xad43_1424], &|a| a.load_vectors((V(4), V(5)), X(1), 96)),
        ("ld1r {v28.4s}, [x17]", &[0x4d40_ca3c], &|a| a.broadcast(V(28), X(17))),
        ("ld1 {v0.16b-v3.16b}, [x1]", &[0x4c40_2020], &|a| a.load_all(V(0), 4, X(1))),
        ("ld1 {v1.16b}, [x2]", &[0x4c40_7041], &|a| a.load_all(V(1), 1, X(2))),
        ("ld1 {v16.16b-v19.16b}, [x17], #64", &[0x4cdf_2230], &|a| {
            a.load_all_next(V(16), 4, X(17), None);
        }),
        ("ld1 {v16.16b-v18.16b}, [x17], #48", &[0x4cdf_6230], &|a| {
            a.load_all_next(V(16), 3, X(17), None);
        }),
        ("ld1 {v24.16b-v27.16b}, [x16], x23", &[0x4cd7_2218], &|a| {
            a.load_all_next(V(24), 4, X(16), Some(X(23)));
        }),
        ("st1 {v16.16b-v17.16b}, [x16]", &[0x4c00_a210], &|a| a.store_all(V(16), 2, X(16))),
        ("st1 {v16.16b}, [x17], #16", &[0x4c9f_7230], &|a| a.store_all_next(V(16), 1, X(17), None)),
        ("st1 {v12.16b-v15.16b}, [x16], x19", &[0x4c93_220c], &|a| {
            a.store_all_next(V(12), 4, X(16), Some(X(19)));
        }),
    ];
    for (text, expected, emit) in cases {
        assert_eq!(&words(emit), expected, "{text}");
    }
}

#[test]
fn labels_are_found_forwards_and_backwards() {
    let found = words(|a| {
        let back = a.here();
        let ahead = a.label();
        a.jump(ahead);
        a.jump_if_not_equal(back);
        a.place(ahead);
        a.jump_if_equal(ahead);
        a.jump_if_below(back);
        a.jump_unless_below(back);
        a.jump_if_zero(X(17), back);
        a.constants(X(16), vec![[1; 16]]);
        a.ret();
    });
    let expected = [
        0x1400_0002,
        0x54ff_ffe1,
        0x5400_0000,
        0x54ff_ffa3,
        0x54ff_ff82,
        0xb4ff_ff71,
        0x1000_0050,
        0xd65f_03c0,
    ];
    assert_eq!(found, [&expected[..], &[0x0101_0101; 4]].concat());
    let missing = words_or_error(|a| {
        let label = a.label();
        a.jump(label);
    });
    assert!(missing.is_err());
    let far = words_or_error(|a| {
        let label = a.here();
        (0..(1 << 18) + 1).for_each(|_| a.ret());
        a.jump_if_equal(label);
    });
    assert!(far.is_err());
}

fn words_or_error(emit: impl FnOnce(&mut Asm)) -> Result<Vec<u8>, String> {
    let mut a = Asm::default();
    emit(&mut a);
    a.finish()
}
