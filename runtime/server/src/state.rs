//! What all handlers share: the model, its texts, and the scheduler that runs it.

use crate::answer::Form;
use crate::chat::TokenText;
use crate::error::{ApiError, ErrorKind};
use crate::metrics::Metrics;
use crate::options::ServerOptions;
use crate::tokens::TokenTexts;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;
use trit_runtime::generate::guide::GuideError;
use trit_runtime::guide::GuideFactory;
use trit_runtime::scheduler::Scheduler;
use trit_runtime::text::{ChatTemplate, Tokenizer};
use trit_runtime::{Model, RuntimeError};

/// How many prompts are rendered and tokenized at a time.
const PROMPTS: usize = 4;

/// What all handlers share, once the model is loaded.
pub struct AppState {
    /// The model.
    pub model: Arc<Model>,
    /// What clients call it: the bundle's file name without its ending.
    pub name: String,
    /// When it was loaded, in seconds since 1970.
    pub created: u64,
    /// Its tokenizer, where it has one.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// What its tokens stand for, where it has a tokenizer.
    pub token_texts: Option<TokenTexts>,
    /// Its chat template, where it has one.
    pub template: Option<ChatTemplate>,
    /// How it writes thoughts and calls of tools; `None` where it has no chat template.
    pub form: Option<Form>,
    /// Runs the requests.
    pub scheduler: Arc<Scheduler>,
    /// How the server is set up.
    pub options: Arc<ServerOptions>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    pub(crate) prompts: Arc<Semaphore>,
    /// One embedding is made at a time, so that they take the memory of one text.
    pub(crate) embeddings: Arc<Semaphore>,
    /// What makes guides for answers of a certain form, or why there are none.
    pub(crate) guides: OnceLock<Result<GuideFactory, GuideError>>,
}

impl AppState {
    pub(crate) fn new(
        scheduler: Arc<Scheduler>,
        options: Arc<ServerOptions>,
        metrics: Arc<Metrics>,
    ) -> Result<AppState, RuntimeError> {
        let model = scheduler.engine().model().clone();
        let tokenizer = model.tokenizer()?.cloned();
        let (template, form) = Form::of(&model)?.unzip();
        let name = model.path().file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let token_texts = tokenizer.clone().map(TokenTexts::new);
        Ok(AppState {
            model,
            name,
            created,
            tokenizer,
            token_texts,
            template,
            form,
            scheduler,
            options,
            metrics,
            prompts: Arc::new(Semaphore::new(PROMPTS)),
            embeddings: Arc::new(Semaphore::new(1)),
            guides: OnceLock::new(),
        })
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] where the bundle has none.
    pub fn tokenizer(&self) -> Result<&Arc<Tokenizer>, ApiError> {
        self.tokenizer.as_ref().ok_or_else(|| {
            ApiError::invalid("this model has no tokenizer and takes prompts of token ids only")
        })
    }

    /// A token with its text.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] where the bundle has no tokenizer, and where its decoder fails.
    pub fn token_text(&self, id: u32) -> Result<TokenText, ApiError> {
        self.tokenizer()?;
        self.token_texts
            .as_ref()
            .map_or_else(|| Err(ApiError::internal("there are no texts")), |texts| texts.of(id))
    }

    /// Tokens in the model's vocabulary.
    pub fn vocab_size(&self) -> u32 {
        self.model.manifest().hyperparameters.vocab_size
    }

    /// Demands that a client means this model. An empty name, and `default`, is whatever is served.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub fn expect_model(&self, name: Option<&str>) -> Result<(), ApiError> {
        match name.unwrap_or_default() {
            "" | "default" => Ok(()),
            name if name == self.name => Ok(()),
            name => {
                let message = format!("the model {name:?} does not exist; this server has {:?}", self.name);
                let error = ApiError::new(ErrorKind::NotFound, message);
                Err(error.with_param("model").with_code("model_not_found"))
            }
        }
    }
}

/// Who sent a request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Names the request in the log, and in the answer's header `x-request-id`.
    pub request: Arc<str>,
    /// Where it came from.
    pub peer: IpAddr,
}
