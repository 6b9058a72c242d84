//! What may be learned from: the one table of answers that prove a permission.

use super::records;
use super::{Unreadable, UserSeen};
use crate::identity::ObjectId;
use http::Method;

/// An answer that proves, for every user with a full record directly in it, that the caller may see that user.
///
/// Everything else the caller has to see to: status 200, `application/json`, one complete body of bounded length, a
/// caller whose credentials may hold grants at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lesson {
    shape: Shape,
    /// The user whose record was asked for, where the path names one.
    asked: Option<ObjectId>,
}

/// What a learned answer looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    /// One full record.
    Record,
    /// An array of full records.
    List,
    /// An object with arrays of full records: `users` and `out_of_channel`.
    Autocomplete,
}

struct Row {
    method: Method,
    /// Below `BASE/api/v4/users`. `{id}` stands for 26 characters `[a-z0-9]`.
    path: &'static str,
    /// The names a query may hold, each once. Whatever else it holds could make upstream ask for another permission.
    query: &'static [&'static str],
    shape: Shape,
}

/// The table. A picture is given to whom upstream lets see the user (`UserCanSeeOtherUser`), and so are these records
/// (`recordings`: `visibility`, `see-*`: a guest, a member of no team and roles without `view_members` were told of no
/// user whose picture they were refused).
///
/// Absent for a reason: `GET /users` with `in_channel` (upstream asks for `read_channel` only) or any other filter;
/// `/users/username/…` and `/users/email/…` (one user at a time and rare); `/users/known`, `/users/status/…`, members
/// of channels and teams, posts, threads, groups (no full records, or of users that the caller may not see:
/// `status/ids` told of everybody); answers to writes (`PUT`, login), which are about what was changed and not about
/// who sees it.
static LESSONS: [Row; 7] = [
    // The check is the picture's own: `UserCanSeeOtherUser` for this very user.
    Row { method: Method::GET, path: "/{id}", query: &[], shape: Shape::Record },
    // Oneself one may always see.
    Row { method: Method::GET, path: "/me", query: &[], shape: Shape::Record },
    // Restricted to whom the caller may see; another's team is refused (`see-no-team-users-in-team`).
    Row { method: Method::GET, path: "", query: &["page", "per_page", "in_team", "sort"], shape: Shape::List },
    // The ids asked for, less those that the caller may not see (`see-guest-users-ids`: 2 of 17).
    Row { method: Method::POST, path: "/ids", query: &["since"], shape: Shape::List },
    // The same by name.
    Row { method: Method::POST, path: "/usernames", query: &[], shape: Shape::List },
    // Restricted like the list (`see-*-users-search`, by term).
    Row { method: Method::POST, path: "/search", query: &[], shape: Shape::List },
    // Restricted like the list, in a channel too (`see-guest-users-autocomplete-channel`).
    Row {
        method: Method::GET,
        path: "/autocomplete",
        query: &["name", "in_team", "in_channel", "limit"],
        shape: Shape::Autocomplete,
    },
];

impl Lesson {
    /// Reads a request's method, raw path and raw query; `base` is the path of Mattermost's `SiteURL` without its
    /// closing slash, so empty for a site at the root. `None`: nothing may be learned from its answer.
    ///
    /// Only the canonical spelling of a path counts, byte for byte, because upstream may read any other differently. A
    /// query name that is repeated, escaped, empty or unlisted voids the lesson for the same reason; and so does a `;`,
    /// which some parsers take for a `&`.
    #[must_use]
    pub fn of(method: &Method, path: &str, query: &str, base: &str) -> Option<Self> {
        let tail = path.strip_prefix(base)?.strip_prefix("/api/v4/users")?;
        let asked = tail.strip_prefix('/').and_then(|id| ObjectId::parse(id.as_bytes()));
        let tail = if asked.is_some() { "/{id}" } else { tail };
        let row = LESSONS.iter().find(|row| row.path == tail && row.method == *method)?;
        // A client may write the table's own placeholder.
        let is_placeholder = asked.is_none() && row.path == "/{id}";
        (!is_placeholder && is_allowed(query, row.query)).then_some(Self { shape: row.shape, asked })
    }

    /// Every full user record of the answer. All or nothing: one record that cannot be read voids the whole answer.
    ///
    /// Only `id` and `last_picture_update` directly in the root object, or directly in the elements of the array that
    /// the lesson names, count; users fill names and properties with what they like. A *full* record also has
    /// `username` and `roles` as strings, `update_at` and `delete_at` as whole numbers.
    ///
    /// # Errors
    ///
    /// [`Unreadable`] says why nothing may be learned.
    pub fn read(self, body: &[u8]) -> Result<Vec<UserSeen>, Unreadable> {
        match self.shape {
            Shape::Record => {
                let seen = records::one_record(body)?;
                // An answer about somebody else than was asked for is no answer to this question.
                let is_asked = self.asked.is_none_or(|asked| asked == seen.user);
                if is_asked { Ok(vec![seen]) } else { Err(Unreadable::NotARecord) }
            }
            Shape::List => records::list(body),
            Shape::Autocomplete => records::autocomplete(body),
        }
    }
}

