//! Checks whether a manifest fits its bundle, and whether its records fit each other.
//!
//! What a runtime may rely on afterwards: every id names something, every range lies inside its section, every
//! step's shapes and types agree, no step writes what it reads elsewhere, nothing is read before it is written, and
//! sizes are bounded. SPEC.md, "Validation", lists the rules. The *contents* of tensors and tiles are not looked at:
//! any bytes there are values, if not useful ones.

mod dataflow;
mod kernels;
mod plan;

use crate::FormatError;
use crate::coded::BLOCK_COLUMNS;
use crate::container::{Header, SectionKind};
use crate::kernel::{GROUP_COLUMNS, MAX_GROUPED_K, MAX_K};
use crate::manifest::{
    Grouping, Hyperparameters, LogitRules, Manifest, PackedMatrix, Planes, RowOrder, SamplingDefaults,
    Segment, Tensor, TextInfo,
};
use crate::plan::{DType, ScaleRule};
use crate::planes::{Layout, MAX_HIDDEN, MAX_ROWS};
use crate::text::printable;
use std::fmt::Display;

/// Bytes that every tensor, packed matrix and kernel is aligned to: a cache line and the widest vector.
const ALIGNMENT: u64 = 64;
/// Most entries of each list. That is generous: the largest known models have 126 layers of about ten steps.
const MAX_COUNT: usize = 1 << 16;
/// Most dimensions of a tensor.
const MAX_RANK: usize = 8;
/// Most bytes of a name.
const MAX_NAME: usize = 1 << 12;
/// Longest context in tokens.
const MAX_CONTEXT: u32 = 1 << 24;
/// Largest number of elements in one dimension of the model. It bounds what a runtime computes from them.
const MAX_DIM: u32 = 1 << 24;
/// Most ids in all sequences of [`LogitRules`]: every one may be compared for every token.
const MAX_WORD_IDS: usize = 1 << 20;
/// Longest run of tokens that must not be repeated. Models say 2 to 10; the whole text is searched for it.
const MAX_NGRAM: u32 = 1 << 10;
/// Most goldens: each is a run of the model.
const MAX_GOLDENS: usize = 64;

/// What a plan is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Model,
    Draft,
}

impl Manifest {
    /// Checks every record against the others and against the bundle's sections, so that a runtime that follows the
    /// plan stays inside its buffers, tensors and sections.
    ///
    /// # Errors
    /// [`FormatError::Record`] with the record and the problem, [`FormatError::Missing`] where the header lacks the
    /// weight or tensor section.
    pub fn validate(&self, header: &Header) -> Result<(), FormatError> {
        self.counts()?;
        self.names()?;
        hyperparameters(&self.hyperparameters)?;
        tensors(&self.tensors, section_len(header, SectionKind::Tensors)?)?;
        packed_matrices(&self.packed_matrices, section_len(header, SectionKind::Weights)?)?;
        kernels::validate(self, header)?;
        plan::validate(self, Role::Model)?;
        self.planes(header)?;
        dataflow::validate(self)?;
        text(&self.text, self.hyperparameters.vocab_size)?;
        self.goldens()
    }

    /// Checks the plan of a draft that stands in the place of a validated manifest's own: see [`crate::draft`].
    pub(crate) fn validate_draft(&self) -> Result<(), FormatError> {
        let check = || {
            self.counts()?;
            self.names()?;
            plan::validate(self, Role::Draft)?;
            dataflow::validate(self)
        };
        check().map_err(|error| match error {
            FormatError::Record { record, problem } => {
                FormatError::Record { record: format!("draft, {record}"), problem }
            }
            other => other,
        })
    }

    fn counts(&self) -> Result<(), FormatError> {
        let plan = &self.plan;
        for (list, len, most) in [
            ("model.sources", self.model.sources.len(), MAX_COUNT),
            ("tensors", self.tensors.len(), MAX_COUNT),
            ("packed_matrices", self.packed_matrices.len(), MAX_COUNT),
            ("planes", self.planes.len(), MAX_COUNT),
            ("kernels", self.kernels.len(), MAX_COUNT),
            ("plan.buffers", plan.buffers.len(), plan::MAX_BUFFERS),
            ("plan.body", plan.body.len(), MAX_COUNT),
            ("plan.head", plan.head.len(), MAX_COUNT),
            ("plan.kv", plan.kv.len(), MAX_COUNT),
            ("plan.layers", plan.layers.len(), MAX_COUNT),
            ("text.special_tokens", self.text.special_tokens.len(), MAX_COUNT),
            ("text.stop", self.text.stop.len(), MAX_COUNT),
            ("goldens", self.goldens.len(), MAX_GOLDENS),
        ] {
            ensure(len <= most, list, || format!("has {len} entries; {most} are possible"))?;
        }
        Ok(())
    }

