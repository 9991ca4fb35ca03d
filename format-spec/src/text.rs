//! The plan as text, for people who inspect a bundle and for snapshot tests.

use crate::manifest::{Grouping, Manifest, RowOrder};
use crate::plan::{
    Activation, ActivationRule, BufferId, DeltaHeads, Epilogue, HeadNorms, PackedMatrixId, PlanesId,
    Quantized, Rotation, ScaleRule, Step, TensorId,
};
use std::fmt::Write;

/// The plan of `manifest`, one line for each buffer, KV layer and step. Works on manifests that were not validated:
/// an id that names nothing is shown as `?7`.
///
/// ```text
/// arena 30080 bytes a row, residual h, logits logits
///   h                  f32  [2560]    at 0       stride 10240
/// kv 0..30    20 heads on 5, head_dim 128
/// body
///   0  embed      model.embed_tokens[128256x2560 bf16] -> h
/// layer 0
///   4  ternary    gate_up[13824x2560 paired sfix] q8 -> ffn  gate(relu2) divide
/// ```
pub fn plan(manifest: &Manifest) -> String {
    let plan = &manifest.plan;
    let text = Text(manifest);
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(printable(&text).trim_end());
        out.push('\n');
    };
    line(format!(
        "arena {} bytes a row, residual {}, logits {}",
        plan.row_bytes,
        text.buffer(plan.residual),
        text.buffer(plan.logits)
    ));
    let width = plan.buffers.iter().map(|b| b.name.chars().count()).max().unwrap_or(0).min(40);
    for b in &plan.buffers {
        let len = format!("[{}]", b.len);
        line(format!("  {:width$}  {:4} {len:9} at {:<8} stride {}", b.name, b.dtype, b.offset, b.stride));
    }
    let mut at = 0;
    for run in plan.kv.chunk_by(|a, b| a == b) {
        let range = if run.len() == 1 { format!("{at}") } else { format!("{at}..{}", at + run.len()) };
        let layer = run[0];
        line(format!(
            "kv {range:8} {} heads on {}, head_dim {}",
            layer.n_heads, layer.n_kv_heads, layer.head_dim
        ));
        at += run.len();
    }
    line("body".into());
    let mut layers = plan.layers.iter().enumerate().peekable();
    for (index, step) in plan.body.iter().enumerate() {
        while let Some((layer, _)) = layers.next_if(|(_, l)| l.start as usize <= index) {
            line(format!("layer {layer}"));
        }
        line(format!("{index:>4}  {}", text.step(step)));
    }
    line("head".into());
    for (index, step) in plan.head.iter().enumerate() {
        line(format!("{index:>4}  {}", text.step(step)));
    }
    out
}

/// Names of what a plan's ids stand for.
struct Text<'a>(&'a Manifest);

