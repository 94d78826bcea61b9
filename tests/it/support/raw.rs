//! Requests that no HTTP client would send.

use std::io::Write as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Api;

/// A connection to the server of this API.
pub async fn connect(api: &Api) -> TcpStream {
    let (_, address) = api.url.split_once("://").unwrap();
    TcpStream::connect(address).await.unwrap()
}

/// Sends these bytes, ends the sending side, and reads all that is answered.
pub async fn send(api: &Api, bytes: &[u8]) -> String {
    let mut stream = connect(api).await;
    // The server may answer and close before it has read all.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Resident memory of a process in bytes.
pub fn resident_bytes(pid: u32) -> u64 {
    memory(pid, "VmRSS:")
}

/// The most it has ever been.
pub fn peak_bytes(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() * 1024
}

/// Gzip, by the program that every machine has.
pub fn gzip(bytes: Vec<u8>) -> Vec<u8> {
    let mut child = std::process::Command::new("gzip")
        .arg("-c9")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output.stdout
}