    /// Names are shown to people, so none may hold what a terminal would obey.
    fn names(&self) -> Result<(), FormatError> {
        let named = [
            ("compiler", &self.compiler),
            ("model name", &self.model.name),
            ("architecture", &self.model.architecture),
        ];
        let sources = self.model.sources.iter().map(|s| ("source", &s.file));
        let tensors = self.tensors.iter().map(|t| ("tensor", &t.name));
        let packed_matrices = self.packed_matrices.iter().map(|p| ("product", &p.name));
        let segments = self.packed_matrices.iter().flat_map(|p| &p.segments).map(|s| ("segment", &s.name));
        let buffers = self.plan.buffers.iter().map(|b| ("buffer", &b.name));
        for (what, name) in named
            .into_iter()
            .chain(sources)
            .chain(tensors)
            .chain(packed_matrices)
            .chain(segments)
            .chain(buffers)
        {
            ensure(name.len() <= MAX_NAME, what, || {
                format!("has a name of {} bytes; {MAX_NAME} are possible", name.len())
            })?;
            ensure(!name.chars().any(char::is_control), what, || {
                format!("has a control character in its name {:?}", printable(name))
            })?;
        }
        Ok(())
    }

    fn planes(&self, header: &Header) -> Result<(), FormatError> {
        let Some(first) = self.planes.first() else { return Ok(()) };
        let name = |p: &Planes| format!("planes of tensor {}", p.table.0);
        let section = header.section(SectionKind::Planes);
        ensure(section.is_some(), name(first), || "the bundle has no planes section")?;
        let mut ranges = Ranges::new(SectionKind::Planes, section.map_or(0, |s| s.len), name);
        for planes in &self.planes {
            let record = name(planes);
            let [rows, hidden] = plan::table(self, &record, planes.table)?;
            let layout = Layout::new(rows, hidden);
            ensure(layout.is_some(), &record, || {
                format!("a table [{rows}, {hidden}] has none; [{MAX_ROWS}, {MAX_HIDDEN}] is the largest")
            })?;
            ranges.take(planes, planes.offset, layout.map(|l| l.bytes()))?;
        }
        ranges.disjoint()
    }

    fn goldens(&self) -> Result<(), FormatError> {
        let Hyperparameters { vocab_size, context_length, .. } = self.hyperparameters;
        for (index, golden) in self.goldens.iter().enumerate() {
            let record = format!("golden {index}");
            let len = golden.ids.len();
            ensure(len >= 1 && len <= context_length as usize, &record, || {
                format!("has {len} ids; 1 to {context_length}, the context length, are possible")
            })?;
            ids(&record, &golden.ids, vocab_size)?;
            let tensor = plan::tensor(self, &record, golden.logits)?;
            plan::vector(&record, "logits", tensor, vocab_size.into())?;
        }
        Ok(())
    }
}

/// Fails with a [`FormatError::Record`] unless `holds`.
fn ensure<P: Display>(
    holds: bool,
    record: impl Display,
    problem: impl FnOnce() -> P,
) -> Result<(), FormatError> {
    if holds { Ok(()) } else { Err(error(record, problem())) }
}

fn error(record: impl Display, problem: impl Display) -> FormatError {
    FormatError::Record { record: record.to_string(), problem: problem.to_string() }
}

/// A number that arithmetic survives: neither zero, negative, infinite nor NaN.
fn positive(record: impl Display, field: &str, value: f32) -> Result<(), FormatError> {
    ensure(value.is_finite() && value > 0.0, record, || {
        format!("{field} is {value}, not finite and above zero")
    })
}

fn section_len(header: &Header, kind: SectionKind) -> Result<u64, FormatError> {
    header.section(kind).map(|s| s.len).ok_or(FormatError::Missing(kind))
}

/// Ranges of one section that must be aligned, inside and apart. Records name themselves only when one is at fault.
struct Ranges<'a, T> {
    section: SectionKind,
    len: u64,
    name: fn(&T) -> String,
    taken: Vec<(u64, u64, &'a T)>,
}

