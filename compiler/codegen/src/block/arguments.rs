//! Where a block kernel finds its arguments: `rdi` points to a [`KernelArgs`].

use iced_x86::code_asm::{AsmMemoryOperand, qword_ptr, rdi};
use std::mem::offset_of;
use trit_format::kernel::KernelArgs;

fn at(offset: usize) -> AsmMemoryOperand {
    qword_ptr(rdi + offset)
}

macro_rules! arguments {
    ($($name:ident),*) => {$(
        pub(super) fn $name() -> AsmMemoryOperand {
            at(offset_of!(KernelArgs, $name))
        }
    )*};
}

arguments!(weights, activations, sums, out, tiles, activation_stride, sum_stride, out_stride, rows, scratch);
arguments!(weight_scales, activation_scales, activation_scale_stride, groups, weight_stride);
