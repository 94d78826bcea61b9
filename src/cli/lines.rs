//! Lines of a file or of stdin, read by a thread of their own a little ahead.
//!
//! # Invariants
//! - Whatever has come in is handed on at once: a line never waits for the next one.
//! - Memory is bounded: a few blocks, and no line beyond [`LINE_BYTES_MAX`]; a longer one is skipped and reported.
//! - Nobody waits for the thread, so that a program can end while stdin stays silent.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;

use super::advise::Advise as _;
use crate::event::limits::DATA_BYTES_MAX;

/// Bytes of one line of input; an event is smaller, but may be cut out of something larger.
pub const LINE_BYTES_MAX: usize = DATA_BYTES_MAX * 16;
/// Bytes after which a block is handed on.
const BLOCK_BYTES: usize = 256 * 1024;
/// Blocks that wait to be taken. More: reading waits.
const BLOCKS_MAX: usize = 2;

/// One line of input that is not blank.
#[derive(Debug)]
pub struct Input {
    /// Its number, from 1, blank lines counted.
    pub number: u64,
    /// Bytes of the input up to its end.
    pub end: u64,
    /// Its text without the line end, or why it cannot be read.
    pub text: Result<String, String>,
}

/// The lines of one input.
#[derive(Debug)]
pub struct Lines {
    blocks: mpsc::Receiver<Vec<Input>>,
    /// Bytes of the whole input, where that is known.
    pub total: Option<u64>,
}

impl Lines {
    /// Begins to read the file at `path`.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let file = File::open(path).or_advise(
            format_args!("{shown} cannot be opened"),
            "Check the name and that you may read it, or give - to read from stdin.",
        )?;
        let meta = file.metadata().or_advise(
            format_args!("{shown} cannot be read"),
            "Check the disk and run this again.",
        )?;
        anyhow::ensure!(
            !meta.is_dir(),
            "{shown} is a folder. Name a file of it, or send several with `cat {shown}/*.ndjson | tidewire import - …`"
        );
        let total = meta.is_file().then_some(meta.len());
        Self::read(file, total)
    }

    /// Begins to read stdin.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn stdin() -> anyhow::Result<Self> {
        Self::read(io::stdin(), None)
    }

    fn read(input: impl Read + Send + 'static, total: Option<u64>) -> anyhow::Result<Self> {
        let (out, blocks) = mpsc::channel(BLOCKS_MAX);
        std::thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || {
                let mut reader = Reader::new(BufReader::with_capacity(BLOCK_BYTES, input));
                loop {
                    let block = reader.block();
                    // Err: whoever wanted the lines is gone.
                    if block.is_empty() || out.blocking_send(block).is_err() {
                        return;
                    }
                }
            })
            .or_advise(
                "no thread could be started",
                "Close some programs and run this again.",
            )?;
        Ok(Self { blocks, total })
    }

    /// One line after the other.
    pub fn into_stream(self) -> impl Stream<Item = Input> + Unpin + Send {
        let blocks = stream::unfold(self.blocks, async |mut blocks| {
            blocks.recv().await.map(|block| (block, blocks))
        });
        Box::pin(blocks.flat_map(stream::iter))
    }
}

struct Reader<R> {
    input: R,
    number: u64,
    end: u64,
    has_failed: bool,
}

impl<R: BufRead> Reader<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            number: 0,
            end: 0,
            has_failed: false,
        }
    }
}

impl<R: Read> Reader<BufReader<R>> {
    /// What can be had without waiting, one line at least; empty at the end.
    fn block(&mut self) -> Vec<Input> {
        let mut block = Vec::new();
        let mut bytes = 0_usize;
        while let Some(line) = self.next() {
            bytes = bytes.saturating_add(line.text.as_ref().map_or(0, String::len));
            if !matches!(&line.text, Ok(text) if text.trim().is_empty()) {
                block.push(line);
            }
            let is_next_here = self.input.buffer().contains(&b'\n');
            if bytes >= BLOCK_BYTES || (!is_next_here && !block.is_empty()) {
                break;
            }
        }
        block
    }

    fn next(&mut self) -> Option<Input> {
        if self.has_failed {
            return None;
        }
        self.line().unwrap_or_else(|err| {
            self.has_failed = true;
            Some(Input {
                number: self.number.saturating_add(1),
                end: self.end,
                text: Err(format!("the input cannot be read any further: {err}")),
            })
        })
    }

