//! The instructions of aarch64 that block kernels use, as numbers. Cranelift has an assembler of its own, which selects
//! neither `smmla`, nor `sdot` by element, nor pairwise sums; these few dozen encodings are less than another
//! assembler would be to depend on. The tests compare each with what GNU as makes of the same line.

/// A general register of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct X(pub u8);

/// A vector register of 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct V(pub u8);

impl V {
    /// The register `n` further on.
    pub(super) const fn plus(self, n: usize) -> V {
        V(self.0 + n as u8)
    }
}

/// The stack pointer in addresses and additions, zero elsewhere.
pub(super) const SP: X = X(31);
const ZERO: X = X(31);

/// `op d, n, m` on vectors.
#[derive(Clone, Copy)]
pub(super) struct Three(u32);

/// `op d, n` on vectors.
#[derive(Clone, Copy)]
pub(super) struct Two(u32);

pub(super) const EOR: Three = Three(0x6e20_1c00);
pub(super) const ADD_4S: Three = Three(0x4ea0_8400);
pub(super) const SUB_4S: Three = Three(0x6ea0_8400);
pub(super) const ADDP_4S: Three = Three(0x4ea0_bc00);
pub(super) const MUL_16B: Three = Three(0x4e20_9c00);
pub(super) const CMTST_16B: Three = Three(0x4e20_8c00);
/// u8 by u8 to u16, the lower or the upper eight.
pub(super) const UMULL: Three = Three(0x2e20_c000);
pub(super) const UMULL2: Three = Three(0x6e20_c000);
/// i8 by i8, added to i16, the lower or the upper eight.
pub(super) const SMLAL: Three = Three(0x0e20_8000);
pub(super) const SMLAL2: Three = Three(0x4e20_8000);
/// Two rows of eight i8 by two more, added to a matrix of two by two i32.
pub(super) const SMMLA: Three = Three(0x4e80_a400);
pub(super) const ZIP1_4S: Three = Three(0x4e80_3800);
pub(super) const ZIP2_4S: Three = Three(0x4e80_7800);
pub(super) const ZIP1_2D: Three = Three(0x4ec0_3800);
pub(super) const ZIP2_2D: Three = Three(0x4ec0_7800);
/// The odd bytes of two vectors: the upper halves of 16 words.
pub(super) const UZP2_16B: Three = Three(0x4e00_5800);
pub(super) const NEG_4S: Two = Two(0x6ea0_b800);
/// Sums of two neighbouring i16, as i32.
pub(super) const SADDLP_4S: Two = Two(0x4e60_2800);

/// A place in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// How an instruction says where a label is.
#[derive(Clone, Copy)]
enum Reach {
    /// In words, 26 bits.
    Branch,
    /// In words, 19 bits.
    Conditional,
    /// In bytes, 21 bits.
    Address,
}

/// Emits instructions, and after them constants.
#[derive(Default)]
pub(super) struct Asm {
    code: Vec<u32>,
    /// In words from the start.
    labels: Vec<Option<usize>>,
    references: Vec<(usize, Label, Reach)>,
    constants: Vec<(Label, Vec<[u8; 16]>)>,
}

impl Asm {
    fn put(&mut self, word: u32) {
        self.code.push(word);
    }

    /// `d = value`.
    pub(super) fn constant(&mut self, d: X, value: u64) {
        let part = |i: u32| (value >> (16 * i)) as u32 & 0xffff;
        self.put(0xd280_0000 | part(0) << 5 | x(d));
        for i in (1..4).filter(|&i| part(i) != 0) {
            self.put(0xf280_0000 | i << 21 | part(i) << 5 | x(d));
        }
    }

    /// `d = n`.
    pub(super) fn copy(&mut self, d: X, n: X) {
        self.put(0xaa00_03e0 | x(n) << 16 | x(d));
    }

    /// `d = n + value`, for less than 2^24.
    pub(super) fn add(&mut self, d: X, n: X, value: u32) {
        self.immediate(0x9100_0000, d, n, value);
    }

    /// `d = n - value`, for less than 2^24.
    pub(super) fn sub(&mut self, d: X, n: X, value: u32) {
        self.immediate(0xd100_0000, d, n, value);
    }

    fn immediate(&mut self, op: u32, d: X, n: X, value: u32) {
        debug_assert!(value < 1 << 24);
        let (low, high) = (value & 0xfff, value >> 12);
        if high != 0 {
            self.put(op | 1 << 22 | high << 10 | x(n) << 5 | x(d));
        }
        if low != 0 || high == 0 {
            self.put(op | low << 10 | x(if high != 0 { d } else { n }) << 5 | x(d));
        }
    }

    /// `d = n + m`.
    pub(super) fn add_register(&mut self, d: X, n: X, m: X) {
        self.put(0x8b00_0000 | x(m) << 16 | x(n) << 5 | x(d));
    }

