//! An interpreter of the x86-64 instructions that kernels of the wider tiers consist of, so that those of AVX-512 and AMX
//! run where no CPU has them. It decodes the bytes, by another part of iced-x86 than the one that wrote them; memory is this
//! process's own, so that guard pages guard. Instructions do here what Intel's manual says, one at a time.

use iced_x86::{Decoder, DecoderOptions, Instruction, MemorySize, Mnemonic, OpKind, Register};
use trit_format::kernel::KernelArgs;

/// Code at an address of its own, so that constants behind it are found.
pub struct Code {
    memory: Vec<u8>,
    first: usize,
    len: usize,
}

/// A tile register: its bytes by rows of 64.
type Tile = [[u8; 64]; 16];

struct Machine {
    registers: [u64; 16],
    vectors: [[u8; 64]; 32],
    masks: [u64; 8],
    tiles: [Tile; 8],
    /// Rows and bytes of a row of each tile register; `None` without a configuration.
    shapes: Option<[(usize, usize); 8]>,
    flags: Flags,
}

#[derive(Clone, Copy, Default)]
struct Flags {
    zero: bool,
    carry: bool,
    sign: bool,
    overflow: bool,
}

const RSP: usize = 4;
const RDI: usize = 7;
/// Registers that a function leaves as they were: `rbx`, `rsp`, `rbp`, `r12` to `r15`.
const PRESERVED: [usize; 7] = [3, RSP, 5, 12, 13, 14, 15];
const STACK: usize = 64;

impl Code {
    pub fn new(bytes: &[u8]) -> Code {
        let mut memory: Vec<u8> = Vec::with_capacity(bytes.len() + 64);
        let first = memory.as_ptr().align_offset(64);
        memory.resize(first, 0);
        memory.extend_from_slice(bytes);
        Code { memory, first, len: bytes.len() }
    }

    /// Runs the kernel, and checks that it leaves the registers that it must.
    ///
    /// # Safety
    /// As for a call of the kernel.
    pub unsafe fn run(&self, args: &KernelArgs) {
        let bytes = &self.memory[self.first..][..self.len];
        let start = bytes.as_ptr() as u64;
        let mut decoded: Vec<Option<Instruction>> = vec![None; bytes.len()];
        let mut stack = vec![0u64; STACK];
        let mut machine = Machine {
            registers: std::array::from_fn(|i| 0x1111_1111_1111_1111 * i as u64),
            vectors: [[0xa5; 64]; 32],
            masks: [0x5a5a; 8],
            tiles: [[[0xa5; 64]; 16]; 8],
            shapes: None,
            flags: Flags::default(),
        };
        machine.registers[RDI] = std::ptr::from_ref(args) as u64;
        // The return address, which nothing is decoded at.
        stack[STACK - 2] = 0;
        machine.registers[RSP] = &raw mut stack[STACK - 2] as u64;
        let before = machine.registers;
        let mut ip = start;
        while ip != 0 {
            let at = (ip - start) as usize;
            let instruction = *decoded[at]
                .get_or_insert_with(|| Decoder::with_ip(64, &bytes[at..], ip, DecoderOptions::NONE).decode());
            // SAFETY: the caller's promise, as far as the code keeps it; guard pages show where it does not.
            ip = unsafe { machine.step(&instruction) };
        }
        for i in PRESERVED {
            let expected = before[i] + if i == RSP { 8 } else { 0 };
            assert_eq!(machine.registers[i], expected, "register {i} is not preserved");
        }
        assert!(machine.shapes.is_none(), "tiles are not released");
        assert!(machine.vectors.iter().take(16).all(|v| v[16..].iter().all(|&b| b == 0)), "no vzeroupper");
    }
}

