//! An assembler for vector code of either width: a thin layer over [`CodeAssembler`] in which a vector register is a
//! number, so that one routine emits 256-bit and 512-bit code.

use iced_x86::code_asm::{AsmMemoryOperand, AsmRegister64, CodeAssembler, CodeLabel};
use iced_x86::code_asm::{ptr, qword_ptr, rbx, rsp};
use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register};

pub(super) type Emitted = Result<(), IcedError>;

/// Bytes of a vector register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// 32, VEX encoding.
    Ymm,
    /// 64, EVEX encoding.
    Zmm,
}

impl Width {
    pub(super) const fn bytes(self) -> i64 {
        match self {
            Width::Ymm => 32,
            Width::Zmm => 64,
        }
    }
}

/// An instruction in its 256-bit and its 512-bit form.
#[derive(Clone, Copy)]
pub(super) struct VectorInstruction(Code, Code);

pub(super) const VPADDB: VectorInstruction =
    VectorInstruction(Code::VEX_Vpaddb_ymm_ymm_ymmm256, Code::EVEX_Vpaddb_zmm_k1z_zmm_zmmm512);
pub(super) const VPADDW: VectorInstruction =
    VectorInstruction(Code::VEX_Vpaddw_ymm_ymm_ymmm256, Code::EVEX_Vpaddw_zmm_k1z_zmm_zmmm512);
pub(super) const VPADDD: VectorInstruction =
    VectorInstruction(Code::VEX_Vpaddd_ymm_ymm_ymmm256, Code::EVEX_Vpaddd_zmm_k1z_zmm_zmmm512b32);
pub(super) const VPSUBB: VectorInstruction =
    VectorInstruction(Code::VEX_Vpsubb_ymm_ymm_ymmm256, Code::EVEX_Vpsubb_zmm_k1z_zmm_zmmm512);
pub(super) const VPSUBD: VectorInstruction =
    VectorInstruction(Code::VEX_Vpsubd_ymm_ymm_ymmm256, Code::EVEX_Vpsubd_zmm_k1z_zmm_zmmm512b32);
pub(super) const VPAND: VectorInstruction =
    VectorInstruction(Code::VEX_Vpand_ymm_ymm_ymmm256, Code::EVEX_Vpandd_zmm_k1z_zmm_zmmm512b32);
/// 256-bit only: the wider form has a mask as its result.
pub(super) const VPCMPEQB: VectorInstruction =
    VectorInstruction(Code::VEX_Vpcmpeqb_ymm_ymm_ymmm256, Code::INVALID);
pub(super) const VCVTDQ2PS: VectorInstruction =
    VectorInstruction(Code::VEX_Vcvtdq2ps_ymm_ymmm256, Code::EVEX_Vcvtdq2ps_zmm_k1z_zmmm512b32_er);
pub(super) const VMULPS: VectorInstruction =
    VectorInstruction(Code::VEX_Vmulps_ymm_ymm_ymmm256, Code::EVEX_Vmulps_zmm_k1z_zmm_zmmm512b32_er);
pub(super) const VADDPS: VectorInstruction =
    VectorInstruction(Code::VEX_Vaddps_ymm_ymm_ymmm256, Code::EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er);
pub(super) const VPXOR: VectorInstruction =
    VectorInstruction(Code::VEX_Vpxor_ymm_ymm_ymmm256, Code::EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32);
pub(super) const VPDPBUSD: VectorInstruction =
    VectorInstruction(Code::VEX_Vpdpbusd_ymm_ymm_ymmm256, Code::EVEX_Vpdpbusd_zmm_k1z_zmm_zmmm512b32);
pub(super) const VPMADDUBSW: VectorInstruction =
    VectorInstruction(Code::VEX_Vpmaddubsw_ymm_ymm_ymmm256, Code::EVEX_Vpmaddubsw_zmm_k1z_zmm_zmmm512);
pub(super) const VPMADDWD: VectorInstruction =
    VectorInstruction(Code::VEX_Vpmaddwd_ymm_ymm_ymmm256, Code::EVEX_Vpmaddwd_zmm_k1z_zmm_zmmm512);

