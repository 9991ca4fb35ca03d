//! Answers that follow a grammar, from the library and from the command line: they do, with the tokens that all logits and a
//! mask give, drafted or not.

use serde_json::{Value, json};
use std::sync::Arc;
use trit_runtime::generate::guide::{Guide, GuideError, TokenSet};
use trit_runtime::generate::{Finish, GenerateOptions, Generator};
use trit_runtime::guide::{Grammar, GuideFactory};
use trit_runtime::sample::{Sampler, SamplerOptions};
use trit_runtime::{KernelChoice, Logits, Model, RuntimeError, Session, SessionOptions};
use trit_tests::engines::load;
use trit_tests::workbench::{compile, repository, run, scratch, trit_run};

const PROMPT: &str =
    "The fox and the raven: {\"name\": \"fox\", \"likes\": [\"cheese\", \"cheese\", \"cheese\"]} and ";

fn bundle() -> std::path::PathBuf {
    compile(&repository().join("examples/models/fables-12m"), "guided")
}

fn session(model: &Arc<Model>) -> Session {
    let options = SessionOptions { threads: Some(2), oversubscribe: true, ..SessionOptions::default() };
    Session::new(model.clone(), options).unwrap()
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "likes": {"type": "array", "items": {"enum": ["cheese", "grapes"]}, "minItems": 8, "maxItems": 12}
        },
        "required": ["name", "likes"],
        "additionalProperties": false
    })
}

fn fits(text: &str) -> bool {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return false };
    let likes = value["likes"].as_array();
    value.as_object().is_some_and(|object| object.len() == 2)
        && value["name"].as_str().is_some_and(|name| name.chars().count() <= 20)
        && likes.is_some_and(|likes| (8..=12).contains(&likes.len()))
        && likes.is_some_and(|likes| likes.iter().all(|like| like == "cheese" || like == "grapes"))
}

fn samplers() -> Vec<SamplerOptions> {
    let greedy = SamplerOptions::default();
    let draw = SamplerOptions { temperature: 1.2, seed: 4, ..greedy };
    vec![
        greedy,
        SamplerOptions { repeat_penalty: 1.3, ..greedy },
        SamplerOptions { top_k: 20, top_p: 0.9, ..draw },
        draw,
    ]
}

/// The tokens chosen from all logits and what the guide allows, one pass a token.
fn plainly(
    session: &mut Session,
    ids: &[u32],
    mut guide: Box<dyn Guide>,
    options: SamplerOptions,
) -> Vec<u32> {
    session.truncate(0);
    let stop = session.model().manifest().text.stop.clone();
    let (mut sampler, mut history) = (Sampler::new(options), ids.to_vec());
    let mut logits = session.prefill(ids).unwrap().to_vec();
    loop {
        let allowed = guide.allowed().unwrap();
        let id = sampler.choose_among(Logits::All(&logits), &history, Some(&allowed)).unwrap();
        if stop.contains(&id) {
            return history.split_off(ids.len());
        }
        guide.accept(id).unwrap();
        history.push(id);
        logits.copy_from_slice(session.decode(id).unwrap());
    }
}

#[test]
fn a_generators_answers_follow_their_grammar() {
    let model = load(&bundle(), KernelChoice::Auto);
    let factory = GuideFactory::new(&model).unwrap();
    let tokenizer = model.tokenizer().unwrap().unwrap().clone();
    let ids = tokenizer.encode(PROMPT, true).unwrap();
    let grammar = Grammar::JsonSchema(schema());
    let mut drafted = [0, 0];
    for options in samplers() {
        let expected = plainly(&mut session(&model), &ids, factory.guide(&grammar, None).unwrap(), options);
        assert!(fits(&tokenizer.decode(&expected, true).unwrap()), "{options:?}");
        for draft in [false, true] {
            let mut generator = Generator::new(session(&model), Sampler::new(options)).unwrap();
            let request = GenerateOptions { draft, ..GenerateOptions::of(&model) };
            generator.begin_guided(&ids, request, factory.guide(&grammar, None).unwrap()).unwrap();
            let text: String = (&mut generator).map(|piece| piece.unwrap().text).collect();
            let generation = generator.generation().unwrap();
            assert_eq!(generation.ids, expected, "{options:?}, drafts: {draft}");
            assert_eq!(generation.finish, Finish::Stop);
            assert!(fits(&text), "{text}");
            drafted[0] += generation.drafted;
            drafted[1] += generation.accepted;
        }
    }
    assert!(drafted[0] > 20 && drafted[1] > 10, "{drafted:?}: hardly anything was drafted");
}