impl Machine {
    /// Executes one instruction and gives the address of the next, 0 after the return from the kernel.
    ///
    /// # Safety
    /// What the instruction reads and writes may be read and written.
    unsafe fn step(&mut self, i: &Instruction) -> u64 {
        assert!(!i.is_invalid(), "no instruction at {:x}", i.ip());
        assert!(!i.is_broadcast() && !i.zeroing_masking(), "{i:?}");
        let next = i.next_ip();
        let f = self.flags;
        let jump = |taken: bool| if taken { i.near_branch64() } else { next };
        // SAFETY: this function's contract is that of each.
        unsafe {
            match i.mnemonic() {
                Mnemonic::Jmp => return jump(true),
                Mnemonic::Je => return jump(f.zero),
                Mnemonic::Jne => return jump(!f.zero),
                Mnemonic::Jb => return jump(f.carry),
                Mnemonic::Jae => return jump(!f.carry),
                Mnemonic::Jbe => return jump(f.carry || f.zero),
                Mnemonic::Ja => return jump(!f.carry && !f.zero),
                Mnemonic::Jl => return jump(f.sign != f.overflow),
                Mnemonic::Jge => return jump(f.sign == f.overflow),
                Mnemonic::Jle => return jump(f.zero || f.sign != f.overflow),
                Mnemonic::Jg => return jump(!f.zero && f.sign == f.overflow),
                Mnemonic::Call => {
                    self.push(next);
                    return i.near_branch64();
                }
                Mnemonic::Ret => return self.pop(),
                Mnemonic::Push => {
                    let value = self.value(i, 0);
                    self.push(value);
                }
                Mnemonic::Pop => {
                    let value = self.pop();
                    self.set(i, 0, value);
                }
                Mnemonic::Prefetcht0 | Mnemonic::Prefetcht1 | Mnemonic::Nop => {}
                Mnemonic::Mov | Mnemonic::Lea | Mnemonic::Xchg => self.moves(i),
                Mnemonic::Add
                | Mnemonic::Sub
                | Mnemonic::Cmp
                | Mnemonic::And
                | Mnemonic::Dec
                | Mnemonic::Shl
                | Mnemonic::Imul => self.integer(i),
                Mnemonic::Ldtilecfg
                | Mnemonic::Tilerelease
                | Mnemonic::Tilezero
                | Mnemonic::Tileloadd
                | Mnemonic::Tileloaddt1
                | Mnemonic::Tilestored
                | Mnemonic::Tdpbssd => self.tile(i),
                Mnemonic::Vzeroupper => self.vectors.iter_mut().take(16).for_each(|v| v[16..].fill(0)),
                _ => self.vector(i),
            }
        }
        next
    }

    unsafe fn push(&mut self, value: u64) {
        self.registers[RSP] -= 8;
        // SAFETY: by `step`'s contract.
        unsafe { (self.registers[RSP] as *mut u64).write(value) }
    }

    unsafe fn pop(&mut self) -> u64 {
        // SAFETY: by `step`'s contract.
        let value = unsafe { (self.registers[RSP] as *const u64).read() };
        self.registers[RSP] += 8;
        value
    }

    fn address(&self, i: &Instruction) -> u64 {
        if i.is_ip_rel_memory_operand() {
            return i.ip_rel_memory_address();
        }
        let part = |register: Register| match register {
            Register::None => 0,
            r => self.registers[number(r, Register::RAX)],
        };
        let scaled = part(i.memory_index()).wrapping_mul(u64::from(i.memory_index_scale()));
        part(i.memory_base()).wrapping_add(scaled).wrapping_add(i.memory_displacement64())
    }

    /// Whether an integer operand has 64 bits; else it has 32.
    fn wide(i: &Instruction, operand: u32) -> bool {
        match i.op_kind(operand) {
            OpKind::Register => (Register::RAX..=Register::R15).contains(&i.op_register(operand)),
            OpKind::Memory => match i.memory_size() {
                MemorySize::UInt64 | MemorySize::Int64 => true,
                MemorySize::UInt32 | MemorySize::Int32 => false,
                size => panic!("{size:?} of {i:?}"),
            },
            kind => panic!("{kind:?} of {i:?}"),
        }
    }