/// Emits instructions, and after them the constants they use.
pub(super) struct Asm {
    pub(super) code: CodeAssembler,
    pub(super) width: Width,
    constants: Vec<([u8; 64], CodeLabel)>,
}

impl Asm {
    pub(super) fn new(width: Width) -> Result<Asm, IcedError> {
        Ok(Asm { code: CodeAssembler::new(64)?, width, constants: Vec::new() })
    }

    fn vector(&self, n: u8) -> Register {
        match self.width {
            Width::Ymm => Register::YMM0 + u32::from(n),
            Width::Zmm => Register::ZMM0 + u32::from(n),
        }
    }

    fn pick(&self, op: VectorInstruction) -> Code {
        match self.width {
            Width::Ymm => op.0,
            Width::Zmm => op.1,
        }
    }

    /// `d = a op b`.
    pub(super) fn op(&mut self, op: VectorInstruction, d: u8, a: u8, b: u8) -> Emitted {
        let i = Instruction::with3(self.pick(op), self.vector(d), self.vector(a), self.vector(b))?;
        self.code.add_instruction(i)
    }

    /// `d = op a`.
    pub(super) fn convert(&mut self, op: VectorInstruction, d: u8, a: u8) -> Emitted {
        self.code.add_instruction(Instruction::with2(self.pick(op), self.vector(d), self.vector(a))?)
    }

    /// `d = op [base + at]`.
    pub(super) fn convert_mem(
        &mut self,
        op: VectorInstruction,
        d: u8,
        base: AsmRegister64,
        at: i64,
    ) -> Emitted {
        self.code.add_instruction(Instruction::with2(self.pick(op), self.vector(d), memory(base, at))?)
    }

    /// `d = a op [base + at]`.
    pub(super) fn op_mem(
        &mut self,
        op: VectorInstruction,
        d: u8,
        a: u8,
        base: AsmRegister64,
        at: i64,
    ) -> Emitted {
        let m = memory(base, at);
        let i = Instruction::with3(self.pick(op), self.vector(d), self.vector(a), m)?;
        self.code.add_instruction(i)
    }

    /// `d{mask} = a op b`, other bytes of `d` kept; 512-bit only.
    pub(super) fn op_masked(&mut self, op: VectorInstruction, d: u8, mask: u32, a: u8, b: u8) -> Emitted {
        let mut i = Instruction::with3(op.1, self.vector(d), self.vector(a), self.vector(b))?;
        i.set_op_mask(Register::K0 + mask);
        self.code.add_instruction(i)
    }

    /// Loads a whole vector, of any alignment.
    pub(super) fn load(&mut self, d: u8, base: AsmRegister64, at: i64) -> Emitted {
        let code =
            self.pick(VectorInstruction(Code::VEX_Vmovdqu_ymm_ymmm256, Code::EVEX_Vmovdqu64_zmm_k1z_zmmm512));
        let i = Instruction::with2(code, self.vector(d), memory(base, at))?;
        self.code.add_instruction(i)
    }

    /// Stores a whole vector, of any alignment.
    pub(super) fn store(&mut self, base: AsmRegister64, at: i64, s: u8) -> Emitted {
        let code =
            self.pick(VectorInstruction(Code::VEX_Vmovdqu_ymmm256_ymm, Code::EVEX_Vmovdqu64_zmmm512_k1z_zmm));
        let i = Instruction::with2(code, memory(base, at), self.vector(s))?;
        self.code.add_instruction(i)
    }

    /// The four bytes at `base + index * scale + at` in every lane.
    pub(super) fn broadcast(
        &mut self,
        d: u8,
        base: AsmRegister64,
        index: Option<(AsmRegister64, u32)>,
        at: i64,
    ) -> Emitted {
        let code = self.pick(VectorInstruction(
            Code::VEX_Vpbroadcastd_ymm_xmmm32,
            Code::EVEX_Vpbroadcastd_zmm_k1z_xmmm32,
        ));
        let m = match index {
            Some((index, scale)) => {
                MemoryOperand::with_base_index_scale_displ_size(base.into(), index.into(), scale, at, 1)
            }
            None => memory(base, at),
        };
        let i = Instruction::with2(code, self.vector(d), m)?;
        self.code.add_instruction(i)
    }

