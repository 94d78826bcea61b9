//! `GET /openapi.json`, `GET /asyncapi.json` and the page for people at `GET /`.
//!
//! # Invariants
//! - The documents are the files in `docs/`; tests compare them with the routes, the kinds of problems and the frames.
//! - The page loads nothing: its policy allows its own style alone, by its hash.

use std::fmt::Write as _;

use axum::Extension;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, VARY};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use sha2::{Digest as _, Sha256};

use super::browser::POLICY;
use super::tls::Encrypted;

/// The description of the HTTP resources.
pub const OPENAPI: &str = include_str!("../../docs/openapi.json");
/// The description of the WebSocket and the stream of server-sent events.
pub const ASYNCAPI: &str = include_str!("../../docs/asyncapi.json");

const PAGE: &str = include_str!("welcome.html");
/// Where the page's text gets this server's address and version.
const ADDRESS: &str = "{{address}}";
const VERSION: &str = "{{version}}";
/// Bytes of a host's name. Longer: the page names the default address.
const HOST_BYTES_MAX: usize = 255;
const HOST_DEFAULT: &str = "127.0.0.1:8080";

/// `GET /openapi.json`.
pub async fn openapi() -> Response {
    document(OPENAPI)
}

/// `GET /asyncapi.json`.
pub async fn asyncapi() -> Response {
    document(ASYNCAPI)
}

fn document(text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "public, max-age=300"),
    ];
    (headers, text).into_response()
}

/// `GET /`: what this is, and how to write and follow on this very host.
pub async fn welcome(
    uri: Uri,
    headers: HeaderMap,
    encrypted: Option<Extension<Encrypted>>,
) -> Response {
    let host = uri
        .authority()
        .map(axum::http::uri::Authority::as_str)
        .or_else(|| headers.get(HOST).and_then(|value| value.to_str().ok()))
        .filter(|host| is_host(host))
        .unwrap_or(HOST_DEFAULT);
    let is_https = headers
        .get("x-forwarded-proto")
        .is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
    let scheme = if is_https || encrypted.is_some() {
        "https"
    } else {
        "http"
    };
    let body = PAGE
        .replace(ADDRESS, &format!("{scheme}://{host}"))
        .replace(VERSION, env!("CARGO_PKG_VERSION"));
    let answer_headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (CONTENT_SECURITY_POLICY, policy()),
        (CACHE_CONTROL, "no-cache".to_owned()),
        (VARY, "host, x-forwarded-proto".to_owned()),
    ];
    (answer_headers, body).into_response()
}

/// Nothing that could leave the text of a page or of a shell's quotes.
fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= HOST_BYTES_MAX
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
}

fn policy() -> String {
    let mut text = POLICY.to_owned();
    if let Some(style) = style() {
        let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(style));
        let _ = write!(text, "; style-src 'sha256-{hash}'");
    }
    text
}

/// The text between the page's style tags.
fn style() -> Option<&'static str> {
    let (_, rest) = PAGE.split_once("<style>")?;
    rest.split_once("</style>").map(|(style, _)| style)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::http::problem::{Kind, catalog};
    use crate::http::routes;
    use crate::http::ws::{CLIENT_FRAMES, SERVER_FRAMES};

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    fn words(list: &Value) -> BTreeSet<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().unwrap().to_owned())
            .collect()
    }

    fn codes(prefix: &str) -> BTreeSet<String> {
        catalog()
            .iter()
            .map(|kind| format!("{prefix}{}", kind.code()))
            .collect()
    }

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let served: BTreeSet<(String, String)> = routes()
            .iter()
            .flat_map(|(path, methods)| {
                let documented = methods.iter().filter(|method| **method != "HEAD");
                documented.map(|method| ((*path).to_owned(), method.to_ascii_lowercase()))
            })
            .collect();
        let document = parsed(OPENAPI);
        let described = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                item.as_object()
                    .unwrap()
                    .keys()
                    .map(|method| (path.clone(), method.clone()))
            })
            .collect();
        assert_eq!(served, described);
    }

    #[test]
    fn the_documents_have_every_kind_of_problem() {
        let openapi = parsed(OPENAPI);
        let schema = &openapi["components"]["schemas"]["Problem"]["properties"]["type"]["enum"];
        assert_eq!(words(schema), codes("/problems/"));
        let parameters = &openapi["paths"]["/problems/{code}"]["get"]["parameters"];
        assert_eq!(words(&parameters[0]["schema"]["enum"]), codes(""));
        let asyncapi = parsed(ASYNCAPI);
        let error = &asyncapi["components"]["messages"]["error"]["payload"]["properties"];
        assert_eq!(words(&error["code"]["enum"]), codes(""));
    }

    #[test]
    fn every_code_is_an_answer_of_some_operation_with_its_status() {
        let document = parsed(OPENAPI);
        let mut named = BTreeSet::new();
        let paths = document["paths"].as_object().unwrap().values();
        let operations = paths.flat_map(|item| item.as_object().unwrap().values());
        for (status, answer) in
            operations.flat_map(|operation| operation["responses"].as_object().unwrap())
        {
            let Some(reference) = answer["$ref"].as_str() else {
                continue;
            };
            let answer = document.pointer(&reference[1..]).unwrap();
            let (_, codes) = answer["description"]
                .as_str()
                .unwrap()
                .split_once("Codes: ")
                .unwrap();
            for code in codes.split('`').skip(1).step_by(2) {
                let kind = Kind::parse(code).unwrap();
                assert_eq!(kind.status().as_str(), status, "{reference}: {code}");
                named.insert(kind);
            }
        }
        assert_eq!(named, Kind::ALL.iter().copied().collect());
    }

    #[test]
    fn the_document_has_every_frame_and_no_other() {
        let document = parsed(ASYNCAPI);
        for (operation, frames) in [
            ("sendFrame", CLIENT_FRAMES),
            ("receiveFrame", SERVER_FRAMES),
        ] {
            let described: BTreeSet<&str> = document["operations"][operation]["messages"]
                .as_array()
                .unwrap()
                .iter()
                .map(|message| {
                    message["$ref"]
                        .as_str()
                        .unwrap()
                        .rsplit('/')
                        .next()
                        .unwrap()
                })
                .collect();
            assert_eq!(described, frames.iter().copied().collect(), "{operation}");
            for name in described {
                let payload = &document["components"]["messages"][name]["payload"];
                assert_eq!(payload["properties"]["type"]["const"], name);
            }
        }
    }

    #[test]
    fn versions_are_this_programs() {
        for text in [OPENAPI, ASYNCAPI] {
            assert_eq!(parsed(text)["info"]["version"], env!("CARGO_PKG_VERSION"));
        }
    }

    #[test]
    fn both_documents_describe_the_same_event() {
        let (openapi, asyncapi) = (parsed(OPENAPI), parsed(ASYNCAPI));
        for name in ["Cursor", "NewEvent", "Event", "Answer", "Problem"] {
            let path = |document: &Value| document["components"]["schemas"][name].clone();
            assert_eq!(path(&openapi), path(&asyncapi), "{name}");
        }
    }

    #[test]
    fn a_host_cannot_break_out_of_the_page() {
        for host in ["localhost:8080", "[::1]:8080", "events.example.com"] {
            assert!(is_host(host), "{host}");
        }
        for host in ["", "a<script>", "a'b", "a b", "a\"", "a/b", "a@b", "a;b"] {
            assert!(!is_host(host), "{host}");
        }
        assert!(style().is_some() && policy().contains("'sha256-"));
        assert!(!PAGE.contains("<script") && !PAGE.contains(" style=") && !PAGE.contains("src="));
    }
}
