//! `GET /problems` and `GET /problems/{code}`: what a problem's `type` leads to.

use std::fmt::Write as _;

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use super::{Kind, Problem};

/// One kind of problem, explained in plain text.
pub async fn explain(Path(code): Path<String>) -> Response {
    match Kind::parse(&code) {
        Some(kind) => text(explanation(kind)),
        None => Problem::new(
            Kind::NotFound,
            "there is no such problem; /problems lists them",
        )
        .into_response(),
    }
}

/// All kinds of problems, a line each.
pub async fn index() -> Response {
    let mut list = String::new();
    for kind in Kind::ALL {
        let entry = kind.entry();
        let status = entry.status.as_u16();
        let _ = writeln!(list, "{status} /problems/{}  {}", entry.code, entry.title);
    }
    text(list)
}

fn explanation(kind: Kind) -> String {
    let entry = kind.entry();
    let again = if kind.is_transient() {
        "The same request may succeed later."
    } else {
        "The same request will fail again until its cause has gone."
    };
    format!(
        "{}\n\ncode    {}\nstatus  {}\n\nWhat happened\n{}\n\nWhat to do\n{}\n{again}\n",
        entry.title, entry.code, entry.status, entry.meaning, entry.remedy
    )
}

fn text(body: String) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (CACHE_CONTROL, "public, max-age=3600"),
    ];
    (headers, body).into_response()
}
