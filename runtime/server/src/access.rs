//! Who may ask: keys, and pages in browsers.
//!
//! A server on loopback is reached by every page that a browser on the same machine shows, so a server without keys looks at
//! what browsers say of a request. `Host` must name this machine, or else a page whose name was pointed at 127.0.0.1 (DNS
//! rebinding) could read answers. `Origin` must be the server's own page, or one that was allowed, or else any page could
//! make the model work, though not read what it says.

use crate::error::{ApiError, ErrorKind};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method};
use std::fmt;
use std::hint::black_box;
use std::net::IpAddr;
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

/// Keys of which a client must have one.
#[derive(Clone, Default)]
pub struct Keys(Vec<String>);

impl Keys {
    /// These keys.
    ///
    /// # Errors
    /// Where one is empty, or has characters that no header holds.
    pub fn new(keys: impl IntoIterator<Item = String>) -> Result<Keys, KeyError> {
        let keys: Vec<String> = keys.into_iter().collect();
        if keys.iter().any(|key| key.is_empty()) {
            return Err(KeyError::Empty);
        }
        if keys.iter().any(|key| !key.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(KeyError::Characters);
        }
        Ok(Keys(keys))
    }

    /// Whether everybody may ask.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `given` is one of them. The time that this takes tells how long the keys are, and nothing else of them.
    fn contains(&self, given: &str) -> bool {
        self.0.iter().fold(false, |found, key| found | equal(key.as_bytes(), given.as_bytes()))
    }
}

impl fmt::Debug for Keys {
    /// Says how many there are. Keys are never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

/// Why keys cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A key is empty.
    #[error("a key is empty")]
    Empty,
    /// A key has other characters than letters, digits and marks of ASCII.
    #[error(
        "a key has characters that no header holds; keys are letters, digits and marks of ASCII, without spaces"
    )]
    Characters,
}

/// Compares without ending at the first difference.
fn equal(a: &[u8], b: &[u8]) -> bool {
    let differs = a.iter().zip(b).fold(0, |differs, (a, b)| black_box(differs | (a ^ b)));
    a.len() == b.len() && differs == 0
}

/// Pages of other places that may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    named: Vec<HeaderValue>,
}

impl Origins {
    /// Origins as browsers name them, such as `https://example.com`; `*` is every one.
    ///
    /// # Errors
    /// With an origin that is none.
    pub fn new(origins: &[String]) -> Result<Origins, String> {
        let mut all = Origins::default();
        for origin in origins {
            let (scheme, rest) = origin.split_once("://").unwrap_or_default();
            let named = !scheme.is_empty() && !rest.is_empty() && !rest.contains('/');
            match HeaderValue::from_str(origin) {
                _ if origin == "*" => all.any = true,
                Ok(value) if named => all.named.push(value),
                _ => return Err(origin.clone()),
            }
        }
        Ok(all)
    }

    fn contains(&self, origin: &HeaderValue) -> bool {
        self.any || self.named.contains(origin)
    }

    /// What tells browsers that these pages may ask; `None` where none may.
    pub(crate) fn layer(&self) -> Option<CorsLayer> {
        let layer = CorsLayer::new()
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(AllowHeaders::mirror_request());
        match (self.any, self.named.is_empty()) {
            (true, _) => Some(layer.allow_origin(Any)),
            (false, false) => Some(layer.allow_origin(AllowOrigin::list(self.named.clone()))),
            (false, true) => None,
        }
    }
}

/// What decides who may ask.
pub(crate) struct Access<'a> {
    pub keys: &'a Keys,
    pub origins: &'a Origins,
    /// Whether the server listens where only this machine reaches it.
    pub loopback: bool,
}

