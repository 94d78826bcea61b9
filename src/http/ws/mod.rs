//! `GET /v1/ws`: subscriptions, appends and commands over one socket.

mod close;
mod conflation;
mod delivery;
mod end;
mod frame;
mod history;
mod page;
mod requests;
mod socket;
mod subscription;
mod watching;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::request::Parts;
use axum::response::Response;

pub use frame::{
    CLIENT_FRAMES, ClientFrame, Encoding, FrameError, SERVER_FRAMES, read as read_frame,
};

use super::admission::Admission;
use super::app::App;
use super::caller;
use super::errors;
use super::params::ReadParams;
use super::problem::{Kind, Problem};
use super::sessions::Cut;
use super::unfinished::Unfinished;
use crate::event::limits::{FRAME_BYTES_MAX, PAGE_BYTES_MAX, SESSION_BYTES};
use crate::telemetry::Transport;

/// The subprotocols, the default first.
pub const PROTOCOLS: [&str; 2] = ["tidewire.v1.json", "tidewire.v1.msgpack"];
/// Bytes a socket keeps for reading; idle sockets are many.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Frames below this size are gathered before they are written; each delivery flushes.
const WRITE_BUFFER_BYTES: usize = 4 * 1024;
const _: () = assert!(READ_BUFFER_BYTES + WRITE_BUFFER_BYTES == SESSION_BYTES);
/// What a socket may hold for writing: one frame with its page, or one event of the table's largest size, in whichever
/// encoding, and what the protocol answers by itself. Each frame is flushed before the next is made, so that only a fault
/// of this program can get here; it ends the socket.
const WRITE_BYTES_MAX: usize = 8 * (PAGE_BYTES_MAX + FRAME_BYTES_MAX);

/// `GET /v1/ws`.
///
/// # Errors
/// 401, 403 for a page of another origin, 426, 503; a request that is no upgrade gets 400.
pub async fn get(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (mut parts, _) = request.into_parts();
    app.origins.check(&parts)?;
    let params = ReadParams::parse(parts.uri.query())?;
    let principal = caller::identify(&app, &parts, params.token.as_deref()).await?;
    if app.drain.has_begun() {
        return Err(errors::overloaded("the server is shutting down"));
    }
    let encoding = encoding(&parts)?;
    let message = parts.extensions.get::<Unfinished>();
    let message = message.cloned().unwrap_or_default();
    // Opening a socket costs as much as a page: those who come take turns with those who catch up.
    let _turn = app.hub.turn(&principal.tenant).await;
    let admission = Admission::of_reader(&app, &principal, &parts.extensions);
    let lease = caller::lease(&app, &principal).await?;
    let seat = app.seat(&admission, Transport::WebSocket)?;
    let cut = parts.extensions.get::<Cut>().cloned();
    let session = app.sessions.enter(&principal.tenant, SESSION_BYTES, cut);
    let session = session.map_err(|_| errors::full())?;
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &app)
        .await
        .map_err(|error| Problem::new(Kind::Malformed, format!("this is a WebSocket: {error}")))?;
    Ok(upgrade
        .protocols(PROTOCOLS)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BYTES_MAX)
        .max_message_size(FRAME_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        .on_upgrade(move |socket| async move {
            message.begin(app.messages.share(&principal.tenant));
            let holder = (principal, lease, seat, session);
            socket::Socket::new(app, holder, encoding, socket, message)
                .run()
                .await;
        }))
}

/// The encoding of the first subprotocol offered that is spoken here; JSON if none is offered.
fn encoding(parts: &Parts) -> Result<Encoding, Problem> {
    let mut is_offered = false;
    for value in parts.headers.get_all("sec-websocket-protocol") {
        for protocol in value.to_str().unwrap_or_default().split(',').map(str::trim) {
            is_offered |= !protocol.is_empty();
            match protocol {
                "tidewire.v1.json" => return Ok(Encoding::Json),
                "tidewire.v1.msgpack" => return Ok(Encoding::Msgpack),
                _ => {}
            }
        }
    }
    if is_offered {
        let detail = "none of the offered subprotocols is spoken here: tidewire.v1.json, tidewire.v1.msgpack";
        return Err(Problem::new(Kind::Malformed, detail));
    }
    Ok(Encoding::Json)
}
