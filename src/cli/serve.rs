//! `tidewire serve`.

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
    crate::telemetry::start(&config.log, config.log_json)?;
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
    print!("{}", banner(&server)?);
    server.run(stop).await;
    Ok(())
}

fn banner(server: &Server) -> anyhow::Result<String> {
    let url = format!("http://{}", server.address);
    let mut text = format!(
        "Tidewire {} is listening on {url}\n",
        env!("CARGO_PKG_VERSION")
    );
    let auth = if let Some(secret) = &server.development_secret {
        text.push_str("Development mode: loopback only, requests without a token act as administrator of the tenant dev.\n");
        text.push_str(&format!("\n  token   {}\n", development_token(secret)?));
        ""
    } else {
        " -H \"authorization: Bearer $TOKEN\""
    };
    text.push_str(&format!(
        "\n  write   curl -s {url}/v1/events{auth} --json '{{\"topic\":\"agent.state.updated\",\"subject\":\"agent-001\",\"data\":{{\"status\":\"running\"}}}}'\
         \n  follow  curl -sN '{url}/v1/events?topics=*&after=earliest'{auth} -H 'accept: text/event-stream'\n"
    ));
    if let Some(psql) = &server.psql {
        text.push_str(&format!("  sql     {psql}\n"));
    }
    text.push_str("\nCtrl-C stops it; events stay.\n");
    Ok(text)
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