    /// An integer operand; immediates with their sign.
    unsafe fn value(&self, i: &Instruction, operand: u32) -> u64 {
        match i.op_kind(operand) {
            OpKind::Register => {
                let register = i.op_register(operand);
                match Self::wide(i, operand) {
                    true => self.registers[number(register, Register::RAX)],
                    false => self.registers[number(register, Register::EAX)] & u64::from(u32::MAX),
                }
            }
            // SAFETY: by `step`'s contract.
            OpKind::Memory => unsafe {
                match Self::wide(i, operand) {
                    true => (self.address(i) as *const u64).read_unaligned(),
                    false => (self.address(i) as *const u32).read_unaligned().into(),
                }
            },
            _ => i.immediate(operand),
        }
    }

    unsafe fn set(&mut self, i: &Instruction, operand: u32, value: u64) {
        let wide = Self::wide(i, operand);
        match i.op_kind(operand) {
            OpKind::Register if wide => self.registers[number(i.op_register(operand), Register::RAX)] = value,
            OpKind::Register => {
                self.registers[number(i.op_register(operand), Register::EAX)] = value & u64::from(u32::MAX);
            }
            // SAFETY: by `step`'s contract.
            _ => unsafe {
                match wide {
                    true => (self.address(i) as *mut u64).write_unaligned(value),
                    false => (self.address(i) as *mut u32).write_unaligned(value as u32),
                }
            },
        }
    }

    unsafe fn moves(&mut self, i: &Instruction) {
        // SAFETY: by `step`'s contract.
        unsafe {
            let value = if i.mnemonic() == Mnemonic::Lea { self.address(i) } else { self.value(i, 1) };
            if i.mnemonic() == Mnemonic::Xchg {
                let other = self.value(i, 0);
                self.set(i, 1, other);
            }
            self.set(i, 0, value);
        }
    }

    unsafe fn integer(&mut self, i: &Instruction) {
        // SAFETY: by `step`'s contract.
        let x = unsafe { self.value(i, 0) };
        // SAFETY: as above.
        let y = if i.mnemonic() == Mnemonic::Dec { 1 } else { unsafe { self.value(i, 1) } };
        let wide = Self::wide(i, 0);
        let (x, y) = if wide { (x as i64, y as i64) } else { (i64::from(x as i32), i64::from(y as i32)) };
        let result = match i.mnemonic() {
            Mnemonic::Add => x.wrapping_add(y),
            Mnemonic::And => x & y,
            Mnemonic::Shl => x << y,
            Mnemonic::Imul if i.op_count() == 3 => {
                // SAFETY: as above.
                y.wrapping_mul(unsafe { self.value(i, 2) } as i64)
            }
            Mnemonic::Imul => x.wrapping_mul(y),
            _ => x.wrapping_sub(y),
        };
        // Of what is jumped on, only comparisons and countdowns set these two.
        let exact = i128::from(x) - i128::from(y);
        let fits = if wide { i64::try_from(exact).is_ok() } else { i32::try_from(exact).is_ok() };
        let sign = if wide { result < 0 } else { (result as i32) < 0 };
        let zero = if wide { result == 0 } else { result as i32 == 0 };
        let carry = match i.mnemonic() {
            Mnemonic::Dec => self.flags.carry,
            _ => (x as u64) < (y as u64),
        };
        self.flags = Flags { zero, carry, sign, overflow: !fits };
        if i.mnemonic() != Mnemonic::Cmp {
            // SAFETY: as above.
            unsafe { self.set(i, 0, result as u64) };
        }
    }

    /// A vector operand of `len` bytes, zeros after them.
    unsafe fn bytes(&self, i: &Instruction, operand: u32, len: usize) -> [u8; 64] {
        let mut all = [0; 64];
        match i.op_kind(operand) {
            OpKind::Register => {
                all[..len].copy_from_slice(&self.vectors[vector_number(i.op_register(operand)).0][..len]);
            }
            OpKind::Memory => {
                // SAFETY: by `step`'s contract.
                all[..len].copy_from_slice(unsafe {
                    std::slice::from_raw_parts(self.address(i) as *const u8, len)
                });
            }
            kind => panic!("{kind:?} of {i:?}"),
        }
        all
    }

