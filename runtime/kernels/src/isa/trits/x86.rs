//! The operations on AVX2, on AVX-512, and on AVX-512 with VBMI, which looks up in tables of 64 bytes.

use super::tier::each;
use super::{CHUNK, CHUNK_TRITS, POWERS, TritIsa, bits_of, digit_of, plane};
use crate::elementwise::TritOp;
use crate::isa::{Avx2, Avx512};
use std::arch::x86_64::*;

/// Proof that the CPU has AVX-512 VBMI, and what [`Avx512`] proves.
#[derive(Clone, Copy, Debug)]
pub struct Avx512Vbmi(Avx512);

impl Avx512Vbmi {
    /// The proof, where the CPU and the system support it.
    pub fn detect() -> Option<Avx512Vbmi> {
        Avx512::detect().filter(|_| is_x86_feature_detected!("avx512vbmi")).map(Avx512Vbmi)
    }
}

impl TritIsa for Avx2 {
    type Bytes = __m256i;
    const BYTES: usize = 32;

    #[inline(always)]
    fn load(self, from: &[u8; CHUNK], part: usize) -> Self::Bytes {
        let from = &from.as_chunks::<32>().0[part];
        // SAFETY: `self` proves the feature; the array is one register.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store(self, x: Self::Bytes, to: &mut [u8; CHUNK], part: usize) {
        let to = &mut to.as_chunks_mut::<32>().0[part];
        // SAFETY: `self` proves the feature; the array is one register.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), x) }
    }
    #[inline(always)]
    fn splat(self, x: u8) -> Self::Bytes {
        // SAFETY: `self` proves the feature.
        unsafe { _mm256_set1_epi8(x as i8) }
    }
    each! {
        and(a, b) = _mm256_and_si256(a, b);
        or(a, b) = _mm256_or_si256(a, b);
        xor(a, b) = _mm256_xor_si256(a, b);
        and_not(a, b) = _mm256_andnot_si256(b, a);
        add(a, b) = _mm256_add_epi8(a, b);
        sub(a, b) = _mm256_sub_epi8(a, b);
        min(a, b) = _mm256_min_epu8(a, b);
        max(a, b) = _mm256_max_epu8(a, b);
        min_signed(a, b) = _mm256_min_epi8(a, b);
        max_signed(a, b) = _mm256_max_epi8(a, b);
        upper(x) = _mm256_and_si256(_mm256_srli_epi16::<4>(x), _mm256_set1_epi8(15));
        upper_mixed(x) = _mm256_srli_epi16::<4>(x);
        // The sign of the second factor: minus the first, nothing, or the first.
        mul_trits(a, b) = _mm256_sign_epi8(a, b);
    }
    #[inline(always)]
    fn lookup(self, table: &[u8; 16], index: Self::Bytes) -> Self::Bytes {
        // SAFETY: `self` proves the feature; the table is half a register.
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, index)
        }
    }
    #[inline(always)]
    fn shuffle(self, x: Self::Bytes, index: &[u8; 16]) -> Self::Bytes {
        // SAFETY: `self` proves the feature; the indices are half a register.
        unsafe {
            let index = _mm256_broadcastsi128_si256(_mm_loadu_si128(index.as_ptr().cast()));
            _mm256_shuffle_epi8(x, index)
        }
    }
    #[inline(always)]
    fn load_piece(self, from: &[u8; CHUNK_TRITS], part: usize, piece: usize) -> Self::Bytes {
        let lanes = from.as_chunks::<16>().0;
        let (low, high) = (&lanes[10 * part + piece], &lanes[10 * part + 5 + piece]);
        // SAFETY: `self` proves the features; each array is half a register.
        unsafe {
            let low = _mm256_castsi128_si256(_mm_loadu_si128(low.as_ptr().cast()));
            _mm256_inserti128_si256::<1>(low, _mm_loadu_si128(high.as_ptr().cast()))
        }
    }
    #[inline(always)]
    fn store_piece(self, x: Self::Bytes, to: &mut [u8; CHUNK_TRITS], part: usize, piece: usize) {
        let lanes = to.as_chunks_mut::<16>().0;
        // SAFETY: `self` proves the features; each array is half a register.
        unsafe {
            let (low, high) = (_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
            _mm_storeu_si128(lanes[10 * part + piece].as_mut_ptr().cast(), low);
            _mm_storeu_si128(lanes[10 * part + 5 + piece].as_mut_ptr().cast(), high);
        }
    }
}