    /// Sets a register to zero.
    pub(super) fn zero(&mut self, d: u8) -> Emitted {
        self.op(VPXOR, d, d, d)
    }

    /// Bits `mask` where byte of `a` is greater than that of `b`, as i8; 512-bit only.
    pub(super) fn greater_mask(&mut self, mask: u32, a: u8, b: u8) -> Emitted {
        let code = Code::EVEX_Vpcmpgtb_kr_k1_zmm_zmmm512;
        self.code.add_instruction(Instruction::with3(
            code,
            Register::K0 + mask,
            self.vector(a),
            self.vector(b),
        )?)
    }

    /// -1 where the byte of `a` is greater than that of `b`, as i8, else 0; 256-bit only.
    pub(super) fn greater(&mut self, d: u8, a: u8, b: u8) -> Emitted {
        let code = Code::VEX_Vpcmpgtb_ymm_ymm_ymmm256;
        self.code.add_instruction(Instruction::with3(code, self.vector(d), self.vector(a), self.vector(b))?)
    }

    /// Bytes of `b` where the mask is set, of `a` elsewhere; 512-bit only.
    pub(super) fn blend(&mut self, d: u8, mask: u32, a: u8, b: u8) -> Emitted {
        let code = Code::EVEX_Vpblendmb_zmm_k1z_zmm_zmmm512;
        let mut i = Instruction::with3(code, self.vector(d), self.vector(a), self.vector(b))?;
        i.set_op_mask(Register::K0 + mask);
        self.code.add_instruction(i)
    }

    /// `table[index & 63]` for each byte; VBMI.
    pub(super) fn lookup(&mut self, d: u8, index: u8, table: u8) -> Emitted {
        let code = Code::EVEX_Vpermb_zmm_k1z_zmm_zmmm512;
        self.code.add_instruction(Instruction::with3(
            code,
            self.vector(d),
            self.vector(index),
            self.vector(table),
        )?)
    }

    /// As [`Asm::lookup`], where the mask is set; other bytes of `d` are kept.
    pub(super) fn lookup_masked(&mut self, d: u8, mask: u32, index: u8, table: u8) -> Emitted {
        let code = Code::EVEX_Vpermb_zmm_k1z_zmm_zmmm512;
        let mut i = Instruction::with3(code, self.vector(d), self.vector(index), self.vector(table))?;
        i.set_op_mask(Register::K0 + mask);
        self.code.add_instruction(i)
    }

    /// Each 16-bit word shifted right.
    pub(super) fn shift_words_right(&mut self, d: u8, a: u8, bits: u32) -> Emitted {
        let code = self
            .pick(VectorInstruction(Code::VEX_Vpsrlw_ymm_ymm_imm8, Code::EVEX_Vpsrlw_zmm_k1z_zmmm512_imm8));
        self.code.add_instruction(Instruction::with3(code, self.vector(d), self.vector(a), bits)?)
    }

    /// Each 16-bit word at `base + at` shifted right; 512-bit only.
    pub(super) fn load_words_shifted_right(
        &mut self,
        d: u8,
        base: AsmRegister64,
        at: i64,
        bits: u32,
    ) -> Emitted {
        let code = Code::EVEX_Vpsrlw_zmm_k1z_zmmm512_imm8;
        self.code.add_instruction(Instruction::with3(code, self.vector(d), memory(base, at), bits)?)
    }

    /// Bits `mask` where the byte of `a` has a bit in common with that of `b`; 512-bit only.
    pub(super) fn test_mask(&mut self, mask: u32, a: u8, b: u8) -> Emitted {
        let code = Code::EVEX_Vptestmb_kr_k1_zmm_zmmm512;
        self.code.add_instruction(Instruction::with3(
            code,
            Register::K0 + mask,
            self.vector(a),
            self.vector(b),
        )?)
    }

