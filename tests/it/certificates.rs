//! Certificates of the server: new ones while it runs, those it refuses, and the command line that trusts them.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::first_steps::{fails, program, serve};
use crate::support::authority::{Authority, Issued};
use crate::support::token::SECRET;
use crate::support::{eventually, signal};
use crate::tls::{NAMES, PATIENCE, Setting};

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_while_streams_live_on() {
    let setting = Setting::new().await;
    let (process, api) = setting.process().await;
    let mut stream = api.sse("topics=*&after=earliest", None).await.unwrap();
    assert!(setting.shown(&api, &setting.issued).await);
    let renewed = setting.authority.issue(NAMES);
    renewed.write(setting.folder.path());
    eventually(PATIENCE, async || {
        if setting.shown(&api, &renewed).await {
            Ok(())
        } else {
            Err("the old one")
        }
    })
    .await;
    // A client that still has a connection goes on with it, and so does one that makes a new one.
    for (id, api) in [
        ("one", api.clone()),
        ("two", process.api.trusting(&setting.authority.pem)),
    ] {
        api.append(&json!({"id": id, "topic": "a.b"})).await;
        let (events, _) = stream.events().await.unwrap().unwrap();
        assert_eq!(events[0]["id"], id);
    }
    process.kill().await;
}

#[tokio::test]
async fn a_pair_that_is_half_written_or_expired_is_refused_and_sighup_asks_again() {
    let setting = Setting::new().await;
    let (process, api) = setting.process().await;
    let refused = "the one before stays in force";
    let renewed = setting.authority.issue(NAMES);
    let file = |name: &str| setting.folder.path().join(name);
    let old = Issued {
        certificate: setting.issued.certificate.clone(),
        key: setting.issued.key.clone(),
    };
    let expired = setting
        .authority
        .issue_at(NAMES, SystemTime::now() - Duration::from_hours(48));
    for (certificate, key, why) in [
        (
            renewed.certificate.as_str(),
            old.key.as_str(),
            "does not belong to the certificate",
        ),
        (
            &renewed.certificate[..200],
            &renewed.key,
            "holds no certificate",
        ),
        (&renewed.certificate, "", "holds no private key"),
        (&expired.certificate, &expired.key, "expired on"),
    ] {
        std::fs::write(setting.log(), "").unwrap();
        std::fs::write(file("key.pem"), key).unwrap();
        std::fs::write(file("cert.pem"), certificate).unwrap();
        setting.told(why).await;
        setting.told(refused).await;
        assert!(setting.shown(&api, &setting.issued).await, "{why}");
    }
    // It is told once, but to who asks.
    std::fs::write(setting.log(), "").unwrap();
    let pid = process.pid().to_string();
    assert!(signal::send("-HUP", &[&pid]).await.success());
    setting.told(refused).await;
    renewed.write(setting.folder.path());
    setting.told("a new certificate is in force").await;
    assert!(setting.shown(&api, &renewed).await);
    api.append(&json!({"topic": "a.b"})).await;
    process.kill().await;
}

#[tokio::test]
async fn a_start_without_a_usable_pair_says_what_to_do() {
    let (authority, folder) = (Authority::new("ours"), tempfile::tempdir().unwrap());
    let (certificate, key) = authority.issue(NAMES).write(folder.path());
    let path = |path: &Path| path.display().to_string();
    let (cert, key_path) = (path(&certificate), path(&key));
    let both = ["--tls-cert", &cert, "--tls-key", &key_path];
    let alone = ["set both, or neither"];
    fails(serve(program(), &both[..2]), &alone).await;
    fails(serve(program(), &both[2..]), &alone).await;
    let settings = "see --tls-cert (TIDEWIRE_TLS_CERT) and --tls-key (TIDEWIRE_TLS_KEY)";
    let day = Duration::from_hours(24);
    let other = authority.issue(NAMES);
    for (moment, part) in [
        (SystemTime::now() - 3 * day, "expired on"),
        (
            SystemTime::now() + 3 * day,
            "is this machine's clock right?",
        ),
    ] {
        authority.issue_at(NAMES, moment).write(folder.path());
        fails(serve(program(), &both), &[part, &cert, settings]).await;
    }
    other.write(folder.path());
    for (file, text, part) in [
        (
            &key,
            authority.issue(NAMES).key.as_str(),
            "does not belong to the certificate",
        ),
        (&key, "hush", "holds no private key"),
        (
            &key,
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
            "without a passphrase",
        ),
        (&key, &other.key, ""),
        (&certificate, "hush", "-----BEGIN CERTIFICATE-----"),
    ] {
        std::fs::write(file, text).unwrap();
        if !part.is_empty() {
            fails(serve(program(), &both), &[part, &path(file), settings]).await;
        }
    }
    std::fs::remove_file(&certificate).unwrap();
    fails(serve(program(), &both), &["cannot read", &cert, settings]).await;
}

#[tokio::test]
async fn the_command_line_trusts_the_authority_that_it_is_told() {
    let setting = Setting::new().await;
    let (process, api) = setting.process().await;
    let authority = setting.folder.path().join("ca.pem");
    std::fs::write(&authority, &setting.authority.pem).unwrap();
    let stranger = setting.folder.path().join("stranger.pem");
    std::fs::write(&stranger, Authority::new("stranger").pem).unwrap();
    for (command, more) in [
        ("check", &[][..]),
        ("follow", &["--after", "earliest", "--limit", "1"]),
    ] {
        for (file, is_trusted) in [
            (Some(&authority), true),
            (Some(&stranger), false),
            (None, false),
        ] {
            let mut line = Command::new(program());
            line.args([command, "--url", &api.url]).args(more);
            if let Some(file) = file {
                line.arg("--ca-file").arg(file);
            }
            let output = line.kill_on_drop(true).output();
            let output = tokio::time::timeout(PATIENCE, output)
                .await
                .expect("an end")
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                output.status.success(),
                is_trusted,
                "{command} {file:?}: {said}"
            );
            if !is_trusted {
                assert!(said.contains("--ca-file"), "{command}: {said}");
            }
        }
    }
    process.kill().await;
}

#[tokio::test]
async fn whoever_is_reached_by_others_without_tls_is_told_so_once() {
    let setting = Setting::new().await;
    let told = "other machines reach this server without TLS";
    let everywhere = ["--listen", "0.0.0.0:0", "--jwt-secret", SECRET];
    let here = ["--listen", "127.0.0.1:0", "--jwt-secret", SECRET];
    let encrypted: Vec<_> = setting
        .words
        .iter()
        .map(String::as_str)
        .chain(everywhere)
        .collect();
    for (words, count) in [(&everywhere[..], 1), (&here[..], 0), (&encrypted[..], 0)] {
        let log = std::fs::File::create(setting.log()).unwrap();
        let data_dir = setting.folder.path().display().to_string();
        let database = ["--database-url", &setting.db.url, "--data-dir", &data_dir];
        let words = [words, &database].concat();
        let mut server = serve(program(), &words).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let banner = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let banner = banner.expect("it starts").unwrap().unwrap();
        let is_encrypted = words.contains(&"--tls-cert");
        assert_eq!(banner.contains(" https://"), is_encrypted, "{banner}");
        let log = std::fs::read_to_string(setting.log()).unwrap();
        assert_eq!(log.matches(told).count(), count, "{words:?}: {log}");
        server.kill().await.unwrap();
    }
}
