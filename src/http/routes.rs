//! Every route: its path, its methods and who answers them.
//!
//! # Invariants
//! - The one table: the router is made of it, and so are `Allow` and the tests that demand a row for each route and a
//!   place in the API documents. There is no route that is not here.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter};

use super::admin;
use super::app::App;
use super::problem::{self, Problem};
use super::{
    agents, append, committed, credentials, docs, metrics, read, retention, settings, status,
    subjects, validate, watches, ws,
};

/// A path and its handlers.
pub(super) struct Route {
    path: &'static str,
    methods: Vec<&'static str>,
    handlers: MethodRouter<App>,
}

impl From<Route> for Router<App> {
    fn from(route: Route) -> Self {
        let allow = route.methods.join(", ");
        let refuse = move || std::future::ready(Problem::method_not_allowed(&allow));
        Self::new().route(route.path, route.handlers.fallback(refuse))
    }
}

impl Route {
    fn at(path: &'static str) -> Self {
        Self {
            path,
            methods: Vec::new(),
            handlers: MethodRouter::new(),
        }
    }

    /// `GET`, and `HEAD` by the same handler.
    fn get<H: Handler<T, App>, T: 'static>(self, handler: H) -> Self {
        self.on(
            &["GET", "HEAD"],
            MethodFilter::GET.or(MethodFilter::HEAD),
            handler,
        )
    }

    /// `GET` alone: what becomes something else than an answer.
    fn get_only<H: Handler<T, App>, T: 'static>(self, handler: H) -> Self {
        let none = || std::future::ready(Problem::method_not_allowed("GET"));
        let mut route = self.on(&["GET"], MethodFilter::GET, handler);
        route.handlers = route.handlers.on(MethodFilter::HEAD, none);
        route
    }

    fn post<H: Handler<T, App>, T: 'static>(self, handler: H) -> Self {
        self.on(&["POST"], MethodFilter::POST, handler)
    }

    fn put<H: Handler<T, App>, T: 'static>(self, handler: H) -> Self {
        self.on(&["PUT"], MethodFilter::PUT, handler)
    }

    fn patch<H: Handler<T, App>, T: 'static>(self, handler: H) -> Self {
        self.on(&["PATCH"], MethodFilter::PATCH, handler)
    }

    fn delete<H: Handler<T, App>, T: 'static>(self, handler: H) -> Self {
        self.on(&["DELETE"], MethodFilter::DELETE, handler)
    }

    fn on<H: Handler<T, App>, T: 'static>(
        mut self,
        methods: &[&'static str],
        filter: MethodFilter,
        handler: H,
    ) -> Self {
        self.methods.extend(methods);
        self.handlers = self.handlers.on(filter, handler);
        self
    }
}

/// Every path with its methods, as `Allow` has them.
#[must_use]
pub fn routes() -> Vec<(&'static str, Vec<&'static str>)> {
    let route = |route: Route| (route.path, route.methods);
    table().into_iter().map(route).collect()
}

/// See the module.
pub(super) fn table() -> Vec<Route> {
    let mut table = vec![
        Route::at("/").get(docs::welcome),
        Route::at("/openapi.json").get(docs::openapi),
        Route::at("/asyncapi.json").get(docs::asyncapi),
        Route::at("/problems").get(problem::index),
        Route::at("/problems/{code}").get(problem::explain),
        Route::at("/livez").get(status::livez),
        Route::at("/readyz").get(status::readyz),
        Route::at("/v1/events").get(read::get).post(append::post),
        Route::at("/v1/audit").get(committed::get),
        Route::at("/v1/ws").get_only(ws::get),
        Route::at("/v1/agents/{id}/state")
            .put(agents::replace_state)
            .patch(agents::patch_state),
        Route::at("/v1/agents/{id}/commands").post(agents::command),
    ];
    table.extend(administrative());
    table
}

/// What administrators do: each handler takes an `Administrator`.
fn administrative() -> Vec<Route> {
    vec![
        Route::at("/metrics").get(metrics::get_metrics),
        Route::at("/v1/status").get(status::get),
        Route::at("/v1/admin/breaker/reset").post(admin::reset_breaker),
        Route::at("/v1/validate").post(validate::post),
        Route::at("/v1/admin/sessions/drop-idle").post(admin::drop_idle),
        Route::at("/v1/admin/consumers/{name}/pause").post(admin::pause_consumer),
        Route::at("/v1/admin/consumers/{name}/resume").post(admin::resume_consumer),
        Route::at("/v1/admin/log-level")
            .get(admin::log_level)
            .put(admin::set_log_level),
        Route::at("/v1/api-keys")
            .get(credentials::list_keys)
            .post(credentials::create_key),
        Route::at("/v1/api-keys/{id}").delete(credentials::revoke_key),
        Route::at("/v1/revocations")
            .get(credentials::list_revoked)
            .post(credentials::revoke_tokens),
        Route::at("/v1/revocations/{claim}/{value}").delete(credentials::withdraw_revocation),
        Route::at("/v1/settings")
            .get(settings::get)
            .patch(settings::patch),
        Route::at("/v1/topics").get(settings::list),
        Route::at("/v1/topics/{pattern}")
            .put(settings::declare)
            .delete(settings::withdraw),
        Route::at("/v1/subjects/{subject}")
            .get(subjects::get)
            .delete(subjects::erase),
        Route::at("/v1/watches").get(watches::list),
        Route::at("/v1/watches/{name}")
            .get(watches::get)
            .put(watches::set)
            .delete(watches::remove),
        Route::at("/v1/retention").get(retention::list),
        Route::at("/v1/retention/{pattern}")
            .put(retention::set)
            .delete(retention::remove),
    ]
}
