//! Turns projections that share their input into packed matrices and steps. They become one packed matrix where one can
//! serve them all, else one each.

use super::Lowering;
use crate::error::CompileError;
use crate::model::{Layer, Matrix, NormWeights, Projection, Rotation, Ternary};
use std::sync::Arc;
use trit_format::manifest::RowOrder;
use trit_format::plan::{ActivationRule, BufferId, Epilogue, InputNorm, Quantized, Step};

/// What a ternary product needs of its input: how it is quantized, and in which basis.
#[derive(Clone, PartialEq)]
pub(super) struct Form {
    rule: ActivationRule,
    rotation: Option<Arc<Rotation>>,
}

/// The input of projections.
#[derive(Clone, Copy)]
pub(super) struct Input<'m> {
    /// f32 `[k]`.
    pub buffer: BufferId,
    /// RMSNorm before all of them.
    pub norm: Option<&'m NormWeights>,
    /// Name of the buffer for the normalized input, where one is needed.
    pub normed: &'static str,
    /// How the names of its quantized copies begin.
    pub quantized: &'static str,
}

impl<'m> Lowering<'m> {
    /// Multiplies `input` with each of the named projections. Their results stand side by side in `out`.
    pub(super) fn linear(
        &mut self,
        prefix: &str,
        projections: &[(&str, &'m Projection)],
        input: Input<'m>,
        epilogue: Epilogue,
        out: BufferId,
    ) -> Result<(), CompileError> {
        let input = self.settle(input, projections.iter().map(|(_, p)| *p));
        self.products(prefix, projections, input, epilogue, out, &mut Vec::new())
    }

    /// [`Lowering::linear`] of an input that was [settled](Lowering::settle) for these and other projections. `ready` are
    /// the forms in which it was quantized already.
    pub(super) fn products(
        &mut self,
        prefix: &str,
        projections: &[(&str, &'m Projection)],
        input: Input<'m>,
        epilogue: Epilogue,
        out: BufferId,
        ready: &mut Vec<Form>,
    ) -> Result<(), CompileError> {
        let mut at = 0;
        let forms: Vec<_> = projections.iter().map(|(_, p)| self.shared_form(p)).collect();
        let together = |a: &usize, b: &usize| forms[*a].is_some() && forms[*a] == forms[*b];
        let order: Vec<usize> = (0..projections.len()).collect();
        for run in order.chunk_by(together) {
            let parts = &projections[run[0]..run[0] + run.len()];
            let name = format!("{prefix}{}", parts.iter().map(|(name, _)| *name).collect::<String>());
            self.expect_columns(parts.iter().map(|(_, p)| *p), input)?;
            match (&parts[0].1.matrix, &forms[run[0]]) {
                (Matrix::Ternary(_), Some(form)) => {
                    let x = self.quantized_input(input, form);
                    if !ready.contains(form) {
                        self.quantize(input, input.norm, self.model.rms_eps, form, x);
                        ready.push(form.clone());
                    }
                    let matrices = parts.iter().filter_map(|(_, p)| p.matrix.ternary()).collect();
                    let packed = self.out.pack(name, RowOrder::Sequential, matrices, form.rule)?;
                    self.steps.push(Step::Ternary { matrix: packed, input: x, epilogue, out, at });
                }
                (Matrix::Ternary(ternary), None) => {
                    let form = self.form(ternary);
                    let x = self.quantized_input(input, &form);
                    self.quantize(input, parts[0].1.norm.as_ref(), self.model.linear_rms_eps, &form, x);
                    ready.retain(|other| *other != form);
                    let packed = self.out.pack(name, RowOrder::Sequential, vec![ternary], form.rule)?;
                    self.steps.push(Step::Ternary { matrix: packed, input: x, epilogue, out, at });
                }
                (Matrix::Dense(dense), _) => {
                    let (table, mut x) = (self.out.dense(dense)?, input.buffer);
                    if let Some(norm) = &parts[0].1.norm {
                        let (weight, eps) = (self.out.norm(norm), self.model.linear_rms_eps);
                        let normed = self.f32s(&format!("{}.linear", input.normed), self.len(x));
                        self.steps.push(Step::RmsNorm { input: x, weight, eps, out: normed });
                        x = normed;
                    }
                    self.steps.push(Step::Linear { table, input: x, epilogue, out, at });
                }
            }
            at += parts.iter().map(|(_, p)| p.matrix.shape()[0] as u32).sum::<u32>();
        }
        Ok(())
    }

    /// `out = activation(gate(input)) * up(input)`, in one packed matrix where both can share it.
    pub(super) fn gate_up(
        &mut self,
        prefix: &str,
        layer: &'m Layer,
        input: Input<'m>,
        out: BufferId,
    ) -> Result<(), CompileError> {
        let (gate, up, activation) = (&layer.gate, &layer.up, self.model.activation);
        let form = self.shared_form(gate).filter(|form| Some(form) == self.shared_form(up).as_ref());
        if let (Some(form), Matrix::Ternary(gate), Matrix::Ternary(up)) = (form, &gate.matrix, &up.matrix) {
            self.expect_columns([&layer.gate, &layer.up], input)?;
            let x = self.quantized_input(input, &form);
            self.quantize(input, input.norm, self.model.rms_eps, &form, x);
            let name = format!("{prefix}gate_up");
            let packed = self.out.pack(name, RowOrder::Paired, vec![gate, up], form.rule)?;
            let epilogue = Epilogue::Gate(activation);
            self.steps.push(Step::Ternary { matrix: packed, input: x, epilogue, out, at: 0 });
            return Ok(());
        }
        // The input is normalized once for both.
        let input = self.settle(input, [gate, up]);
        let up_out = self.f32s("up", self.len(out));
        self.linear(prefix, &[("gate", gate)], input, Epilogue::Store, out)?;
        self.linear(prefix, &[("up", up)], input, Epilogue::Store, up_out)?;
        self.steps.push(Step::Gate { gate: out, up: up_out, activation, out });
        Ok(())
    }

    /// What a ternary product needs of its input.
    fn form(&self, ternary: &Ternary) -> Form {
        Form { rule: self.model.rule(ternary), rotation: ternary.rotation.clone() }
    }

    /// What a projection needs of its input, where others may share the quantized input. That is so where the
    /// projection is ternary and has no norm of its own.
    fn shared_form(&self, projection: &Projection) -> Option<Form> {
        let ternary = projection.matrix.ternary().filter(|_| projection.norm.is_none())?;
        Some(self.form(ternary))
    }

    /// The input with its norm applied, where more than one quantization reads what the norm gives.
    pub(super) fn settle(
        &mut self,
        input: Input<'m>,
        projections: impl IntoIterator<Item = &'m Projection>,
    ) -> Input<'m> {
        let forms: Vec<_> = projections.into_iter().map(|p| self.shared_form(p)).collect();
        let alike = forms[0].is_some() && forms.iter().all(|form| *form == forms[0]);
        let Some(norm) = input.norm.filter(|_| !alike) else { return input };
        let (weight, eps) = (self.out.norm(norm), self.model.rms_eps);
        let out = self.f32s(input.normed, self.len(input.buffer));
        self.steps.push(Step::RmsNorm { input: input.buffer, weight, eps, out });
        Input { buffer: out, norm: None, ..input }
    }

    fn quantized_input(&mut self, input: Input, form: &Form) -> Quantized {
        let len = self.len(input.buffer);
        match &form.rotation {
            None => self.quantized(input.quantized, len, form.rule),
            Some(_) => self.quantized(&format!("{}.rotated", input.quantized), len, form.rule),
        }
    }

    /// Quantizes `input`, normalized first where there is a norm, and rotated where the form says so.
    fn quantize(
        &mut self,
        input: Input,
        norm: Option<&'m NormWeights>,
        eps: f32,
        form: &Form,
        out: Quantized,
    ) {
        let (input, rule) = (input.buffer, form.rule);
        let weight = norm.map(|weights| self.out.norm(weights));
        let step = match (&form.rotation, weight) {
            (Some(rotation), weight) => {
                let norm = weight.map(|weight| InputNorm { weight, eps });
                Step::RotateQuantize { input, norm, rotation: self.rotation(rotation), rule, out }
            }
            (None, Some(weight)) => Step::NormQuantize { input, weight, eps, rule, out },
            (None, None) => Step::Quantize { input, rule, out },
        };
        self.steps.push(step);
    }

    fn len(&self, id: BufferId) -> u32 {
        self.buffers[id.0 as usize].len
    }

    /// `Model::check` has passed, so a shape that does not fit is a defect of the compiler.
    fn expect_columns(
        &self,
        projections: impl IntoIterator<Item = &'m Projection>,
        input: Input,
    ) -> Result<(), CompileError> {
        let k = self.len(input.buffer) as usize;
        for projection in projections {
            let [rows, columns] = projection.matrix.shape();
            if rows == 0 || columns != k {
                let name = projection.matrix.name();
                return Err(CompileError::Internal(format!(
                    "{name} is [{rows}, {columns}], its input has {k} elements"
                )));
            }
        }
        Ok(())
    }
}
