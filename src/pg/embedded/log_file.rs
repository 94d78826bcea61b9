//! PostgreSQL's log file: a bound on its size, and its last lines for error messages.
//!
//! # Invariants
//! - The log and its predecessor take at most about twice [`LOG_BYTES_MAX`] plus one check interval.
//! - Only the server opens the file by name; PostgreSQL gets it as an open descriptor.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// At this size the log is moved to `postgres.log.1`, over the one before.
const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// How much of the log an error message looks at, and how many lines it shows.
const TAIL_BYTES_MAX: u64 = 8 * 1024;
const TAIL_LINES_MAX: usize = 10;

/// Opens the log for appending.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// Copies a log that has grown too large aside and empties it in place: PostgreSQL, which appends
/// through a descriptor of its own, goes on writing at the new end.
pub(super) fn bound(path: &Path) -> io::Result<()> {
    if length(path) <= LOG_BYTES_MAX {
        return Ok(());
    }
    let mut previous = path.as_os_str().to_owned();
    previous.push(".1");
    let previous = PathBuf::from(previous);
    let mut kept = OpenOptions::new();
    let mut kept = kept
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(previous)?;
    let mut log = OpenOptions::new().read(true).write(true).open(path)?;
    io::copy(&mut log.by_ref().take(2 * LOG_BYTES_MAX), &mut kept)?;
    log.set_len(0)
}

/// The size, to read later what came after it.
pub(super) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// What was written since `start`: the last lines, indented. Empty if it can't be read.
pub(super) fn tail(path: &Path, start: u64) -> String {
    let start = start.max(length(path).saturating_sub(TAIL_BYTES_MAX));
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(start))?;
        file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)
    });
    if read.is_err() {
        return String::new();
    }
    last_lines(&String::from_utf8_lossy(&bytes))
}

/// The last lines of a program's output, indented.
pub(super) fn last_lines(text: &str) -> String {
    let lines = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect::<Vec<_>>();
    let skipped = lines.len().saturating_sub(TAIL_LINES_MAX);
    let shown = lines
        .into_iter()
        .skip(skipped)
        .map(|line| format!("    {line}"));
    shown.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_log_is_moved_aside_and_writers_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postgres.log");
        let writer = open(&path).unwrap();
        writer.set_len(LOG_BYTES_MAX + 1).unwrap();
        bound(&path).unwrap();
        assert_eq!(length(&path), 0);
        assert_eq!(
            length(&folder.path().join("postgres.log.1")),
            LOG_BYTES_MAX + 1
        );
        io::Write::write_all(&mut &writer, b"first\n\nsecond\n").unwrap();
        assert_eq!(tail(&path, 0), "    first\n    second");
        assert_eq!(tail(&path, 7), "    second");
    }

    #[test]
    fn a_missing_log_has_no_lines() {
        assert_eq!(tail(Path::new("/nowhere/postgres.log"), 0), "");
    }
}
