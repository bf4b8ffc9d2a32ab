//! What a request must be before anything is done for it: one of HTTP, and not one that a page of
//! somebody else makes its visitor's browser send.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, Method, Version, header};

use crate::api::error::{Error, Kind, Place};

use super::connection::Link;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Ends of names that nobody can register, so that no stranger's page can have one.
const PRIVATE: [&str; 5] = [".localhost", ".local", ".internal", ".svc", ".home.arpa"];

/// Whose requests are taken.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Origins whose pages may call, or `*`.
    pub origins: Vec<String>,
    /// Names of hosts beside addresses and private names; `*` for all.
    pub hosts: Vec<String>,
    /// Whether callers must have a key.
    pub has_key: bool,
    /// Whether only this machine can reach the server.
    pub is_local: bool,
}

/// A host and, where it is given, a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Authority<'a> {
    host: &'a str,
    port: Option<&'a str>,
}

impl<'a> Authority<'a> {
    /// Reads `host[:port]`; `None` for anything else.
    fn parse(text: &'a str) -> Option<Self> {
        let end = if text.starts_with('[') {
            text.find(']')? + 1
        } else {
            text.find(':').unwrap_or(text.len())
        };
        let (host, rest) = text.split_at_checked(end)?;
        let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&b))
            }
        };
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
                Some(port).filter(|p| !p.is_empty())
            }
            _ => return None,
        };
        is_host.then_some(Self { host, port })
    }

    /// Whether both are the same place for that scheme.
    fn is(self, other: Authority<'_>, default_port: &str) -> bool {
        let port = |authority: Authority<'_>| authority.port.unwrap_or(default_port).to_owned();
        self.host.eq_ignore_ascii_case(other.host) && port(self) == port(other)
    }

    /// Whether no stranger can have the host's name lead here: an address, a name without dots, or a private one.
    fn is_safe(self) -> bool {
        let name = self.host.trim_end_matches('.').to_ascii_lowercase();
        let is_address = name.starts_with('[') || name.parse::<IpAddr>().is_ok();
        is_address || !name.contains('.') || PRIVATE.iter().any(|end| name.ends_with(end))
    }
}

fn malformed(header: &'static str, detail: &str) -> Error {
    Error::new(Kind::MalformedRequest, detail).at(Place::Header(header))
}

/// What RFC 9112 asks of a request that came over a socket and hyper does not look at (3.2 and 6.1).
fn is_well_formed(request: &Request) -> Result<(), Error> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() < Version::HTTP_11 => {}
        (Some(host), None) => {
            let host = host.to_str().ok().and_then(Authority::parse);
            host.ok_or_else(|| malformed("host", "not a host with or without a port"))?;
        }
        (None, _) => return Err(malformed("host", "missing").cure("name the host that is asked")),
        (Some(_), Some(_)) => return Err(malformed("host", "given twice").cure("send it once")),
    }
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if codings.next().is_some() {
        return Err(malformed("transfer-encoding", "given twice").cure("send chunked once"));
    }
    if !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
        return Err(Error::new(Kind::NotImplemented, "not a transfer coding that is read")
            .at(Place::Header("transfer-encoding"))
            .cure("send chunked alone; compress the body with Content-Encoding"));
    }
    Ok(())
}

/// Whether a browser may have made the request. Over plain HTTP it says little of itself, but pages
/// cannot keep it from naming a language.
fn is_of_browser(headers: &HeaderMap) -> bool {
    [header::ORIGIN, header::ACCEPT_LANGUAGE, FETCH_SITE]
        .iter()
        .any(|name| headers.contains_key(name))
}

impl Access {
    /// Refuses what is no proper request, and what a page of another origin or host may have caused.
    /// `is_open`: it tells and changes nothing that is worth protecting.
    pub(super) fn check(&self, request: &Request, is_open: bool) -> Result<(), Error> {
        // Calls inside the process have no wire.
        if request.extensions().get::<Arc<Link>>().is_some() {
            is_well_formed(request)?;
        }
        let headers = request.headers();
        let host = match request.uri().authority() {
            Some(authority) => Some(authority.as_str()),
            None => headers.get(header::HOST).and_then(|host| host.to_str().ok()),
        };
        let host = host.and_then(Authority::parse);
        if !is_open && host.is_some_and(|host| !self.answers_for(host, headers)) {
            return Err(Error::new(Kind::Forbidden, "not a host that this server answers for")
                .at(Place::Header("host"))
                .cure("call it by address or as localhost; name the host with --allowed-hosts, or set a key"));
        }
        if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        self.is_of_own_page(headers, host)
    }

    /// Whether a request for that host may be answered. With the name of a host of theirs that leads here,
    /// strangers' pages would pass for pages of this server (DNS rebinding).
    fn answers_for(&self, host: Authority<'_>, headers: &HeaderMap) -> bool {
        let is_checked = if self.hosts.is_empty() {
            // What other machines can reach has names that only its operator knows: of those, browsers' are held
            // to the rule, for it is them that strangers have call.
            !self.has_key && (self.is_local || is_of_browser(headers))
        } else {
            true
        };
        let name = host.host.trim_end_matches('.').to_ascii_lowercase();
        let is_allowed = |allowed: &String| match allowed.strip_prefix("*.") {
            Some(end) => name.strip_suffix(end).is_some_and(|rest| rest.ends_with('.')),
            None => allowed == "*" || *allowed == name,
        };
        !is_checked || host.is_safe() || self.hosts.iter().any(is_allowed)
    }

