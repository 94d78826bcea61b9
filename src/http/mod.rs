//! Words on the wire: each handler reads a request, calls one floor down, and shapes the answer.
//!
//! # Invariants
//! - No SQL and no waiting logic. A 5xx is logged once, here, and tells the client nothing internal.
//! - Every answer that is an error is a problem document.

mod acted;
pub mod admin;
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
mod committed;
mod credentials;
mod docs;
pub mod drain;
pub mod entrance;
mod errors;
mod guard;
mod health;
mod held;
mod holding;
mod idle;
mod in_force;
pub mod ingest;
mod line;
pub mod metrics;
mod msgpack;
mod ndjson;
pub mod origin;
mod outage;
mod params;
mod policy;
mod prefer;
pub mod problem;
pub mod pulse;
mod read;
mod retention;
mod routes;
pub mod serve;
pub mod sessions;
mod settings;
mod sse;
mod status;
mod streams;
mod subjects;
mod system;
pub mod tls;
mod unfinished;
mod unread;
pub mod validate;
mod watches;
mod wire;
pub mod ws;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::decompression::RequestDecompressionLayer;

pub use app::App;
pub use routes::routes;

use problem::{Kind, Problem};

/// The router: every route of the table, and what each request passes.
pub fn router(app: App) -> Router {
    let add = |router: Router<App>, route: routes::Route| router.merge(Router::from(route));
    routes::table()
        .into_iter()
        .fold(Router::new(), add)
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
        .layer(middleware::from_fn_with_state(app.clone(), metrics::count))
        .with_state(app)
}

async fn not_found() -> Problem {
    Problem::new(
        Kind::NotFound,
        "there is nothing at this path; see /openapi.json",
    )
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!("a request handler panicked");
    let problem = Problem::new(Kind::Internal, "the server failed; its log says why");
    debug_assert_eq!(problem.kind.status(), StatusCode::INTERNAL_SERVER_ERROR);
    problem.into_response()
}
