//! Lines: however the stream is cut, they are what splitting the whole gives, and memory stays within the bound.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidewire::http::ingest::{Line, LineSplitter, LineTooLong};

fuzz_target!(|input: (u8, Vec<u8>, &[u8])| {
    let (bytes_max, cuts, text) = input;
    let bytes_max = usize::from(bytes_max);
    let mut splitter = LineSplitter::new(bytes_max);
    let mut found = Vec::new();
    let mut rest = text;
    let mut cuts = cuts.into_iter().map(usize::from);
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(cuts.next().unwrap_or(usize::MAX).min(rest.len()));
        rest = behind;
        splitter.push(Bytes::copy_from_slice(chunk));
        found.extend(std::iter::from_fn(|| splitter.next_line()));
    }
    found.extend(splitter.finish());
    assert_eq!(found, naive(text, bytes_max));
});

fn naive(text: &[u8], bytes_max: usize) -> Vec<Result<Line, LineTooLong>> {
    let lines = (1..).zip(text.split(|byte| *byte == b'\n'));
    lines
        .filter_map(|(number, line)| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.len() > bytes_max {
                return Some(Err(LineTooLong { number, bytes_max }));
            }
            let mark = if number == 1 {
                b"\xef\xbb\xbf".as_slice()
            } else {
                b""
            };
            let line = line.strip_prefix(mark).unwrap_or(line);
            let is_blank = line.iter().all(|byte| b" \t\r".contains(byte));
            (!is_blank).then(|| {
                Ok(Line {
                    number,
                    bytes: Bytes::copy_from_slice(line),
                })
            })
        })
        .collect()
}