    unsafe fn vector(&mut self, i: &Instruction) {
        let of = |operand: u32| {
            let register = i.op_kind(operand) == OpKind::Register;
            register.then(|| i.op_register(operand)).filter(|r| !(Register::K0..=Register::K7).contains(r))
        };
        let (_, len) = vector_number(of(0).or_else(|| of(1)).expect("an operand is a vector"));
        let mask = match i.op_mask() {
            Register::None => u64::MAX,
            k => self.masks[number(k, Register::K0)],
        };
        // SAFETY: by `step`'s contract.
        let read = |operand| unsafe { self.bytes(i, operand, len) };
        let shift = || (i.immediate8(), read(1));
        let result = match i.mnemonic() {
            Mnemonic::Vmovdqu | Mnemonic::Vmovdqu64 if i.op_kind(0) == OpKind::Memory => {
                let value = read(1);
                let to = self.address(i) as *mut u8;
                // SAFETY: as above.
                unsafe { std::ptr::copy_nonoverlapping(value.as_ptr(), to, len) };
                return;
            }
            Mnemonic::Vmovdqu | Mnemonic::Vmovdqu64 => read(1),
            Mnemonic::Vpbroadcastd => {
                assert_eq!(i.op_kind(1), OpKind::Memory);
                // SAFETY: as above.
                let four = unsafe { (self.address(i) as *const [u8; 4]).read() };
                std::array::from_fn(|at| four[at % 4])
            }
            Mnemonic::Vpxor | Mnemonic::Vpxord => bytewise(read(1), read(2), |a, b| a ^ b),
            Mnemonic::Vpand | Mnemonic::Vpandd => bytewise(read(1), read(2), |a, b| a & b),
            Mnemonic::Vpcmpeqb => bytewise(read(1), read(2), |a, b| if a == b { 0xff } else { 0 }),
            Mnemonic::Vpaddb => bytewise(read(1), read(2), u8::wrapping_add),
            Mnemonic::Vpsubb => bytewise(read(1), read(2), u8::wrapping_sub),
            Mnemonic::Vpsignb => {
                bytewise(read(1), read(2), |a, b| (a as i8).wrapping_mul((b as i8).signum()) as u8)
            }
            Mnemonic::Vpabsb => read(1).map(|a| (a as i8).unsigned_abs()),
            Mnemonic::Vpaddw => words(read(1), read(2), i16::wrapping_add),
            Mnemonic::Vpaddd => doubles(read(1), read(2), i32::wrapping_add),
            Mnemonic::Vpsubd => doubles(read(1), read(2), i32::wrapping_sub),
            Mnemonic::Vpmulld => doubles(read(1), read(2), i32::wrapping_mul),
            Mnemonic::Vcvtdq2ps => floats(read(1), read(1), |a, _| a.to_bits().cast_signed() as f32),
            Mnemonic::Vmulps => floats(read(1), read(2), |a, b| a * b),
            Mnemonic::Vaddps => floats(read(1), read(2), |a, b| a + b),
            Mnemonic::Vpsrlw => {
                let (count, x) = shift();
                words(x, x, |a, _| (a as u16 >> count) as i16)
            }
            Mnemonic::Vpsrad => {
                let (count, x) = shift();
                doubles(x, x, |a, _| a >> count)
            }
            Mnemonic::Vpmaddubsw => {
                let (u, s) = (read(1), read(2));
                from_words(|w| {
                    let product = |at: usize| i32::from(u[at]) * i32::from(s[at] as i8);
                    let sum = product(2 * w) + product(2 * w + 1);
                    sum.clamp(i16::MIN.into(), i16::MAX.into()) as i16
                })
            }
            Mnemonic::Vpmaddwd => {
                let (a, b) = (read(1), read(2));
                from_doubles(|d| {
                    let product = |w: usize| i32::from(word(&a, w)) * i32::from(word(&b, w));
                    product(2 * d).wrapping_add(product(2 * d + 1))
                })
            }
            Mnemonic::Vpdpbusd => {
                let (sums, u, s) = (read(0), read(1), read(2));
                from_doubles(|d| {
                    let products = (4 * d..4 * d + 4).map(|at| i32::from(u[at]) * i32::from(s[at] as i8));
                    double(&sums, d).wrapping_add(products.sum())
                })
            }
            Mnemonic::Vpermb => {
                let (index, table) = (read(1), read(2));
                index.map(|at| table[usize::from(at) % len])
            }
            Mnemonic::Vpblendmb => {
                let (a, b) = (read(1), read(2));
                self.put(
                    i,
                    std::array::from_fn(|at| if mask >> at & 1 == 1 { b[at] } else { a[at] }),
                    u64::MAX,
                );
                return;
            }
            Mnemonic::Vpcmpgtb | Mnemonic::Vptestmb => {
                let (a, b) = (read(1), read(2));
                let holds = |at: usize| match i.mnemonic() {
                    Mnemonic::Vptestmb => a[at] & b[at] != 0,
                    _ => (a[at] as i8) > b[at] as i8,
                };
                if of(0).is_none() {
                    assert_eq!(mask, u64::MAX);
                    let bits = (0..64).map(|at| u64::from(holds(at)) << at);
                    self.masks[number(i.op_register(0), Register::K0)] = bits.sum();
                    return;
                }
                std::array::from_fn(|at| if holds(at) { 0xff } else { 0 })
            }
            _ => panic!("no interpretation of {i:?}"),
        };
        // Masks count bytes in the instructions that kernels mask.
        let masked = matches!(i.mnemonic(), Mnemonic::Vpaddb | Mnemonic::Vpermb);
        assert!(masked || i.op_mask() == Register::None, "{i:?}");
        self.put(i, result, mask);
    }

