//! Requests and what their answers mean: go on, try again later, or give up.
//!
//! # Invariants
//! - Redirects are not followed, so that the token goes nowhere but where the user said.
//! - No error text holds more of a URL than scheme, host, port and path.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};

use super::backoff;
use super::error::Failure;
use super::problem::is_passing;
use super::{Error, Problem, Secret, trusting};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Bytes of a refusal that are read.
const PROBLEM_BYTES_MAX: usize = 64 * 1024;
/// A server that takes longer to begin its answer, or to go on with it, is asked again.
pub(super) const SILENCE_MAX: Duration = Duration::from_mins(1);
/// An append or a page that nothing has come of for this long is given up.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_mins(5);

/// A server and the credential for it. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// A client of the server at `base_url`. Nothing is sent yet.
    ///
    /// # Errors
    /// If the address is none of HTTP, the token cannot stand in a header, or TLS cannot be set up.
    pub fn new(base_url: &str, token: Option<&Secret>) -> Result<Self, Error> {
        Self::trusting(base_url, token, None)
    }

    /// The same, which trusts no authorities but those in a PEM file.
    ///
    /// # Errors
    /// As [`Client::new`], and if the file cannot be used.
    pub fn trusting(
        base_url: &str,
        token: Option<&Secret>,
        authorities: Option<&Path>,
    ) -> Result<Self, Error> {
        let base = Url::parse(base_url)
            .map_err(|_| Error::Address("must be a URL such as http://127.0.0.1:8080"))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(Error::Address("must begin with http:// or https://"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(Error::Address(
                "must not hold a user or a password: give the token apart from it",
            ));
        }
        let authorization = token
            .filter(|token| !token.is_empty())
            .map(bearer)
            .transpose()?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("tidewire/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(KEEPALIVE)
            .redirect(reqwest::redirect::Policy::none());
        builder = trusting(builder, authorities)?;
        if base.scheme() == "http" {
            // A machine without any root certificate can still talk to a server nearby.
            builder = builder.tls_certs_only(std::iter::empty());
        }
        let http = builder.build().map_err(Error::Setup)?;
        Ok(Self {
            http,
            base,
            authorization,
        })
    }

    /// The same server with another credential, over the same connections.
    ///
    /// # Errors
    /// If the token cannot stand in a header.
    pub fn with_token(&self, token: &Secret) -> Result<Self, Error> {
        Ok(Self {
            authorization: Some(bearer(token)?),
            ..self.clone()
        })
    }

    /// The server's address, fit to be shown.
    #[must_use]
    pub fn address(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }

    /// A request to `path`, below whatever path the base URL has.
    pub(super) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_query(None);
        url.set_fragment(None);
        // Never refused: http and https URLs have path segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let request = self.http.request(method, url);
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value.clone()),
            None => request,
        }
    }

    /// Sends a request and sorts the answer: 2xx passes, the rest is a failure.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = tokio::time::timeout(SILENCE_MAX, request.send())
            .await
            .map_err(|_| Failure::passing(self.silent(SILENCE_MAX)))?
            .map_err(|err| Failure::passing(self.broken(err)))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.refusal(response).await)
        }
    }

    /// The next piece of an answer; `None` at its end.
    pub(super) async fn chunk(
        &self,
        response: &mut Response,
        silence_max: Duration,
    ) -> Result<Option<bytes::Bytes>, Failure> {
        tokio::time::timeout(silence_max, response.chunk())
            .await
            .map_err(|_| Failure::passing(self.silent(silence_max)))?
            .map_err(|err| Failure::passing(self.broken(err)))
    }

    async fn refusal(&self, mut response: Response) -> Failure {
        let status = response.status();
        let retry_after = backoff::retry_after(response.headers());
        let is_problem = is_problem(&response);
        let mut body = Vec::new();
        // What is cut short does not parse, which is seen below.
        while let Ok(Some(chunk)) = self.chunk(&mut response, SILENCE_MAX).await {
            body.extend_from_slice(&chunk);
            if body.len() > PROBLEM_BYTES_MAX {
                break;
            }
        }
        let error = match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if is_problem => Error::Refused(Box::new(Problem {
                status: status.as_u16(),
                ..problem
            })),
            _ => self.foreign(status),
        };
        Failure {
            error,
            passes: is_passing(status.as_u16()),
            retry_after,
        }
    }

    fn foreign(&self, status: StatusCode) -> Error {
        // 401 and 403 also come from a gateway in front; what to do is the same.
        if matches!(status.as_u16(), 401 | 403) {
            return Error::Refused(Box::new(Problem {
                title: status.to_string(),
                status: status.as_u16(),
                ..Problem::default()
            }));
        }
        Error::Foreign {
            url: self.address(),
            status: status.as_u16(),
        }
    }

    pub(super) fn broken(&self, err: reqwest::Error) -> Error {
        let url = self.address();
        let source = err.without_url();
        if source.is_connect() {
            Error::Unreachable { url, source }
        } else {
            Error::Broken { url, source }
        }
    }

    pub(super) fn ended(&self) -> Error {
        Error::Ended {
            url: self.address(),
        }
    }

    fn silent(&self, silence: Duration) -> Error {
        Error::Silent {
            url: self.address(),
            silence,
        }
    }
}

fn bearer(token: &Secret) -> Result<HeaderValue, Error> {
    let value = HeaderValue::try_from(format!("Bearer {}", token.expose()));
    let mut value = value.map_err(|_| Error::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_problem(response: &Response) -> bool {
    response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/problem+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_shows_nowhere() {
        let token = Secret::new("  hush-hush\n");
        let client = Client::new("http://127.0.0.1:1/base/", Some(&token)).unwrap();
        let request = client.request(Method::GET, &["v1", "events"]);
        let shown = format!("{client:?} {request:?} {token:?}");
        assert!(!shown.contains("hush"), "{shown}");
        let request = request.build().unwrap();
        assert_eq!(request.url().path(), "/base/v1/events");
        assert_eq!(request.headers()[AUTHORIZATION], "Bearer hush-hush");
    }

    #[test]
    fn addresses_have_rules() {
        for bad in [
            "",
            "localhost:8080",
            "ftp://x",
            "http://",
            "http://me:secret@x",
        ] {
            let err = Client::new(bad, None).unwrap_err();
            assert!(!err.to_string().contains("secret"));
            assert!(matches!(err, Error::Address(_)), "{bad}");
        }
        let bad = Client::new("http://x", Some(&Secret::new("a\nb")));
        assert!(matches!(bad, Err(Error::Token)));
    }
}
