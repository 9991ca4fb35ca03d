//! Blocks of rows by vector instructions: `vpdpbusd` of 512 or 256 bits, or `vpmaddubsw`.
//!
//! ```text
//! for tile
//!   for chunk of k                    digits of the tile's chunk go to scratch, which then stay in L1
//!     for rows, R at a time
//!       for H vectors of the tile's rows
//!         for quad of the chunk       R * H accumulators in registers
//!         results: store, or add to what the chunk before has stored
//! ```
//!
//! Results pass through memory once for each chunk, which costs a few percent; in return the digits, five or eight times
//! as many bytes as weights, are never fetched from L2.
//!
//! With groups of columns a group stands in place of a chunk, and results are floats: each group's sums are multiplied by
//! scales in registers and added to what the groups before have stored.

use super::arguments;
use super::asm::{Asm, Emitted, Width, slot};
use super::asm::{VADDPS, VCVTDQ2PS, VMULPS, VPADDD, VPADDW, VPDPBUSD, VPMADDUBSW, VPMADDWD, VPSUBD};
use super::decode::{self, Digits};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use trit_format::dense243::{Code, TRITS};
use trit_format::kernel::{KernelKind, KernelSpec};
use trit_format::tile::{QUAD, VECTOR, padded_k};

/// Quads one iteration of the inner loop handles. Activations are zero up to a multiple of more.
const UNROLL: usize = 4;

/// How products are formed, and how many rows and vectors share the registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VectorBlocking {
    pub(crate) width: Width,
    /// Whether one instruction sums four products; otherwise one sums two, into i16.
    pub(crate) dot: bool,
    /// Activation rows of a group.
    pub(crate) rows: u8,
    /// Vectors of a pass over the tile's rows, a divisor of all.
    pub(crate) vectors: u8,
    /// The same for few rows. There are more vectors then, so that enough sums are in progress at the same time.
    pub(crate) tail_vectors: u8,
    /// Most quads of a chunk, a multiple of [`UNROLL`].
    pub(crate) quads: usize,
}

/// What a kernel is made for.
#[derive(Clone, Copy)]
struct Shape {
    blocking: VectorBlocking,
    /// Digits of a byte.
    digits: usize,
    /// Number of chunks, each of which adds to the sums of the one before; 1 with groups.
    chunks: usize,
    /// Whether there are groups, whose sums become floats.
    grouped: bool,
}

impl Shape {
    /// Bytes of one quad of k in the scratch memory: for each digit 16 lanes of four.
    fn quad_bytes(self) -> i64 {
        (self.digits * VECTOR) as i64
    }

    /// Bytes of a row of results of one tile.
    fn row_bytes(self) -> i32 {
        (self.digits * VECTOR) as i32
    }
}

impl VectorBlocking {
    /// The blocking for a code. A quad of signs has more digits, so that fewer quads stay in L1; and their number has
    /// other divisors.
    fn of(self, code: Code) -> VectorBlocking {
        match (code, self.width) {
            (Code::Binary, Width::Zmm) => {
                VectorBlocking { rows: 5, vectors: 4, tail_vectors: 8, ..self }.shorter(code)
            }
            (Code::Binary, _) => self.shorter(code),
            _ => self,
        }
    }

    fn shorter(self, code: Code) -> VectorBlocking {
        let quads = self.quads * TRITS / code.digits();
        VectorBlocking { quads: quads / UNROLL * UNROLL, ..self }
    }

    /// Quads of all chunks but the last, of the last, and how many chunks.
    pub(super) fn chunks(&self, k: usize) -> (usize, usize, usize) {
        let (size, last, count) = super::chunks(k, UNROLL * QUAD, self.quads * QUAD);
        (size / QUAD, last / QUAD, count)
    }
}

// Pointers and counters that live in registers throughout.
const WEIGHTS: AsmRegister64 = r8;
const DIGITS: AsmRegister64 = r9;
const OUT: AsmRegister64 = r10;
const ACTIVATIONS: AsmRegister64 = r11;
const STRIDE: AsmRegister64 = rdx;
const OUT_STRIDE: AsmRegister64 = r12;
const ROW_SUMS: AsmRegister64 = r13;
const SUM_STRIDE: AsmRegister64 = r14;
const ROWS_LEFT: AsmRegister64 = r15;
/// First activation row of the group, and the fourth.
const ROW: AsmRegister64 = rsi;
const ROW_3: AsmRegister64 = rbp;
const ROW_OUT: AsmRegister64 = rax;
// Local variables.
const TILES: i32 = 0;
/// Chunks or groups that are left.
const CHUNKS: i32 = 1;
const QUADS: i32 = 2;
const PASSES: i32 = 3;
/// Where the sums of all rows begin; with groups, those of the group at hand.
const SUMS: i32 = 4;
/// With groups: where the tile's weights begin; the scales of its group; those of the activations for the group, of all
/// rows and from the row at hand on; and bytes from row to row.
const TILE: i32 = 5;
const WEIGHT_SCALES: i32 = 6;
const SCALES: i32 = 7;
const ROW_SCALES: i32 = 8;
const SCALE_STRIDE: i32 = 9;
const FRAME: i32 = 8 * 10 + 8;

