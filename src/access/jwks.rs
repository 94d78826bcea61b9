//! Keys that an identity provider publishes at a URL (RFC 7517), and changes when it likes.
//!
//! # Invariants
//! - The keys last seen stay in force while the provider cannot be asked: its outage locks nobody out. What it answers
//!   counts, a set without keys too: whoever withdraws all of them wants none to be used.
//! - However many tokens name a key that is not known, the provider is asked once in a while only, by one of them.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use jsonwebtoken::jwk::JwkSet;
use reqwest::Url;
use tokio::sync::{Notify, watch};

use super::keys::Key;

/// The keys are asked for this often, so that one that was withdrawn goes out of use.
const INTERVAL: Duration = Duration::from_mins(5);
/// The same while the provider does not answer.
const RETRY: Duration = Duration::from_secs(15);
/// A key that is not known is asked for this often at most.
const PAUSE: Duration = Duration::from_secs(5);
/// How long the provider may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long somebody waits for a key that is not known: a question that is under way, a pause, and one more.
const PATIENCE: Duration = Duration::from_secs(16);
/// Bytes of a set.
const BYTES_MAX: usize = 256 * 1024;

/// The URL is not one that keys may come from.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// Not a URL, or not HTTPS.
    #[error("TIDEWIRE_JWKS_URL must begin with https:// (http:// on this machine only)")]
    Url,
    /// TLS cannot be set up.
    #[error("TLS cannot be set up to ask TIDEWIRE_JWKS_URL: {0}")]
    Setup(reqwest::Error),
}

/// Why the set could not be read.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Http(reqwest::Error),
    #[error("it is longer than {BYTES_MAX} bytes")]
    TooLong,
    #[error("it is no JSON Web Key Set: {0}")]
    NoSet(#[from] serde_json::Error),
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error.without_url())
    }
}

/// See the module. Cheap to clone; clones share the keys.
#[derive(Debug, Clone)]
pub struct Jwks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: Url,
    client: reqwest::Client,
    keys: RwLock<Arc<Vec<Key>>>,
    /// Somebody wants a key that is not known.
    wanted: Notify,
    /// The last time the provider was asked. The task that asks ([`Jwks::run`]) alone writes it.
    asked: watch::Sender<Asked>,
}

/// The last time the provider was asked.
#[derive(Debug, Default, Clone, Copy)]
struct Asked {
    /// When it answered, or did not.
    at: Option<Instant>,
    is_answered: bool,
    /// How often it was asked by then.
    rounds: u64,
}

impl Jwks {
    /// Keys from `url`, none yet.
    ///
    /// # Errors
    /// If it is not HTTPS, nor HTTP on this machine.
    pub fn new(url: &str) -> Result<Self, JwksError> {
        let url = Url::parse(url).map_err(|_| JwksError::Url)?;
        let is_here = match url.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        };
        if url.scheme() != "https" && !(url.scheme() == "http" && is_here) {
            return Err(JwksError::Url);
        }
        // Err: somebody installed one before, which does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("tidewire/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none());
        if url.scheme() == "http" {
            // A machine without any root certificate can still talk to a provider nearby.
            builder = builder.tls_certs_only(std::iter::empty());
        }
        Ok(Self(Arc::new(Inner {
            url,
            client: builder.build().map_err(JwksError::Setup)?,
            keys: RwLock::default(),
            wanted: Notify::new(),
            asked: watch::Sender::default(),
        })))
    }

    /// The keys last seen.
    #[must_use]
    pub fn keys(&self) -> Arc<Vec<Key>> {
        let keys = self.0.keys.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&keys)
    }

    /// Has a key asked for that is not known, unless that was done a moment ago, and waits for the answer: whoever gives up
    /// ends nobody else's question. Whether there was one the last time.
    pub async fn look_again(&self) -> bool {
        let mut asked = self.0.asked.subscribe();
        let last = *asked.borrow_and_update();
        if last.at.is_some_and(|at| at.elapsed() < PAUSE) {
            return last.is_answered;
        }
        self.0.wanted.notify_one();
        let answer = asked.wait_for(|asked| asked.rounds > last.rounds);
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(asked)) => asked.is_answered,
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Asks from time to time and when a key is wanted, for ever.
    pub async fn run(self) {
        loop {
            let is_answered = self.refresh().await;
            self.0.asked.send_modify(|asked| {
                asked.at = Some(Instant::now());
                asked.is_answered = is_answered;
                asked.rounds = asked.rounds.saturating_add(1);
            });
            crate::tasks::pause(PAUSE).await;
            let next = if is_answered { INTERVAL } else { RETRY };
            // The time is up, or somebody wants a key: either way it is asked.
            let _ = tokio::time::timeout(next, self.0.wanted.notified()).await;
        }
    }

    async fn refresh(&self) -> bool {
        match self.fetch().await {
            Ok(keys) => {
                if keys.is_empty() {
                    tracing::warn!(
                        "the identity provider publishes no key that verifies RS256, ES256 or EdDSA tokens: none of its tokens is let in"
                    );
                }
                tracing::debug!(keys = keys.len(), "the identity provider's keys were read");
                let mut current = self.0.keys.write().unwrap_or_else(PoisonError::into_inner);
                *current = Arc::new(keys);
                true
            }
            Err(error) => {
                // Not the whole: it may hold a name and a password.
                let (host, path) = (self.0.url.host_str(), self.0.url.path());
                tracing::warn!(%error, host, path, "the identity provider's keys cannot be read: those last seen stay in force");
                false
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<Key>, FetchError> {
        let answer = self.0.client.get(self.0.url.clone()).send().await?;
        let mut pieces = answer.error_for_status()?.bytes_stream();
        let mut text = Vec::new();
        while let Some(piece) = pieces.next().await.transpose()? {
            if text.len().saturating_add(piece.len()) > BYTES_MAX {
                return Err(FetchError::TooLong);
            }
            text.extend_from_slice(&piece);
        }
        // A key of a kind that is not known must not make the others unreadable.
        let set: Loose = serde_json::from_slice(&text)?;
        let known = set
            .keys
            .into_iter()
            .filter_map(|key| serde_json::from_value(key).ok());
        let keys = Key::from_jwks(&JwkSet {
            keys: known.collect(),
        });
        Ok(keys)
    }
}

#[derive(serde::Deserialize)]
struct Loose {
    keys: Vec<serde_json::Value>,
}