/// What both kinds of AVX-512 share.
macro_rules! avx512 {
    () => {
        type Bytes = __m512i;
        const BYTES: usize = 64;

        #[inline(always)]
        fn load(self, from: &[u8; CHUNK], _part: usize) -> Self::Bytes {
            // SAFETY: `self` proves the feature; the array is one register.
            unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
        }
        #[inline(always)]
        fn store(self, x: Self::Bytes, to: &mut [u8; CHUNK], _part: usize) {
            // SAFETY: `self` proves the feature; the array is one register.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) }
        }
        #[inline(always)]
        fn splat(self, x: u8) -> Self::Bytes {
            // SAFETY: `self` proves the feature.
            unsafe { _mm512_set1_epi8(x as i8) }
        }
        each! {
            and(a, b) = _mm512_and_si512(a, b);
            or(a, b) = _mm512_or_si512(a, b);
            xor(a, b) = _mm512_xor_si512(a, b);
            and_not(a, b) = _mm512_andnot_si512(b, a);
            add(a, b) = _mm512_add_epi8(a, b);
            sub(a, b) = _mm512_sub_epi8(a, b);
            min(a, b) = _mm512_min_epu8(a, b);
            max(a, b) = _mm512_max_epu8(a, b);
            min_signed(a, b) = _mm512_min_epi8(a, b);
            max_signed(a, b) = _mm512_max_epi8(a, b);
            upper(x) = _mm512_and_si512(_mm512_srli_epi16::<4>(x), _mm512_set1_epi8(15));
            upper_mixed(x) = _mm512_srli_epi16::<4>(x);
            // Where neither is 0 they share a bit, and they differ above the lowest bit if and only if their signs do.
            mul_trits(a, b) = {
                let signs = _mm512_or_si512(_mm512_xor_si512(a, b), _mm512_set1_epi8(1));
                _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(a, b), signs)
            };
        }
        #[inline(always)]
        fn lookup(self, table: &[u8; 16], index: Self::Bytes) -> Self::Bytes {
            // SAFETY: `self` proves the features; the table is a quarter of a register.
            unsafe {
                let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
                _mm512_shuffle_epi8(table, index)
            }
        }
        #[inline(always)]
        fn shuffle(self, x: Self::Bytes, index: &[u8; 16]) -> Self::Bytes {
            // SAFETY: `self` proves the features; the indices are a quarter of a register.
            unsafe {
                let index = _mm512_broadcast_i32x4(_mm_loadu_si128(index.as_ptr().cast()));
                _mm512_shuffle_epi8(x, index)
            }
        }
        #[inline(always)]
        fn load_piece(self, from: &[u8; CHUNK_TRITS], _part: usize, piece: usize) -> Self::Bytes {
            let lanes = from.as_chunks::<16>().0;
            // SAFETY: `self` proves the features; each array is a quarter of a register.
            unsafe {
                let x = _mm512_castsi128_si512(_mm_loadu_si128(lanes[piece].as_ptr().cast()));
                let x = _mm512_inserti32x4::<1>(x, _mm_loadu_si128(lanes[5 + piece].as_ptr().cast()));
                let x = _mm512_inserti32x4::<2>(x, _mm_loadu_si128(lanes[10 + piece].as_ptr().cast()));
                _mm512_inserti32x4::<3>(x, _mm_loadu_si128(lanes[15 + piece].as_ptr().cast()))
            }
        }
        #[inline(always)]
        fn store_piece(self, x: Self::Bytes, to: &mut [u8; CHUNK_TRITS], _part: usize, piece: usize) {
            let lanes = to.as_chunks_mut::<16>().0;
            // SAFETY: `self` proves the features; each array is a quarter of a register.
            unsafe {
                _mm_storeu_si128(lanes[piece].as_mut_ptr().cast(), _mm512_castsi512_si128(x));
                _mm_storeu_si128(lanes[5 + piece].as_mut_ptr().cast(), _mm512_extracti32x4_epi32::<1>(x));
                _mm_storeu_si128(lanes[10 + piece].as_mut_ptr().cast(), _mm512_extracti32x4_epi32::<2>(x));
                _mm_storeu_si128(lanes[15 + piece].as_mut_ptr().cast(), _mm512_extracti32x4_epi32::<3>(x));
            }
        }
    };
}

