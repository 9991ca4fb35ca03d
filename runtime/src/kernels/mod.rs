//! Which kernels multiply the ternary matrices of a bundle on this machine.
//!
//! A bundle's manifest and weights enter, with the user's choice of kernels. For each packed matrix the kernels to call
//! leave, and a report that says which they are and why.
//!
//! | module | holds |
//! |---|---|
//! | `bind` | the choice: embedded, generated here, or portable, and of which tier |
//! | `embedded` | a bundle's own machine code, checked and made executable |
//! | `tuning` | which variant of a kernel is fastest here |
//! | `remembered` | the file that remembers it |
//! | `notes` | why other kernels run than one would expect, or none |

pub(crate) mod bind;
mod embedded;
pub(crate) mod notes;
mod remembered;
pub(crate) mod tuning;
