//! The page to chat on: one document at `/`, which asks nobody but the server that it came from.
//!
//! Its script is the files of this folder one after the other, in one scope. Style and script stand inside the document, and
//! the policy that is sent with it names their digests: nothing else runs, nothing is loaded, and no text becomes markup.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

const STYLE: &str = include_str!("style.css");
/// In this order: a file uses what those before it say when it is read, and any of them later.
const SCRIPTS: [&str; 6] = [
    include_str!("markdown.js"),
    include_str!("client.js"),
    include_str!("store.js"),
    include_str!("message.js"),
    include_str!("controls.js"),
    include_str!("app.js"),
];

/// The document, and the headers that it is sent with.
struct Page {
    document: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

static PAGE: LazyLock<Page> = LazyLock::new(Page::new);

impl Page {
    fn new() -> Page {
        let script = format!("\"use strict\";\n{{\n{}}}\n", SCRIPTS.concat());
        let document = include_str!("index.html").replacen("/* style.css */", STYLE, 1).replacen(
            "/* script.js */",
            &script,
            1,
        );
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
            digest(&script),
            digest(STYLE)
        );
        let etag = format!("\"{}\"", digest(&document));
        let text = |value: &str| HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""));
        let headers = vec![
            (header::CONTENT_TYPE, text("text/html; charset=utf-8")),
            (header::CONTENT_SECURITY_POLICY, text(&policy)),
            (header::X_CONTENT_TYPE_OPTIONS, text("nosniff")),
            (header::X_FRAME_OPTIONS, text("DENY")),
            (header::REFERRER_POLICY, text("no-referrer")),
            (HeaderName::from_static("cross-origin-opener-policy"), text("same-origin")),
            (HeaderName::from_static("cross-origin-resource-policy"), text("same-origin")),
            (HeaderName::from_static("permissions-policy"), text("camera=(), geolocation=(), microphone=()")),
            // Browsers ask each time whether it has changed, so that a new server never meets an old page.
            (header::CACHE_CONTROL, text("no-cache")),
            (header::ETAG, text(&etag)),
        ];
        Page { document, headers }
    }
}

/// A digest as policies write it.
fn digest(text: &str) -> String {
    format!("sha256-{}", base64::encode(Sha256::digest(text)))
}

/// The route of the page. It needs no key: the page has nothing in it that a key would protect, and asks for the key itself.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/", get(page))
}

async fn page(request: Request) -> Response {
    let Page { document, headers } = &*PAGE;
    let known = request.headers().get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let unchanged = known.is_some_and(|known| {
        let mut tags = known.split(',').map(|tag| tag.trim().trim_start_matches("W/"));
        tags.any(|tag| tag == "*" || headers.iter().any(|(name, value)| name == header::ETAG && value == tag))
    });
    let mut response = match unchanged {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => document.as_str().into_response(),
    };
    for (name, value) in headers {
        response.headers_mut().insert(name, value.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_whole() {
        let Page { document, headers } = &*PAGE;
        assert!(document.contains(STYLE) && SCRIPTS.iter().all(|script| document.contains(script)));
        assert!(headers.iter().all(|(_, value)| !value.is_empty()));
        // What ends an element inside of it would let the rest of the file out of it.
        for inside in SCRIPTS.iter().chain([&STYLE]) {
            assert!(!inside.contains("</") && !inside.contains("<!--"), "{}", &inside[..60]);
        }
        assert_eq!(document.matches("<script").count(), 1);
    }

    /// The policy forbids these too; here they are found without a browser.
    #[test]
    fn no_text_becomes_markup_and_nothing_is_loaded() {
        for script in SCRIPTS {
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "import(",
                "DOMParser",
            ] {
                assert!(!script.contains(word), "{word}");
            }
        }
        let addresses = PAGE.document.matches("http://").count() + PAGE.document.matches("https://").count();
        // The namespace of the icon.
        assert_eq!(addresses, 1, "the page names no address");
        assert!(!PAGE.document.contains("src=") && !STYLE.contains("url("));
    }
}
