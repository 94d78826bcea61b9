//! The commands as processes: killed, resumed, composed.

mod credentials;
mod recorded;
mod support;

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use support::{Server, events, ids, interrupt, lines_of, numbered, stderr, tidewire};
use tokio::io::AsyncWriteExt as _;

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_killed_and_repeated_stores_each_line_once() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("feed.ndjson");
    // Equal lines too: they are events of their own.
    let lines = (0..20_000).map(|n| json!({"kind": "a", "n": n / 2}).to_string());
    let text = lines.collect::<Vec<_>>().join("\n");
    std::fs::write(&path, &text).unwrap();
    let path = path.to_str().unwrap();
    let import = |input| ["import", input, "--topic", "/kind", "--topic-prefix", "x."];

    // Half of the input is all it gets, so that it is killed in the middle.
    let mut killed = server
        .command(&import("-"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = killed.stdin.take().unwrap();
    input
        .write_all(&text.as_bytes()[..text.len() / 2])
        .await
        .unwrap();
    let first = server
        .run(&["follow", "--after", "earliest", "--limit", "1"])
        .await;
    assert!(first.status.success(), "{}", stderr(&first));
    killed.kill().await.unwrap();
    let before = server.log().await.len();
    assert!(before > 0 && before < 20_000);

    let repeated = server.run(&import(path)).await;
    assert!(repeated.status.success(), "{}", stderr(&repeated));
    let log = server.log().await;
    assert_eq!(log.len(), 20_000);
    assert!(
        log.iter()
            .zip(0..)
            .all(|(event, n)| event["data"]["n"] == n / 2)
    );
    let summary = String::from_utf8(repeated.stdout).unwrap();
    let counts: Vec<usize> = summary
        .split([' ', ',', '\n'])
        .filter_map(|word| word.parse().ok())
        .collect();
    let [stored, duplicates, refused] = counts[..] else {
        panic!("{summary}");
    };
    assert_eq!((stored + duplicates, refused), (20_000, 0));
    // More than were there: the server may have finished the killed one's last request after its death.
    assert!(duplicates >= before, "{summary} after {before}");
}

/// Follows all there is, and keeps where it is in a file.
fn follow(cursor_file: &Path) -> [&str; 5] {
    let file = cursor_file.to_str().unwrap();
    ["follow", "--after", "earliest", "--cursor-file", file]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_killed_goes_on_where_it_was() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cursor");
    let follow = follow(&file);
    server.append(&numbered(0, 30)).await;
    let mut seen: Vec<String> = Vec::new();
    for round in 0..4 {
        let mut child = server.command(&follow).spawn().unwrap();
        let mut lines = lines_of(&mut child);
        let next = seen
            .last()
            .map_or(0, |id| id[2..].parse::<usize>().unwrap() + 1);
        // Until all that has been written is seen, which may begin with what was seen before.
        let last = format!("e-{}", 29 + round * 10);
        let mut before = next;
        while seen.last() != Some(&last) {
            let line = lines.next_line().await.unwrap().unwrap();
            let event: Value = serde_json::from_str(&line).unwrap();
            let n: usize = event["id"].as_str().unwrap()[2..].parse().unwrap();
            assert!(n <= before, "{n} after {before}: an event is missing");
            if n == before {
                seen.push(format!("e-{n}"));
                before += 1;
            }
        }
        child.kill().await.unwrap();
        server.append(&numbered(30 + round * 10, 10)).await;
    }
    assert_eq!(seen.len(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_follower_repeats_nothing() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cursor");
    let follow = follow(&file);
    let mut seen = Vec::new();
    for round in 0..3 {
        server.append(&numbered(round * 5, 5)).await;
        let mut child = server.command(&follow).spawn().unwrap();
        let mut lines = lines_of(&mut child);
        for _ in 0..5 {
            let line = lines.next_line().await.unwrap().unwrap();
            seen.push(serde_json::from_str::<Value>(&line).unwrap());
        }
        assert!(interrupt(&mut child).await.success());
    }
    assert_eq!(ids(&seen), ids(&numbered(0, 15)));
    let rest = server
        .run(&[
            "follow",
            "--until-caught-up",
            "--cursor-file",
            file.to_str().unwrap(),
        ])
        .await;
    assert!(rest.stdout.is_empty() && rest.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_ends_the_follower_quietly() {
    let server = Server::start().await;
    server.append(&numbered(0, 10)).await;
    let mut child = server
        .command(&["follow", "--after", "earliest"])
        .spawn()
        .unwrap();
    let mut lines = lines_of(&mut child);
    lines.next_line().await.unwrap().unwrap();
    drop(lines);
    server.append(&numbered(10, 10)).await;
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success());
    assert_eq!(stderr(&output), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn follow_and_append_compose() {
    let (from, to) = (Server::start().await, Server::start().await);
    from.append(&numbered(0, 500)).await;
    let mut follow = from
        .command(&["follow", "--after", "earliest", "--until-caught-up"])
        .spawn()
        .unwrap();
    let pipe: Stdio = follow.stdout.take().unwrap().try_into().unwrap();
    let append = to.command(&["append"]).stdin(pipe).output().await.unwrap();
    assert!(append.status.success(), "{}", stderr(&append));
    assert_eq!(events(&append.stdout).len(), 500);
    assert_eq!(ids(&to.log().await), ids(&from.log().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_events_are_named_and_the_others_stored() {
    let server = Server::start().await;
    let mut lines = numbered(0, 3);
    lines[1]["topic"] = "not a topic".into();
    let output = server.append(&lines).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("1 of 3 events were refused"),
        "{}",
        stderr(&output)
    );
    let answers = events(&output.stdout);
    assert_eq!(answers[1]["line"], 2);
    assert_eq!(answers[1]["error"]["status"], 422);
    assert_eq!(ids(&server.log().await), ["e-0", "e-2"]);

    let one = server
        .run(&[
            "append",
            "--topic",
            "deal.stage.updated",
            "--subject",
            "deal-7",
            "--data",
            "{\"stage\":\"won\"}",
        ])
        .await;
    assert!(one.status.success(), "{}", stderr(&one));
    assert_eq!(server.log().await[2]["data"]["stage"], "won");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_lines_do_not_stop_an_import() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("feed.ndjson");
    std::fs::write(
        &path,
        "{\"k\":\"a\"}\nnope\n\n{\"k\":\"A B\"}\n{}\n{\"k\":\"c\"}",
    )
    .unwrap();
    let path = path.to_str().unwrap();
    let output = server.run(&["import", path, "--topic", "/k"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"stored 3, duplicates 0, refused 2\n");
    let said = stderr(&output);
    assert!(
        said.contains("line 2: Malformed: the line is not JSON"),
        "{said}"
    );
    assert!(
        said.contains("line 5: Malformed: nothing at /k (--topic)"),
        "{said}"
    );
    let topics: Vec<Value> = server
        .log()
        .await
        .iter()
        .map(|e| e["topic"].clone())
        .collect();
    assert_eq!(topics, ["a", "a-b", "c"]);
    let strict = server
        .run(&["import", path, "--topic", "/k", "--strict"])
        .await;
    assert_eq!(strict.status.code(), Some(1));
    assert!(stderr(&strict).contains("--strict"), "{}", stderr(&strict));
}

#[tokio::test]
async fn every_failure_says_what_to_do() {
    let nobody = ["--url", "http://127.0.0.1:1"];
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().to_str().unwrap();
    for (words, advice) in [
        (vec!["follow"], "script/server"),
        (vec!["append", "--topic", "a"], "script/server"),
        (vec!["demo", "--rate", "1000"], "script/server"),
        (vec!["import", "/nowhere", "--topic", "a"], "Check the name"),
        (vec!["import", here, "--topic", "a"], "Name a file"),
        (vec!["follow", "--after", "??"], "earliest, latest"),
        (vec!["follow", "--since", "noon"], "2026-"),
        (vec!["follow", "--cursor-file", here], "--cursor-file"),
        (vec!["append", "--topic", "a", "--data", "{"], "Quote it"),
    ] {
        let words = [words.as_slice(), &nobody].concat();
        let output = tidewire(&words)
            .env("TIDEWIRE_TOKEN", "hush-hush")
            .output()
            .await
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        let said = stderr(&output);
        assert!(
            said.contains(advice) && !said.contains("hush"),
            "{words:?}: {said}"
        );
    }
    for command in ["append", "follow", "import", "demo"] {
        let output = tidewire(&[command, "--help"])
            .env("TIDEWIRE_TOKEN", "hush-hush")
            .output()
            .await
            .unwrap();
        assert!(
            output.status.success() && !String::from_utf8(output.stdout).unwrap().contains("hush")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_plays() {
    let server = Server::start().await;
    let output = server
        .run(&[
            "demo",
            "--rate",
            "500",
            "--duration",
            "1",
            "--seed",
            "7",
            "--agents",
            "20",
        ])
        .await;
    assert!(output.status.success(), "{}", stderr(&output));
    let played = server.log().await;
    let printed = server
        .run(&[
            "demo",
            "--rate",
            "500",
            "--duration",
            "1",
            "--seed",
            "7",
            "--agents",
            "20",
            "--stdout",
        ])
        .await;
    let printed = events(&printed.stdout);
    assert!(printed.len() > 200, "{}", printed.len());
    assert_eq!(played.len(), printed.len());
    assert!(
        played
            .iter()
            .zip(&printed)
            .all(|(a, b)| a["data"] == b["data"] && a["topic"] == b["topic"])
    );
}
