//! The streams of an HTTP/2 connection: each can be ended without the others.
//!
//! # Invariants
//! - A proxy may carry the streams of many over one connection: who is told to go and takes nothing loses its stream
//!   (`RST_STREAM`), and what of it lies in the connection is dropped. The connection stays.
//! - HTTP/1 has one answer at a time, and a WebSocket is all there is of its connection: those are cut (`serve`).

use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;

use super::sessions::Cut;
use crate::event::limits::CLOSE_TIMEOUT;
use crate::tasks::pause;

tokio::task_local! {
    /// Ends the stream that this task runs.
    static OWN: Cut;
}

/// What ends the stream whose request is being served; nothing asks for it over HTTP/1.
#[must_use]
pub fn own_cut() -> Cut {
    OWN.try_with(Cut::clone).unwrap_or_default()
}

/// Runs streams, each in a task of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Streams;

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let cut = Cut::default();
        let stream = OWN.scope(cut.clone(), stream);
        TokioExecutor::new().execute(async move {
            let cut = async {
                cut.asked().await;
                // Whoever takes something may still hear why.
                pause(CLOSE_TIMEOUT).await;
            };
            tokio::select! {
                biased;
                _ = stream => {}
                // To drop it resets the stream.
                () = cut => {}
            }
        });
    }
}