/// Whether every name of the raw query is one of `listed`, as it stands and only once.
fn is_allowed(query: &str, listed: &[&str]) -> bool {
    let names = || query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    // A name too many ends it, so it is short however long the query is.
    let is_first = |at: usize, name| listed.contains(&name) && !names().take(at).any(|earlier| earlier == name);
    query.is_empty() || !query.contains(';') && names().enumerate().all(|(at, name)| is_first(at, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "ge45wmpse3g8umtziei4q749th";

    fn lesson(method: &str, target: &str, base: &str) -> Option<Shape> {
        let target = target.replace("{alice}", ID);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        Lesson::of(&method, path, query, base).map(|lesson| lesson.shape)
    }

    fn check(method: &str, target: &str, expected: Option<Shape>) {
        assert_eq!(lesson(method, &format!("/api/v4{target}"), ""), expected, "{method} {target}");
        assert_eq!(lesson(method, &format!("/chat/mm/api/v4{target}"), "/chat/mm"), expected, "{method} {target}");
        assert_eq!(lesson(method, &format!("/api/v4{target}"), "/chat/mm"), None, "{method} {target} outside the base");
        assert_eq!(lesson(method, &format!("/chat/mm/api/v4{target}"), ""), None, "{method} {target} below the base");
    }

    #[test]
    fn the_table_and_nothing_else() {
        check("GET", "/users/{alice}", Some(Shape::Record));
        check("GET", "/users/me", Some(Shape::Record));
        check("GET", "/users", Some(Shape::List));
        check("GET", "/users?page=0&per_page=200&in_team=q8&sort=last%5Factivity", Some(Shape::List));
        check("POST", "/users/ids", Some(Shape::List));
        check("POST", "/users/ids?since=17", Some(Shape::List));
        check("POST", "/users/usernames", Some(Shape::List));
        check("POST", "/users/search", Some(Shape::List));
        check("GET", "/users/autocomplete?name=a", Some(Shape::Autocomplete));
        check("GET", "/users/autocomplete?in_team=t&in_channel=c&name=%40a&limit=5", Some(Shape::Autocomplete));
        for (method, target) in [
            ("HEAD", "/users/me"),
            ("POST", "/users/me"),
            ("PUT", "/users/{alice}"),
            ("PUT", "/users/{alice}/patch"),
            ("POST", "/users"),
            ("GET", "/users/ids"),
            ("GET", "/users/{id}"),
            ("POST", "/users/login"),
            ("GET", "/users/known"),
            ("POST", "/users/status/ids"),
            ("GET", "/users/username/alice"),
            ("GET", "/users/email/alice@example.test"),
            ("GET", "/users/{alice}/image"),
            ("GET", "/users/"),
            ("GET", "/users/me/"),
            ("GET", "//users/me"),
            ("GET", "/users//me"),
            ("GET", "/users/%6de"),
            ("GET", "/users/ME"),
            ("GET", "/users/GE45WMPSE3G8UMTZIEI4Q749TH"),
            ("GET", "/users/{alice}x"),
            ("GET", "/usersx"),
            ("GET", "/teams/{alice}"),
            ("GET", "/channels/{alice}/members"),
        ] {
            check(method, target, None);
        }
    }

    #[test]
    fn a_query_name_that_is_repeated_escaped_empty_or_unlisted_teaches_nothing() {
        for query in [
            "in_channel=c",
            "page=0&in_channel=c",
            "in_team=t&not_in_channel=c",
            "without_team=true",
            "page=0&page=0",
            "page=0&page=1",
            "p%61ge=0",
            "in%5Fteam=t",
            "in+team=t",
            "+page=0",
            "page=0&",
            "&page=0",
            "page=0&&sort=",
            "=0",
            "&",
            "PAGE=0",
            "page[]=0",
            "page=0;in_channel=c",
            "access_token=t",
            "in_team=t&role=system_admin",
        ] {
            check("GET", &format!("/users?{query}"), None);
        }
        check("GET", "/users/me?x=1", None);
        check("GET", "/users/{alice}?_=1", None);
        check("POST", "/users/usernames?since=1", None);
        check("POST", "/users/search?in_channel=c", None);
        check("GET", "/users/autocomplete?name=a&in_group=g", None);
        check("GET", "/users?page&sort", Some(Shape::List));
    }

    #[test]
    fn an_answer_about_somebody_else_teaches_nothing() {
        let of = |id: &str| format!(r#"{{"id":"{id}","username":"a","roles":"","update_at":1,"delete_at":0}}"#);
        let lesson = Lesson::of(&Method::GET, &format!("/api/v4/users/{ID}"), "", "").expect("a lesson");
        assert_eq!(lesson.read(of(ID).as_bytes()).map(|seen| seen.len()), Ok(1));
        assert_eq!(lesson.read(of(&ID.replace('g', "h")).as_bytes()), Err(Unreadable::NotARecord));
        let of_me = Lesson::of(&Method::GET, "/api/v4/users/me", "", "").expect("a lesson");
        assert_eq!(of_me.read(of(ID).as_bytes()).map(|seen| seen.len()), Ok(1));
    }

    proptest! {
        #[test]
        fn no_query_brings_a_filter_in(
            query in "[a-z_=&;%+0-9]{0,20}",
            filter in "(in_channel|not_in_team|in_group|role)",
        ) {
            for query in [format!("{query}&{filter}=x"), format!("{filter}=x&{query}")] {
                prop_assert_eq!(Lesson::of(&Method::GET, "/api/v4/users", &query, ""), None);
            }
        }
    }
}
