//! Server-Sent Events, as the HTML standard parses them.
//!
//! # Invariants
//! - Where the bytes were cut on their way makes no difference to the messages.
//! - A message that its blank line does not end is no message.
//! - One message is bounded; what grows beyond is an error and not a buffer.

use std::collections::VecDeque;
use std::time::Duration;

/// Bytes of one message. A server sends pages of 1 MiB, or one event that is larger.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One dispatched message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its name; empty for unnamed ones.
    pub event: String,
    /// Its data, lines joined by line feeds.
    pub data: String,
    /// The last id that was given, in this message or before.
    pub id: String,
}

/// A message beyond [`MESSAGE_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message is larger than {MESSAGE_BYTES_MAX} bytes")]
pub struct TooLarge;

/// Bytes in, messages out.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    is_after_cr: bool,
    has_begun: bool,
    event: String,
    data: String,
    has_data: bool,
    id: String,
    retry: Option<Duration>,
}

impl Parser {
    /// Reads the next bytes and adds the messages they complete to `out`.
    ///
    /// # Errors
    /// If a message is too large.
    pub fn push(&mut self, bytes: &[u8], out: &mut VecDeque<Message>) -> Result<(), TooLarge> {
        let mut rest = bytes;
        if std::mem::take(&mut self.is_after_cr) {
            match rest {
                [] => self.is_after_cr = true,
                [b'\n', tail @ ..] => rest = tail,
                _ => {}
            }
        }
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, tail) = rest.split_at(at);
            self.keep(line)?;
            self.end_line(out);
            rest = match tail {
                [b'\r'] => {
                    self.is_after_cr = true;
                    &[]
                }
                [b'\r', b'\n', tail @ ..] | [_, tail @ ..] => tail,
                [] => &[],
            };
        }
        self.keep(rest)
    }

    /// The reconnection time that the server asked for since this was last asked.
    pub fn take_retry(&mut self) -> Option<Duration> {
        self.retry.take()
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        self.line.extend_from_slice(bytes);
        if self.line.len().saturating_add(self.data.len()) > MESSAGE_BYTES_MAX {
            return Err(TooLarge);
        }
        Ok(())
    }

    fn end_line(&mut self, out: &mut VecDeque<Message>) {
        let bytes = std::mem::take(&mut self.line);
        let mut line = bytes.as_slice();
        if !std::mem::replace(&mut self.has_begun, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch(out);
        }
        let text = String::from_utf8_lossy(line);
        let (field, value) = text.split_once(':').unwrap_or((&text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(value);
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retry = value.parse().ok().map(Duration::from_millis);
            }
            // A comment (no field name), or a field of a later standard.
            _ => {}
        }
    }

    fn dispatch(&mut self, out: &mut VecDeque<Message>) {
        let event = std::mem::take(&mut self.event);
        let data = std::mem::take(&mut self.data);
        if std::mem::take(&mut self.has_data) {
            out.push_back(Message {
                event,
                data,
                id: self.id.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Message>, Option<Duration>) {
        let (mut parser, mut out) = (Parser::default(), VecDeque::new());
        for chunk in chunks {
            parser.push(chunk, &mut out).unwrap();
        }
        (out.into(), parser.take_retry())
    }

    fn message(event: &str, data: &str, id: &str) -> Message {
        Message {
            event: event.to_owned(),
            data: data.to_owned(),
            id: id.to_owned(),
        }
    }

    #[test]
    fn the_standard_by_example() {
        let text = "\u{feff}: comment\ndata: a\ndata:b\ndata\nid: 1\n\nevent: x\rdata:  c\r\rid: 2\r\n\r\nretry: 250\r\nretry: x\r\ndata\r\n\r\nid\nnope: 1\ndata: é\n\ndata: unended\n";
        let (messages, retry) = parse([text.as_bytes()]);
        let wanted = [
            message("", "a\nb\n", "1"),
            message("x", " c", "1"),
            message("", "", "2"),
            message("", "é", ""),
        ];
        assert_eq!(messages, wanted);
        assert_eq!(retry, Some(Duration::from_millis(250)));
    }

    #[test]
    fn a_message_without_end_is_an_error() {
        let (mut parser, mut out) = (Parser::default(), VecDeque::new());
        let chunk = vec![b'x'; MESSAGE_BYTES_MAX];
        assert_eq!(parser.push(&chunk, &mut out), Ok(()));
        assert_eq!(parser.push(b"x", &mut out), Err(TooLarge));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_messages(
            text in "(\u{feff})?((data|id|event|retry|:|x)(: ?)?[a-z0-9é\u{feff}]{0,4}(\r|\n|\r\n|\n\n|\r\r|\r\n\r\n)){0,12}",
            cuts in proptest::collection::vec(0_usize..400, 0..12),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]);
            prop_assert_eq!(parse(chunks), parse([bytes]));
            prop_assert_eq!(parse(bytes.chunks(1)), parse([bytes]));
        }

        #[test]
        fn no_bytes_make_it_panic(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let _ = parse(chunks.iter().map(Vec::as_slice));
        }
    }
}
