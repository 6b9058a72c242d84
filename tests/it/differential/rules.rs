//! What may differ between an exchange with upstream and the same one through the proxy: a handful of rules, each with its
//! reason. A rule turns the straight exchange into what the proxy has to make of it, as exactly as can be told.

use super::cases::Way;
use super::{Case, Exchange};
use crate::wire::{Framing, Message};

/// One difference.
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) reason: &'static str,
    pub(super) applies: fn(&Case, &mut Exchange, &mut Exchange),
}

/// The fields that RFC 9110 section 7.6.1 and RFC 9112 make one connection's.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Fields that say where a request comes from.
const FORWARDING: [&str; 5] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];

/// Every one, in the order in which they are applied: what decides whether upstream is asked comes first.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "CONNECT",
        reason: "it is for forward proxies, and would open a tunnel",
        applies: |case, straight, through| {
            if case.method == "CONNECT" {
                refused(straight, through, "405", "avatar_proxy.method.connect");
            }
        },
    },
    Rule {
        name: "characters",
        reason: "RFC 3986 has none of these where they stand, and some methods are none to the crate that reads them",
        applies: |case, straight, through| {
            let (path, query) = straight.target().split_once('?').unwrap_or((straight.target(), ""));
            let foreign = |text: &str, also: char| {
                text.contains(|each: char| !each.is_ascii_graphic() || "<>".contains(each) || each == also)
            };
            if foreign(path, '`') || foreign(query, '"') || case.method.contains(['#', '$', '%', '&', '\'']) {
                straight.seen.clear();
                straight.answer = Message { start: "HTTP/1.1 400".to_owned(), ..Message::default() };
                if through.answer.second() == "400" {
                    through.answer = straight.answer.clone();
                }
            }
        },
    },
    Rule {
        name: "fragment",
        reason: "it is never sent (RFC 9110 section 4.1), and what is sent all the same is dropped",
        applies: |_, straight, _| {
            for request in &mut straight.seen {
                let Some((target, _)) = request.second().split_once('#') else { continue };
                request.start = format!("{} {target} HTTP/1.1", request.start.split(' ').next().unwrap_or_default());
            }
        },
    },
    Rule {
        name: "dot segments, backslashes",
        reason: "M1: one parser folds them, another routes them as they stand",
        applies: |_, straight, through| {
            let path = straight.target().split('?').next().unwrap_or_default().to_ascii_lowercase();
            let dots = |segment: &str| [".", ".."].contains(&&*segment.replace("%2e", "."));
            if path.contains('\\') || path.split('/').any(dots) {
                refused(straight, through, "400", "avatar_proxy.path.ambiguous");
            }
        },
    },
    Rule {
        name: "Connection names a credential",
        reason: "F36: dropping the field would change who asks",
        applies: |_, straight, through| {
            let named = straight.seen.iter().flat_map(nominated).collect::<Vec<_>>();
            let kept =
                |name: &String| FORWARDING.contains(&&**name) || ["cookie", "authorization", "host"].contains(&&**name);
            if named.iter().any(kept) {
                refused(straight, through, "400", "avatar_proxy.header.connection");
            }
        },
    },
    Rule {
        name: "absolute form",
        reason: "M3: only the configured upstream is ever dialled, and its authority has to be that of Host",
        applies: |_, straight, through| {
            let target = straight.target();
            let host =
                straight.seen.first().and_then(|request| request.all("host").first().map(|host| (*host).to_owned()));
            if let (false, Some((_, rest)), Some(host)) = (target.starts_with('/'), target.split_once("://"), host)
                && !rest.split(['/', '?']).next().is_some_and(|authority| authority.eq_ignore_ascii_case(&host))
            {
                return refused(straight, through, "400", "avatar_proxy.path.authority");
            }
            for request in &mut straight.seen {
                let target = request.second().to_owned();
                let Some((_, rest)) = target.split_once("://") else { continue };
                let path = rest.find('/').map_or("/", |at| &rest[at..]);
                request.start = request.start.replace(&target, path);
            }
        },
    },
    Rule {
        name: "Host",
        reason: "HTTP/1.0 need not name one, HTTP/1.1 must (RFC 9112 section 3.2)",
        applies: |case, straight, _| {
            let upstream = case.upstream();
            for request in straight.seen.iter_mut().filter(|request| request.all("host").is_empty()) {
                add(request, "host", &upstream);
            }
        },
    },
    Rule {
        name: "forwarding fields",
        reason: "upstream is told of the client; a stranger's word is not believed",
        applies: |case, straight, _| {
            for request in &mut straight.seen {
                let host = request.all("host").first().map(|host| (*host).to_owned());
                if case.way != Way::Behind {
                    request.fields.retain(|(name, _)| !FORWARDING.contains(&&*name.to_ascii_lowercase()));
                }
                let client = request.all("x-forwarded-for").last().and_then(|line| line.rsplit(',').next());
                let client = client.map_or("127.0.0.1", str::trim).to_owned();
                append(request, "x-forwarded-for", "127.0.0.1");
                add_where_absent(request, "x-real-ip", &client);
                let scheme = if case.way == Way::Encrypted { "https" } else { "http" };
                add_where_absent(request, "x-forwarded-proto", scheme);
                if let Some(host) = host.filter(|host| *host != case.upstream()) {
                    add_where_absent(request, "x-forwarded-host", &host);
                }
                if !request.all("forwarded").is_empty() {
                    append(request, "forwarded", "for=127.0.0.1");
                }
            }
        },
    },
    Rule {
        name: "CDN-Loop",
        reason: "RFC 8586: how a request that comes back is recognised",
        applies: |_, _, through| {
            let is_ours = |(name, value): &(String, String)| {
                let id = value.strip_prefix("avatar-proxy;id=");
                name.eq_ignore_ascii_case("cdn-loop")
                    && id.is_some_and(|id| id.len() == 16 && id.bytes().all(|digit| digit.is_ascii_hexdigit()))
            };
            for request in &mut through.seen {
                // After those that it came with.
                let at = request.fields.iter().rposition(|(name, _)| name.eq_ignore_ascii_case("cdn-loop"));
                if let Some(at) = at.filter(|at| is_ours(&request.fields[*at])) {
                    request.fields.remove(at);
                }
            }
        },
    },
    Rule {
        name: "hop-by-hop fields",
        reason: "RFC 9110 section 7.6.1: they belong to one connection; of upgrades only a WebSocket's crosses (section 7.8)",
        applies: |_, straight, through| {
            straight.seen.iter_mut().for_each(end_the_hop);
            end_the_hop(&mut straight.answer);
            // Ours with the client.
            through.answer.fields.retain(|(name, value)| {
                !(name.eq_ignore_ascii_case("connection") && ["close", "keep-alive"].contains(&&**value))
            });
            for message in through.seen.iter_mut().chain([&mut through.answer]) {
                // Its case means nothing.
                for (_, value) in message.fields.iter_mut().filter(|(name, value)| {
                    name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("upgrade")
                }) {
                    value.replace_range(.., "Upgrade");
                }
                message.fields.retain(|(name, _)| !name.eq_ignore_ascii_case("transfer-encoding"));
            }
        },
    },
    Rule {
        name: "chunks",
        reason: "their sizes and extensions belong to the hop (RFC 9112 section 7.1.1), and trailers may be dropped (RFC 9110 section 6.5.1)",
        applies: |_, straight, through| {
            for exchange in [straight, through] {
                exchange.seen.iter_mut().chain([&mut exchange.answer]).for_each(|message| message.chunks.clear());
            }
        },
    },
    Rule {
        name: "the end of an answer",
        reason: "a body that ends with upstream's connection is chunked, so that the client's can be kept",
        applies: |_, straight, through| {
            if (straight.answer.framing, through.answer.framing) == (Framing::UntilClose, Framing::Chunked) {
                straight.answer.framing = Framing::Chunked;
            }
        },
    },
    Rule {
        name: "Content-Length of a request",
        reason: "it is counted anew; of nothing it is said where the method expects something (RFC 9110 section 8.6)",
        applies: |case, straight, _| {
            let expects = ["POST", "PUT", "PATCH"].contains(&&*case.method);
            for request in straight.seen.iter_mut().filter(|request| request.framing != Framing::Chunked) {
                request.fields.retain(|(name, _)| !name.eq_ignore_ascii_case("content-length"));
                let says = expects || !request.body.is_empty();
                request.framing = if says { Framing::Counted } else { Framing::None };
                if says {
                    add(request, "content-length", &request.body.len().to_string());
                }
            }
        },
    },
    Rule {
        name: "Content-Length of a 304",
        reason: "nothing follows it; it may be left out (RFC 9110 section 8.6)",
        applies: |_, straight, _| {
            if straight.answer.second() == "304" {
                straight.answer.fields.retain(|(name, _)| !name.eq_ignore_ascii_case("content-length"));
            }
        },
    },
    Rule {
        name: "Expect",
        reason: "the 100 is ours (RFC 9110 section 10.1.1)",
        applies: |_, straight, _| {
            for request in &mut straight.seen {
                request.fields.retain(|(name, _)| !name.eq_ignore_ascii_case("expect"));
            }
        },
    },
    Rule {
        name: "interim answers",
        reason: "a proxy may keep those that nobody asked for (RFC 9110 section 15.2), and so do we",
        applies: |case, straight, _| {
            if case.later.is_empty() {
                straight.interim.clear();
            }
        },
    },
    Rule {
        name: "Date",
        reason: "whoever forwards an answer without one adds it (RFC 9110 section 6.6.1)",
        applies: |_, straight, through| {
            if straight.answer.all("date").is_empty() {
                let is_date = |value: &str| value.len() == 29 && value.ends_with(" GMT");
                through.answer.fields.retain(|(name, value)| !(name.eq_ignore_ascii_case("date") && is_date(value)));
            }
        },
    },
    Rule {
        name: "the first lines",
        reason: "the version is each hop's own, and reasons mean nothing (RFC 9112 sections 2.3 and 4)",
        applies: |_, straight, through| {
            for request in &mut straight.seen {
                request.start = request.start.replace(" HTTP/1.0", " HTTP/1.1");
            }
            for answer in [&mut straight.answer, &mut through.answer]
                .into_iter()
                .chain(&mut through.interim)
                .chain(&mut straight.interim)
            {
                answer.start = answer.second().to_owned();
            }
        },
    },
    Rule {
        name: "names",
        reason: "their case and their order mean nothing, the order of one name's values does (RFC 9110 sections 5.1 and 5.3)",
        applies: |_, straight, through| {
            for exchange in [straight, through] {
                for message in exchange.seen.iter_mut().chain([&mut exchange.answer]) {
                    message.fields.iter_mut().for_each(|(name, _)| name.make_ascii_lowercase());
                    message.fields.sort_by(|one, other| one.0.cmp(&other.0));
                }
            }
        },
    },
];

