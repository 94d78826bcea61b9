//! Somebody between the server and its database.

use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::connect_to;
use crate::support::authority::Authority;

/// Says that the database speaks no TLS, as somebody on the way could; what is sent to it before and after that.
async fn deny(listener: &TcpListener) -> (Vec<u8>, Vec<u8>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut question = [0; 8];
    stream.read_exact(&mut question).await.unwrap();
    stream.write_all(b"N").await.unwrap();
    let mut rest = vec![0; 1_000];
    let length = stream.read(&mut rest).await.unwrap_or_default();
    rest.truncate(length);
    (question.to_vec(), rest)
}

#[tokio::test]
async fn nobody_on_the_way_can_talk_it_out_of_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, Authority::new("ours").pem).unwrap();
    let root = |mode: &str, ca: &Path| format!("sslmode={mode}&sslrootcert={}", ca.display());
    for (query, is_sent) in [
        (root("verify-full", &ca), false),
        (root("verify-ca", &ca), false),
        ("sslmode=require".to_owned(), false),
        // Whoever asks for no more gets no more.
        ("sslmode=prefer".to_owned(), true),
    ] {
        for place in [
            format!("app:hush-hush@127.0.0.1:{port}/tidewire?"),
            // An address without a name is no socket on this machine.
            format!("/tidewire?user=app&hostaddr=127.0.0.1&port={port}&"),
        ] {
            let url = format!("postgres://{place}{query}");
            let (connected, (question, rest)) = tokio::join!(connect_to(&url), deny(&listener));
            let said = connected.unwrap_err();
            assert_eq!(question, [0, 0, 0, 8, 4, 210, 22, 47], "SSLRequest");
            assert_eq!(!rest.is_empty(), is_sent, "{query}: {rest:?}");
            if !is_sent {
                assert!(
                    said.contains("does not support TLS; set ssl = on"),
                    "{query}: {said}"
                );
            }
        }
    }
}