pub(super) fn emit(spec: &KernelSpec, blocking: VectorBlocking) -> Result<Vec<u8>, IcedError> {
    let mut a = Asm::new(blocking.width)?;
    let k = spec.k as usize;
    let blocking = blocking.of(spec.code);
    let grouped = spec.kind == KernelKind::Grouped;
    // A group's digits may be more than suits L1, but its sums must be whole before they become floats.
    let (chunk, last, chunks) = if grouped { (k / QUAD, k / QUAD, 1) } else { blocking.chunks(k) };
    let shape = Shape { blocking, digits: spec.code.digits(), chunks, grouped };
    for register in [rbx, rbp, r12, r13, r14, r15] {
        a.code.push(register)?;
    }
    a.code.sub(rsp, FRAME)?;
    a.code.mov(WEIGHTS, arguments::weights())?;
    a.code.mov(OUT, arguments::out())?;
    a.code.mov(rax, arguments::tiles())?;
    a.code.mov(slot(TILES), rax)?;
    a.code.mov(STRIDE, arguments::activation_stride())?;
    a.code.mov(SUM_STRIDE, arguments::sum_stride())?;
    a.code.shl(SUM_STRIDE, 2)?;
    a.code.mov(OUT_STRIDE, arguments::out_stride())?;
    a.code.shl(OUT_STRIDE, 2)?;
    a.code.mov(DIGITS, arguments::scratch())?;
    if grouped {
        a.code.mov(rax, arguments::weight_scales())?;
        a.code.mov(slot(WEIGHT_SCALES), rax)?;
        a.code.mov(rax, arguments::activation_scale_stride())?;
        a.code.shl(rax, 2)?;
        a.code.mov(slot(SCALE_STRIDE), rax)?;
    }

    let tile = a.here()?;
    a.code.mov(ACTIVATIONS, arguments::activations())?;
    a.code.mov(rax, arguments::sums())?;
    a.code.mov(slot(SUMS), rax)?;
    if grouped {
        a.code.mov(slot(TILE), WEIGHTS)?;
        a.code.mov(rax, arguments::activation_scales())?;
        a.code.mov(slot(SCALES), rax)?;
        a.code.mov(rax, arguments::groups())?;
        a.code.mov(slot(CHUNKS), rax)?;
    } else {
        a.code.mov(slot(CHUNKS), chunks as i32)?;
    }
    let next_chunk = a.here()?;
    let mut is_last = a.code.create_label();
    // The weights hold fewer quads than the last chunk where those are no multiple of the unroll.
    let stored = padded_k(k) / QUAD - (chunks - 1) * chunk;
    a.code.mov(rcx, stored as i64 as u64)?;
    a.code.mov(rax, (last / UNROLL) as u64)?;
    if !grouped {
        a.code.cmp(slot(CHUNKS), 1)?;
        a.code.je(is_last)?;
        a.code.mov(rcx, chunk as u64)?;
        a.code.mov(rax, (chunk / UNROLL) as u64)?;
        a.place(&mut is_last)?;
    }
    a.code.mov(slot(QUADS), rax)?;
    decode_chunk(&mut a, spec, shape, chunk)?;
    groups(&mut a, shape)?;
    a.code.add(ACTIVATIONS, (chunk * QUAD) as i32)?;
    if grouped {
        a.code.add(slot(SUMS), size_of::<i32>() as i32)?;
        a.code.add(slot(SCALES), size_of::<f32>() as i32)?;
        a.code.add(slot(WEIGHT_SCALES), shape.row_bytes())?;
    }
    a.code.dec(slot(CHUNKS))?;
    a.code.jne(next_chunk)?;
    if grouped {
        a.code.mov(WEIGHTS, slot(TILE))?;
        a.code.add(WEIGHTS, arguments::weight_stride())?;
    }
    a.code.add(OUT, shape.row_bytes())?;
    a.code.dec(slot(TILES))?;
    a.code.jne(tile)?;

    a.code.add(rsp, FRAME)?;
    for register in [r15, r14, r13, r12, rbp, rbx] {
        a.code.pop(register)?;
    }
    a.code.vzeroupper()?;
    a.code.ret()?;
    a.finish()
}