impl Access<'_> {
    /// Checks what browsers say of a request. With keys nothing needs to be checked: a page that knows none gets nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`].
    pub fn check_place(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if !self.keys.is_empty() {
            return Ok(());
        }
        let host = headers.get(HOST);
        if let Some(host) = host.filter(|_| self.loopback)
            && !names_this_machine(host)
        {
            return Err(ApiError::new(
                ErrorKind::Forbidden,
                "the Host header does not name this machine; a server on loopback without a key answers to localhost and \
                 addresses of loopback only",
            ));
        }
        let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
        let own = host.is_some_and(|host| {
            let of = |scheme: &[u8]| origin.as_bytes().strip_prefix(scheme) == Some(host.as_bytes());
            of(b"http://") || of(b"https://")
        });
        match own || self.origins.contains(origin) {
            true => Ok(()),
            false => Err(ApiError::new(
                ErrorKind::Forbidden,
                "pages of other places may not ask this server, unless it was started to allow them",
            )),
        }
    }

    /// Checks the key of a request.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthorized`].
    pub fn check_key(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let text = |value: Option<&'_ HeaderValue>| value.and_then(|v| v.to_str().ok()).map(str::to_owned);
        let bearer = text(headers.get(AUTHORIZATION)).and_then(|value| {
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim().to_owned())
        });
        let given = [bearer, text(headers.get("x-api-key"))];
        if given.iter().flatten().any(|key| self.keys.contains(key)) {
            return Ok(());
        }
        let message = match given.iter().flatten().next() {
            Some(_) => "the key is wrong",
            None => "a key is needed: send it as `Authorization: Bearer KEY` or `x-api-key: KEY`",
        };
        Err(ApiError::new(ErrorKind::Unauthorized, message).with_code("invalid_api_key"))
    }
}

/// Whether a `Host` header can only mean this machine.
fn names_this_machine(host: &HeaderValue) -> bool {
    let text = host.to_str().ok().filter(|host| !host.contains('@'));
    let Some(authority) = text.and_then(|host| host.parse::<Authority>().ok()) else {
        return false;
    };
    let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(name == "localhost" || name.ends_with(".localhost"), |address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_key_is_found_under_either_header_and_never_shown() {
        let keys = Keys::new(["first".to_owned(), "second".to_owned()]).unwrap();
        assert_eq!(format!("{keys:?}"), "2 keys");
        let access = Access { keys: &keys, origins: &Origins::default(), loopback: true };
        for (name, value) in
            [("authorization", "Bearer second"), ("authorization", "bearer first"), ("x-api-key", "first")]
        {
            assert_eq!(access.check_key(&headers(&[(name, value)])), Ok(()), "{value}");
        }
        for (name, value) in
            [("authorization", "Bearer firs"), ("authorization", "first"), ("x-api-key", "firstt")]
        {
            let error = access.check_key(&headers(&[(name, value)])).unwrap_err();
            assert_eq!((error.kind, error.code), (ErrorKind::Unauthorized, Some("invalid_api_key")));
        }
        assert!(access.check_key(&headers(&[])).is_err());
        assert_eq!(Keys::new([String::new()]).unwrap_err(), KeyError::Empty);
        assert_eq!(Keys::new(["a b".to_owned()]).unwrap_err(), KeyError::Characters);
    }

    #[test]
    fn names_of_other_machines_and_pages_of_other_places_are_refused() {
        let origins = Origins::new(&["https://chat.example".to_owned()]).unwrap();
        let open = Access { keys: &Keys::default(), origins: &origins, loopback: true };
        for host in ["localhost", "localhost:8080", "127.0.0.1:8080", "127.1.2.3", "[::1]:80", "a.LOCALHOST."]
        {
            assert_eq!(open.check_place(&headers(&[("host", host)])), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1:8080",
            "127.0.0.1.nip.io",
            "",
            "a@localhost:x",
        ] {
            assert!(open.check_place(&headers(&[("host", host)])).is_err(), "{host}");
        }
        let from =
            |origin: &str| open.check_place(&headers(&[("host", "localhost:8080"), ("origin", origin)]));
        assert_eq!(from("http://localhost:8080"), Ok(()));
        assert_eq!(from("https://chat.example"), Ok(()));
        assert!(from("http://localhost:9090").is_err() && from("null").is_err());
        // Elsewhere than on loopback a server has other names.
        let outside = Access { loopback: false, ..open };
        assert_eq!(outside.check_place(&headers(&[("host", "model.lan")])), Ok(()));
        assert!(outside.check_place(&headers(&[("host", "model.lan"), ("origin", "http://x")])).is_err());
        let keys = Keys::new(["k".to_owned()]).unwrap();
        assert_eq!(Access { keys: &keys, ..open }.check_place(&headers(&[("host", "evil.example")])), Ok(()));
    }

    #[test]
    fn origins_are_named_as_browsers_name_them() {
        assert!(Origins::new(&["*".to_owned()]).unwrap().layer().is_some());
        assert!(Origins::default().layer().is_none());
        for origin in ["example.com", "https://", "https://a/b", "https://a\n"] {
            assert_eq!(Origins::new(&[origin.to_owned()]), Err(origin.to_owned()));
        }
    }
}
