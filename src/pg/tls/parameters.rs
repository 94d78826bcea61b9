//! The URL's parameters of TLS, which the driver does not know, apart from the rest, which it does.

use std::path::PathBuf;

use super::{Demand, Mode, Root, TlsError};

/// Takes the parameters of TLS out of a `postgres://` URL: the URL without them, and what they ask for. Any other text
/// stays as it is, for the driver to judge.
///
/// # Errors
/// If they make no sense.
pub(in crate::pg) fn split(url: &str) -> Result<(String, Demand), TlsError> {
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    // As the driver reads it, a password may hold a question mark.
    let host = url.find('@').unwrap_or(0);
    let question = url.get(host..).and_then(|rest| rest.find('?'));
    let Some((rest, query)) = question
        .filter(|_| is_url)
        .and_then(|at| url.split_at_checked(host.saturating_add(at)))
    else {
        return Ok((url.to_owned(), Demand::default()));
    };
    let mut found = Found::default();
    let others: Vec<&str> = query
        .trim_start_matches('?')
        .split('&')
        .filter(|parameter| !found.take(parameter))
        .collect();
    let rest = if others.iter().all(|other| other.is_empty()) {
        rest.to_owned()
    } else {
        format!("{rest}?{}", others.join("&"))
    };
    Ok((rest, found.demand()?))
}

/// The parameters' values; of several the last holds.
#[derive(Default)]
struct Found {
    mode: Option<String>,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl Found {
    /// Whether it is one of ours.
    fn take(&mut self, parameter: &str) -> bool {
        // A URL's + is no space, other than in a form.
        let parameter = parameter.replace('+', "%2B");
        let Some((name, value)) = form_urlencoded::parse(parameter.as_bytes()).next() else {
            return false;
        };
        let place = match &*name {
            "sslmode" => &mut self.mode,
            "sslrootcert" => &mut self.root,
            "sslcert" => &mut self.certificate,
            "sslkey" => &mut self.key,
            _ => return false,
        };
        *place = (!value.is_empty()).then(|| value.into_owned());
        true
    }

    fn demand(self) -> Result<Demand, TlsError> {
        let root = self.root.map(|text| match text.as_str() {
            "system" => Root::System,
            _ => Root::File(PathBuf::from(text)),
        });
        let mode = match self.mode.as_deref() {
            Some("disable") => Mode::Disable,
            Some("prefer") => Mode::Prefer,
            Some("require") => Mode::Require,
            Some("verify-ca") => Mode::VerifyCa,
            Some("verify-full") => Mode::VerifyFull,
            Some(_) => return Err(TlsError::Mode),
            None if root == Some(Root::System) => Mode::VerifyFull,
            None => Mode::default(),
        };
        match (mode, &root) {
            (Mode::VerifyFull, Some(_)) | (Mode::Disable, _) => {}
            (_, Some(Root::System)) => return Err(TlsError::WeakRoot),
            (Mode::VerifyCa, None) => return Err(TlsError::NoRoot("verify-ca")),
            (Mode::VerifyFull, None) => return Err(TlsError::NoRoot("verify-full")),
            _ => {}
        }
        let pair = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (None, None) => None,
            _ => return Err(TlsError::Alone),
        };
        Ok(Demand { mode, root, pair })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(query: &str) -> Result<Demand, TlsError> {
        split(&format!("postgres://u:p@h/d?{query}")).map(|(_, demand)| demand)
    }

    #[test]
    fn what_is_not_ours_stays_as_it_is() {
        for (url, rest) in [
            ("postgres://u:p@h/d", "postgres://u:p@h/d"),
            ("postgres://u:p@h/d?sslmode=disable", "postgres://u:p@h/d"),
            (
                "postgresql://u:p@h?options=-cx%3D1&sslrootcert=%2Fa%20b.pem&sslmode=require&connect_timeout=3",
                "postgresql://u:p@h?options=-cx%3D1&connect_timeout=3",
            ),
            (
                "postgres://u:a?sslmode=verify-full@h/d?application_name=x",
                "postgres://u:a?sslmode=verify-full@h/d?application_name=x",
            ),
            ("host=h sslmode=require", "host=h sslmode=require"),
            ("hush?sslmode=none", "hush?sslmode=none"),
        ] {
            assert_eq!(split(url).unwrap().0, rest);
        }
    }

    #[test]
    fn modes_and_roots_are_libpqs() {
        let root = |path: &str| Some(Root::File(path.into()));
        let asked = demand("sslmode=verify-ca&sslrootcert=%2Fa+b.pem&sslcert=c&sslkey=k").unwrap();
        assert_eq!((asked.mode, asked.root), (Mode::VerifyCa, root("/a+b.pem")));
        assert_eq!(asked.pair, Some(("c".into(), "k".into())));
        assert_eq!(demand("").unwrap(), Demand::default());
        let system = demand("sslrootcert=system").unwrap();
        assert_eq!(
            (system.mode, system.root),
            (Mode::VerifyFull, Some(Root::System))
        );
        let last = demand("sslmode=disable&sslmode=require").unwrap();
        assert_eq!(last.mode, Mode::Require);
        for (query, said) in [
            ("sslmode=allow", "must be disable, prefer"),
            ("sslmode=Require", "must be disable, prefer"),
            ("sslmode=verify-full", "sslrootcert=system"),
            ("sslmode=verify-ca", "sslrootcert=/path/to/ca.pem"),
            (
                "sslmode=require&sslrootcert=system",
                "needs sslmode=verify-full",
            ),
            ("sslcert=a", "belong together"),
        ] {
            let error = demand(query).unwrap_err().to_string();
            assert!(error.contains(said), "{query}: {error}");
        }
    }
}