    /// `d = n << bits`.
    pub(super) fn shift_left(&mut self, d: X, n: X, bits: u32) {
        self.put(0xd340_0000 | ((64 - bits) % 64) << 16 | (63 - bits) << 10 | x(n) << 5 | x(d));
    }

    /// `d = d - value`, for less than 2^12, and compares the result with 0.
    pub(super) fn count_down(&mut self, d: X, value: u32) {
        self.put(0xf100_0000 | value << 10 | x(d) << 5 | x(d));
    }

    /// Compares with a number of less than 2^12.
    pub(super) fn compare(&mut self, n: X, value: u32) {
        self.put(0xf100_0000 | value << 10 | x(n) << 5 | x(ZERO));
    }

    /// `d = [base + at]`, 64 bits; `at` is a multiple of 8.
    pub(super) fn load(&mut self, d: X, base: X, at: usize) {
        self.put(0xf940_0000 | (at as u32 / 8) << 10 | x(base) << 5 | x(d));
    }

    /// `[base + at]` to two general registers; `at` is a multiple of 8.
    pub(super) fn load_pair(&mut self, (d, e): (X, X), base: X, at: usize) {
        self.put(0xa940_0000 | (at as u32 / 8) << 15 | x(e) << 10 | x(base) << 5 | x(d));
    }

    /// Two general registers to `[base + at]`; `at` is a multiple of 8.
    pub(super) fn store_pair(&mut self, (s, t): (X, X), base: X, at: usize) {
        self.put(0xa900_0000 | (at as u32 / 8) << 15 | x(t) << 10 | x(base) << 5 | x(s));
    }

    /// `[base + at]` to the lower halves of two vectors; `at` is a multiple of 8.
    pub(super) fn load_halves(&mut self, (d, e): (V, V), base: X, at: usize) {
        self.put(0x6d40_0000 | (at as u32 / 8) << 15 | v(e) << 10 | x(base) << 5 | v(d));
    }

    /// The lower halves of two vectors to `[base + at]`; `at` is a multiple of 8.
    pub(super) fn store_halves(&mut self, (s, t): (V, V), base: X, at: usize) {
        self.put(0x6d00_0000 | (at as u32 / 8) << 15 | v(t) << 10 | x(base) << 5 | v(s));
    }

    pub(super) fn ret(&mut self) {
        self.put(0xd65f_03c0);
    }

    /// A label that is placed later.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Sets a label here.
    pub(super) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    /// A label that stands here.
    pub(super) fn here(&mut self) -> Label {
        let label = self.label();
        self.place(label);
        label
    }

    fn refer(&mut self, word: u32, label: Label, reach: Reach) {
        self.references.push((self.code.len(), label, reach));
        self.put(word);
    }

    pub(super) fn jump(&mut self, label: Label) {
        self.refer(0x1400_0000, label, Reach::Branch);
    }

    /// Jumps where what was compared last was different.
    pub(super) fn jump_if_not_equal(&mut self, label: Label) {
        self.refer(0x5400_0001, label, Reach::Conditional);
    }

    /// Jumps where what was compared last was the same.
    pub(super) fn jump_if_equal(&mut self, label: Label) {
        self.refer(0x5400_0000, label, Reach::Conditional);
    }

    /// Jumps where what was compared last was less, of numbers without sign.
    pub(super) fn jump_if_below(&mut self, label: Label) {
        self.refer(0x5400_0003, label, Reach::Conditional);
    }

    /// Jumps where what was compared last was not less, of numbers without sign.
    pub(super) fn jump_unless_below(&mut self, label: Label) {
        self.refer(0x5400_0002, label, Reach::Conditional);
    }

    pub(super) fn jump_if_zero(&mut self, n: X, label: Label) {
        self.refer(0xb400_0000 | x(n), label, Reach::Conditional);
    }

    /// `d` becomes the address of constants that [`Asm::finish`] places after the code, at a multiple of 16 bytes.
    pub(super) fn constants(&mut self, d: X, vectors: Vec<[u8; 16]>) {
        let label = self.label();
        self.constants.push((label, vectors));
        self.refer(0x1000_0000 | x(d), label, Reach::Address);
    }

    /// `d = n op m`, or `d += n op m`.
    pub(super) fn op(&mut self, op: Three, d: V, n: V, m: V) {
        self.put(op.0 | v(m) << 16 | v(n) << 5 | v(d));
    }

    /// `d = op n`.
    pub(super) fn unary(&mut self, op: Two, d: V, n: V) {
        self.put(op.0 | v(n) << 5 | v(d));
    }

    /// `d += n . m[quad]`: four sums of four products of i8, all with the same quad of `m`.
    pub(super) fn sdot_by_quad(&mut self, d: V, n: V, m: V, quad: usize) {
        let (low, high) = (quad as u32 & 1, quad as u32 >> 1);
        self.put(0x4f80_e000 | low << 21 | v(m) << 16 | high << 11 | v(n) << 5 | v(d));
    }

