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
/// `d -= n * m` in i32.
pub(super) const MLS_4S: Three = Three(0x6ea0_9400);
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

    /// `d = n * m + added`.
    pub(super) fn multiply_add(&mut self, d: X, n: X, m: X, added: X) {
        self.put(0x9b00_0000 | x(m) << 16 | x(added) << 10 | x(n) << 5 | x(d));
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

    /// `d = n >> bits` in i32, keeping the sign.
    pub(super) fn shift_right_4s(&mut self, d: V, n: V, bits: u32) {
        self.put(0x4f00_0400 | (64 - bits) << 16 | v(n) << 5 | v(d));
    }

    /// `table[index]` for each byte, of a table in one register or two; 0 past its end.
    pub(super) fn lookup(&mut self, d: V, table: V, registers: u32, index: V) {
        self.put(0x4e00_0000 | v(index) << 16 | (registers - 1) << 13 | v(table) << 5 | v(d));
    }

    pub(super) fn zero(&mut self, d: V) {
        self.fill_bytes(d, 0);
    }

    /// `value` in every byte.
    pub(super) fn fill_bytes(&mut self, d: V, value: u8) {
        self.put(0x4f00_e400 | immediate_8(value) | v(d));
    }

    /// `value` in every lane of four bytes.
    pub(super) fn fill_4s(&mut self, d: V, value: u8) {
        self.put(0x4f00_0400 | immediate_8(value) | v(d));
    }

    /// `[base]` to a vector, after which `base` moves on by its 16 bytes.
    pub(super) fn load_next(&mut self, d: V, base: X) {
        self.put(0x3cc1_0400 | x(base) << 5 | v(d));
    }

    /// `[base + at]` to a vector; `at` is a multiple of 16.
    pub(super) fn load_vector(&mut self, d: V, base: X, at: usize) {
        self.put(0x3dc0_0000 | (at as u32 / 16) << 10 | x(base) << 5 | v(d));
    }

    /// `[base + at]` to the lower half of a vector, whose upper half becomes zero; `at` is a multiple of 8.
    pub(super) fn load_half(&mut self, d: V, base: X, at: usize) {
        self.put(0xfd40_0000 | (at as u32 / 8) << 10 | x(base) << 5 | v(d));
    }

    /// The lower half of a vector to `[base + at]`; `at` is a multiple of 8.
    pub(super) fn store_half(&mut self, s: V, base: X, at: usize) {
        self.put(0xfd00_0000 | (at as u32 / 8) << 10 | x(base) << 5 | v(s));
    }

    /// A vector to `[base + at]`; `at` is a multiple of 16.
    pub(super) fn store_vector(&mut self, s: V, base: X, at: usize) {
        self.put(0x3d80_0000 | (at as u32 / 16) << 10 | x(base) << 5 | v(s));
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

/// The fields of a byte within an instruction.
fn immediate_8(value: u8) -> u32 {
    u32::from(value >> 5) << 16 | u32::from(value & 31) << 5
}

/// The field that says how many registers a list of bytes has.
fn lists(count: usize) -> u32 {
    const ONE_TO_FOUR: [u32; 4] = [0b0111, 0b1010, 0b0110, 0b0010];
    ONE_TO_FOUR[count - 1] << 12
}

#[cfg(test)]
mod tests;