/// `rcx` quads from [`WEIGHTS`], which moves on, to [`DIGITS`].
fn decode_chunk(a: &mut Asm, spec: &KernelSpec, shape: Shape, chunk: usize) -> Emitted {
    decode::constants(a, spec.code, Digits::Unsigned)?;
    a.code.mov(rax, DIGITS)?;
    let quad = a.here()?;
    // The chunk after this one arrives while this one is multiplied.
    a.code.prefetcht1(byte_ptr(WEIGHTS + (chunk * VECTOR) as i32))?;
    for at in (0..VECTOR as i64).step_by(a.width.bytes() as usize) {
        decode::vector(a, spec.code, (WEIGHTS, at), |d| (rax, d as i64 * 64 + at))?;
    }
    a.code.add(WEIGHTS, VECTOR as i32)?;
    a.code.add(rax, shape.quad_bytes() as i32)?;
    a.code.dec(rcx)?;
    a.code.jne(quad)
}

/// All activation rows by the digits of a chunk.
fn groups(a: &mut Asm, shape: Shape) -> Emitted {
    let blocking = shape.blocking;
    a.code.mov(ROW, ACTIVATIONS)?;
    a.code.mov(ROW_OUT, OUT)?;
    a.code.mov(ROW_SUMS, slot(SUMS))?;
    if shape.grouped {
        a.code.mov(rcx, slot(SCALES))?;
        a.code.mov(slot(ROW_SCALES), rcx)?;
    }
    a.code.mov(ROWS_LEFT, arguments::rows())?;
    let (mut tail, mut done) = (a.code.create_label(), a.code.create_label());
    a.code.cmp(ROWS_LEFT, i32::from(blocking.rows))?;
    a.code.jb(tail)?;
    let group = a.here()?;
    rows(a, shape, blocking.rows)?;
    for (pointer, stride) in [(ROW, STRIDE), (ROW_OUT, OUT_STRIDE), (ROW_SUMS, SUM_STRIDE)] {
        for _ in 0..blocking.rows {
            a.code.add(pointer, stride)?;
        }
    }
    if shape.grouped {
        a.code.mov(rcx, slot(SCALE_STRIDE))?;
        for _ in 0..blocking.rows {
            a.code.add(slot(ROW_SCALES), rcx)?;
        }
    }
    a.code.sub(ROWS_LEFT, i32::from(blocking.rows))?;
    a.code.cmp(ROWS_LEFT, i32::from(blocking.rows))?;
    a.code.jae(group)?;
    a.place(&mut tail)?;
    for left in 1..blocking.rows {
        let mut other = a.code.create_label();
        a.code.cmp(ROWS_LEFT, i32::from(left))?;
        a.code.jne(other)?;
        rows(a, shape, left)?;
        a.code.jmp(done)?;
        a.place(&mut other)?;
    }
    a.place(&mut done)
}

/// `rows` activation rows by the digits of a chunk, in passes over the tile's rows.
fn rows(a: &mut Asm, shape: Shape, rows: u8) -> Emitted {
    let blocking = shape.blocking;
    let in_tile = shape.quad_bytes() / blocking.width.bytes();
    let vectors = i64::from(if usize::from(rows) * 2 <= usize::from(blocking.rows) {
        blocking.tail_vectors
    } else {
        blocking.vectors
    });
    let passes = in_tile / vectors;
    debug_assert_eq!(in_tile % vectors, 0);
    if passes == 1 {
        return pass(a, shape, rows, vectors as u8);
    }
    a.code.mov(slot(PASSES), passes as i32)?;
    let again = a.here()?;
    pass(a, shape, rows, vectors as u8)?;
    let step = (vectors * blocking.width.bytes()) as i32;
    a.code.add(DIGITS, step)?;
    a.code.add(ROW_OUT, step)?;
    if shape.grouped {
        a.code.add(slot(WEIGHT_SCALES), step)?;
    }
    a.code.dec(slot(PASSES))?;
    a.code.jne(again)?;
    a.code.sub(DIGITS, shape.quad_bytes() as i32)?;
    if shape.grouped {
        a.code.sub(slot(WEIGHT_SCALES), shape.row_bytes())?;
    }
    a.code.sub(ROW_OUT, shape.row_bytes())
}