impl TritIsa for Avx512 {
    avx512!();
}

impl TritIsa for Avx512Vbmi {
    avx512!();

    #[inline(always)]
    fn unpack(self, b: Self::Bytes) -> [Self::Bytes; 2] {
        // SAFETY: `self` proves the features.
        unsafe {
            let (low, high) = self.split(b);
            let (low, high) = (self.lookup64(&PLANES.lower, low), self.lookup64(&PLANES.upper, high));
            // Of the plane of +1, bits 0 to 2 stand in the lower part and 3, 4 in the upper; of the plane of -1 all stand
            // three places higher. Bits 5 and up are left over from others, and no table of ours looks at them.
            let plus = self.select(0b0000_0111, low, high);
            let minus = self.select(0b0011_1000, low, high);
            [plus, _mm512_srli_epi16::<3>(minus)]
        }
    }
    #[inline(always)]
    fn repack(self, [plus, minus]: [Self::Bytes; 2]) -> Self::Bytes {
        self.sub(self.lookup64(&PLUS, plus), self.lookup64(&MINUS, minus))
    }
    #[inline(always)]
    fn binary(self, op: TritOp, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        let tables = &PARTS[op as usize];
        let ((al, ah), (bl, bh)) = (self.parts(tables, a), self.parts(tables, b));
        let (low, high) = (self.both(op, al, bl, 0b111), self.both(op, ah, bh, 0b11));
        self.add(self.lookup64(&tables.low, low), self.lookup64(&tables.high, high))
    }
}

impl Avx512Vbmi {
    /// The byte of `table` at the lower six bits of each index.
    #[inline(always)]
    fn lookup64(self, table: &[u8; 64], index: __m512i) -> __m512i {
        // SAFETY: `self` proves the features; the table is one register.
        unsafe { _mm512_permutexvar_epi8(index, _mm512_loadu_si512(table.as_ptr().cast())) }
    }

    /// The bits of the lower three digits, and of the upper two.
    #[inline(always)]
    fn parts(self, tables: &Parts, x: __m512i) -> (__m512i, __m512i) {
        let (low, high) = self.split(x);
        (self.lookup64(&tables.lower, low), self.lookup64(&tables.upper, high))
    }

    /// The operation on such bits, of which those in `first` are bits x.
    #[inline(always)]
    fn both(self, op: TritOp, a: __m512i, b: __m512i, first: u8) -> __m512i {
        match op {
            TritOp::Add | TritOp::Max => self.or(a, b),
            TritOp::Min => self.and(a, b),
            // `a & b` for bits x, `a ^ b` for bits y.
            // SAFETY: `self` proves the feature.
            TritOp::Mul => unsafe { _mm512_ternarylogic_epi32::<0b1001_0100>(a, b, self.splat(first)) },
        }
    }

    /// `a` where bits of `mask` are set, else `b`.
    #[inline(always)]
    fn select(self, mask: u8, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves the feature.
        unsafe { _mm512_ternarylogic_epi32::<0b1100_1010>(self.splat(mask), a, b) }
    }

    /// Indices of six bits for the lower three digits and for the upper two.
    ///
    /// As for [`super::split`] an upper bound of `27 h` is taken away, by the upper six bits of the byte: what is left is
    /// -3 to 26, of which bit 5 says that it is negative. The lower five bits of the bound are different for each `h`, so that
    /// they and that bit are an index of `h`.
    #[inline(always)]
    fn split(self, b: __m512i) -> (__m512i, __m512i) {
        // SAFETY: `self` proves the feature. Bits that the shift moves here from the next byte are no bits of the index.
        let bound = self.lookup64(&BOUNDS, unsafe { _mm512_srli_epi16::<2>(b) });
        let low = self.sub(b, bound);
        (low, self.select(0b0001_1111, bound, low))
    }
}

