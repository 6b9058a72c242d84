//! Where a token may travel, first hit wins (`ParseAuthTokenFromRequest` in `server/channels/app/authentication.go`),
//! and the proof against cross-site requests (`checkCSRFToken` in `server/channels/web/handlers.go`).

use actix_web::http::header::HeaderMap;

use super::query::Query;

/// Where a token was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Cookie,
    Header,
    Query,
}

/// What a request presents as its credential.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Presented {
    /// May be empty: a cookie without a value wins over every other place and means "not signed in".
    pub(super) token: String,
    pub(super) place: Place,
}

/// The credential of a request, if it has any.
pub(super) fn presented(headers: &HeaderMap, query: &Query) -> Option<Presented> {
    let from = |place: Place| move |token: String| Presented { token, place };
    cookie(headers, "MMAUTHTOKEN")
        .map(from(Place::Cookie))
        .or_else(|| authorization(headers).map(from(Place::Header)))
        .or_else(|| query.get("access_token").map(str::to_owned).map(from(Place::Query)))
}

/// Whether a changing request by cookie proves that it comes from the site itself.
pub(super) fn proves_origin(headers: &HeaderMap, csrf: &str) -> bool {
    text(headers, "x-csrf-token") == csrf || text(headers, "x-requested-with") == "XMLHttpRequest"
}

/// The first line of a header as text, empty when absent or not text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The first cookie of this very name, over all lines, without the quotes around its value (Go's `readCookies`).
pub(super) fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get_all("cookie")
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(found, _)| *found == name)
        .map(|(_, value)| {
            let unquoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            unquoted.unwrap_or(value).to_owned()
        })
}

/// The first `Authorization` line. Only the word is looked at, not what follows it: `Bearer:x` works, two blanks do
/// not.
fn authorization(headers: &HeaderMap) -> Option<String> {
    let value = text(headers, "authorization");
    ["bearer", "token"].into_iter().find_map(|word| {
        let named = value.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        if named && value.len() > word.len() {
            Some(value.get(word.len() + 1..).unwrap_or_default().to_owned())
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn check(lines: &[(&str, &str)], query: &str, expected: Option<(&str, Place)>) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            headers.append(name, HeaderValue::from_str(value).expect("a header value"));
        }
        let expected = expected.map(|(token, place)| Presented { token: token.to_owned(), place });
        assert_eq!(presented(&headers, &Query::parse(query)), expected, "{lines:?} {query}");
    }

    #[test]
    fn the_first_place_wins() {
        let cookie = |token| Some((token, Place::Cookie));
        let header = |token| Some((token, Place::Header));
        check(&[], "", None);
        check(&[("cookie", "MMAUTHTOKEN=a; MMUSERID=b")], "", cookie("a"));
        check(&[("cookie", "MMAUTHTOKEN=a"), ("authorization", "Bearer b")], "access_token=c", cookie("a"));
        check(&[("cookie", "MMAUTHTOKEN="), ("authorization", "Bearer b")], "", cookie(""));
        check(&[("cookie", "MMAUTHTOKEN=a; MMAUTHTOKEN=b")], "", cookie("a"));
        check(&[("cookie", "MMAUTHTOKEN=a"), ("cookie", "MMAUTHTOKEN=b")], "", cookie("a"));
        check(&[("cookie", "MMAUTHTOKEN=\"a\"")], "", cookie("a"));
        check(&[("cookie", "mmauthtoken=a")], "", None);
        check(&[("authorization", "BEARER a")], "access_token=c", header("a"));
        check(&[("authorization", "Bearer:a")], "", header("a"));
        check(&[("authorization", "Bearer  a")], "", header(" a"));
        check(&[("authorization", "token a")], "", header("a"));
        check(&[("authorization", "Bearer a"), ("authorization", "Bearer b")], "", header("a"));
        check(&[("authorization", "Bearer")], "", None);
        check(&[("authorization", "Basic a")], "", None);
        check(&[("authorization", "a")], "", None);
        check(&[], "_=1&access_token=c", Some(("c", Place::Query)));
    }
}
