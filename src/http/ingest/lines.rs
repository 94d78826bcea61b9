//! Lines out of the chunks of a stream: the framing of NDJSON.
//!
//! # Invariants
//! - The lines do not depend on where the chunks end.
//! - Beside the newest chunk never more than one line's bound is kept: what is longer is dropped as it comes.
//! - A line that lies within one chunk is a slice of it, not a copy. No byte is looked at twice.

use bytes::{Bytes, BytesMut};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number within the stream, from 1, blank lines counted.
    pub number: u64,
    /// Its bytes without the line end.
    pub bytes: Bytes,
}

/// A line longer than the bound; the lines after it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {number} is longer than {bytes_max} bytes")]
pub struct LineTooLong {
    /// Its number within the stream, from 1.
    pub number: u64,
    /// The bound.
    pub bytes_max: usize,
}

/// Splits a stream at LF or CRLF. Blank lines are passed over, and so is a byte order mark at the start.
#[derive(Debug)]
pub struct LineSplitter {
    bytes_max: usize,
    /// What has not been looked at.
    chunk: Bytes,
    /// The beginning of a line that goes on in the next chunk.
    partial: BytesMut,
    /// Whether the line at hand was found too long, and its end is still to come.
    is_skipping: bool,
    /// The number of the line at hand.
    number: u64,
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl LineSplitter {
    /// A splitter for lines of at most `bytes_max` bytes, the line end not counted.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            chunk: Bytes::new(),
            partial: BytesMut::new(),
            is_skipping: false,
            number: 1,
        }
    }

    /// Takes the next chunk. Read all lines of the one before first: what is left of it is copied.
    pub fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            let mut both = BytesMut::from(std::mem::take(&mut self.chunk));
            both.extend_from_slice(&chunk);
            self.chunk = both.freeze();
        }
    }

    /// The next line that is not blank; none if the next chunk is needed.
    pub fn next_line(&mut self) -> Option<Result<Line, LineTooLong>> {
        while !self.chunk.is_empty() {
            let found = match self.chunk.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    let rest = self.chunk.split_off(end.saturating_add(1));
                    let mut piece = std::mem::replace(&mut self.chunk, rest);
                    piece.truncate(end);
                    self.end_line(piece)
                }
                None => self.keep(),
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// The number of the line at hand, of which the end has not come; of the next one if that was found too long.
    #[must_use]
    pub const fn number(&self) -> u64 {
        if self.is_skipping {
            self.number.saturating_add(1)
        } else {
            self.number
        }
    }

    /// Bytes that are kept of lines that have not been given out.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.chunk.len().saturating_add(self.partial.capacity())
    }

    /// Whether a line has begun that is still to be given out.
    #[must_use]
    pub fn is_within_line(&self) -> bool {
        !self.partial.is_empty()
    }

    /// The last line if no line end follows it. Call it when the stream has ended and `next_line` gives nothing.
    pub fn finish(&mut self) -> Option<Result<Line, LineTooLong>> {
        let piece = std::mem::take(&mut self.chunk);
        self.end_line(piece)
    }

    /// `piece` is the end of the line at hand.
    fn end_line(&mut self, piece: Bytes) -> Option<Result<Line, LineTooLong>> {
        let number = self.number;
        self.number = number.saturating_add(1);
        if std::mem::take(&mut self.is_skipping) {
            return None;
        }
        let length = self.partial.len().saturating_add(piece.len());
        if length > self.bytes_max.saturating_add(1) {
            self.partial = BytesMut::new();
            return Some(Err(self.too_long(number)));
        }
        let mut line = if self.partial.is_empty() {
            piece
        } else {
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(&piece);
            whole.freeze()
        };
        if line.ends_with(b"\r") {
            line.truncate(line.len().saturating_sub(1));
        }
        if line.len() > self.bytes_max {
            return Some(Err(self.too_long(number)));
        }
        if number == 1 && line.starts_with(BYTE_ORDER_MARK) {
            line = line.split_off(BYTE_ORDER_MARK.len());
        }
        let is_blank = line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
        (!is_blank).then_some(Ok(Line {
            number,
            bytes: line,
        }))
    }

    /// The chunk holds no line end: keeps what may still become a line.
    fn keep(&mut self) -> Option<Result<Line, LineTooLong>> {
        let piece = std::mem::take(&mut self.chunk);
        if self.is_skipping {
            return None;
        }
        let length = self.partial.len().saturating_add(piece.len());
        // One byte beyond the bound may be the CR of the line end.
        let is_open = length <= self.bytes_max
            || (length == self.bytes_max.saturating_add(1) && piece.ends_with(b"\r"));
        if is_open {
            self.partial.extend_from_slice(&piece);
            return None;
        }
        self.partial = BytesMut::new();
        self.is_skipping = true;
        Some(Err(self.too_long(self.number)))
    }

    const fn too_long(&self, number: u64) -> LineTooLong {
        LineTooLong {
            number,
            bytes_max: self.bytes_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Found = Result<(u64, Vec<u8>), u64>;

    fn split(chunks: &[&[u8]], bytes_max: usize) -> Vec<Found> {
        let mut splitter = LineSplitter::new(bytes_max);
        let mut found = Vec::new();
        let mut take = |line: Result<Line, LineTooLong>| {
            found.push(
                line.map(|l| (l.number, l.bytes.to_vec()))
                    .map_err(|e| e.number),
            );
        };
        for chunk in chunks {
            splitter.push(Bytes::copy_from_slice(chunk));
            while let Some(line) = splitter.next_line() {
                take(line);
                assert!(splitter.partial.len() <= bytes_max + 1);
            }
            assert!(splitter.partial.len() <= bytes_max + 1);
        }
        if let Some(line) = splitter.finish() {
            take(line);
        }
        found
    }

    fn naive(text: &[u8], bytes_max: usize) -> Vec<Found> {
        let mut found = Vec::new();
        for (number, line) in (1..).zip(text.split(|b| *b == b'\n')) {
            let mut line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.len() > bytes_max {
                found.push(Err(number));
                continue;
            }
            if number == 1 {
                line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
            }
            if !line.iter().all(|b| matches!(b, b' ' | b'\t' | b'\r')) {
                found.push(Ok((number, line.to_vec())));
            }
        }
        found
    }

    #[test]
    fn line_ends_blank_lines_and_the_byte_order_mark() {
        let found = split(&[b"\xef\xbb\xbf1\r\n\r\n \t\n2", b"2\r", b"\n3"], 10);
        assert_eq!(
            found,
            [
                Ok((1, b"1".to_vec())),
                Ok((4, b"22".to_vec())),
                Ok((5, b"3".to_vec()))
            ]
        );
    }

    #[test]
    fn a_line_beyond_the_bound_is_dropped_as_it_comes() {
        let found = split(&[b"12345\n12", b"3456", b"789", b"0\n1\n", b"1234567"], 5);
        assert_eq!(
            found,
            [
                Ok((1, b"12345".to_vec())),
                Err(2),
                Ok((3, b"1".to_vec())),
                Err(4)
            ]
        );
    }

    #[test]
    fn a_line_within_a_chunk_is_a_slice_of_it() {
        let chunk = Bytes::from_static(b"abc\ndef\n");
        let mut splitter = LineSplitter::new(10);
        splitter.push(chunk.clone());
        let first = splitter.next_line().unwrap().unwrap();
        assert_eq!(first.bytes.as_ptr(), chunk.as_ptr());
    }

    #[test]
    fn chunks_pushed_ahead_are_not_lost() {
        let mut splitter = LineSplitter::new(10);
        splitter.push(Bytes::from_static(b"a\nb"));
        splitter.push(Bytes::from_static(b"c\n"));
        let lines: Vec<_> = std::iter::from_fn(|| splitter.next_line())
            .flatten()
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(&lines[1].bytes[..], b"bc");
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference(
            text in "(\u{feff})?([a-c \\t]|\\r|\\n|\\r\\n){0,60}",
            mut cuts in proptest::collection::vec(0_usize..64, 0..12),
            bytes_max in 0_usize..12,
        ) {
            let bytes = text.as_bytes();
            cuts.retain(|cut| *cut <= bytes.len());
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let mut from = 0;
            let chunks: Vec<&[u8]> = cuts.iter().map(|to| &bytes[std::mem::replace(&mut from, *to)..*to]).collect();
            prop_assert_eq!(split(&chunks, bytes_max), naive(bytes, bytes_max));
        }
    }
}