/// The proxy answers by itself, and upstream hears nothing.
fn refused(straight: &mut Exchange, through: &mut Exchange, status: &str, id: &str) {
    straight.seen.clear();
    straight.answer = Message { start: format!("HTTP/1.1 {status} {id}"), ..Message::default() };
    let body = serde_json::from_slice::<serde_json::Value>(&through.answer.body).unwrap_or_default();
    let is_so = body["id"] == id && through.answer.second() == status;
    if is_so && through.answer.all("cache-control") == ["no-store"] {
        through.answer = straight.answer.clone();
    }
}

/// The names that `Connection` makes fields of this connection.
fn nominated(message: &Message) -> Vec<String> {
    let lines = message.all("connection").into_iter();
    lines.flat_map(|line| line.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}

/// Takes away what belongs to the connection, but for a WebSocket's upgrade.
fn end_the_hop(message: &mut Message) {
    let named = nominated(message);
    let upgraded = message.all("upgrade") == ["websocket"];
    message.fields.retain(|(name, _)| {
        let name = name.to_ascii_lowercase();
        !HOP_BY_HOP.contains(&&*name) && !named.contains(&name)
    });
    if upgraded {
        add(message, "connection", "Upgrade");
        add(message, "upgrade", "websocket");
    }
}

fn add_where_absent(message: &mut Message, name: &str, value: &str) {
    if message.all(name).is_empty() {
        add(message, name, value);
    }
}

/// Puts a value behind those that are there, all on one line.
fn append(message: &mut Message, name: &str, value: &str) {
    let line = [&message.all(name)[..], &[value]].concat().join(", ");
    message.fields.retain(|(each, _)| !each.eq_ignore_ascii_case(name));
    add(message, name, &line);
}

fn add(message: &mut Message, name: &str, value: &str) {
    message.fields.push((name.to_owned(), value.to_owned()));
}