/// `rows` activation rows by `vectors` vectors of the tile's rows.
fn pass(a: &mut Asm, shape: Shape, rows: u8, vectors: u8) -> Emitted {
    let Shape { blocking, chunks, .. } = shape;
    let bytes = blocking.width.bytes();
    let accumulator = |row: u8, v: u8| row * vectors + v;
    let digits = |v: u8| rows * vectors + v;
    let activation = rows * vectors + vectors;
    let product = activation + 1;
    for n in 0..rows * vectors {
        a.zero(n)?;
    }
    a.code.lea(ROW_3, ptr(ROW + STRIDE * 2))?;
    a.code.add(ROW_3, STRIDE)?;
    a.code.mov(rcx, slot(QUADS))?;
    a.code.mov(rbx, DIGITS)?;
    let again = a.here()?;
    for quad in 0..UNROLL as i64 {
        for v in 0..vectors {
            a.load(digits(v), rbx, quad * shape.quad_bytes() + i64::from(v) * bytes)?;
        }
        for row in 0..rows {
            let (base, scale) = if row < 3 { (ROW, row) } else { (ROW_3, row - 3) };
            let index = (scale > 0).then_some((STRIDE, u32::from(scale)));
            a.broadcast(activation, base, index, quad * QUAD as i64)?;
            for v in 0..vectors {
                if blocking.dot {
                    a.op(VPDPBUSD, accumulator(row, v), digits(v), activation)?;
                } else {
                    a.op(VPMADDUBSW, product, digits(v), activation)?;
                    a.op(VPADDW, accumulator(row, v), accumulator(row, v), product)?;
                }
            }
        }
    }
    let step = (UNROLL * QUAD) as i32;
    a.code.add(ROW, step)?;
    a.code.add(ROW_3, step)?;
    a.code.add(rbx, UNROLL as i32 * shape.quad_bytes() as i32)?;
    a.code.dec(rcx)?;
    a.code.jne(again)?;
    // Back to the chunk's first quad.
    a.code.mov(rcx, slot(QUADS))?;
    a.code.imul_3(rcx, rcx, step)?;
    a.code.sub(ROW, rcx)?;

    if !blocking.dot {
        a.constant(product, std::array::from_fn(|i| (i % 2 == 0) as u8))?;
        for n in 0..rows * vectors {
            a.op(VPMADDWD, n, n, product)?;
        }
    }
    if shape.grouped {
        return floats(a, shape, (rows, vectors));
    }
    let temporary = activation;
    a.code.mov(rcx, ROW_OUT)?;
    let (mut later, mut end) = (a.code.create_label(), a.code.create_label());
    a.code.cmp(slot(CHUNKS), chunks as i32)?;
    a.code.jne(later)?;
    a.code.mov(rbx, ROW_SUMS)?;
    for row in 0..rows {
        a.broadcast(temporary, rbx, None, 0)?;
        for v in 0..vectors {
            a.op(VPSUBD, accumulator(row, v), accumulator(row, v), temporary)?;
            a.store(rcx, i64::from(v) * bytes, accumulator(row, v))?;
        }
        if row + 1 < rows {
            a.code.add(rbx, SUM_STRIDE)?;
            a.code.add(rcx, OUT_STRIDE)?;
        }
    }
    a.code.jmp(end)?;
    a.place(&mut later)?;
    for row in 0..rows {
        for v in 0..vectors {
            let at = i64::from(v) * bytes;
            a.op_mem(VPADDD, accumulator(row, v), accumulator(row, v), rcx, at)?;
            a.store(rcx, at, accumulator(row, v))?;
        }
        if row + 1 < rows {
            a.code.add(rcx, OUT_STRIDE)?;
        }
    }
    a.place(&mut end)
}

/// The sums of a group as floats, times scales, added to the results.
fn floats(a: &mut Asm, shape: Shape, (rows, vectors): (u8, u8)) -> Emitted {
    let bytes = shape.blocking.width.bytes();
    let sum = |row: u8, v: u8| row * vectors + v;
    // The registers of digits, of the activation and of the product are free.
    let weight = |v: u8| rows * vectors + v;
    let scale = rows * vectors + vectors;
    let factor = scale + 1;
    a.code.mov(rbp, slot(WEIGHT_SCALES))?;
    for v in 0..vectors {
        a.load(weight(v), rbp, i64::from(v) * bytes)?;
    }
    a.code.mov(rbp, slot(ROW_SCALES))?;
    a.code.mov(rcx, ROW_OUT)?;
    a.code.mov(rbx, ROW_SUMS)?;
    for row in 0..rows {
        a.broadcast(scale, rbx, None, 0)?;
        for v in 0..vectors {
            a.op(VPSUBD, sum(row, v), sum(row, v), scale)?;
        }
        a.broadcast(scale, rbp, None, 0)?;
        for v in 0..vectors {
            let at = i64::from(v) * bytes;
            a.convert(VCVTDQ2PS, sum(row, v), sum(row, v))?;
            a.op(VMULPS, factor, scale, weight(v))?;
            a.op(VMULPS, sum(row, v), sum(row, v), factor)?;
            a.op_mem(VADDPS, sum(row, v), sum(row, v), rcx, at)?;
            a.store(rcx, at, sum(row, v))?;
        }
        if row + 1 < rows {
            a.code.add(rbx, SUM_STRIDE)?;
            a.code.add(rcx, OUT_STRIDE)?;
            a.code.add(rbp, slot(SCALE_STRIDE))?;
        }
    }
    Ok(())
}
