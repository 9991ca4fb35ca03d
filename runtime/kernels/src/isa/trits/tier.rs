//! Which instruction set element-wise kernels run on.

#[cfg(target_arch = "aarch64")]
use super::super::Neon;
use super::super::Portable;
#[cfg(target_arch = "x86_64")]
use super::super::{Avx2, Avx512};
#[cfg(target_arch = "x86_64")]
use super::Avx512Vbmi;
use std::sync::OnceLock;

/// An instruction set, which decides which copy of each element-wise kernel runs. All give the same.
#[derive(Clone, Copy, Debug)]
pub enum TritTier {
    /// Any CPU.
    Portable(Portable),
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512 F and BW.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// AVX-512 VBMI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vbmi(Avx512Vbmi),
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl TritTier {
    /// The tiers that this CPU can run, the least capable first.
    pub fn supported() -> Vec<TritTier> {
        let mut tiers = vec![TritTier::Portable(Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            tiers.extend(Avx2::detect().map(TritTier::Avx2));
            tiers.extend(Avx512::detect().map(TritTier::Avx512));
            tiers.extend(Avx512Vbmi::detect().map(TritTier::Avx512Vbmi));
        }
        #[cfg(target_arch = "aarch64")]
        tiers.extend(Neon::detect().map(TritTier::Neon));
        tiers
    }

    /// The most capable tier that this CPU can run.
    #[inline]
    pub fn best() -> TritTier {
        static BEST: OnceLock<TritTier> = OnceLock::new();
        *BEST.get_or_init(|| TritTier::supported().pop().unwrap_or(TritTier::Portable(Portable)))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            TritTier::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            TritTier::Avx2(_) => "AVX2",
            #[cfg(target_arch = "x86_64")]
            TritTier::Avx512(_) => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            TritTier::Avx512Vbmi(_) => "AVX-512 VBMI",
            #[cfg(target_arch = "aarch64")]
            TritTier::Neon(_) => "NEON",
        }
    }
}

/// Defines `fn name(tier: TritTier, args..)`, which calls the generic `body(isa, args..)` compiled for `tier`.
macro_rules! dispatch_trits {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$meta])*
        #[allow(unsafe_code)]
        $vis fn $name(tier: crate::isa::TritTier, $($arg: $type),*) $(-> $ret)? {
            match tier {
                #[cfg(target_arch = "x86_64")]
                crate::isa::TritTier::Avx512Vbmi(isa) => {
                    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi")]
                    fn run(isa: crate::isa::Avx512Vbmi, $($arg: $type),*) $(-> $ret)? {
                        $body(isa, $($arg),*)
                    }
                    // SAFETY: `isa` exists only where `Avx512Vbmi::detect` found these features.
                    unsafe { run(isa, $($arg),*) }
                }
                #[cfg(target_arch = "x86_64")]
                crate::isa::TritTier::Avx512(isa) => {
                    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
                    fn run(isa: crate::isa::Avx512, $($arg: $type),*) $(-> $ret)? {
                        $body(isa, $($arg),*)
                    }
                    // SAFETY: `isa` exists only where `Avx512::detect` found these features.
                    unsafe { run(isa, $($arg),*) }
                }
                #[cfg(target_arch = "x86_64")]
                crate::isa::TritTier::Avx2(isa) => {
                    #[target_feature(enable = "avx2,fma,f16c")]
                    fn run(isa: crate::isa::Avx2, $($arg: $type),*) $(-> $ret)? {
                        $body(isa, $($arg),*)
                    }
                    // SAFETY: `isa` exists only where `Avx2::detect` found these features.
                    unsafe { run(isa, $($arg),*) }
                }
                #[cfg(target_arch = "aarch64")]
                crate::isa::TritTier::Neon(isa) => $body(isa, $($arg),*),
                crate::isa::TritTier::Portable(isa) => $body(isa, $($arg),*),
            }
        }
    };
}
pub(crate) use dispatch_trits;

/// Methods of a few instructions, for the two modules of intrinsics. They are no closures, which would not be compiled for the features.
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
macro_rules! each {
    ($($(#[$meta:meta])* $name:ident($($arg:ident),*) = $instructions:expr;)*) => {
        $(
            $(#[$meta])*
            #[inline(always)]
            fn $name(self, $($arg: Self::Bytes),*) -> Self::Bytes {
                // SAFETY: `self` proves the features.
                unsafe { $instructions }
            }
        )*
    };
}
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
pub(super) use each;

/// The bytes of int8 trits.
pub fn bytes_of(trits: &[i8]) -> &[u8] {
    // SAFETY: i8 and u8 have the same layout and every bit pattern.
    unsafe { std::slice::from_raw_parts(trits.as_ptr().cast(), trits.len()) }
}

/// The bytes of int8 trits.
pub fn bytes_of_mut(trits: &mut [i8]) -> &mut [u8] {
    // SAFETY: i8 and u8 have the same layout and every bit pattern.
    unsafe { std::slice::from_raw_parts_mut(trits.as_mut_ptr().cast(), trits.len()) }
}