    fn line(&mut self) -> io::Result<Option<Input>> {
        let mut bytes = Vec::new();
        let mut is_too_long = false;
        let start = self.end;
        loop {
            let here = match self.input.fill_buf() {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let line_end = here.iter().position(|byte| *byte == b'\n');
            let taken = line_end.map_or(here.len(), |at| at.saturating_add(1));
            let part = here.get(..line_end.unwrap_or(taken)).unwrap_or_default();
            is_too_long |= bytes.len().saturating_add(part.len()) > LINE_BYTES_MAX;
            if is_too_long {
                bytes = Vec::new();
            } else {
                bytes.extend_from_slice(part);
            }
            self.input.consume(taken);
            self.end = self
                .end
                .saturating_add(u64::try_from(taken).unwrap_or(u64::MAX));
            if line_end.is_some() || taken == 0 {
                break;
            }
        }
        if self.end == start {
            return Ok(None);
        }
        self.number = self.number.saturating_add(1);
        let text = if is_too_long {
            Err("the line is longer than 4 MiB".to_owned())
        } else {
            text_of(bytes, self.number == 1)
        };
        Ok(Some(Input {
            number: self.number,
            end: self.end,
            text,
        }))
    }
}

fn text_of(bytes: Vec<u8>, is_first: bool) -> Result<String, String> {
    let mut text = String::from_utf8(bytes).map_err(|_| "the line is not UTF-8".to_owned())?;
    if text.ends_with('\r') {
        text.pop();
    }
    if is_first && text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Ok(text)
}

const _: () = assert!(LINE_BYTES_MAX == 4 * 1024 * 1024);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Hands out its pieces one read at a time.
    struct Pieces(Vec<Vec<u8>>);

    impl Read for Pieces {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let Some(piece) = self.0.first_mut() else {
                return Ok(0);
            };
            let count = piece.len().min(to.len());
            to[..count].copy_from_slice(&piece[..count]);
            piece.drain(..count);
            if piece.is_empty() {
                self.0.remove(0);
            }
            Ok(count)
        }
    }

    fn blocks(pieces: Vec<Vec<u8>>) -> Vec<Vec<Input>> {
        let pieces = pieces.into_iter().filter(|p| !p.is_empty()).collect();
        let mut reader = Reader::new(BufReader::with_capacity(BLOCK_BYTES, Pieces(pieces)));
        std::iter::from_fn(|| Some(reader.block()).filter(|b| !b.is_empty())).collect()
    }

    #[test]
    fn lines_are_numbered_and_cleaned() {
        let text = "\u{feff}a\r\n\n  \nb\n\u{feff}c".as_bytes().to_vec();
        let total = text.len();
        let lines: Vec<_> = blocks(vec![text]).into_iter().flatten().collect();
        let seen: Vec<_> = lines
            .iter()
            .map(|l| (l.number, l.text.clone().unwrap()))
            .collect();
        assert_eq!(
            seen,
            [(1, "a".into()), (4, "b".into()), (5, "\u{feff}c".into())]
        );
        assert_eq!(usize::try_from(lines[2].end), Ok(total));
    }

    #[test]
    fn bad_lines_are_reported_and_passed() {
        let mut text = b"a\n\xff\n".to_vec();
        text.extend(vec![b'x'; LINE_BYTES_MAX + 1]);
        text.extend(b"\nb");
        let lines: Vec<_> = blocks(vec![text]).into_iter().flatten().collect();
        let seen: Vec<_> = lines.iter().map(|l| l.text.is_ok()).collect();
        assert_eq!(seen, [true, false, false, true]);
    }

    #[test]
    fn a_line_does_not_wait_for_the_next() {
        let seen = blocks(vec![b"a\nb\nc".to_vec(), b"c\nd\n".to_vec(), b"e".to_vec()]);
        let sizes: Vec<usize> = seen.iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 2, 1]);
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_lines(texts in proptest::collection::vec("[a-zé]{0,5}", 0..20), size in 1_usize..9) {
            let whole = texts.join("\n").into_bytes();
            let pieces = whole.chunks(size).map(<[u8]>::to_vec).collect();
            let lines = blocks(pieces).into_iter().flatten().map(|l| l.text.unwrap());
            let wanted: Vec<_> = texts.into_iter().filter(|t| !t.is_empty()).collect();
            prop_assert_eq!(lines.collect::<Vec<_>>(), wanted);
        }
    }
}