impl<'a, T> Ranges<'a, T> {
    fn new(section: SectionKind, len: u64, name: fn(&T) -> String) -> Ranges<'a, T> {
        Ranges { section, len, name, taken: Vec::new() }
    }

    /// Takes `len` bytes at `offset`; `None` is a length that overflows.
    fn take(&mut self, record: &'a T, offset: u64, len: Option<u64>) -> Result<(), FormatError> {
        let name = || (self.name)(record);
        ensure(offset.is_multiple_of(ALIGNMENT), name(), || {
            format!("its offset {offset} is no multiple of {ALIGNMENT}")
        })?;
        let len = len.ok_or_else(|| error(name(), "its size overflows 64 bits"))?;
        let end = offset.checked_add(len).filter(|&end| end <= self.len).ok_or_else(|| {
            error(
                name(),
                format!("its {len} bytes at {offset} reach past the {} section's {}", self.section, self.len),
            )
        })?;
        self.taken.push((offset, end, record));
        Ok(())
    }

    fn disjoint(mut self) -> Result<(), FormatError> {
        self.taken.sort_by_key(|&(start, end, _)| (start, end));
        match self.taken.windows(2).find(|pair| pair[1].0 < pair[0].1) {
            None => Ok(()),
            Some(pair) => Err(error((self.name)(pair[1].2), format!("overlaps {}", (self.name)(pair[0].2)))),
        }
    }
}

fn hyperparameters(h: &Hyperparameters) -> Result<(), FormatError> {
    for (field, value, most) in [
        ("vocab_size", h.vocab_size, MAX_DIM),
        ("hidden_dim", h.hidden_dim, MAX_DIM),
        ("ffn_dim", h.ffn_dim, MAX_DIM),
        ("n_layers", h.n_layers, MAX_COUNT as u32),
        ("n_heads", h.n_heads, MAX_DIM),
        ("n_kv_heads", h.n_kv_heads, MAX_DIM),
        ("head_dim", h.head_dim, MAX_DIM),
        ("context_length", h.context_length, MAX_CONTEXT),
    ] {
        ensure((1..=most).contains(&value), "hyperparameters", || {
            format!("{field} is {value}, not in 1..={most}")
        })?;
    }
    Ok(())
}

fn tensors(tensors: &[Tensor], section: u64) -> Result<(), FormatError> {
    let name = |t: &Tensor| format!("tensor {}", t.name);
    let mut ranges = Ranges::new(SectionKind::Tensors, section, name);
    for tensor in tensors {
        ensure(tensor.shape.len() <= MAX_RANK, name(tensor), || {
            format!("has {} dimensions; {MAX_RANK} are possible", tensor.shape.len())
        })?;
        ensure(!tensor.shape.contains(&0), name(tensor), || {
            format!("its shape {:?} is empty", tensor.shape)
        })?;
        if let DType::I8Blocks { columns, .. } = tensor.dtype {
            blocks(&name(tensor), &tensor.shape, columns)?;
        }
        ranges.take(tensor, tensor.offset, tensor.bytes())?;
    }
    ranges.disjoint()
}

/// Requires a matrix whose rows are whole blocks of so many columns.
fn blocks(record: &str, shape: &[u64], columns: u32) -> Result<(), FormatError> {
    ensure(BLOCK_COLUMNS.contains(&columns), record, || {
        format!("has blocks of {columns} columns; {BLOCK_COLUMNS:?} are possible")
    })?;
    let whole = matches!(shape, [_, k] if k.is_multiple_of(columns.into()));
    ensure(whole, record, || format!("its shape {shape:?} is no matrix of whole blocks of {columns} columns"))
}