    /// Refuses a change that a page of another origin asks for. Browsers send forms, text and deletions of
    /// any page without asking first.
    fn is_of_own_page(
        &self,
        headers: &HeaderMap,
        host: Option<Authority<'_>>,
    ) -> Result<(), Error> {
        let text =
            |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let origin = text(header::ORIGIN);
        let is_named = |origin: &str| {
            self.origins.iter().any(|named| named == "*" || named.eq_ignore_ascii_case(origin))
        };
        let is_own = match (text(FETCH_SITE), origin) {
            (_, Some(origin)) if is_named(origin) => true,
            (Some(site), _) => matches!(site, "same-origin" | "none"),
            (None, None) => true,
            (None, Some(origin)) => {
                let of_scheme = [("http://", "80"), ("https://", "443")].into_iter().find_map(
                    |(scheme, port)| Some((Authority::parse(origin.strip_prefix(scheme)?)?, port)),
                );
                of_scheme.zip(host).is_some_and(|((origin, port), host)| origin.is(host, port))
            }
        };
        if is_own {
            return Ok(());
        }
        Err(Error::new(Kind::Forbidden, "pages of other origins may change nothing here")
            .at(Place::Header("origin"))
            .cure("name the page's origin with --cors-origin"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn request(method: Method, headers: &[(&str, &str)]) -> Request {
        let builder = Request::builder().method(method).uri("/v1/layers");
        let builder =
            headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(Body::empty()).unwrap()
    }

    fn access(hosts: &[&str], has_key: bool, is_local: bool) -> Access {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Access { origins: vec!["https://app.example".to_owned()], hosts, has_key, is_local }
    }

    fn is_taken(access: &Access, method: Method, headers: &[(&str, &str)]) -> bool {
        access.check(&request(method, headers), false).is_ok()
    }

    #[test]
    fn authorities() {
        for (text, host, port) in [
            ("a", "a", None),
            ("a.b:80", "a.b", Some("80")),
            ("a:", "a", None),
            ("[::1]:8080", "[::1]", Some("8080")),
            ("[::1]", "[::1]", None),
            ("my_app", "my_app", None),
        ] {
            assert_eq!(Authority::parse(text), Some(Authority { host, port }), "{text}");
        }
        for text in [
            "", ":80", "a b", "a:b", "a:1:2", "a/b", "u@a", "[::1", "[x]", "::1", "a,b@c", "[::1]x",
        ] {
            assert_eq!(Authority::parse(text), None, "{text}");
        }
    }

    #[test]
    fn changes_are_asked_for_by_own_pages_or_none() {
        let access = access(&[], false, true);
        let host = ("host", "localhost:8080");
        for (taken, headers) in [
            (true, &[host][..]),
            (true, &[host, ("origin", "http://localhost:8080")]),
            (true, &[host, ("origin", "https://app.example"), ("sec-fetch-site", "cross-site")]),
            (true, &[host, ("origin", "http://proxy.example"), ("sec-fetch-site", "same-origin")]),
            (true, &[host, ("sec-fetch-site", "none")]),
            (true, &[("host", "localhost"), ("origin", "http://localhost:80")]),
            (true, &[("host", "LOCALHOST"), ("origin", "https://localhost:443")]),
            (false, &[host, ("origin", "http://localhost")]),
            (false, &[host, ("origin", "http://localhost:3000")]),
            (false, &[host, ("origin", "http://evil.example")]),
            (false, &[host, ("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")]),
            (false, &[host, ("sec-fetch-site", "same-site")]),
            (false, &[host, ("sec-fetch-site", "")]),
            (false, &[host, ("origin", "null")]),
            (false, &[host, ("origin", "")]),
            (false, &[host, ("origin", "ftp://localhost:8080")]),
            (false, &[("origin", "http://localhost:8080")]),
        ] {
            for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
                assert_eq!(is_taken(&access, method, headers), taken, "{headers:?}");
            }
            assert!(is_taken(&access, Method::GET, headers), "{headers:?}");
        }
    }

    #[test]
    fn hosts_are_those_that_nobody_can_borrow() {
        let safe = [
            "localhost",
            "LOCALHOST:8080",
            "a.localhost",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:8080",
            "10.0.0.7",
            "quantd",
            "quantd:8080",
            "host.docker.internal",
            "quantd.ml.svc",
            "quantd.ml.svc.cluster.local:80",
            "a.",
        ];
        let strange = [
            "evil.example",
            "EVIL.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example.",
        ];
        let get =
            |access: &Access, headers: &[(&str, &str)]| is_taken(access, Method::GET, headers);
        let local = access(&[], false, true);
        for host in safe {
            assert!(get(&local, &[("host", host)]), "{host}");
        }
        let (open, keyed) = (access(&[], false, false), access(&[], true, true));
        let (named, all) = (access(&["evil.example"], true, false), access(&["*"], false, true));
        let below = access(&["*.example"], false, true);
        for host in strange {
            assert!(!get(&local, &[("host", host)]), "{host}");
            assert!(local.check(&request(Method::GET, &[("host", host)]), true).is_ok(), "{host}");
            // Other machines have names of their own for it; it is browsers that are led here.
            assert!(get(&open, &[("host", host)]), "{host}");
            for sign in ["origin", "accept-language", "sec-fetch-site"] {
                assert!(!get(&open, &[("host", host), (sign, "x")]), "{host}");
            }
            assert!(get(&keyed, &[("host", host)]), "{host}");
            assert!(get(&all, &[("host", host)]), "{host}");
            let is_named = host.trim_end_matches('.').to_ascii_lowercase();
            let is_named = is_named.trim_end_matches(":8080") == "evil.example";
            assert_eq!(get(&named, &[("host", host)]), is_named, "{host}");
            assert!(get(&below, &[("host", host)]), "{host}");
        }
        assert!(!get(&below, &[("host", "notexample.org")]));
        assert!(!get(&below, &[("host", "a.notexample")]));
    }
}