    /// `d = n << bits` in i32.
    pub(super) fn shift_left_4s(&mut self, d: V, n: V, bits: u32) {
        self.put(0x4f00_5400 | (32 + bits) << 16 | v(n) << 5 | v(d));
    }

    /// `table[index]` for each byte, of a table in one register or two; 0 past its end.
    pub(super) fn lookup(&mut self, d: V, table: V, registers: u32, index: V) {
        self.put(0x4e00_0000 | v(index) << 16 | (registers - 1) << 13 | v(table) << 5 | v(d));
    }

    pub(super) fn zero(&mut self, d: V) {
        self.put(0x4f00_e400 | v(d));
    }

    /// `[base]` to a vector, after which `base` moves on by its 16 bytes.
    pub(super) fn load_next(&mut self, d: V, base: X) {
        self.put(0x3cc1_0400 | x(base) << 5 | v(d));
    }

    /// `[base + at]` to a vector; `at` is a multiple of 16.
    pub(super) fn load_vector(&mut self, d: V, base: X, at: usize) {
        self.put(0x3dc0_0000 | (at as u32 / 16) << 10 | x(base) << 5 | v(d));
    }

    /// `[base + at]` to two vectors; `at` is a multiple of 16 and below 1024.
    pub(super) fn load_vectors(&mut self, (d, e): (V, V), base: X, at: usize) {
        self.put(0xad40_0000 | (at as u32 / 16) << 15 | v(e) << 10 | x(base) << 5 | v(d));
    }

    /// The i32 at `[base]` in every lane.
    pub(super) fn broadcast(&mut self, d: V, base: X) {
        self.put(0x4d40_c800 | x(base) << 5 | v(d));
    }

    /// Loads 1 to 4 successive registers from `[base]`.
    pub(super) fn load_all(&mut self, first: V, count: usize, base: X) {
        self.put(0x4c40_0000 | lists(count) | x(base) << 5 | v(first));
    }

    /// As [`Asm::load_all`], after which `base` moves on by `step`, or by what was loaded.
    pub(super) fn load_all_next(&mut self, first: V, count: usize, base: X, step: Option<X>) {
        self.put(0x4cc0_0000 | x(step.unwrap_or(ZERO)) << 16 | lists(count) | x(base) << 5 | v(first));
    }

    /// Stores 1 to 4 successive registers to `[base]`.
    pub(super) fn store_all(&mut self, first: V, count: usize, base: X) {
        self.put(0x4c00_0000 | lists(count) | x(base) << 5 | v(first));
    }

    /// As [`Asm::store_all`], after which `base` moves on by `step`, or by what was stored.
    pub(super) fn store_all_next(&mut self, first: V, count: usize, base: X, step: Option<X>) {
        self.put(0x4c80_0000 | x(step.unwrap_or(ZERO)) << 16 | lists(count) | x(base) << 5 | v(first));
    }

    /// The machine code: instructions, then constants.
    ///
    /// # Errors
    /// Where a label is missing or out of an instruction's reach.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, String> {
        for (label, vectors) in std::mem::take(&mut self.constants) {
            self.code.resize(self.code.len().next_multiple_of(4), 0);
            self.place(label);
            for word in vectors.as_flattened().chunks_exact(4) {
                self.put(word.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte)));
            }
        }
        for &(at, label, reach) in &self.references {
            let to = self.labels[label.0].ok_or("a label that was not placed")?;
            let words = to as i64 - at as i64;
            let (distance, bits) = match reach {
                Reach::Branch => (words, 26),
                Reach::Conditional => (words, 19),
                Reach::Address => (4 * words, 21),
            };
            if distance >> (bits - 1) != 0 && distance >> (bits - 1) != -1 {
                return Err(format!("a label {words} words away"));
            }
            let field = distance as u32 & ((1 << bits) - 1);
            self.code[at] |= match reach {
                Reach::Branch => field,
                Reach::Conditional => field << 5,
                Reach::Address => (field & 3) << 29 | (field >> 2) << 5,
            };
        }
        Ok(self.code.iter().flat_map(|word| word.to_le_bytes()).collect())
    }
}

fn x(register: X) -> u32 {
    u32::from(register.0)
}

fn v(register: V) -> u32 {
    debug_assert!(register.0 < 32);
    u32::from(register.0)
}

/// The field that says how many registers a list of bytes has.
fn lists(count: usize) -> u32 {
    const ONE_TO_FOUR: [u32; 4] = [0b0111, 0b1010, 0b0110, 0b0010];
    ONE_TO_FOUR[count - 1] << 12
}

#[cfg(test)]
mod tests {
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
}
