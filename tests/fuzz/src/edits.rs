//! Changes of a manifest: a fuzzer's bytes enter as [`Edit`]s; a manifest that is nearly valid leaves.

use crate::assembled;
use crate::leaves::{Leaf, leaves};
use arbitrary::Arbitrary;
use trit_format::kernel::GROUP_COLUMNS;
use trit_format::manifest::Manifest;
use trit_format::plan::{ActivationRule, Step};

/// One change. Numbers that choose are counted round.
#[derive(Clone, Debug, Arbitrary)]
pub enum Edit {
    /// A field gets another value.
    Field(u16, Value),
    /// Two steps of the body change places.
    Swap(u8, u8),
    /// A step of a small bundle stands before step `before` of the body.
    Insert {
        /// Which bundle.
        bundle: u8,
        /// Which of its steps.
        step: u8,
        /// Where it stands.
        before: u8,
    },
    /// A step of a small bundle replaces one of the body.
    Replace {
        /// Which bundle.
        bundle: u8,
        /// Which of its steps.
        step: u8,
        /// Which it replaces.
        old: u8,
    },
    /// A step of the body is left out.
    Remove(u8),
    /// The body's step replaces one of the head.
    Head(u8, u8),
    /// A buffer has another place.
    Buffer {
        /// Which.
        buffer: u8,
        /// Where it begins, in units of 64 bytes.
        offset: u8,
        /// Bytes of a row, in units of 64.
        stride: u8,
        /// Elements.
        len: u8,
    },
    /// A step that quantizes does so by another rule.
    Rule(u8, u8),
    /// A buffer begins where another one does.
    Share(u8, u8),
}

/// Another value of a field.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Value {
    /// A small number.
    Small(u8),
    /// The old one and so much.
    Add(i8),
    /// The value of another field of as many bytes.
    Of(u16),
    /// The old one, with a bit changed.
    Bit(u8),
    /// A float.
    Float(i16),
    /// Any.
    Any(u64),
}

/// The steps of a small bundle, with those of its head.
fn steps(bundle: u8) -> Vec<Step> {
    let plan = assembled::manifest(bundle).plan;
    plan.body.into_iter().chain(plan.head).collect()
}

/// Makes a change. `None` where what it makes does not decode.
pub fn apply(manifest: &mut Manifest, edit: &Edit) -> Option<()> {
    let (body, head) = (manifest.plan.body.len(), manifest.plan.head.len());
    let taken = |bundle: u8, step: u8| {
        let mut steps = steps(bundle);
        let count = steps.len();
        steps.swap_remove(usize::from(step) % count)
    };
    match *edit {
        Edit::Field(index, value) => *manifest = changed(manifest, index, value)?,
        Edit::Swap(a, b) if body > 0 => manifest.plan.body.swap(usize::from(a) % body, usize::from(b) % body),
        Edit::Insert { bundle, step, before } => {
            let at = usize::from(before) % (body + 1);
            manifest.plan.body.insert(at, taken(bundle, step));
            moved(manifest, at, 1);
        }
        Edit::Replace { bundle, step, old } if body > 0 => {
            manifest.plan.body[usize::from(old) % body] = taken(bundle, step);
        }
        Edit::Remove(step) if body > 0 => {
            let at = usize::from(step) % body;
            manifest.plan.body.remove(at);
            moved(manifest, at, -1);
        }
        Edit::Head(from, to) if body > 0 && head > 0 => {
            manifest.plan.head[usize::from(to) % head] = manifest.plan.body[usize::from(from) % body].clone();
        }
        Edit::Buffer { buffer, offset, stride, len } if !manifest.plan.buffers.is_empty() => {
            let count = manifest.plan.buffers.len();
            let buffer = &mut manifest.plan.buffers[usize::from(buffer) % count];
            (buffer.offset, buffer.stride) = (64 * u64::from(offset), 64 * u64::from(stride));
            buffer.len = len.into();
            let end = manifest.plan.buffers.iter().map(|b| b.offset.saturating_add(b.stride)).max();
            manifest.plan.row_bytes = end.unwrap_or(0).checked_next_multiple_of(64).unwrap_or(0);
        }
        Edit::Share(buffer, other) if !manifest.plan.buffers.is_empty() => {
            let buffers = &mut manifest.plan.buffers;
            let count = buffers.len();
            buffers[usize::from(buffer) % count].offset = buffers[usize::from(other) % count].offset;
        }
        Edit::Rule(step, rule) => {
            let steps = manifest.plan.body.iter_mut().chain(&mut manifest.plan.head);
            let mut rules: Vec<&mut ActivationRule> = steps.filter_map(rule_of).collect();
            if !rules.is_empty() {
                let count = rules.len();
                *rules[usize::from(step) % count] = another_rule(usize::from(rule));
            }
        }
        _ => {}
    }
    Some(())
}

/// The rule by which a step quantizes, if it does.
fn rule_of(step: &mut Step) -> Option<&mut ActivationRule> {
    match step {
        Step::Quantize { rule, .. } | Step::NormQuantize { rule, .. } | Step::RotateQuantize { rule, .. } => {
            Some(rule)
        }
        _ => None,
    }
}

/// One of the rules, counted round: of whole rows, or of groups of each width with one digit or with three.
fn another_rule(rule: usize) -> ActivationRule {
    let columns = GROUP_COLUMNS[rule / 3 % GROUP_COLUMNS.len()];
    match rule % 3 {
        0 => ActivationRule::AbsmaxPerToken { floor: 1e-5 },
        1 => ActivationRule::AbsmaxPerGroup { columns },
        _ => ActivationRule::Fixed24PerGroup { columns },
    }
}

/// Moves the ends of layers behind step `at`.
fn moved(manifest: &mut Manifest, at: usize, by: i32) {
    for layer in &mut manifest.plan.layers {
        for end in [&mut layer.start, &mut layer.end] {
            if *end as usize > at {
                *end = end.wrapping_add_signed(by);
            }
        }
    }
}

/// The manifest with another value of a field.
fn changed(manifest: &Manifest, index: u16, value: Value) -> Option<Manifest> {
    let mut bytes = manifest.encode().ok()?;
    let (leaves, _) = leaves(manifest);
    let chosen = leaves[usize::from(index) % leaves.len()];
    let read = |bytes: &[u8], Leaf { at, size }| {
        let mut word = [0; 8];
        word[..size].copy_from_slice(&bytes[at..at + size]);
        u64::from_le_bytes(word)
    };
    let old = read(&bytes, chosen);
    let new = match value {
        Value::Small(n) => n.into(),
        Value::Add(n) => old.wrapping_add_signed(n.into()),
        Value::Of(other) => {
            let same: Vec<_> = leaves.iter().filter(|leaf| leaf.size == chosen.size).collect();
            read(&bytes, *same[usize::from(other) % same.len()])
        }
        Value::Bit(bit) => old ^ 1 << (bit % 64),
        Value::Float(n) => (f32::from(n) / 256.0).to_bits().into(),
        Value::Any(n) => n,
    };
    bytes[chosen.at..][..chosen.size].copy_from_slice(&new.to_le_bytes()[..chosen.size]);
    Manifest::decode(&bytes).ok()
}
