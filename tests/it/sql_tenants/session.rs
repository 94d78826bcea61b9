//! A session that keeps all that the database says to it: rows, errors, notices, notifications.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};

use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

/// The word in everything that is the other tenant's.
pub const WORD: &str = "s3ntinel";
/// The word as PostgreSQL prints it in `bytea`, and in base64.
const FORMS: [&str; 3] = [WORD, "73336e74696e656c", "czNudGluZWw"];

/// What a statement led to.
pub struct Outcome {
    /// SQLSTATE, or `ok`.
    pub state: String,
    /// Everything that was said meanwhile.
    pub said: String,
}

impl Outcome {
    /// Whether something of the other tenant is in it.
    pub fn leaks(&self) -> bool {
        let said = self.said.to_lowercase();
        FORMS.iter().any(|form| said.contains(&form.to_lowercase()))
    }
}

/// A login of a tenant's role.
pub struct Session {
    client: Client,
    heard: Arc<Mutex<String>>,
}

impl Session {
    /// Logs in, and switches off what the role may switch off.
    pub async fn open(url: &str, role: &str) -> Self {
        let mut url = url::Url::parse(url).unwrap();
        url.set_username(role).unwrap();
        url.set_password(Some(role)).unwrap();
        let (client, mut connection) = tokio_postgres::connect(url.as_str(), NoTls).await.unwrap();
        let heard = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&heard);
        #[expect(clippy::disallowed_methods, reason = "ends with its client")]
        tokio::spawn(async move {
            while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                let text = match message {
                    Ok(AsyncMessage::Notice(notice)) => format!("{notice:?}"),
                    Ok(AsyncMessage::Notification(note)) => {
                        format!("notified {:?} {:?};", note.channel(), note.payload())
                    }
                    Ok(_) => String::new(),
                    Err(error) => format!("{error:?}"),
                };
                sink.lock().unwrap().push_str(&text);
            }
        });
        let session = Self { client, heard };
        session.start().await;
        session
    }

    async fn start(&self) {
        let settings = "SET default_transaction_read_only = off; SET client_min_messages = log;
                        SET statement_timeout = '20s'; SET idle_in_transaction_session_timeout = 0";
        self.client.batch_execute(settings).await.unwrap();
    }

    /// Runs statements and leaves the session as they do.
    pub async fn run(&self, statements: &str) -> Outcome {
        let mut said = String::new();
        let state = match self.client.simple_query(statements).await {
            Ok(messages) => {
                for message in messages {
                    if let SimpleQueryMessage::Row(row) = message {
                        for n in 0..row.len() {
                            said.push_str(row.get(n).unwrap_or("NULL"));
                            said.push('|');
                        }
                        said.push('\n');
                    }
                }
                "ok".to_owned()
            }
            Err(error) => {
                let db = error.as_db_error().expect("the database answers");
                said = format!("{db:?}");
                db.code().code().to_owned()
            }
        };
        said.push_str(&std::mem::take(&mut *self.heard.lock().unwrap()));
        Outcome { state, said }
    }

    /// Runs statements, and undoes what the session keeps of them.
    pub async fn attempt(&self, statements: &str) -> Outcome {
        let outcome = self.run(statements).await;
        let _ = self.client.batch_execute("ROLLBACK").await;
        self.client.batch_execute("DISCARD ALL").await.unwrap();
        self.start().await;
        outcome
    }

    /// Whether the database has ended it.
    pub async fn is_over(&self) -> bool {
        self.client.batch_execute("SELECT 1").await.is_err()
    }

    /// The first column of the first row.
    pub async fn value(&self, query: &str) -> String {
        let outcome = self.run(query).await;
        assert_eq!(outcome.state, "ok", "{query}: {}", outcome.said);
        let first = outcome.said.split('|').next().unwrap();
        first.to_owned()
    }
}
