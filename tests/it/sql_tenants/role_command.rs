//! `tidewire role`.

use std::process::{Output, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::fixture::Tenants;

async fn role(url: &str, args: &[&str]) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .arg("role")
        .args(args)
        .env("DATABASE_URL", url)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap()
}

/// Everything that one client sends to the database of this URL, through an address of its own.
async fn overheard(url: &str, run: impl AsyncFnOnce(String) -> Output) -> (Output, Vec<u8>) {
    let mut url = url::Url::parse(url).unwrap();
    let target = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    url.set_port(Some(listener.local_addr().unwrap().port()))
        .unwrap();
    let listening = async {
        let (client, _) = listener.accept().await.unwrap();
        let database = TcpStream::connect(target).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_database, mut to_database) = database.into_split();
        let (heard, _) = tokio::join!(
            async move {
                let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
                    heard.extend_from_slice(&buffer[..n]);
                    to_database.write_all(&buffer[..n]).await.unwrap();
                }
                heard
            },
            tokio::io::copy(&mut from_database, &mut to_client)
        );
        heard
    };
    tokio::join!(run(url.to_string()), listening)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The role has the bounds that it was to get.
async fn is_bounded(tenants: &Tenants, name: &str) {
    let settings =
        "SELECT rolconnlimit, rolconfig::text FROM pg_roles WHERE rolname = $1::text::name";
    let row = tenants.owner.query_one(settings, &[&name]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 3);
    for setting in [
        "statement_timeout=5min",
        "idle_in_transaction_session_timeout=10s",
        "temp_file_limit=1GB",
    ] {
        assert!(row.get::<_, &str>(1).contains(setting), "{setting}");
    }
}

#[tokio::test]
async fn a_role_is_made_listed_and_ended_and_its_password_is_never_sent() {
    let tenants = Tenants::new().await;
    let name = tenants.name("cli");
    let (made, sent) = overheard(&tenants.db.url, async |url| {
        role(
            &url,
            &[
                "create",
                &name,
                "--tenant",
                "mine",
                "--write",
                "--connections",
                "3",
            ],
        )
        .await
    })
    .await;
    assert!(made.status.success(), "{}", text(&made.stderr));
    let said = text(&made.stdout);
    let password = said
        .lines()
        .find_map(|line| line.strip_prefix("password  "))
        .unwrap();
    assert!(password.len() >= 32);
    let sent = text(&sent);
    assert!(sent.contains("SCRAM-SHA-256$4096:"), "the verifier is sent");
    assert!(!sent.contains(password));
    assert!(said.contains(&format!("-U {name} -d ")), "{said}");
    assert_eq!(text(&made.stderr), "The password is not shown again.\n");

    let client = tenants.db.connect_as(&name, password).await;
    let query = "SELECT tidewire.current_tenant(), count(*) FROM tidewire.my_events";
    let row = client.query_one(query, &[]).await.unwrap();
    assert_eq!(
        (row.get::<_, &str>(0), row.get::<_, i64>(1)),
        ("mine", 2_881)
    );
    is_bounded(&tenants, &name).await;

    tenants
        .owner
        .batch_execute(&format!("GRANT pg_read_all_data TO {name}"))
        .await
        .unwrap();
    let listed = role(&tenants.db.url, &["list"]).await;
    assert_eq!(
        text(&listed.stdout),
        format!("{name}  tenant mine  reads and writes  3 connections\n")
    );
    assert_eq!(
        text(&listed.stderr),
        format!("warning: {name}: it is a member of pg_read_all_data\n")
    );

    let again = role(&tenants.db.url, &["create", &name, "--tenant", "mine"]).await;
    assert_eq!(
        text(&again.stderr),
        format!("tidewire: role \"{name}\" already exists\n")
    );
    let ended = role(&tenants.db.url, &["drop", &name]).await;
    assert!(ended.status.success(), "{}", text(&ended.stderr));
    assert!(text(&role(&tenants.db.url, &["list"]).await.stdout).is_empty());
    let gone = role(&tenants.db.url, &["drop", &name]).await;
    assert_eq!(
        text(&gone.stderr),
        format!("tidewire: role {name} belongs to no tenant\n")
    );
}

#[tokio::test]
async fn who_may_not_make_roles_is_told_so_in_a_sentence() {
    let tenants = Tenants::new().await;
    let name = tenants.role("reader", "mine", false, false).await;
    let mut url = url::Url::parse(&tenants.db.url).unwrap();
    url.set_username(&name).unwrap();
    url.set_password(Some(&name)).unwrap();
    let refused = role(url.as_str(), &["create", "x", "--tenant", "mine"]).await;
    let said = text(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("making roles needs CREATEROLE"),
        "{said}"
    );
    assert_eq!(said.trim().lines().count(), 1, "{said}");
}