/// Allows some tokens, one after the other, and then nothing, or fails.
struct Script(Vec<u32>, bool);

impl Guide for Script {
    fn allowed(&mut self) -> Result<TokenSet, GuideError> {
        match self.0.first() {
            None if self.1 => Err(GuideError("there is nothing to say".into())),
            next => Ok(next.copied().into_iter().collect()),
        }
    }

    fn accept(&mut self, id: u32) -> Result<(), GuideError> {
        assert_eq!(self.0.remove(0), id);
        Ok(())
    }
}

#[test]
fn an_answer_ends_where_its_guide_does() {
    let model = load(&bundle(), KernelChoice::Auto);
    let mut generator = Generator::new(session(&model), Sampler::new(SamplerOptions::default())).unwrap();
    for ignore_eos in [false, true] {
        let options = GenerateOptions { ignore_eos, ..GenerateOptions::of(&model) };
        let script = vec![300, 301, 302];
        generator.begin_guided(&[4093, 5], options.clone(), Box::new(Script(script.clone(), false))).unwrap();
        for piece in &mut generator {
            piece.unwrap();
        }
        let generation = generator.generation().unwrap();
        assert_eq!((&generation.ids, generation.finish), (&script, Finish::Stop));
        // It fails after two tokens; the session can be used afterwards.
        generator.begin_guided(&[4093, 5], options.clone(), Box::new(Script(script, true))).unwrap();
        let error = generator.find_map(Result::err).unwrap();
        assert!(
            matches!(&error, RuntimeError::Guide(error) if error.0 == "there is nothing to say"),
            "{error}"
        );
        assert!(generator.next().is_none());
        let failed = generator.begin_guided(&[4093, 5], options, Box::new(Script(vec![], true)));
        assert!(matches!(failed, Err(RuntimeError::Guide(_))));
    }
}

#[test]
fn the_command_line_takes_schemas_grammars_and_expressions() {
    let bundle = bundle();
    let (bundle, folder) = (bundle.to_str().unwrap(), scratch().join("guided-files"));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).unwrap();
        folder.join(name).to_str().unwrap().to_owned()
    };
    let good = file("schema.json", &schema().to_string());
    let bad = file("bad.json", r#"{"type": "object", "not": {}}"#);
    let broken = file("broken.json", "{");
    let lark = file("grammar.lark", "start: \"yes\" | \"no\" \", never\"\n");
    let ask = |args: &[&str]| {
        let all = [&[bundle, "-p", "Once", "--seed", "1", "--trust", "--json"], args].concat();
        run(trit_run(&all))
    };
    let text = |args: &[&str]| ask(args).json()["text"].as_str().unwrap().to_owned();
    assert!(fits(&text(&["--json-schema", &good])));
    assert!(["yes", "no, never"].contains(&text(&["--grammar", &lark]).as_str()));
    let number = text(&["--regex", "-[0-9]{3}"]);
    assert!(number.len() == 4 && number.parse::<i32>().is_ok_and(|n| n <= 0), "{number}");
    let thought = text(&["--regex", "[ab]{3}", "--after", "fox", "--temp", "0"]);
    let answer = thought.split("fox").nth(1).unwrap_or_default().trim_start().to_owned();
    let letters = answer.len() == 3 && answer.bytes().all(|c| c == b'a' || c == b'b');
    assert!(letters || !thought.contains("fox"), "{thought}");
    ask(&["--json-schema", &bad]).fails(3, &["bad.json", "not"]);
    ask(&["--json-schema", &broken]).fails(3, &["broken.json", "EOF"]);
    ask(&["--grammar", "nowhere"]).fails(3, &["nowhere"]);
    ask(&["--regex", "("]).fails(3, &["--regex"]);
    ask(&["--after", "x"]).fails(2, &["--after", "--json-schema"]);
    ask(&["--regex", "a", "--grammar", &lark]).fails(2, &["--grammar"]);
}