    /// Writes the bytes of the mask, and zeros past a vector of 32.
    fn put(&mut self, i: &Instruction, value: [u8; 64], mask: u64) {
        let (to, len) = vector_number(i.op_register(0));
        let to = &mut self.vectors[to];
        for (at, byte) in value.into_iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1) {
            to[at] = if at < len { byte } else { 0 };
        }
    }

    unsafe fn tile(&mut self, i: &Instruction) {
        let register = |operand: u32| number(i.op_register(operand), Register::TMM0);
        let shape = |n: usize| self.shapes.expect("tiles are configured")[n];
        match i.mnemonic() {
            Mnemonic::Ldtilecfg => {
                // SAFETY: by `step`'s contract.
                let c = unsafe { (self.address(i) as *const [u8; 64]).read() };
                assert!(c[0] == 1 && c[1..16].iter().all(|&b| b == 0) && c[56..].iter().all(|&b| b == 0));
                let shapes = std::array::from_fn(|n| {
                    (usize::from(c[48 + n]), usize::from(u16::from_le_bytes([c[16 + 2 * n], c[17 + 2 * n]])))
                });
                assert!(shapes.iter().all(|&(rows, bytes)| rows <= 16 && bytes <= 64));
                self.shapes = Some(shapes);
                self.tiles = [[[0; 64]; 16]; 8];
            }
            Mnemonic::Tilerelease => self.shapes = None,
            Mnemonic::Tilezero => {
                shape(register(0));
                self.tiles[register(0)] = [[0; 64]; 16];
            }
            Mnemonic::Tileloadd | Mnemonic::Tileloaddt1 => {
                let (rows, bytes) = shape(register(0));
                let mut tile = [[0; 64]; 16];
                for (row, to) in tile.iter_mut().take(rows).enumerate() {
                    let from = self.tile_row(i, row) as *const u8;
                    // SAFETY: by `step`'s contract.
                    to[..bytes].copy_from_slice(unsafe { std::slice::from_raw_parts(from, bytes) });
                }
                self.tiles[register(0)] = tile;
            }
            Mnemonic::Tilestored => {
                let (rows, bytes) = shape(register(1));
                for row in 0..rows {
                    let (from, to) = (&self.tiles[register(1)][row], self.tile_row(i, row) as *mut u8);
                    // SAFETY: by `step`'s contract.
                    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, bytes) };
                }
            }
            _ => {
                let [c, a, b] = [0, 1, 2].map(register);
                assert!(c != a && c != b && a != b);
                let ((rows, n), (a_rows, k), (b_rows, b_n)) = (shape(c), shape(a), shape(b));
                assert!(rows == a_rows && n == b_n && k == 4 * b_rows);
                let (a, b) = (self.tiles[a], self.tiles[b]);
                for (sums, a) in self.tiles[c].iter_mut().take(rows).zip(&a) {
                    for d in 0..n / 4 {
                        let products = (0..k)
                            .map(|at| i32::from(a[at] as i8) * i32::from(b[at / 4][4 * d + at % 4] as i8));
                        let sum = double(sums, d).wrapping_add(products.sum());
                        sums[4 * d..][..4].copy_from_slice(&sum.to_le_bytes());
                    }
                }
            }
        }
    }

    /// Where a row of a tile in memory begins: the index is what rows are apart.
    fn tile_row(&self, i: &Instruction, row: usize) -> u64 {
        let stride = self.registers[number(i.memory_index(), Register::RAX)];
        assert_eq!(i.memory_index_scale(), 1);
        let base = self.registers[number(i.memory_base(), Register::RAX)];
        base.wrapping_add(i.memory_displacement64()).wrapping_add(stride.wrapping_mul(row as u64))
    }
}