/// `27 h` for the largest `h` of the bytes with the same upper six bits. Byte 243, which is not canonical, makes `h` 9 in
/// the last.
const BOUNDS: [u8; 64] = {
    let mut table = [0; 64];
    let mut i = 0;
    while i < 61 {
        table[i] = (4 * i as u8 + 3) / 27 * 27;
        i += 1;
    }
    table
};

/// Tables of six bits: what digits become, and what the result's bits add.
struct Parts {
    /// Of the lower three digits, by the index of [`Avx512Vbmi::split`].
    lower: [u8; 64],
    /// Of the upper two.
    upper: [u8; 64],
    /// The byte that three digits add up to, by bits x in 0 to 2 and y in 3 to 5.
    low: [u8; 64],
    /// The byte that the upper two add up to, by bits x in 0, 1 and y in 2, 3.
    high: [u8; 64],
}

const PARTS: [Parts; 4] = [parts(TritOp::Add), parts(TritOp::Mul), parts(TritOp::Min), parts(TritOp::Max)];

/// The number of the lower three digits that an index stands for.
const fn lower_of(index: usize) -> Option<u8> {
    match index {
        0..=26 => Some(index as u8),
        61..=63 => Some(index as u8 - 37),
        _ => None,
    }
}

const fn parts(op: TritOp) -> Parts {
    let mut parts = Parts { lower: [0; 64], upper: [0; 64], low: [0; 64], high: [0; 64] };
    let mut index = 0;
    while index < 64 {
        if let Some(low) = lower_of(index) {
            let mut i = 0;
            while i < 3 {
                let [x, y] = bits_of(op, super::trit(low, i));
                parts.lower[index] |= (x as u8) << i | (y as u8) << (i + 3);
                i += 1;
            }
        }
        let mut i = 0;
        while i < 3 {
            parts.low[index] += POWERS[i] * digit_of(op, index >> i & 1 == 1, index >> (i + 3) & 1 == 1);
            i += 1;
        }
        let mut i = 0;
        while i < 2 {
            parts.high[index] += POWERS[i + 3] * digit_of(op, index >> i & 1 == 1, index >> (i + 2) & 1 == 1);
            i += 1;
        }
        index += 1;
    }
    let mut h = 0;
    while h < 9 {
        let mut i = 0;
        while i < 2 {
            let [x, y] = bits_of(op, super::trit(27 * h, i + 3));
            let bits = (x as u8) << i | (y as u8) << (i + 2);
            let [exact, above] = indices_of(h);
            parts.upper[exact] |= bits;
            parts.upper[above] |= bits;
            i += 1;
        }
        h += 1;
    }
    parts
}

/// The indices that stand for `h`: that of its own bound, and that of the next bound, with the bit that says it is too large.
const fn indices_of(h: u8) -> [usize; 2] {
    [((27 * h) & 31) as usize, ((27 * (h + 1)) & 31) as usize | 32]
}

/// What [`TritIsa::unpack`] looks up.
struct Planes {
    lower: [u8; 64],
    upper: [u8; 64],
}

const PLANES: Planes = {
    let mut planes = Planes { lower: [0; 64], upper: [0; 64] };
    let mut index = 0;
    while index < 64 {
        if let Some(low) = lower_of(index) {
            planes.lower[index] = plane(low, 0, 3, 1) | plane(low, 0, 3, -1) << 3;
        }
        index += 1;
    }
    let mut h = 0;
    while h < 9 {
        let bits = plane(27 * h, 3, 5, 1) | plane(27 * h, 3, 5, -1) << 3;
        let [exact, above] = indices_of(h);
        planes.upper[exact] = bits;
        planes.upper[above] = bits;
        h += 1;
    }
    planes
};

/// What planes add, whatever bit 5 is.
const PLUS: [u8; 64] = twice(&super::PLUS);
const MINUS: [u8; 64] = twice(&super::MINUS);

const fn twice(table: &[u8; 32]) -> [u8; 64] {
    let mut both = [0; 64];
    let mut i = 0;
    while i < 64 {
        both[i] = table[i % 32];
        i += 1;
    }
    both
}
