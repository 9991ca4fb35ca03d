//! Counts the instructions that a block kernel for aarch64 executes, without executing them: only general registers and
//! conditions decide where its loops end.

use trit_format::kernel::KernelArgs;

/// Instructions of one call, up to its return.
///
/// # Panics
/// At a branch or an addition of another form than block kernels have.
pub fn instructions(code: &[u8], args: &KernelArgs) -> u64 {
    let words: Vec<u32> =
        code.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes"))).collect();
    let args: [u64; size_of::<KernelArgs>() / 8] = [
        args.weights.addr() as u64,
        args.activations.addr() as u64,
        args.sums.addr() as u64,
        args.out.addr() as u64,
        args.tiles,
        args.activation_stride,
        args.sum_stride,
        args.out_stride,
        args.rows,
        args.scratch.addr() as u64,
        args.activation_advance,
        args.sum_advance,
        args.weight_scales.addr() as u64,
        args.activation_scales.addr() as u64,
        args.activation_scale_stride,
        args.groups,
        args.weight_stride,
    ];
    let (mut x, mut at, mut count) = ([0u64; 32], 0usize, 0);
    // What was compared last, and with what.
    let mut compared = (0, 0);
    loop {
        let word = words[at];
        let (d, n, m) = (word & 31, word >> 5 & 31, word >> 16 & 31);
        let [d, n, m] = [d, n, m].map(|register| register as usize);
        let immediate = u64::from(word >> 10 & 0xfff) << (12 * (word >> 22 & 1));
        let signed = |field: u32, bits: u32| (i64::from(field) << (64 - bits)) >> (64 - bits);
        let mut words_on = 1;
        count += 1;
        match word >> 24 {
            0xd6 => return count,
            0xd2 => x[d] = u64::from(word >> 5 & 0xffff),
            0xf2 => x[d] |= u64::from(word >> 5 & 0xffff) << (16 * (word >> 21 & 3)),
            0xaa => x[d] = x[m],
            0x91 => x[d] = x[n].wrapping_add(immediate),
            0xd1 => x[d] = x[n].wrapping_sub(immediate),
            0xf1 => {
                compared = (x[n], immediate);
                if d != 31 {
                    x[d] = x[n].wrapping_sub(immediate);
                }
            }
            0x8b => x[d] = x[n].wrapping_add(x[m]),
            0xd3 => x[d] = x[n] << (63 - (word >> 10 & 63)),
            // The arguments; what is loaded otherwise decides nothing.
            0xf9 if n == 0 => x[d] = args[(word >> 10 & 0xfff) as usize],
            0x14..0x18 => words_on = signed(word & 0x3ff_ffff, 26),
            0x54 => {
                let taken = match word & 15 {
                    0 => compared.0 == compared.1,
                    1 => compared.0 != compared.1,
                    2 => compared.0 >= compared.1,
                    3 => compared.0 < compared.1,
                    other => panic!("condition {other}"),
                };
                if taken {
                    words_on = signed(word >> 5 & 0x7_ffff, 19);
                }
            }
            0xb4 if x[d] == 0 => words_on = signed(word >> 5 & 0x7_ffff, 19),
            0x9b => x[d] = x[n].wrapping_mul(x[m]).wrapping_add(x[(word >> 10 & 31) as usize]),
            // Vectors, pairs, and the address of constants.
            0xb4 | 0x0e | 0x10 | 0x2e | 0x30 | 0x3c | 0x3d | 0x4c | 0x4d | 0x4e | 0x4f | 0x50 | 0x6d
            | 0x6e | 0x70 | 0xa9 | 0xad | 0xfd => {}
            other => panic!("an instruction {other:#x}"),
        }
        at = at.checked_add_signed(words_on as isize).expect("branches stay in the code");
    }
}
