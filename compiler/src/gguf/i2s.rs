//! Settles the layout of a file's I2_S tensors. All tensors of a file have one layout, so it is decided once, from all of
//! them.

use super::parts::Gguf;
use crate::checkpoint::{ElementType, I2sLayout};
use crate::error::{Choice, CompileError};
use crate::weights::i2s_evidence;

/// Gives every I2_S tensor its layout: the `chosen` one, or what the weights say. `heads` are the numbers of query and KV
/// heads. Returns the layout and where it is from, for whoever wants to know; `None` where there are no such tensors.
///
/// # Errors
/// The weights do not say which layout it is; a layout was chosen that some tensor does not fit into, or where there is
/// no I2_S tensor.
pub(super) fn lay_out(
    gguf: &mut Gguf,
    heads: [usize; 2],
    chosen: Option<I2sLayout>,
) -> Result<Option<String>, CompileError> {
    let is_i2s = |dtype| matches!(dtype, ElementType::I2s(_));
    let unfit = |layout: I2sLayout| {
        let mut matrices = gguf.tensors.values().filter(|tensor| is_i2s(tensor.dtype));
        matrices.find(|tensor| !matches!(tensor.shape[..], [rows, k] if layout.fits([rows, k])))
    };
    let refuse = |layout: I2sLayout, problem| {
        Err(CompileError::Choice { choice: Choice::I2sLayout(layout.name()), problem })
    };
    let any = gguf.tensors.values().any(|tensor| is_i2s(tensor.dtype));
    let (layout, source) = match (any, chosen) {
        (false, None) => return Ok(None),
        (false, Some(layout)) => return refuse(layout, not_there()),
        (true, Some(layout)) => match unfit(layout) {
            None => (layout, "as chosen".to_owned()),
            Some(tensor) => {
                let problem = format!(
                    "tensor {} of shape {:?} is no whole number of its blocks",
                    tensor.name, tensor.shape
                );
                return refuse(layout, problem);
            }
        },
        (true, None) => {
            let verdict = i2s_evidence::decide(&gguf.tensors, heads);
            let evidence =
                verdict.correlations.iter().map(|(layout, squared)| format!("{layout} {squared:.3}"));
            let evidence: Vec<String> = evidence.collect();
            let evidence = evidence.join(", ");
            match verdict.layout {
                Some(layout) => (layout, format!("as its weights say (squared correlations: {evidence})")),
                None => {
                    return Err(CompileError::UndecidedLayout { path: gguf.path.clone(), evidence });
                }
            }
        }
    };
    gguf.tensors.values_mut().filter(|tensor| is_i2s(tensor.dtype)).for_each(|tensor| {
        tensor.dtype = ElementType::I2s(Some(layout));
    });
    Ok(Some(format!("{layout}, {source}")))
}

/// What is wrong with choosing a layout where nothing has one.
pub(crate) fn not_there() -> String {
    "the checkpoint has no weights of type I2_S".to_owned()
}
