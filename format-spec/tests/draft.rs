//! The plan of a block that drafts tokens: its bytes, what is refused of it, and damage.

mod bundle;

use bundle::accesses::run;
use bundle::drafting::drafting;
use bundle::{NORM, RESIDUAL, assemble, sections};
use trit_format::FormatError;
use trit_format::container::{Header, SectionKind};
use trit_format::draft;
use trit_format::manifest::Manifest;
use trit_format::plan::*;

/// A whole bundle with that section.
fn file(m: &Manifest, section: Vec<u8>) -> Vec<u8> {
    let mut all = vec![(SectionKind::Manifest, m.encode().unwrap())];
    all.extend(sections(m));
    all.push((SectionKind::Draft, section));
    assemble(&all)
}

#[test]
fn a_draft_is_read_back() {
    let (m, plan) = drafting();
    let section = draft::encode(&plan).unwrap();
    let file = file(&m, section.clone());
    let header = Header::parse(&file).unwrap();
    header.verify(&file, SectionKind::Draft).unwrap();
    m.validate(&header).unwrap();
    let read = draft::decode(&file[header.section(SectionKind::Draft).unwrap().range()], &m).unwrap();
    assert_eq!(read.plan, plan);
    assert_eq!((read.hyperparameters.n_layers, read.hyperparameters.vocab_size), (1, 10));
    assert_eq!((&read.tensors, &read.packed_matrices), (&m.tensors, &m.packed_matrices));
    run(&file, &header, &read);
    // Too short, and too long.
    for bytes in [&section[..section.len() - 1], &[&section[..], &[0]].concat()] {
        let error = draft::decode(bytes, &m).unwrap_err();
        assert!(matches!(&error, FormatError::Draft(_)), "{error}");
    }
    let error = draft::decode(&[&section[..], &[0, 0]].concat(), &m).unwrap_err();
    assert_eq!(error.to_string(), "draft plan is followed by 2 unknown bytes");
}

#[test]
fn a_plan_that_is_no_draft_is_refused() {
    let (m, good) = drafting();
    let refused = |what: &str, bend: &dyn Fn(&mut Plan), message: &str| {
        let mut plan = good.clone();
        bend(&mut plan);
        let error = draft::decode(&draft::encode(&plan).unwrap(), &m);
        assert_eq!(error.expect_err(what).to_string(), message, "{what}");
    };
    let joins = |n: usize| {
        format!(
            "draft, plan: joins {n} hidden states to its rows; the plan of a model none, and that of a draft one"
        )
    };
    refused(
        "the model's own plan",
        &|p| *p = m.plan.clone(),
        "draft, plan: has 2 layers, hyperparameters say 1",
    );
    refused(
        "no hidden states",
        &|p| p.body[1] = Step::RmsNorm { input: RESIDUAL, weight: NORM, eps: 1e-5, out: BufferId(1) },
        &joins(0),
    );
    refused("two of them", &|p| p.body[2] = p.body[1].clone(), &joins(2));
    refused(
        "one in the head",
        &|p| p.head.insert(0, p.body[1].clone()),
        "draft, head step 0: stands in the head, which runs only for some rows; it belongs in the body",
    );
    let of_join = |bend: fn(&mut Step)| move |p: &mut Plan| bend(&mut p.body[1]);
    macro_rules! set {
        ($field:ident, $value:expr) => {
            of_join(|step| match step {
                Step::JoinHidden { $field, .. } => *$field = $value,
                other => panic!("{other:?}"),
            })
        };
    }
    let at = "draft, body step 1";
    refused("no epsilon", &set!(eps, 0.0), &format!("{at}: eps is 0, not finite and above zero"));
    refused(
        "a norm of another width",
        &set!(hidden_norm, TensorId(4)),
        &format!("{at}: hidden norm is tensor ffn_norm F32[12], expected F32[8]"),
    );
    refused(
        "an input norm of another width",
        &set!(input_norm, TensorId(4)),
        &format!("{at}: input norm is tensor ffn_norm F32[12], expected F32[8]"),
    );
    refused(
        "a result of another width",
        &set!(out, BufferId(1)),
        &format!("{at}: out is buffer normed F32[8], expected F32[16]"),
    );
}

/// A model's plan has no rows with hidden states, and a draft keeps no state.
#[test]
fn roles_are_kept_apart() {
    let (m, plan) = drafting();
    let header = Header::parse(&file(&m, Vec::new())).unwrap();
    let model = draft::of_model(&m, plan.clone());
    let error = model.validate(&header).unwrap_err().to_string();
    assert!(error.starts_with("plan: joins 1 hidden states"), "{error}");
    let m = bundle::recurrent::recurrent();
    let mut plan = m.plan.clone();
    let out = BufferId(plan.buffers.len() as u32);
    let offset = plan.row_bytes;
    plan.buffers.push(Buffer { name: "joined".into(), dtype: DType::F32, len: 16, offset, stride: 64 });
    plan.row_bytes += 64;
    let join = Step::JoinHidden { input: RESIDUAL, input_norm: NORM, hidden_norm: NORM, eps: 1e-5, out };
    plan.body.insert(2, join);
    plan.layers = vec![LayerSteps { start: 2, end: plan.body.len() as u32 }];
    let error = draft::decode(&draft::encode(&plan).unwrap(), &m).unwrap_err();
    assert_eq!(error.to_string(), "draft, body step 5: keeps a state, which no draft may");
}

/// Every damaged draft is refused or safe to execute.
#[test]
fn damage_is_refused_or_harmless() {
    let (m, plan) = drafting();
    let section = draft::encode(&plan).unwrap();
    let (mut accepted, mut refused) = (0, 0);
    for at in 0..section.len() {
        for value in [0, 1, 2, 7, 12, 64, 255] {
            let mut bytes = section.clone();
            bytes[at] = value;
            let file = file(&m, bytes.clone());
            let header = Header::parse(&file).unwrap();
            match draft::decode(&bytes, &m) {
                Ok(read) => {
                    run(&file, &header, &read);
                    accepted += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(accepted > 500 && refused > 5000, "{accepted} accepted, {refused} refused");
}