fn packed_matrices(packed_matrices: &[PackedMatrix], section: u64) -> Result<(), FormatError> {
    let name = |p: &PackedMatrix| format!("product {}", p.name);
    let mut ranges = Ranges::new(SectionKind::Weights, section, name);
    for matrix in packed_matrices {
        let record = name(matrix);
        let most = if matrix.grouping.is_some() { MAX_GROUPED_K } else { MAX_K };
        ensure((1..=most).contains(&matrix.k), &record, || format!("k is {}, not in 1..={most}", matrix.k))?;
        if let Some(grouping) = &matrix.grouping {
            self::grouping(&record, grouping)?;
            let unscaled = |s: &Segment| s.scale == 1.0 && s.rule == ScaleRule::Multiply;
            ensure(
                matrix.segments.iter().all(unscaled),
                &record,
                || "is grouped, but a segment has a scale of its own",
            )?;
        }
        ensure((1..=MAX_COUNT).contains(&matrix.segments.len()), &record, || {
            format!("has {} segments; 1 to {MAX_COUNT} are possible", matrix.segments.len())
        })?;
        for segment in &matrix.segments {
            let record = format!("{record}, segment {}", segment.name);
            ensure(segment.rows > 0, &record, || "has no rows")?;
            positive(&record, "scale", segment.scale)?;
        }
        ensure(matrix.rows() <= MAX_DIM.into(), &record, || {
            format!("has {} rows; {MAX_DIM} are possible", matrix.rows())
        })?;
        if matrix.order == RowOrder::Paired {
            let equal = matches!(&matrix.segments[..], [a, b] if a.rows == b.rows);
            ensure(equal, &record, || "is paired but not of two equal segments")?;
        }
        ranges.take(matrix, matrix.offset, matrix.bytes())?;
    }
    ranges.disjoint()
}

fn grouping(record: &str, grouping: &Grouping) -> Result<(), FormatError> {
    let Grouping { columns, scale_columns, scale } = *grouping;
    ensure(GROUP_COLUMNS.contains(&columns), record, || {
        format!("has groups of {columns} columns; {GROUP_COLUMNS:?} are possible")
    })?;
    ensure(scale_columns.is_multiple_of(columns), record, || {
        format!("has a scale for {scale_columns} columns, no multiple of its groups' {columns}")
    })?;
    ensure(scale.is_float(), record, || format!("its scales are {scale:?}, expected floats"))
}

fn ids(record: impl Display, ids: &[u32], vocab: u32) -> Result<(), FormatError> {
    match ids.iter().find(|&&id| id >= vocab) {
        None => Ok(()),
        Some(id) => Err(error(record, format!("token id {id} is outside the vocabulary of {vocab}"))),
    }
}

fn text(text: &TextInfo, vocab: u32) -> Result<(), FormatError> {
    ids("text, bos", text.bos.as_slice(), vocab)?;
    ids("text, stop", &text.stop, vocab)?;
    let &SamplingDefaults {
        do_sample: _,
        temperature,
        top_k: _,
        top_p,
        min_p,
        repetition_penalty,
        ref rules,
    } = &text.sampling;
    logit_rules(rules, vocab)?;
    for (field, value, most) in
        [("temperature", temperature, 1e6), ("top_p", top_p, 1.0), ("min_p", min_p, 1.0)]
    {
        if let Some(value) = value {
            ensure((0.0..=most).contains(&value), "text, sampling", || {
                format!("{field} is {value}, not in 0..={most}")
            })?;
        }
    }
    repetition_penalty.map_or(Ok(()), |value| positive("text, sampling", "repetition_penalty", value))
}

fn logit_rules(rules: &LogitRules, vocab: u32) -> Result<(), FormatError> {
    let record = "text, logit rules";
    let LogitRules { sequence_bias, no_repeat_ngram_size, bad_words, suppress, begin_suppress } = rules;
    let words = || sequence_bias.iter().map(|(word, _)| word).chain(bad_words);
    for (list, len) in [
        ("sequence_bias", sequence_bias.len()),
        ("bad_words", bad_words.len()),
        ("suppress", suppress.len()),
        ("begin_suppress", begin_suppress.len()),
        ("the longest sequence", words().map(Vec::len).max().unwrap_or(0)),
    ] {
        ensure(len <= MAX_COUNT, record, || format!("{list} has {len} entries; {MAX_COUNT} are possible"))?;
    }
    let all: usize = words().map(Vec::len).sum();
    ensure(all <= MAX_WORD_IDS, record, || {
        format!("sequences have {all} ids in all; {MAX_WORD_IDS} are possible")
    })?;
    ensure(*no_repeat_ngram_size <= MAX_NGRAM, record, || {
        format!("no_repeat_ngram_size is {no_repeat_ngram_size}, more than {MAX_NGRAM}")
    })?;
    for word in words() {
        ensure(!word.is_empty(), record, || "has an empty sequence")?;
        ids(record, word, vocab)?;
    }
    if let Some((_, bias)) = sequence_bias.iter().find(|(_, bias)| !bias.is_finite()) {
        return Err(error(record, format!("a bias is {bias}, not finite")));
    }
    ids(record, suppress, vocab)?;
    ids(record, begin_suppress, vocab)
}