    /// Sets tile register `d` to zero.
    pub(super) fn tile_zero(&mut self, d: u8) -> Emitted {
        self.code.add_instruction(Instruction::with1(Code::VEX_Tilezero_tmm, tile(d))?)
    }

    /// Loads tile register `d` from rows at `base + at`, `stride` apart.
    pub(super) fn tile_load(
        &mut self,
        d: u8,
        base: AsmRegister64,
        stride: AsmRegister64,
        at: i64,
    ) -> Emitted {
        let m = rows(base, stride, at);
        self.code.add_instruction(Instruction::with2(Code::VEX_Tileloadd_tmm_sibmem, tile(d), m)?)
    }

    /// As [`Asm::tile_load`], for what will not be read again soon. It need not displace other data from L1.
    pub(super) fn tile_stream(
        &mut self,
        d: u8,
        base: AsmRegister64,
        stride: AsmRegister64,
        at: i64,
    ) -> Emitted {
        let m = rows(base, stride, at);
        self.code.add_instruction(Instruction::with2(Code::VEX_Tileloaddt1_tmm_sibmem, tile(d), m)?)
    }

    /// Stores tile register `s` to rows at `base + at`, `stride` apart.
    pub(super) fn tile_store(
        &mut self,
        base: AsmRegister64,
        stride: AsmRegister64,
        at: i64,
        s: u8,
    ) -> Emitted {
        let m = rows(base, stride, at);
        self.code.add_instruction(Instruction::with2(Code::VEX_Tilestored_sibmem_tmm, m, tile(s))?)
    }

    /// `d += a * b`: 16 rows of activations by 16 lanes of trits, 64 columns, both i8.
    pub(super) fn tile_dot(&mut self, d: u8, a: u8, b: u8) -> Emitted {
        self.code.add_instruction(Instruction::with3(
            Code::VEX_Tdpbssd_tmm_tmm_tmm,
            tile(d),
            tile(a),
            tile(b),
        )?)
    }

    /// Loads a constant that [`Asm::finish`] places after the code. Changes `rbx`.
    pub(super) fn constant(&mut self, d: u8, bytes: [u8; 64]) -> Emitted {
        let label = self.constant_label(bytes);
        self.code.lea(rbx, ptr(label))?;
        self.load(d, rbx, 0)
    }

    /// Where a constant will stand.
    pub(super) fn constant_label(&mut self, bytes: [u8; 64]) -> CodeLabel {
        if let Some((_, label)) = self.constants.iter().find(|(known, _)| *known == bytes) {
            return *label;
        }
        let label = self.code.create_label();
        self.constants.push((bytes, label));
        label
    }

    /// A label that stands here.
    pub(super) fn here(&mut self) -> Result<CodeLabel, IcedError> {
        let mut label = self.code.create_label();
        self.place(&mut label)?;
        Ok(label)
    }

    /// Sets a label here. Labels of nested loops may stand at the same place, but an instruction can only carry one,
    /// so an instruction without bytes separates them.
    pub(super) fn place(&mut self, label: &mut CodeLabel) -> Emitted {
        self.code.set_label(label)?;
        self.code.zero_bytes()
    }

    /// The machine code: instructions, then constants.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, IcedError> {
        for (bytes, mut label) in std::mem::take(&mut self.constants) {
            self.code.set_label(&mut label)?;
            self.code.db(&bytes)?;
        }
        self.code.assemble(0)
    }
}

fn tile(n: u8) -> Register {
    Register::TMM0 + u32::from(n)
}

/// `[base + stride * i + at]`.
fn rows(base: AsmRegister64, stride: AsmRegister64, at: i64) -> MemoryOperand {
    MemoryOperand::with_base_index_scale_displ_size(base.into(), stride.into(), 1, at, 1)
}

/// `[base + at]`.
fn memory(base: AsmRegister64, at: i64) -> MemoryOperand {
    MemoryOperand::with_base_displ(base.into(), at)
}

/// A local variable: eight bytes of the kernel's stack frame.
pub(super) fn slot(n: i32) -> AsmMemoryOperand {
    qword_ptr(rsp + 8 * n)
}