impl Text<'_> {
    fn buffer(&self, id: BufferId) -> String {
        self.0.plan.buffers.get(id.0 as usize).map_or_else(|| format!("?{}", id.0), |b| b.name.clone())
    }

    /// The three buffers are named after the first.
    fn quantized(&self, q: Quantized) -> String {
        self.buffer(q.values)
    }

    fn tensor(&self, id: TensorId) -> String {
        let Some(tensor) = self.0.tensors.get(id.0 as usize) else { return format!("?{}", id.0) };
        let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
        format!("{}[{} {}]", tensor.name, shape.join("x"), tensor.dtype)
    }

    /// Which planes a head may scan.
    fn planes(&self, id: PlanesId) -> String {
        match self.0.planes.get(id.0 as usize) {
            Some(planes) => format!("  planes at {}", planes.offset),
            None => format!("  planes ?{}", id.0),
        }
    }

    /// The packed matrix, and the direction of its scales.
    fn matrix(&self, id: PackedMatrixId) -> (String, &'static str) {
        let Some(matrix) = self.0.packed_matrices.get(id.0 as usize) else {
            return (format!("?{}", id.0), "");
        };
        let order = match matrix.order {
            RowOrder::Sequential => "",
            RowOrder::Paired => " paired",
        };
        let all = |rule| matrix.segments.iter().all(|s| s.rule == rule);
        let rule = match (all(ScaleRule::Multiply), all(ScaleRule::Divide)) {
            (true, _) => "multiply",
            (_, true) => "divide",
            _ => "mixed",
        };
        let (rule, groups) = match matrix.grouping {
            None => (rule, String::new()),
            Some(Grouping { columns, scale_columns, scale }) => {
                let scales = match scale_columns {
                    0 => "row".to_owned(),
                    n => n.to_string(),
                };
                ("", format!(" groups of {columns}, {} scale a {scales}", scale))
            }
        };
        let (rows, k, code) = (matrix.rows(), matrix.k, matrix.code.name());
        (format!("{}[{rows}x{k}{order} {code}{groups}]", matrix.name), rule)
    }

    fn step(&self, step: &Step) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = match *step {
            Step::Embed { table, scale, out: to } => {
                let scale = if scale == 1.0 { String::new() } else { format!("  scale {scale:?}") };
                write!(out, "embed      {} -> {}{scale}", self.tensor(table), self.buffer(to))
            }
            Step::EmbedTernary { matrix, out: to } => {
                write!(out, "embed      {} -> {}", self.matrix(matrix).0, self.buffer(to))
            }
            Step::RmsNorm { input, weight, eps, out: to } => write!(
                out,
                "rms_norm   {} -> {}  weight {} eps {eps:e}",
                self.buffer(input),
                self.buffer(to),
                self.tensor(weight)
            ),
            Step::RmsNormAdd { input, weight, eps, out: to } => write!(
                out,
                "rms_norm   {} +> {}  weight {} eps {eps:e}",
                self.buffer(input),
                self.buffer(to),
                self.tensor(weight)
            ),
            Step::Quantize { input, rule, out: to } => {
                write!(
                    out,
                    "quantize   {} -> {}  {}",
                    self.buffer(input),
                    self.quantized(to),
                    activation_rule(rule)
                )
            }
            Step::NormQuantize { input, weight, eps, rule, out: to } => write!(
                out,
                "norm_quant {} -> {}  weight {} eps {eps:e} {}",
                self.buffer(input),
                self.quantized(to),
                self.tensor(weight),
                activation_rule(rule)
            ),
            Step::Linear { table, input, epilogue, out: to, at } => write!(
                out,
                "linear     {} {} {} {}{}",
                self.tensor(table),
                self.buffer(input),
                arrow(epilogue),
                self.buffer(to),
                from(at)
            ),
            Step::Gate { gate, up, activation, out: to } => write!(
                out,
                "gate       {} {} -> {}  {}",
                self.buffer(gate),
                self.buffer(up),
                self.buffer(to),
                function(activation)
            ),
            Step::Ternary { matrix, input, epilogue, out: to, at } => {
                let (name, rule) = self.matrix(matrix);
                let gate = match epilogue {
                    Epilogue::Store | Epilogue::Add => String::new(),
                    Epilogue::Gate(activation) => format!("gate({}) ", function(activation)),
                };
                write!(
                    out,
                    "ternary    {name} {} {} {}{}  {gate}{rule}",
                    self.quantized(input),
                    arrow(epilogue),
                    self.buffer(to),
                    from(at)
                )
            }
            Step::RopeAppend { qkv, norms, inv_freq, scaling, layer } => {
                let norms = norms.map_or_else(String::new, |norms| format!("  {}", self.head_norms(norms)));
                write!(
                    out,
                    "rope       {} -> kv {layer}  {} scaling {scaling:?}{norms}",
                    self.buffer(qkv),
                    self.tensor(inv_freq)
                )
            }
            Step::RopeNormAppend { qkv, norms, inv_freq, scaling, layer } => write!(
                out,
                "rope       {} -> kv {layer}  {} scaling {scaling:?}, then {}",
                self.buffer(qkv),
                self.tensor(inv_freq),
                self.head_norms(norms)
            ),
            Step::Attend { qkv, layer, scale, window, out: to } => {
                let window = window.map_or_else(String::new, |w| format!(" window {w}"));
                write!(
                    out,
                    "attend     {} kv {layer} -> {}  scale {scale:?}{window}",
                    self.buffer(qkv),
                    self.buffer(to)
                )
            }
            Step::Head { input, table, planes, out: to } => {
                let planes = planes.map_or_else(String::new, |id| self.planes(id));
                let (table, input, to) = (self.tensor(table), self.buffer(input), self.buffer(to));
                write!(out, "head       {table} {input} -> {to}{planes}")
            }
            Step::RotateQuantize { input, norm, rotation, rule, out: to } => {
                let norm = norm.map_or_else(String::new, |norm| {
                    format!("  weight {} eps {:e}", self.tensor(norm.weight), norm.eps)
                });
                let (input, to) = (self.buffer(input), self.quantized(to));
                let (rotation, rule) = (self.rotation(rotation), activation_rule(rule));
                write!(out, "rotate_q   {input} -> {to}{norm}  {rotation} {rule}")
            }
            Step::Unrotate { rotation, out: to } => {
                write!(out, "unrotate   {}  {}", self.buffer(to), self.rotation(rotation))
            }
            Step::Convolve { input, weight, activation, state, out: to } => write!(
                out,
                "convolve   {} {} state {state} -> {}  {}",
                self.tensor(weight),
                self.buffer(input),
                self.buffer(to),
                function(activation)
            ),
            Step::DeltaRule { qkv, gates, at, rates, bias, heads, state, out: to } => {
                let DeltaHeads { keys, values, key_dim, value_dim } = heads;
                let (qkv, gates, to) = (self.buffer(qkv), self.buffer(gates), self.buffer(to));
                let (from, rates, bias) = (from(at), self.tensor(rates), self.tensor(bias));
                write!(
                    out,
                    "delta_rule {qkv} {gates}{from} state {state} -> {to}  heads {keys}x{key_dim} {values}x{value_dim} \
                     rates {rates} bias {bias}"
                )
            }
            Step::GateNorm { input, weight, eps, gate, at, activation, out: to } => write!(
                out,
                "gate_norm  {} {}{} -> {}  weight {} eps {eps:e} {}",
                self.buffer(input),
                self.buffer(gate),
                from(at),
                self.buffer(to),
                self.tensor(weight),
                function(activation)
            ),
            Step::JoinHidden { input, input_norm, hidden_norm, eps, out: to } => write!(
                out,
                "join       {} hidden -> {}  weights {} {} eps {eps:e}",
                self.buffer(input),
                self.buffer(to),
                self.tensor(input_norm),
                self.tensor(hidden_norm)
            ),
        };
        out
    }

    fn head_norms(&self, HeadNorms { q, k, eps }: HeadNorms) -> String {
        format!("norms {} {} eps {eps:e}", self.tensor(q), self.tensor(k))
    }

    fn rotation(&self, Rotation { block, signs }: Rotation) -> String {
        let signs = signs.map_or_else(String::new, |signs| format!(" signs {}", self.tensor(signs)));
        format!("hadamard {block}{signs}")
    }
}

fn activation_rule(rule: ActivationRule) -> String {
    match rule {
        ActivationRule::AbsmaxPerToken { floor } => format!("absmax floor {floor:e}"),
        ActivationRule::AbsmaxPerGroup { columns } => format!("absmax of {columns}"),
        ActivationRule::Fixed24PerGroup { columns } => format!("24 bits of {columns}"),
    }
}

fn arrow(epilogue: Epilogue) -> &'static str {
    if epilogue == Epilogue::Add { "+>" } else { "->" }
}

fn from(at: u32) -> String {
    if at == 0 { String::new() } else { format!(" from {at}") }
}

fn function(activation: Activation) -> &'static str {
    match activation {
        Activation::Relu2 => "relu2",
        Activation::Silu => "silu",
        Activation::GeluTanh => "gelu_tanh",
        Activation::Sigmoid => "sigmoid",
    }
}

/// `text` with control characters made visible, since names come from files and go to terminals.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
