//! Words on the wire: each handler reads a request, calls one floor down, and shapes the answer.
//!
//! # Invariants
//! - No SQL and no waiting logic. A 5xx is logged once, here, and tells the client nothing internal.
//! - Every answer that is an error is a problem document.

mod administrator;
mod admission;
mod agents;
pub mod app;
mod append;
pub mod audit;
mod body;
mod browser;
mod budget;
mod caller;
mod checks;
mod coding;
mod credentials;
mod docs;
pub mod entrance;
mod errors;
mod guard;
mod held;
mod in_force;
pub mod ingest;
mod line;
mod msgpack;
mod ndjson;
pub mod origin;
mod params;
mod policy;
pub mod problem;
mod read;
mod retention;
pub mod serve;
mod settings;
mod sse;
mod status;
mod subjects;
pub mod tls;
mod unfinished;
mod unread;
mod wire;
pub mod ws;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post, put};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::decompression::RequestDecompressionLayer;

pub use app::App;

use problem::{Kind, Problem};

/// Every route: its path and its methods. The router is built from it, and so is the test of the API documents.
pub const ROUTES: &[(&str, &str)] = &[
    ("/", "GET"),
    ("/openapi.json", "GET"),
    ("/asyncapi.json", "GET"),
    ("/v1/events", "GET, POST"),
    ("/v1/ws", "GET"),
    ("/v1/agents/{id}/state", "PUT, PATCH"),
    ("/v1/agents/{id}/commands", "POST"),
    ("/v1/api-keys", "GET, POST"),
    ("/v1/api-keys/{id}", "DELETE"),
    ("/v1/revocations", "GET, POST"),
    ("/v1/revocations/{claim}/{value}", "DELETE"),
    ("/v1/settings", "GET, PATCH"),
    ("/v1/topics", "GET"),
    ("/v1/topics/{pattern}", "DELETE, PUT"),
    ("/v1/subjects/{subject}", "GET, DELETE"),
    ("/v1/retention", "GET"),
    ("/v1/retention/{pattern}", "PUT, DELETE"),
    ("/v1/status", "GET"),
    ("/livez", "GET"),
    ("/readyz", "GET"),
    ("/problems", "GET"),
    ("/problems/{code}", "GET"),
];

/// The router.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/", get(docs::welcome).fallback(not_allowed("GET, HEAD")))
        .route(
            "/openapi.json",
            get(docs::openapi).fallback(not_allowed("GET, HEAD")),
        )
        .route(
            "/asyncapi.json",
            get(docs::asyncapi).fallback(not_allowed("GET, HEAD")),
        )
        .route(
            "/v1/events",
            get(read::get)
                .post(append::post)
                .fallback(not_allowed("GET, HEAD, POST")),
        )
        .route("/v1/ws", get(ws::get).fallback(not_allowed("GET")))
        .route(
            "/v1/status",
            get(status::get).fallback(not_allowed("GET, HEAD")),
        )
        .route(
            "/livez",
            get(status::livez).fallback(not_allowed("GET, HEAD")),
        )
        .route(
            "/readyz",
            get(status::readyz).fallback(not_allowed("GET, HEAD")),
        )
        .route(
            "/problems",
            get(problem::index).fallback(not_allowed("GET, HEAD")),
        )
        .route(
            "/problems/{code}",
            get(problem::explain).fallback(not_allowed("GET, HEAD")),
        )
        .route(
            "/v1/agents/{id}/state",
            put(agents::replace_state)
                .patch(agents::patch_state)
                .fallback(not_allowed("PUT, PATCH")),
        )
        .route(
            "/v1/agents/{id}/commands",
            post(agents::command).fallback(not_allowed("POST")),
        )
        .merge(credentials())
        .merge(tenant())
        .merge(privacy())
        .fallback(not_found)
        .layer(RequestDecompressionLayer::new().pass_through_unaccepted(true))
        .layer(middleware::from_fn(coding::admit))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard))
        .layer(middleware::from_fn_with_state(
            app.clone(),
            admission::report,
        ))
        .layer(middleware::from_fn_with_state(app.clone(), unread::drain))
        .layer(app.origins.clone().cors())
        .with_state(app)
}

/// What administrators decide for their tenant.
fn tenant() -> Router<App> {
    Router::new()
        .route(
            "/v1/settings",
            get(settings::get)
                .patch(settings::patch)
                .fallback(not_allowed("GET, HEAD, PATCH")),
        )
        .route(
            "/v1/topics",
            get(settings::list).fallback(not_allowed("GET, HEAD")),
        )
        .route(
            "/v1/topics/{pattern}",
            put(settings::declare)
                .delete(settings::withdraw)
                .fallback(not_allowed("DELETE, PUT")),
        )
}

/// What administrators do with credentials.
fn credentials() -> Router<App> {
    Router::new()
        .route(
            "/v1/api-keys",
            get(credentials::list_keys)
                .post(credentials::create_key)
                .fallback(not_allowed("GET, HEAD, POST")),
        )
        .route(
            "/v1/api-keys/{id}",
            delete(credentials::revoke_key).fallback(not_allowed("DELETE")),
        )
        .route(
            "/v1/revocations",
            get(credentials::list_revoked)
                .post(credentials::revoke_tokens)
                .fallback(not_allowed("GET, HEAD, POST")),
        )
        .route(
            "/v1/revocations/{claim}/{value}",
            delete(credentials::withdraw_revocation).fallback(not_allowed("DELETE")),
        )
}

/// What administrators do about people's data.
fn privacy() -> Router<App> {
    Router::new()
        .route(
            "/v1/subjects/{subject}",
            get(subjects::get)
                .delete(subjects::erase)
                .fallback(not_allowed("GET, HEAD, DELETE")),
        )
        .route(
            "/v1/retention",
            get(retention::list).fallback(not_allowed("GET, HEAD")),
        )
        .route(
            "/v1/retention/{pattern}",
            put(retention::set)
                .delete(retention::remove)
                .fallback(not_allowed("PUT, DELETE")),
        )
}

async fn not_found() -> Problem {
    Problem::new(
        Kind::NotFound,
        "there is nothing at this path; see /openapi.json",
    )
}

fn not_allowed(
    allow: &'static str,
) -> impl Fn() -> std::future::Ready<Problem> + Clone + Send + Sync + 'static {
    move || std::future::ready(Problem::method_not_allowed(allow))
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!("a request handler panicked");
    let problem = Problem::new(Kind::Internal, "the server failed; its log says why");
    debug_assert_eq!(problem.kind.status(), StatusCode::INTERNAL_SERVER_ERROR);
    problem.into_response()
}
