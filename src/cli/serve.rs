//! `tidewire serve`.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::access::jwt::{self, Claims};
use crate::access::{Role, Secret};
use crate::app::Server;
use crate::config::Serve;

/// A development token lasts so long.
const TOKEN_DAYS: u64 = 30;

/// Starts the server and serves until SIGINT or SIGTERM.
///
/// # Errors
/// If it cannot start.
pub async fn run(config: Serve) -> anyhow::Result<()> {
    let log_filter =
        crate::telemetry::start(&config.log, config.log_json).context("TIDEWIRE_LOG")?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    };
    let mut stop = Box::pin(stop);
    let server = tokio::select! {
        server = Server::start(config) => server?,
        () = &mut stop => return Ok(()),
    };
    server.app.log_by(log_filter);
    print!("{}", banner(&server)?);
    server.run(stop).await;
    Ok(())
}

fn banner(server: &Server) -> anyhow::Result<String> {
    let url = server.url();
    let version = env!("CARGO_PKG_VERSION");
    let (mode, auth) = match &server.development_secret {
        Some(secret) => {
            let token = development_token(secret)?;
            let mode = format!(
                "Development mode: loopback only; without a token a request acts as administrator of the tenant dev.\n\
                 \n  token   {token}\n"
            );
            (mode, "")
        }
        None => (String::new(), " -H \"authorization: Bearer $TOKEN\""),
    };
    let event =
        r#"{"topic":"agent.state.updated","subject":"agent-001","data":{"status":"running"}}"#;
    // Where the build put it, a shell does not find it by name.
    let program = std::env::current_exe()
        .map_or_else(|_| "tidewire".to_owned(), |path| path.display().to_string());
    let sql = server
        .psql
        .as_ref()
        .map_or_else(String::new, |psql| format!("  sql     {psql}\n"));
    Ok(format!(
        "Tidewire {version} is listening on {url}\n\
         {mode}\n  write   curl -s {url}/v1/events{auth} --json '{event}'\n\
         \x20 follow  curl -sN '{url}/v1/events?topics=*&after=earliest'{auth} -H 'accept: text/event-stream'\n\
         \x20 shell   {program} follow --url {url}\n\
         {sql}\nCtrl-C stops it; events stay.\n"
    ))
}

fn development_token(secret: &Secret) -> anyhow::Result<String> {
    let claims = Claims {
        sub: "developer".to_owned(),
        exp: super::token::expiry(std::time::Duration::from_secs(
            TOKEN_DAYS.saturating_mul(86_400),
        ))?,
        tenant: "dev".to_owned(),
        role: Role::Admin,
        read: vec!["*".to_owned()],
        write: vec!["*".to_owned()],
    };
    Ok(jwt::issue(secret, &claims)?)
}
