//! Makes the tokenizers library's objects of a checked `tokenizer.json`. They are made from the values that were checked, not
//! from the text of the file, because another parser could read something else from that text.

use crate::file::AddedToken;
use crate::guard::guarded;
use crate::limits::steps::sequence;
use crate::limits::{Bpe, Checked, Vocabulary};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::models::bpe::{self, BPE};
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::{
    DecoderWrapper, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper, PreTokenizerWrapper,
    Tokenizer,
};

/// Makes the library's tokenizer.
///
/// # Errors
/// What the library refuses, and in which part of the file it stands.
pub(crate) fn assemble(checked: &mut Checked) -> Result<Tokenizer, String> {
    let vocabulary = std::mem::replace(
        &mut checked.vocabulary,
        Vocabulary::WordLevel { tokens: Vec::new(), unknown: String::new() },
    );
    let model = guarded("model", || model(vocabulary))?.map_err(|e| format!("model: {e}"))?;
    let mut tokenizer = Tokenizer::new(model);
    let normalizer: Option<NormalizerWrapper> =
        part("normalizer", sequence("normalizers", &checked.normalizer))?;
    let pre_tokenizer: Option<PreTokenizerWrapper> =
        part("pre_tokenizer", sequence("pretokenizers", &checked.pre_tokenizer))?;
    let decoder: Option<DecoderWrapper> = part("decoder", sequence("decoders", &checked.decoder))?;
    tokenizer.with_normalizer(normalizer).with_pre_tokenizer(pre_tokenizer).with_decoder(decoder);
    let added: Vec<tokenizers::AddedToken> = checked.added.iter().map(token).collect();
    guarded("added_tokens", || {
        visible(&tokenizer, &added)?;
        tokenizer.add_tokens(&added);
        Ok(())
    })
    .flatten()?;
    Ok(tokenizer)
}

fn part<T: DeserializeOwned>(name: &str, value: Option<Value>) -> Result<Option<T>, String> {
    let Some(value) = value else { return Ok(None) };
    let read = guarded(name, || serde_json::from_value(value))?;
    read.map(Some).map_err(|e| format!("{name}: {e}"))
}

fn token(token: &AddedToken) -> tokenizers::AddedToken {
    tokenizers::AddedToken::from(token.content.as_str(), token.special)
        .single_word(token.single_word)
        .lstrip(token.lstrip)
        .rstrip(token.rstrip)
        .normalized(token.is_normalized())
}

/// Refuses a token of which the normalizer leaves nothing, because an empty token would be found everywhere.
fn visible(tokenizer: &Tokenizer, added: &[tokenizers::AddedToken]) -> Result<(), String> {
    let Some(normalizer) = tokenizer.get_normalizer() else { return Ok(()) };
    for token in added.iter().filter(|token| token.normalized && !token.content.is_empty()) {
        let mut text = NormalizedString::from(token.content.as_str());
        normalizer.normalize(&mut text).map_err(|e| format!("normalizer: {e}"))?;
        if text.is_empty() {
            return Err(format!("added_tokens: the normalizer leaves nothing of {:?}", token.content));
        }
    }
    Ok(())
}

fn model(vocabulary: Vocabulary) -> tokenizers::Result<ModelWrapper> {
    let map = |tokens: Vec<(String, u32)>| tokens.into_iter().collect::<bpe::Vocab>();
    Ok(match vocabulary {
        Vocabulary::Bpe(Bpe {
            tokens,
            merges,
            unknown,
            prefix,
            suffix,
            fuse_unknown,
            byte_fallback,
            ignore_merges,
        }) => {
            let mut builder = BPE::builder()
                .vocab_and_merges(map(tokens), merges)
                .fuse_unk(fuse_unknown)
                .byte_fallback(byte_fallback)
                .ignore_merges(ignore_merges);
            if let Some(unknown) = unknown {
                builder = builder.unk_token(unknown);
            }
            if let Some(prefix) = prefix {
                builder = builder.continuing_subword_prefix(prefix);
            }
            if let Some(suffix) = suffix {
                builder = builder.end_of_word_suffix(suffix);
            }
            builder.build()?.into()
        }
        Vocabulary::WordPiece { tokens, unknown, prefix, longest } => WordPiece::builder()
            .vocab(map(tokens))
            .unk_token(unknown)
            .continuing_subword_prefix(prefix)
            .max_input_chars_per_word(longest)
            .build()?
            .into(),
        Vocabulary::WordLevel { tokens, unknown } => {
            WordLevel::builder().vocab(map(tokens)).unk_token(unknown).build()?.into()
        }
        Vocabulary::Unigram { tokens, unknown, byte_fallback } => {
            Unigram::from(tokens, unknown, byte_fallback)?.into()
        }
    })
}