fn number(register: Register, first: Register) -> usize {
    register as usize - first as usize
}

/// A vector register's number and bytes.
fn vector_number(register: Register) -> (usize, usize) {
    match register {
        r if (Register::YMM0..=Register::YMM31).contains(&r) => (number(r, Register::YMM0), 32),
        r if (Register::ZMM0..=Register::ZMM31).contains(&r) => (number(r, Register::ZMM0), 64),
        r => panic!("{r:?} is no vector"),
    }
}

fn bytewise(a: [u8; 64], b: [u8; 64], f: impl Fn(u8, u8) -> u8) -> [u8; 64] {
    std::array::from_fn(|at| f(a[at], b[at]))
}

fn word(bytes: &[u8; 64], w: usize) -> i16 {
    i16::from_le_bytes([bytes[2 * w], bytes[2 * w + 1]])
}

fn double(bytes: &[u8; 64], d: usize) -> i32 {
    i32::from_le_bytes([bytes[4 * d], bytes[4 * d + 1], bytes[4 * d + 2], bytes[4 * d + 3]])
}

fn from_words(f: impl Fn(usize) -> i16) -> [u8; 64] {
    let words: [i16; 32] = std::array::from_fn(f);
    std::array::from_fn(|at| words[at / 2].to_le_bytes()[at % 2])
}

fn from_doubles(f: impl Fn(usize) -> i32) -> [u8; 64] {
    let doubles: [i32; 16] = std::array::from_fn(f);
    std::array::from_fn(|at| doubles[at / 4].to_le_bytes()[at % 4])
}

fn words(a: [u8; 64], b: [u8; 64], f: impl Fn(i16, i16) -> i16) -> [u8; 64] {
    from_words(|w| f(word(&a, w), word(&b, w)))
}

fn doubles(a: [u8; 64], b: [u8; 64], f: impl Fn(i32, i32) -> i32) -> [u8; 64] {
    from_doubles(|d| f(double(&a, d), double(&b, d)))
}

fn floats(a: [u8; 64], b: [u8; 64], f: impl Fn(f32, f32) -> f32) -> [u8; 64] {
    let float = |x: i32| f32::from_bits(x.cast_unsigned());
    doubles(a, b, |a, b| f(float(a), float(b)).to_bits().cast_signed())
}
